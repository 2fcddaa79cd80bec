"""Where a server may go, and where it goes: filters and weighers over a snapshot of hosts.

A filter gives its reason for refusing a host, or None.  The hosts that pass all of them are weighed, and the heaviest
is taken; of equals the first by name, so that the same snapshot gives the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pileus.contracts.hypervisor import HypervisorFacts
from pileus.services.compute.rules import capability
from pileus.services.compute.rules.group import Group
from pileus.services.compute.rules.machine import Machine, objection

ZONE = "nova"
"""The availability zone of all hosts that are in no other: upstream's default."""

BEST = 3
"""How many of the best hosts a decision keeps."""


class Stock(NamedTuple):
    """What a host has of one resource class."""

    total: int
    reserved: int
    ratio: float
    used: int

    @property
    def capacity(self) -> int:
        """How much may be given away in all."""
        return int((self.total - self.reserved) * self.ratio)

    @property
    def free(self) -> int:
        """How much may still be given away."""
        return self.capacity - self.used


class Host(NamedTuple):
    """A host as it is judged."""

    id: str
    name: str
    up: bool
    disabled: bool
    disabled_reason: str | None
    zone: str
    generation: int
    """Of its inventory and allocations, when they were read."""
    stock: Mapping[str, Stock]
    """By resource class; empty until the host's inventory is known."""
    facts: HypervisorFacts | None = None
    """What the host measured of itself; None when nobody asks for more than its stock."""
    traits: Collection[str] = ()
    """Of the host's provider."""


class Wish(NamedTuple):
    """What a server needs of a host."""

    server_id: str
    resources: Mapping[str, int]
    """Amounts by resource class."""
    zone: str | None
    host: str | None
    """Name of the only host that will do."""
    forced: bool
    """Whether the named host is taken without asking whether it is up and enabled."""
    group: Group | None = None
    """The server group that the server is in, with where the other members are."""
    machine: Machine | None = None
    """What the guest is to be like; None for anything."""
    capabilities: Mapping[str, str] = {}
    """What the flavor demands of measures of the host, by their names."""
    beside: Sequence[str] | None = None
    apart: Sequence[str] = ()
    """Hosts by name, of servers that this one is to be with (None: of any) and of those that it is to be apart from."""


class Decision(NamedTuple):
    """What was decided on one server."""

    server_id: str
    host: Host | None
    counts: Mapping[str, int]
    """How many hosts each filter refused."""
    best: Sequence[Mapping[str, object]]
    """The best few: name, weight, generation."""
    refused: Mapping[str, str]
    """Reason by host name, for each host that was refused."""


Filter = Callable[[Wish, Host], str | None]


def requested(wish: Wish, host: Host) -> str | None:
    """Only the host that was asked for."""
    return None if wish.host in (None, host.name) else f"the host {wish.host} was asked for"


def up(wish: Wish, host: Host) -> str | None:
    """Only hosts that answer."""
    return None if host.up or wish.forced else "the host does not answer, or was forced down"


def enabled(wish: Wish, host: Host) -> str | None:
    """Only hosts that no operator took out of use."""
    if not host.disabled or wish.forced:
        return None
    return f"the host is disabled: {host.disabled_reason}" if host.disabled_reason else "the host is disabled"


def zone(wish: Wish, host: Host) -> str | None:
    """Only hosts in the availability zone that was asked for."""
    if wish.zone in (None, host.zone) or wish.forced:
        return None
    return f"the host is in the availability zone {host.zone}, not in {wish.zone}"


def group(wish: Wish, host: Host) -> str | None:
    """Only hosts that the server's group allows."""
    return None if wish.group is None else wish.group.objection(host.name)


def machine(wish: Wish, host: Host) -> str | None:
    """Only hosts that have what the guest's machine is made of."""
    if wish.machine is None or host.facts is None:
        return None
    return objection(wish.machine, wish.resources.get("VCPU", 0), host.facts)


def capabilities(wish: Wish, host: Host) -> str | None:
    """Only hosts whose measures are what the flavor demands."""
    return None if host.facts is None else capability.objection(wish.capabilities, host.name, host.facts)


def traits(wish: Wish, host: Host) -> str | None:
    """Only hosts whose providers have the traits that are required, and none of those that are forbidden."""
    if wish.machine is None:
        return None
    missing = [one for one in wish.machine.required if one not in host.traits]
    barred = [one for one in wish.machine.forbidden if one in host.traits]
    if missing:
        return f"the host has not the trait {missing[0]}"
    return f"the host has the trait {barred[0]}" if barred else None


