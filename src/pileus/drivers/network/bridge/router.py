"""The namespace of a router: one virtual Ethernet pair into each of its networks, forwarding between them, NAT.

The other end of each pair is on the network's bridge.  Metadata also works through the router, for guests that
ignore the route in their DHCP answer: what comes in at a leg for 169.254.169.254 goes back out of that leg, to the
network's own service.
"""

from __future__ import annotations

import threading
from pathlib import Path

from pileus.contracts.network import NetworkFailure, RouterInterfaceSpec, RouterSpec
from pileus.core.address import read_address, read_interface, read_prefix
from pileus.drivers.host import namespace, netannounce, netfilter
from pileus.drivers.host.netlink import Netlink, Route, Steer, inside
from pileus.drivers.host.process import Identity, apart
from pileus.drivers.network.bridge import nat
from pileus.drivers.network.bridge.daemon import Daemon
from pileus.drivers.network.bridge.dhcp import advertise
from pileus.drivers.network.bridge.guard import METADATA
from pileus.drivers.network.bridge.name import BRIDGE, GATEWAY, LEG, PEER, Names, device, mac_address
from pileus.drivers.network.bridge.segment import settle_addresses, settle_routes

_SETTINGS = {
    "ipv4/ip_forward": "1",
    "ipv4/ip_unprivileged_port_start": "0",
    "ipv4/conf/all/send_redirects": "0",
    "ipv4/conf/default/send_redirects": "0",
    "ipv4/conf/default/rp_filter": "1",
    # A leg answers ARP for its own addresses only: the outside must not learn what is inside.
    "ipv4/conf/all/arp_ignore": "1",
    "ipv4/conf/all/arp_announce": "2",
    "ipv6/conf/all/forwarding": "1",
    "ipv6/conf/default/accept_ra": "0",
    "ipv6/conf/default/accept_dad": "0",
    "ipv6/conf/default/ndisc_notify": "1",
}
_TABLES = 1000
"""Routing tables of the legs begin after this number."""


