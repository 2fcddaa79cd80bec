"""Projects on a scratch host: an external network, routers, whole guests, and what they ask of each other."""

from __future__ import annotations

import socket
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from pileus.contracts.network import FloatingIPSpec, RouterSpec
from pileus.contracts.suite.network import Lan, rule
from pileus.drivers.host.netlink import Netlink, inside
from pileus.drivers.network.bridge import BridgeNetwork
from tests.drivers.network_host import BridgeHarness, Guest


class Site:
    """A project: an external network (shared), a network of its own, a router, and guests with whole stacks."""

    def __init__(self, driver: BridgeNetwork, outer: Lan, last: int, cidr: str = "10.0.0.0/24") -> None:
        self.driver = driver
        self.outer = outer
        self.lan = Lan(cidr=cidr)
        self.lan.group("all", *(rule(way, kind) for way in ("ingress", "egress") for kind in ("IPv4", "IPv6")))
        base = outer.subnet.cidr.rpartition(".")[0]
        self.outside = f"{base}.{last}"
        self.router = RouterSpec(
            id=str(uuid.uuid4()),
            interfaces=(self.lan.leg(),),
            gateway=outer.leg(last),
            gateway_nexthops=(f"{base}.1",),
        )
        self.guests: list[Guest] = []

    def up(self) -> None:
        self.driver.ensure_network(self.lan.state)
        self.driver.ensure_router(self.router)

    def guest(self, last: int, *groups: str) -> Guest:
        port = self.lan.port(f"host{last}", last, *(groups or ("all",)))
        self.up()
        guest = Guest(self.driver.plug(port.id), port.mac_address)
        self.guests.append(guest)
        base = self.lan.subnet.cidr.rpartition(".")[0]
        guest.configure(f"{base}.{last}/24", f"{base}.1")
        return guest

    def machine(self, last: int) -> Guest:
        """A machine outside: on the external network, where everything is let in."""
        self.outer.group("all", *(rule(way) for way in ("ingress", "egress")))
        port = self.outer.port(f"machine{last}", last, "all")
        self.driver.ensure_network(self.outer.state)
        machine = Guest(self.driver.plug(port.id), port.mac_address)
        self.guests.append(machine)
        machine.configure(f"203.0.113.{last}/24", "203.0.113.1")
        return machine

    def route(self, **more: object) -> None:
        self.router = msgspec.structs.replace(self.router, **more)
        self.driver.ensure_router(self.router)

    def floating(self, *pairs: tuple[str, str]) -> None:
        self.route(
            floating_ips=tuple(
                FloatingIPSpec(id=str(uuid.uuid4()), floating_ip_address=outer, fixed_ip_address=inner)
                for outer, inner in pairs
            )
        )


@contextmanager
def external(harness: BridgeHarness) -> Iterator[Callable[..., Site]]:
    """Makes projects on one external network, 203.0.113.0/24, whose gateway the host holds."""
    driver = harness.driver()
    outer = Lan(cidr="203.0.113.0/24", external=True, dhcp=False)
    driver.ensure_network(outer.state)
    made: list[Site] = []

    def make(last: int, cidr: str = "10.0.0.0/24") -> Site:
        made.append(Site(driver, outer, last, cidr))
        return made[-1]

    yield make
    for site in made:
        for guest in site.guests:
            guest.close()
    driver.teardown()


def serve(guest: Guest, port: int) -> socket.socket:
    """A socket in the guest that answers each client with the client's address, until it is closed."""

    def listen() -> socket.socket:
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)

    listener = guest.does(listen)
    threading.Thread(target=_tell, args=(listener,), daemon=True).start()
    return listener


def _tell(listener: socket.socket) -> None:
    while True:
        try:
            connection, peer = listener.accept()
        except OSError:
            return
        with connection:
            connection.sendall(peer[0].removeprefix("::ffff:").encode())


def ask(where: Guest | None, address: str, port: int, timeout: float = 3, source: str = "") -> str:
    """What the server there says, or the name of the error; asked from the address `source` when it is given."""

    def connect() -> str:
        try:
            with socket.create_connection((address, port), timeout, (source, 0) if source else None) as sock:
                return sock.recv(100).decode()
        except OSError as error:
            return type(error).__name__

    return where.does(connect) if where else connect()


def host_server(port: int) -> socket.socket:
    """A server in the host's own namespace, at all of its addresses, that says the client's address."""
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    threading.Thread(target=_tell, args=(listener,), daemon=True).start()
    return listener


def stop(*listeners: socket.socket) -> None:
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def send(address: str, port: int, payload: bytes = b"hello") -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(payload, (address, port))


def settle(link: Netlink, device: str, *addresses: str) -> None:
    link.change("lo", up=True)
    link.change(device, up=True)
    for address in addresses:
        link.assign(device, address)


def echo(who: Guest, address: str) -> bool:
    """Whether an address answers a ping."""
    done = who.does(lambda: subprocess.run(["ping", "-c1", "-W2", address], capture_output=True, check=False))
    return done.returncode == 0


def uplink(harness: BridgeHarness) -> str:
    (name,) = [one for one in inside(None, lambda link: link.links()) if one.startswith(f"{harness.prefix}-")]
    return name
