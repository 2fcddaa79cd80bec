"""The agent's side of metadata and its child, over a real socket pair and listeners of the loopback."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from pileus.agent.metadata import Metadata
from pileus.agent.metadata_server import serve
from pileus.contracts.hypervisor import GuestSpec
from pileus.contracts.network import FixedIP, NetworkSpec, NetworkState, PortSpec, SubnetSpec
from pileus.drivers.network.fake import FakeHost, FakeNetwork

NOBODY = (404, b"")
"""What a guest gets that is none of the network's."""


class Network(FakeNetwork):
    """Listens on the loopback, and remembers where."""

    def __init__(self, host: FakeHost) -> None:
        super().__init__(host=host)
        self.port: dict[str, int] = {}

    def listen(self, network_id: str, address: str, port: int) -> socket.socket:
        listener = super().listen(network_id, address, port)
        self.port[network_id] = listener.getsockname()[1]
        return listener


class Child:
    """The metadata server on a thread in place of a process."""

    def __init__(self) -> None:
        self.started = 0
        self._thread: threading.Thread | None = None
        self._channel: socket.socket | None = None

    def start(self, channel: socket.socket) -> Callable[[], bool]:
        ours = channel.dup()
        thread = threading.Thread(target=lambda: asyncio.run(serve(ours)), daemon=True)
        thread.start()
        self.started += 1
        self._thread, self._channel = thread, ours
        return thread.is_alive

    def kill(self) -> None:
        assert self._channel is not None
        assert self._thread is not None
        self._channel.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        assert not self._thread.is_alive()


class Cloud:
    """Networks whose guests are the addresses of the loopback."""

    def __init__(self) -> None:
        self.network = Network(FakeHost())
        self.child = Child()
        self.metadata = Metadata(self.child.start)

    def open(self, network_id: str, guests: dict[str, str], version: int = 4) -> None:
        cidr, ip_version = ("127.0.0.0/8", 4) if version == 4 else ("::/64", 6)
        subnet = msgspec.convert(
            {"id": "s", "cidr": cidr, "ip_version": ip_version, "gateway_ip": None, "enable_dhcp": True}, SubnetSpec
        )
        ports = tuple(
            PortSpec(
                id=f"port-of-{guest_id}",
                network_id=network_id,
                mac_address="fa:16:3e:00:00:01",
                fixed_ips=(FixedIP(subnet_id="s", ip_address=address),),
                guest_id=guest_id,
            )
            for address, guest_id in guests.items()
        )
        spec = NetworkSpec(id=network_id, mtu=1450, subnets=(subnet,), dhcp_mac="fa:16:3e:00:00:02")
        state = NetworkState(network=spec, ports=ports, groups={})
        self.network.ensure_network(state)
        self.metadata.open_network(state, self.network)

    def tell(self, guest_id: str, **documents: bytes) -> None:
        spec = GuestSpec(
            id=guest_id,
            name=guest_id,
            vcpus=1,
            memory_mib=64,
            disks=(),
            nics=(),
            power="running",
            documents={f"latest/{name}": data for name, data in documents.items()},
        )
        self.metadata.set_guest(spec)

    def connect(self, network_id: str, source: str) -> socket.socket:
        place = ("127.0.0.1", self.network.port[network_id])
        return socket.create_connection(place, timeout=5, source_address=(source, 0))

    def raw(self, network_id: str, source: str, data: bytes) -> bytes:
        with self.connect(network_id, source) as client:
            with suppress(OSError):
                client.sendall(data)
            return read(client)

    def get(self, network_id: str, source: str, path: str = "/latest/name") -> tuple[int, bytes]:
        head, _, found = self.raw(network_id, source, f"GET {path} HTTP/1.0\r\n\r\n".encode()).partition(b"\r\n\r\n")
        return int(head.split()[1]), found

    def wait(self, network_id: str, source: str, wanted: tuple[int, bytes]) -> None:
        """What was told arrives in a moment."""
        for _ in range(200):
            if self.get(network_id, source) == wanted:
                return
            time.sleep(0.01)
        assert self.get(network_id, source) == wanted


def read(client: socket.socket) -> bytes:
    found = b""
    with suppress(ConnectionResetError):
        while data := client.recv(65536):
            found += data
    return found
