"""What a host is to hold, as it was assigned, and which objects depend on which.  Pure: no driver, no link."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

import msgspec

from pileus.contracts.hypervisor import GuestSpec, SnapshotSpec
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
    last: msgspec.Struct | None
    """The spec, or the one before the tombstone: what may still be on the host. None when it was never heard."""


SPECS: dict[Kind, type[msgspec.Struct]] = {
    "security_group": SecurityGroupSpec,
    "network": NetworkSpec,
    "port": PortSpec,
    "router": RouterSpec,
    "guest": GuestSpec,
    "snapshot": SnapshotSpec,
}


class Unreadable(NamedTuple):
    """A spec that this agent does not understand, and why."""

    generation: int
    why: str


class Applied(NamedTuple):
    """What came of assignments: the keys to look at, and those whose specs could not be read."""

    touched: set[Key]
    unreadable: dict[Key, Unreadable]


class World:
    """All assignments of one host."""

    def __init__(self) -> None:
        self._wanted: dict[Kind, dict[str, Wanted]] = {kind: {} for kind in KINDS}
        self._network_of: dict[str, str] = {}
        self._ports: dict[str, set[str]] = {}
        self._missing: set[Key] = set()

    def apply(self, assignments: Iterable[Assignment], *, full: bool = False) -> Applied:
        """Take in assignments. An older generation than is known changes nothing, nor does a spec of unknown form.

        When they are all that there are (`full`), what is known besides is kept, and counts as unknown.
        """
        touched: set[Key] = set()
        unreadable: dict[Key, Unreadable] = {}
        if full:
            self._missing = {key for kind in KINDS for key in self.keys(kind)}
        for one in assignments:
            key = Key(one.kind, one.id)
            self._missing.discard(key)
            known = self._wanted[one.kind].get(one.id)
            if known is not None and one.generation < known.generation:
                continue
            try:
                spec = _spec(one)
            except msgspec.ValidationError as error:
                unreadable[key] = Unreadable(one.generation, str(error))
                continue
            last = spec if spec is not None or known is None else known.last
            self._wanted[one.kind][one.id] = Wanted(one.generation, spec, last)
            if isinstance(spec, PortSpec):
                self._place(one.id, spec.network_id)
            touched.add(key)
        return Applied(touched, unreadable)

    def _place(self, port_id: str, network_id: str) -> None:
        before = self._network_of.get(port_id, network_id)
        if before != network_id:
            self._ports[before].discard(port_id)
        self._network_of[port_id] = network_id
        self._ports.setdefault(network_id, set()).add(port_id)

    def forget(self, key: Key) -> None:
        """An object is gone from the host, as its tombstone asked for."""
        self._wanted[key.kind].pop(key.id, None)
        self._missing.discard(key)
        if key.kind == "port" and (network_id := self._network_of.pop(key.id, None)) is not None:
            self._ports[network_id].discard(key.id)
            if not self._ports[network_id]:
                del self._ports[network_id]

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

    def last(self, kind: Kind, object_id: str, form: type[S]) -> S | None:
        """The spec of an object, or the last one before its tombstone."""
        wanted = self._wanted[kind].get(object_id)
        return wanted.last if wanted is not None and isinstance(wanted.last, form) else None

    def keys(self, kind: Kind) -> list[Key]:
        """All objects of a kind, tombstones included."""
        return [Key(kind, object_id) for object_id in self._wanted[kind]]

    def network_of(self, port_id: str) -> str | None:
        """The network of a port that is or was assigned."""
        return self._network_of.get(port_id)

    def ports_of(self, network_id: str) -> list[str]:
        """All ports of a network that were assigned, tombstones included."""
        return sorted(self._ports.get(network_id, ()))

    def strays(self) -> list[Key]:
        """Tombstones of ports whose networks were never heard of, because the ports went before this agent came."""
        return [key for key in self.keys("port") if key.id not in self._network_of]

    def state(self, network_id: str) -> NetworkState | None:
        """All that the network driver needs to know of a network; None when it is not wanted."""
        network = self.spec("network", network_id, NetworkSpec)
        if network is None:
            return None
        ports = self.held(network_id)
        return NetworkState(network=network, ports=tuple(ports), groups=self._groups(ports))

    def held(self, network_id: str) -> list[PortSpec]:
        """The ports that a network is to have: those that are wanted, and those whose guests are still to go."""
        going = {key.id for key in self.keys("guest") if self.spec("guest", key.id, GuestSpec) is None}
        used = {nic.port_id for one in going if (guest := self.last("guest", one, GuestSpec)) for nic in guest.nics}
        found = []
        for port_id in self.ports_of(network_id):
            port = self.last("port", port_id, PortSpec)
            if port is None:
                continue
            wanted = self.spec("port", port_id, PortSpec) is not None
            if wanted or port_id in used or port.guest_id in going:
                found.append(port)
        return found

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
        if key.kind == "guest":
            guest = self.last("guest", key.id, GuestSpec)
            used = {nic.port_id for nic in guest.nics} if guest is not None else set()
            ports = [port for one in self._network_of if (port := self.last("port", one, PortSpec))]
            return {Key("network", one.network_id) for one in ports if one.id in used or one.guest_id == key.id}
        if key.kind == "router":
            return {Key("network", one) for one in self.networks_of_router(key.id)}
        if key.kind == "network":
            routers = {one for one in self.keys("router") if key.id in self.networks_of_router(one.id)}
            return routers | {one for one in self.keys("guest") if self._guest_uses(one.id, key.id)}
        return set()

    def networks_of_router(self, router_id: str) -> set[str]:
        """Networks in which a router has a leg, or had one before its tombstone."""
        router = self.last("router", router_id, RouterSpec)
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
        """Of the objects that a driver found on the host, those that nobody assigned."""
        wanted = self._wanted[kind]
        return [Unknown(kind=kind, id=one) for one in found if one not in wanted or Key(kind, one) in self._missing]


def _spec(one: Assignment) -> msgspec.Struct | None:
    if one.tombstone:
        return None
    spec: msgspec.Struct = msgspec.json.decode(one.spec, type=SPECS[one.kind])
    return spec
