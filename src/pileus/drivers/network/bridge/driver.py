"""The contract's methods, each under the lock of the one network or router that it is about."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pileus.contracts.hypervisor import NicAttachment
from pileus.contracts.network import NetworkFacts, NetworkFailure, NetworkState, RouterSpec
from pileus.drivers.host import namespace
from pileus.drivers.host.netfilter import FilterFailure
from pileus.drivers.host.netlink import NetlinkFailure
from pileus.drivers.host.process import ChildFailure, Identity, apart
from pileus.drivers.network.bridge.guard import Engine
from pileus.drivers.network.bridge.name import Names
from pileus.drivers.network.bridge.probe import working_engine
from pileus.drivers.network.bridge.router import Router
from pileus.drivers.network.bridge.segment import Segment
from pileus.drivers.network.bridge.uplink import Uplink


class BridgeNetwork:
    """Networks, routers and plugs on a Linux host (contract `pileus.contracts.network.Network`).

    `state` is a directory of this driver's own, absolute; it and those above it must be open to `run_as` for passing
    through, since DHCP services read their files there.  `prefix` (a lower-case letter and up to five letters or
    digits) keeps two clouds on one host apart.  `run_as` is the numeric user and group of the DHCP services.
    `engine` fixes the packet filter; None finds out at first use what works.

    The host's own namespace is the one that the calling threads are in.  Everything is found again by name after a
    restart; the filter of a network is rebuilt in one transaction when it is first ensured.
    """

    def __init__(
        self,
        *,
        state: Path,
        prefix: str = "pileus",
        run_as: tuple[int, int] = (65534, 65534),
        engine: Engine | None = None,
    ) -> None:
        self._names = Names(prefix)
        self._state = state
        self._identity = Identity(*run_as)
        self._engine = engine
        self._lock = threading.Lock()
        self._segments: dict[str, Segment] = {}
        self._routers: dict[str, Router] = {}
        self._uplink = Uplink(self._names)

    def facts(self) -> NetworkFacts:
        """Find out how packets will be filtered here, by filtering some. Raises NetworkFailure when it cannot be."""
        with self._lock, _failures():
            if self._engine is None:
                self._engine = working_engine()
            return NetworkFacts(driver="bridge", filter=self._engine)

    def ensure_network(self, state: NetworkState) -> None:
        """Post-condition as in the contract. After a failure what was in force before, or a part of the new, is.

        A tap never exists without its rules, so that also a half-made port is closed.  Raises NetworkFailure.
        """
        network = state.network
        with _failures():
            segment = self._segment(network.id)
            with segment.lock:
                segment.ensure(state)
                if network.external:
                    self._uplink.ensure(network)
                else:
                    self._uplink.remove(network.id)

    def remove_network(self, network_id: str) -> None:
        """Nothing of it is left: uplink, service, taps, namespace, files. Raises NetworkFailure when that fails."""
        with _failures():
            segment = self._segment(network_id)
            with segment.lock:
                self._uplink.remove(network_id)
                segment.remove()
                self._uplink.forget(network_id)
            with self._lock:
                self._segments.pop(network_id, None)

    def ensure_router(self, router: RouterSpec) -> None:
        """Post-condition as in the contract. Raises NetworkFailure, e.g. when a network of a leg is not here."""
        with _failures():
            one = self._router(router.id)
            with one.lock:
                one.ensure(router)

    def remove_router(self, router_id: str) -> None:
        """Nothing of it is left. Raises NetworkFailure when that fails."""
        with _failures():
            one = self._router(router_id)
            with one.lock:
                one.remove()
            with self._lock:
                self._routers.pop(router_id, None)

    def plug(self, port_id: str) -> NicAttachment:
        """The tap of a port, whose filter is in force. Raises NetworkFailure for a port that is not known."""
        with self._lock:
            segments = list(self._segments.values())
        for segment in segments:
            if (tap := segment.plugs.get(port_id)) is not None:
                return NicAttachment(port_id=port_id, device=tap, namespace=segment.name)
        for segment in segments:
            with segment.lock:  # while a network is made anew its ports are not known
                tap = segment.plugs.get(port_id)
            if tap is not None:
                return NicAttachment(port_id=port_id, device=tap, namespace=segment.name)
        raise NetworkFailure(f"port {port_id} is on no network of this host")

    def listen(self, network_id: str, address: str, port: int) -> socket.socket:
        """A listening TCP socket inside the network; the caller closes it, at the latest before the network goes.

        Raises NetworkFailure when the network is not here or the address is taken.
        """
        name = self._names.network(network_id)

        def bind() -> socket.socket:
            sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((address, port))
                sock.listen(128)
            except OSError:
                sock.close()
                raise
            return sock

        with _failures():
            return apart(bind, name)

    def networks(self) -> Sequence[str]:
        """Ids of the networks of which anything is on this host: a namespace, or files of one."""
        return self._found("networks", self._names.network_start)

    def routers(self) -> Sequence[str]:
        """Ids of the routers of which anything is on this host."""
        return self._found("routers", self._names.router_start)

    def ailing(self) -> Sequence[tuple[Literal["network", "router"], str]]:
        """Those whose dnsmasq has ended; one system call each."""
        with self._lock:
            segments, routers = list(self._segments.items()), list(self._routers.items())
        return [
            *(("network", key) for key, one in segments if _unserved(one)),
            *(("router", key) for key, one in routers if _unserved(one)),
        ]

    def close(self) -> None:
        """Let go without touching the data plane; a later driver adopts it."""
        with self._lock:
            self._segments.clear()
            self._routers.clear()

    def teardown(self) -> None:
        """Remove every trace of this cloud's networking from the host. Raises NetworkFailure when that fails."""
        for router_id in self.routers():
            self.remove_router(router_id)
        for network_id in self.networks():
            self.remove_network(network_id)
        with _failures():
            self._uplink.clear()
        shutil.rmtree(self._state, ignore_errors=True)

    def _segment(self, network_id: str) -> Segment:
        engine = self._engine or self.facts().filter
        with self._lock:
            segment = self._segments.get(network_id)
            if segment is None:
                name = self._names.network(network_id)
                directory = self._state / "networks" / network_id
                chosen: Engine = "bridge" if engine == "bridge" else "br_netfilter"
                segment = self._segments[network_id] = Segment(name, directory, chosen, self._identity)
            return segment

    def _router(self, router_id: str) -> Router:
        with self._lock:
            router = self._routers.get(router_id)
            if router is None:
                name = self._names.router(router_id)
                directory = self._state / "routers" / router_id
                router = self._routers[router_id] = Router(name, self._names, directory, self._identity)
            return router

    def _found(self, kind: str, start: str) -> list[str]:
        named = {name.removeprefix(start) for name in namespace.names(start)}
        directory = self._state / kind
        kept = {entry.name for entry in directory.iterdir()} if directory.is_dir() else set[str]()
        return sorted(named | kept)


def _unserved(one: Segment | Router) -> bool:
    """Whether a service ended; not of what is being worked on, whose service may be between two lives."""
    if not one.lock.acquire(blocking=False):
        return False
    try:
        return not one.served()
    finally:
        one.lock.release()


@contextmanager
def _failures() -> Iterator[None]:
    """What the host refuses, as the contract's failure."""
    try:
        yield
    except (NetlinkFailure, FilterFailure, ChildFailure, OSError, ValueError) as failure:
        raise NetworkFailure(str(failure)) from failure