def hinted(wish: Wish, host: Host) -> str | None:
    """Only hosts of servers that this one was asked to be with, and none of those that it is to be apart from."""
    if wish.beside is not None and host.name not in wish.beside:
        return "none of the servers of the hint same_host is on the host"
    return "a server of the hint different_host is on the host" if host.name in wish.apart else None


def _capacity(resource: str) -> Filter:
    def judge(wish: Wish, host: Host) -> str | None:
        needed = wish.resources.get(resource, 0)
        if not needed:
            return None
        stock = host.stock.get(resource)
        if stock is None:
            return f"the host has no inventory of {resource} yet"
        if needed <= stock.free:
            return None
        return f"{needed} {resource} needed, {max(stock.free, 0)} of {stock.capacity} free"

    return judge


def further(wish: Wish, host: Host) -> str | None:
    """Only hosts that have room for what the flavor asks for besides processors, memory and disk."""
    for resource in sorted(wish.resources.keys() - _USUAL):
        if (reason := _capacity(resource)(wish, host)) is not None:
            return reason
    return None


_USUAL = frozenset({"VCPU", "MEMORY_MB", "DISK_GB"})

FILTERS: Mapping[str, Filter] = {
    "requested": requested,
    "up": up,
    "enabled": enabled,
    "zone": zone,
    "machine": machine,
    "capabilities": capabilities,
    "traits": traits,
    "hinted": hinted,
    "VCPU": _capacity("VCPU"),
    "MEMORY_MB": _capacity("MEMORY_MB"),
    "DISK_GB": _capacity("DISK_GB"),
    "resources": further,
    "group": group,
}
"""By name, in the order in which they are asked."""


def weight(host: Host) -> float:
    """The emptier the heavier: the mean share that is free of each resource class, from 0 to 1."""
    shares = [max(stock.free, 0) / stock.capacity for stock in host.stock.values() if stock.capacity > 0]
    return sum(shares) / len(shares) if shares else 0.0


def judge(wish: Wish, host: Host) -> tuple[str, str] | None:
    """Name and reason of the first filter that refuses a host; None when none does."""
    for name, refuse in FILTERS.items():
        reason = refuse(wish, host)
        if reason is not None:
            return name, reason
    return None


def decide(wish: Wish, hosts: Iterable[Host]) -> Decision:
    """Choose a host for one server."""
    counts: dict[str, int] = {}
    refused: dict[str, str] = {}
    passed: list[tuple[float, Host]] = []
    for host in hosts:
        verdict = judge(wish, host)
        if verdict is None:
            wanted = 0.0 if wish.group is None else wish.group.preference(host.name)
            passed.append((weight(host) + wanted, host))
        else:
            counts[verdict[0]] = counts.get(verdict[0], 0) + 1
            refused[host.name] = verdict[1]
    passed.sort(key=lambda one: (-one[0], one[1].name))
    best = [
        {"host": host.name, "weight": round(heavy, 6), "generation": host.generation} for heavy, host in passed[:BEST]
    ]
    return Decision(wish.server_id, passed[0][1] if passed else None, counts, best, refused)


def take(host: Host, resources: Mapping[str, int]) -> Host:
    """The host with these resources used."""
    stock = {
        name: one._replace(used=one.used + resources.get(name, 0)) if name in resources else one
        for name, one in host.stock.items()
    }
    return host._replace(stock=stock)


def resources(flavor: Mapping[str, Any], virtual_size: int | None) -> dict[str, int]:
    """What a server of a flavor needs; a flavor without disk needs as much as the image's virtual size (bytes).

    An extra spec `resources:CLASS` takes the place of an amount; those of numbered groups are added to it.
    """
    root = flavor["disk"] or -(-(virtual_size or 0) // 2**30)
    disk = root + flavor["ephemeral"] + -(-flavor["swap"] // 1024)
    found = {"VCPU": flavor["vcpus"], "MEMORY_MB": flavor["ram"], "DISK_GB": disk}
    asked = [(name.partition(":"), value) for name, value in (flavor.get("extra_specs") or {}).items()]
    said = [(kind, what, int(value)) for (kind, _, what), value in asked if _is_amount(kind, what, value)]
    found |= {what: amount for kind, what, amount in said if kind == "resources"}
    for kind, what, amount in said:
        if kind != "resources":
            found[what] = found.get(what, 0) + amount
    return found


def _is_amount(kind: str, what: str, value: str) -> bool:
    """Whether an extra spec says how much of a resource class is needed; others are passed over, as upstream does."""
    return kind.startswith("resources") and bool(what) and value.isdecimal()