class Router:
    """One router on this host. Calls must not overlap: whoever calls holds `lock`."""

    def __init__(self, name: str, names: Names, directory: Path, identity: Identity) -> None:
        self.name = name
        self.lock = threading.Lock()
        self.spec: RouterSpec | None = None
        """What is in force; None when that is not known."""
        self._names = names
        self._generation = 0
        self._daemon = Daemon(directory, name, identity)

    def ensure(self, spec: RouterSpec) -> None:
        """Make it as `spec` says. After a failure the next call looks at everything again."""
        if self.spec == spec and self.intact():
            return
        known, self.spec = self.spec, None
        legs = legs_of(spec)
        for leg in legs.values():
            if not namespace.exists(self._names.network(leg.network_id)):
                raise NetworkFailure(f"router {spec.id}: network {leg.network_id} is not on this host")
        if namespace.create(self.name) or known is None or not self._present(known):
            known = None
        # The filter drops what it does not expect, so it is there before anything is forwarded.
        netfilter.load(nat.render(spec), self.name)
        self._generation = apart(netfilter.generation, self.name)
        inside(self.name, self._prepare)
        inside(self.name, lambda link: self._drop(link, spec))
        for name, leg in legs.items():
            self._plug(name, leg)
        fresh = inside(self.name, lambda link: self._address(link, spec))
        if known is not None:
            self._cut(known, spec)
        self._daemon.ensure(advertise(spec))
        if spec.admin_state_up:
            self._announce(legs, fresh)
        self.spec = spec

    def intact(self) -> bool:
        """Whether what is in force is still there. No child is run."""
        return self.spec is not None and self._present(self.spec) and self._daemon.alive()

    def served(self) -> bool:
        """Whether its service does what was asked last; may be asked at any time."""
        return self._daemon.alive()

    def remove(self) -> None:
        """Take it all down."""
        self.spec = None
        self._daemon.remove()
        if namespace.exists(self.name):
            inside(self.name, lambda link: link.delete(*legs_in(link)))
        namespace.remove(self.name)

    def _present(self, spec: RouterSpec) -> bool:
        if not namespace.exists(self.name):
            return False
        names = list(legs_of(spec))

        def look() -> bool:
            return all(namespace.indices(names)) and netfilter.generation() == self._generation

        return apart(look, self.name)

    def _prepare(self, link: Netlink) -> None:
        namespace.set_kernel(_SETTINGS)
        link.change("lo", up=True)

    def _drop(self, link: Netlink, spec: RouterSpec) -> None:
        """Take away the legs that are no longer wanted."""
        link.delete(*(legs_in(link) - legs_of(spec).keys()))

    def _plug(self, name: str, leg: RouterInterfaceSpec) -> None:
        """The pair of one leg, its far end on the bridge and up."""
        peer, far = device(PEER, leg.port_id), self._names.network(leg.network_id)
        there = inside(far, lambda link: peer in link.links())

        def here(link: Netlink) -> None:
            if not there:
                link.delete(name)
            link.add_veth(name, mac_address(leg.mac_address), peer, far)
            link.change(name, mtu=leg.mtu)

        inside(self.name, here)
        inside(far, lambda link: link.change(peer, mtu=leg.mtu, master=BRIDGE, up=True))

    def _address(self, link: Netlink, spec: RouterSpec) -> dict[str, set[str]]:
        """Addresses and routes; returns those addresses that are new, by leg."""
        fresh: dict[str, set[str]] = {}
        floating = {f"{one.floating_ip_address}/32" for one in spec.floating_ips}
        routes, steers = set[Route](), set[Steer]()
        legs = legs_of(spec)
        links = link.links()
        for name, leg in legs.items():
            mac = mac_address(leg.mac_address)
            link.change(name, mac=mac if links[name].mac != mac else None, up=spec.admin_state_up)
            wanted = {_normal(address) for address in leg.addresses}
            fresh[name] = settle_addresses(link, name, wanted | (floating if leg is spec.gateway else set()))
            if leg is not spec.gateway and spec.admin_state_up and any(":" not in address for address in wanted):
                table = _TABLES + namespace.indices([name])[0]
                routes.add(Route(f"{METADATA}/32", name, table=table))
                steers.add(Steer(name, f"{METADATA}/32", table))
        if spec.admin_state_up:
            routes |= _routes(spec, legs)
        settle_routes(link, routes)
        present = link.steers()
        for steer in sorted(present - steers):
            link.delete_steer(steer)
        for steer in sorted(steers - present):
            link.add_steer(steer)
        return fresh

    def _announce(self, legs: dict[str, RouterInterfaceSpec], fresh: dict[str, set[str]]) -> None:
        def send() -> None:
            for name, addresses in fresh.items():
                mine = sorted(address.partition("/")[0] for address in addresses if ":" not in address)
                netannounce.announce(name, legs[name].mac_address, mine)

        apart(send, self.name)

    def _cut(self, known: RouterSpec, spec: RouterSpec) -> None:
        """The filter ends the connections of a floating IP that went; here they are forgotten too."""
        after = {(one.floating_ip_address, one.fixed_ip_address) for one in spec.floating_ips}
        before = {(one.floating_ip_address, one.fixed_ip_address) for one in known.floating_ips}
        netfilter.forget([floating for floating, _ in before - after], self.name)


def legs_of(spec: RouterSpec) -> dict[str, RouterInterfaceSpec]:
    """Interface name to leg, the gateway among them."""
    legs = {device(LEG, leg.port_id): leg for leg in spec.interfaces}
    if spec.gateway is not None:
        legs[device(GATEWAY, spec.gateway.port_id)] = spec.gateway
    return legs


def legs_in(link: Netlink) -> set[str]:
    """The names of the legs that a router's namespace has."""
    return {name for name in link.links() if name.startswith((LEG, GATEWAY))}


def _routes(spec: RouterSpec, legs: dict[str, RouterInterfaceSpec]) -> set[Route]:
    """Default routes by the gateway, and the extra routes by the leg in whose subnet the next hop is."""
    routes = set()
    for name, leg in legs.items():
        if leg is spec.gateway:
            routes |= {
                Route("::/0" if ":" in nexthop else "0.0.0.0/0", name, via=str(read_address(nexthop)))
                for nexthop in spec.gateway_nexthops
            }
    for extra in spec.routes:
        nexthop = read_address(extra.nexthop)
        for name, leg in legs.items():
            if any(nexthop in read_interface(address).network for address in leg.addresses):
                target = str(read_prefix(extra.destination, strict=False))
                routes.add(Route(target, name, via=str(nexthop)))
                break
        else:
            raise NetworkFailure(f"router {spec.id}: next hop {nexthop} is in none of its networks")
    return routes


def _normal(address: str) -> str:
    return str(read_interface(address))
