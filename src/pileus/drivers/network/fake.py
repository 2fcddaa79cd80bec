"""A network driver in memory: for simulated hosts and for tests of what is above it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from typing import Literal

from pileus.contracts.hypervisor import NicAttachment
from pileus.contracts.network import NetworkFacts, NetworkFailure, NetworkState, RouterSpec


class FakeHost:
    """What a simulated host would have in its kernel: it outlives the driver."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.networks: dict[str, NetworkState] = {}
        self.routers: dict[str, RouterSpec] = {}


class FakeNetwork:
    """The contract `pileus.contracts.network.Network` without packets.

    A driver that is opened later on the same `host` adopts what is there, as a real one does: plugs are known again
    when their network has been ensured.  Plugging costs the same however many ports there are.
    """

    def __init__(self, *, host: FakeHost | None = None) -> None:
        self._host = host or FakeHost()
        self._plugs: dict[str, str] = {}
        """Port id to network id, of the networks that this driver has ensured."""
        self._ports: dict[str, frozenset[str]] = {}

    def facts(self) -> NetworkFacts:
        """A host that filters nothing, since it has no packets."""
        return NetworkFacts(driver="fake", filter="fake")

    def ensure_network(self, state: NetworkState) -> None:
        """Remember the state; ports that left it are unplugged."""
        network_id = state.network.id
        with self._host.lock:
            if network_id in self._ports and self._host.networks.get(network_id) == state:
                return
            self._host.networks[network_id] = state
            before, after = self._ports.get(network_id, frozenset()), frozenset(port.id for port in state.ports)
            self._ports[network_id] = after
            for port_id in before - after:
                self._plugs.pop(port_id, None)
            self._plugs.update(dict.fromkeys(after - before, network_id))

    def remove_network(self, network_id: str) -> None:
        """Forget it. Absent is fine."""
        with self._host.lock:
            self._host.networks.pop(network_id, None)
            for port_id in self._ports.pop(network_id, frozenset()):
                self._plugs.pop(port_id, None)

    def ensure_router(self, router: RouterSpec) -> None:
        """Remember the router. Raises NetworkFailure when a network of a leg is not here."""
        legs = [*router.interfaces, *([router.gateway] if router.gateway else [])]
        with self._host.lock:
            for leg in legs:
                if leg.network_id not in self._host.networks:
                    raise NetworkFailure(f"router {router.id}: network {leg.network_id} is not on this host")
            self._host.routers[router.id] = router

    def remove_router(self, router_id: str) -> None:
        """Forget it. Absent is fine."""
        with self._host.lock:
            self._host.routers.pop(router_id, None)

    def plug(self, port_id: str) -> NicAttachment:
        """A name that no interface has. Raises NetworkFailure for a port that is not known."""
        with self._host.lock:
            network_id = self._plugs.get(port_id)
        if network_id is None:
            raise NetworkFailure(f"port {port_id} is on no network of this host")
        return NicAttachment(port_id=port_id, device=f"tap{port_id[:11]}", namespace=f"fake-net-{network_id}")

    def listen(self, network_id: str, address: str, port: int) -> socket.socket:
        """A socket on a free port of the loopback, in place of `address` and `port` in the network.

        Raises NetworkFailure when the network is not here.
        """
        with self._host.lock:
            if network_id not in self._host.networks:
                raise NetworkFailure(f"network {network_id} is not on this host: no {address} port {port}")
        return socket.create_server(("127.0.0.1", 0))

    def networks(self) -> Sequence[str]:
        """Ids of the networks that the host has."""
        with self._host.lock:
            return sorted(self._host.networks)

    def routers(self) -> Sequence[str]:
        """Ids of the routers that the host has."""
        with self._host.lock:
            return sorted(self._host.routers)

    def ailing(self) -> Sequence[tuple[Literal["network", "router"], str]]:
        """Nothing: there are no services."""
        return ()

    def close(self) -> None:
        """Let go; the host keeps everything."""
        with self._host.lock:
            self._plugs.clear()
            self._ports.clear()

    def teardown(self) -> None:
        """Forget everything."""
        self.close()
        with self._host.lock:
            self._host.networks.clear()
            self._host.routers.clear()
