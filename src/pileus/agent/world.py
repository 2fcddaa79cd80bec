"""What a host is to hold, as it was assigned, and which objects depend on which.  Pure: no driver, no link."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

import msgspec

from pileus.contracts.hypervisor import GuestSpec
from pileus.contracts.link import KINDS, Assignment, Kind, Unknown
from pileus.contracts.network import NetworkSpec, NetworkState, PortSpec, RouterSpec, SecurityGroupSpec

S = TypeVar("S", bound=msgspec.Struct)


class Key(NamedTuple):
    """An object of the host."""

    kind: Kind
    id: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.id}"

    @classmethod
    def parse(cls, text: str) -> Key:
        """A key of its text."""
        kind, _, object_id = text.partition("/")
        return cls(kind, object_id)  # type: ignore[arg-type] # texts are made by __str__ alone


class Wanted(NamedTuple):
    """One assignment: the spec, or None for a tombstone."""

    generation: int
    spec: msgspec.Struct | None


SPECS: dict[Kind, type[msgspec.Struct]] = {
    "security_group": SecurityGroupSpec,
    "network": NetworkSpec,
    "port": PortSpec,
    "router": RouterSpec,
    "guest": GuestSpec,
}


class World:
    """All assignments of one host."""

    def __init__(self) -> None:
        self._wanted: dict[Kind, dict[str, Wanted]] = {kind: {} for kind in KINDS}
        self._network_of: dict[str, str] = {}
        self._ports: dict[str, set[str]] = {}

    def apply(self, assignments: Iterable[Assignment]) -> set[Key]:
        """Take in assignments; the keys to look at. An older generation than is known changes nothing."""
        touched: set[Key] = set()
        for one in assignments:
            known = self._wanted[one.kind].get(one.id)
            if known is not None and one.generation < known.generation:
                continue
            spec = None
            if not one.tombstone and one.spec is not None:
                spec = msgspec.json.decode(one.spec, type=SPECS[one.kind])
            self._wanted[one.kind][one.id] = Wanted(one.generation, spec)
            if isinstance(spec, PortSpec):
                self._network_of[one.id] = spec.network_id
                self._ports.setdefault(spec.network_id, set()).add(one.id)
            touched.add(Key(one.kind, one.id))
        return touched

    def forget(self, key: Key) -> None:
        """An object is gone from the host, as its tombstone asked for."""
        self._wanted[key.kind].pop(key.id, None)
        if key.kind == "port" and (network_id := self._network_of.pop(key.id, None)) is not None:
            self._ports[network_id].discard(key.id)

    def wanted(self, key: Key) -> Wanted | None:
        """The assignment of a key, a tombstone included."""
        return self._wanted[key.kind].get(key.id)

    def generation(self, key: Key) -> int:
        """The generation of what is wanted; 0 when nothing is."""
        wanted = self.wanted(key)
        return 0 if wanted is None else wanted.generation

    def spec(self, kind: Kind, object_id: str, form: type[S]) -> S | None:
        """The spec of an object; None when there is none, or a tombstone."""
        wanted = self._wanted[kind].get(object_id)
        return wanted.spec if wanted is not None and isinstance(wanted.spec, form) else None

    def keys(self, kind: Kind) -> list[Key]:
        """All objects of a kind, tombstones included."""
        return [Key(kind, object_id) for object_id in self._wanted[kind]]

    def network_of(self, port_id: str) -> str | None:
        """The network of a port that is or was assigned."""
        return self._network_of.get(port_id)

    def ports_of(self, network_id: str) -> list[str]:
        """All ports of a network that were assigned, tombstones included."""
        return sorted(self._ports.get(network_id, ()))

    def state(self, network_id: str) -> NetworkState | None:
        """All that the network driver needs to know of a network; None when it is not wanted."""
        network = self.spec("network", network_id, NetworkSpec)
        if network is None:
            return None
        ports = [port for one in self.ports_of(network_id) if (port := self.spec("port", one, PortSpec))]
        return NetworkState(network=network, ports=tuple(ports), groups=self._groups(ports))

    def _groups(self, ports: Iterable[PortSpec]) -> dict[str, SecurityGroupSpec]:
        found: dict[str, SecurityGroupSpec] = {}
        waiting = {group for port in ports for group in port.security_groups}
        direct = set(waiting)
        while waiting:
            group_id = waiting.pop()
            group = self.spec("security_group", group_id, SecurityGroupSpec)
            if group is None or group_id in found:
                continue
            found[group_id] = group
            if group_id in direct:
                waiting |= {rule.remote_group_id for rule in group.rules if rule.remote_group_id} - found.keys()
        return found

    def complete(self, port_id: str) -> bool:
        """Whether everything is here that the filter of a port needs."""
        port = self.spec("port", port_id, PortSpec)
        if port is None or self.spec("network", port.network_id, NetworkSpec) is None:
            return False
        return all(self.spec("security_group", group, SecurityGroupSpec) is not None for group in port.security_groups)

    def dependents(self, key: Key) -> set[Key]:
        """What is to be looked at again when an object changed."""
        if key.kind == "port":
            network_id = self._network_of.get(key.id)
            return {Key("network", network_id)} if network_id else set()
        if key.kind == "security_group":
            return {Key("network", one) for one in self._networks_using(key.id)}
        if key.kind == "network":
            routers = {one for one in self.keys("router") if key.id in self.networks_of_router(one.id)}
            return routers | {one for one in self.keys("guest") if self._guest_uses(one.id, key.id)}
        return set()

    def networks_of_router(self, router_id: str) -> set[str]:
        """Networks in which a wanted router has a leg."""
        router = self.spec("router", router_id, RouterSpec)
        if router is None:
            return set()
        legs = [*router.interfaces, *([router.gateway] if router.gateway else [])]
        return {leg.network_id for leg in legs}

    def _networks_using(self, group_id: str) -> set[str]:
        found = set()
        for key in self.keys("port"):
            port = self.spec("port", key.id, PortSpec)
            if port is not None and group_id in self._groups([port]):
                found.add(port.network_id)
        return found

    def _guest_uses(self, guest_id: str, network_id: str) -> bool:
        guest = self.spec("guest", guest_id, GuestSpec)
        return guest is not None and any(self._network_of.get(nic.port_id) == network_id for nic in guest.nics)

    def unknown(self, kind: Kind, found: Iterable[str]) -> list[Unknown]:
        """Of the objects that a driver found on the host, those that were never assigned."""
        return [Unknown(kind=kind, id=one) for one in found if one not in self._wanted[kind]]
