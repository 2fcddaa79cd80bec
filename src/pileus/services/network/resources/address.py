"""Addresses of ports: who has which, and who gets the next.

https://docs.openstack.org/api-ref/network/v2/#ports (attribute `fixed_ips`)

An address is given once because (subnet, address) is the table's key.  Who gives addresses holds the subnets' rows
(`FOR NO KEY UPDATE`, in the order of their ids) until the transaction ends, so that on PostgreSQL two requests for the
last address are told apart by waiting, not by failing.  The next address is searched behind the one given last:
O(log n) for the range scan, and one more statement for each 64 taken addresses that lie in the way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple

import sqlalchemy as sa

from pileus.core.statement import many
from pileus.core.store import Tx
from pileus.services.network.resources.port.table import address
from pileus.services.network.resources.standard_attribute import Row, every
from pileus.services.network.resources.subnet.table import subnet
from pileus.services.network.rules import address as rules
from pileus.services.network.rules import subnet as subnet_rules
from pileus.services.network.rules.fault import (
    InvalidInput,
    InvalidIpForNetwork,
    InvalidIpForSubnet,
    IpAddressGenerationFailure,
    IpAddressInUse,
)


class Wish(NamedTuple):
    """An address that somebody asks for: a certain one, or any of a subnet."""

    subnet_id: str | None = None
    ip_address: str | None = None


class Ask(NamedTuple):
    """What one port asks for. `wishes` of None: whatever the network gives.  `held` are addresses it keeps.

    A router's leg (`router`) makes no addresses for itself, and may have any address of a subnet.
    """

    network_id: str
    mac: str
    wishes: Sequence[Wish] | None
    router: bool = False
    held: frozenset[str] = frozenset()


class Given(NamedTuple):
    """An address of a port."""

    subnet_id: str
    ip_address: str


def lock_subnets(tx: Tx, network_ids: Collection[str]) -> dict[str, list[Row]]:
    """The subnets of networks, oldest first; nobody else gives addresses of them until the transaction ends."""
    query = sa.select(subnet).where(subnet.c.network_id.in_(network_ids)).order_by(subnet.c.id)
    found: dict[str, list[Row]] = {one: [] for one in network_ids}
    for row in every(tx, query.with_for_update(key_share=True)):
        found[row["network_id"]].append(row)
    for rows in found.values():
        rows.sort(key=lambda row: (row["created_at"], row["id"]))
    return found


def packed(text: str) -> bytes:
    """An address as the table keeps it."""
    return ip_address(text).packed


class _Supply:
    """Free addresses of one subnet, in the order in which they are given."""

    def __init__(self, tx: Tx, row: Row, taken: set[tuple[str, int]]) -> None:
        self._tx = tx
        self.row = row
        self._taken = taken
        self._ready: list[int] = []
        self.last: int | None = None
        self._kind = IPv4Address if row["ip_version"] == 4 else IPv6Address
        self._cursor = None if row["cursor"] is None else int(ip_address(row["cursor"]))

    def _fetch(self, first: int, last: int, most: int) -> list[int]:
        c = address.c
        query = sa.select(c.packed).where(
            c.subnet_id == self.row["id"], c.packed.between(self._kind(first).packed, self._kind(last).packed)
        )
        rows = self._tx.all(query.order_by(c.packed).limit(most))
        return [int.from_bytes(row.packed) for row in rows]

    def fill(self, count: int) -> None:
        """Look up so many free addresses."""
        pools = [
            rules.Span(int(ip_address(pool["start"])), int(ip_address(pool["end"])))
            for pool in self.row["allocation_pools"]
        ]
        mine = sum(1 for subnet_id, _ in self._taken if subnet_id == self.row["id"])
        chosen = rules.choose(rules.spans_after(pools, self._cursor), self._fetch, count + mine)
        self._ready = [one for one in chosen if (self.row["id"], one) not in self._taken][:count]

    def take(self) -> str | None:
        """The next address; None when there is none."""
        if not self._ready:
            return None
        self.last = self._ready.pop(0)
        return str(self._kind(self.last))


def automatic(row: Row) -> bool:
    """Whether guests make their addresses on the subnet themselves."""
    return subnet_rules.automatic(row["ipv6_ra_mode"], row["ipv6_address_mode"])


def _check(row: Row, text: str, ask: Ask) -> str:
    """A certain address of a subnet, in canonical form. Raises InvalidInput or InvalidIpForSubnet."""
    found = subnet_rules.parse_address(text)
    cidr = ip_network(row["cidr"])
    span = subnet_rules.hosts(cidr)
    inside = found.version == cidr.version and found in cidr
    if not inside or (found.version == 4 and not span.first <= int(found) <= span.last):
        raise InvalidIpForSubnet(text)
    if automatic(row) and not ask.router and found != rules.slaac(ask.mac, row["cidr"]):
        raise InvalidInput(f"{text} cannot be given to a port: subnet {row['id']} is for automatic addresses")
    return str(found)


class _Plan:
    """What all ports of a request get: first what is certain, then what is any."""

    def __init__(self, tx: Tx, subnets: Mapping[str, Sequence[Row]], asks: Sequence[Ask]) -> None:
        self.tx = tx
        self.subnets = subnets
        self.asks = asks
        self.given: list[dict[int, Given]] = [{} for _ in asks]
        self.open: list[tuple[int, int, list[Row]]] = []
        self.taken: set[tuple[str, int]] = set()
        self.certain: list[Given] = []

    def resolve(self) -> None:
        for place, ask in enumerate(self.asks):
            rows = self.subnets[ask.network_id]
            for order, wish in enumerate(ask.wishes or ()):
                self._wish(place, order, ask, rows, wish)
            if ask.wishes is None:
                for version in (4, 6):
                    candidates = [row for row in rows if row["ip_version"] == version and not automatic(row)]
                    if candidates:
                        self.open.append((place, version, candidates))
            if ask.router or (ask.wishes is not None and not ask.wishes):
                continue
            have = {one.subnet_id for one in self.given[place].values()}
            for order, row in enumerate(rows, 1000):
                if automatic(row) and row["id"] not in have:
                    self._give(place, order, row, str(rules.slaac(ask.mac, row["cidr"])))

    def _wish(self, place: int, order: int, ask: Ask, rows: Sequence[Row], wish: Wish) -> None:
        if wish.subnet_id is None:
            if wish.ip_address is None:
                raise InvalidInput("an entry of fixed_ips needs a subnet_id or an ip_address")
            number = subnet_rules.parse_address(wish.ip_address)
            row = next((row for row in rows if number in ip_network(row["cidr"])), None)
            if row is None:
                raise InvalidIpForNetwork(wish.ip_address)
        else:
            row = next((row for row in rows if row["id"] == wish.subnet_id), None)
            if row is None:
                raise InvalidInput(f"subnet {wish.subnet_id} is not on network {ask.network_id}")
        if wish.ip_address is not None:
            self._give(place, order, row, _check(row, wish.ip_address, ask))
        elif automatic(row) and not ask.router:
            self._give(place, order, row, str(rules.slaac(ask.mac, row["cidr"])))
        else:
            self.open.append((place, order, [row]))

    def _give(self, place: int, order: int, row: Row, text: str) -> None:
        key = (row["id"], int(ip_address(text)))
        if key in self.taken:
            raise IpAddressInUse(row["network_id"], text)
        self.taken.add(key)
        self.given[place][order] = Given(row["id"], text)
        if text not in self.asks[place].held:
            self.certain.append(Given(row["id"], text))

    def check(self) -> None:
        """Raise IpAddressInUse when somebody has a certain address already."""
        if not self.certain:
            return
        c = address.c
        wanted = {(one.subnet_id, packed(one.ip_address)): one.ip_address for one in self.certain}
        query = sa.select(c.subnet_id, c.packed).where(
            c.subnet_id.in_({key[0] for key in wanted}), c.packed.in_({key[1] for key in wanted})
        )
        for row in self.tx.all(query):
            text = wanted.get((row.subnet_id, bytes(row.packed)))
            if text is not None:
                network_id = next(
                    network for network, rows in self.subnets.items() if any(one["id"] == row.subnet_id for one in rows)
                )
                raise IpAddressInUse(network_id, text)

    def fill(self) -> None:
        """Give what is any. Raises IpAddressGenerationFailure when a network has no more."""
        supplies: dict[str, _Supply] = {}
        for done, (place, order, candidates) in enumerate(self.open):
            text = None
            for row in candidates:
                supply = supplies.get(row["id"])
                if supply is None:
                    supply = supplies[row["id"]] = _Supply(self.tx, row, self.taken)
                    supply.fill(
                        sum(1 for _, _, rows in self.open[done:] if any(one["id"] == row["id"] for one in rows))
                    )
                text = supply.take()
                if text is not None:
                    self.given[place][order] = Given(row["id"], text)
                    break
            if text is None:
                raise IpAddressGenerationFailure(self.asks[place].network_id)
        moved = {
            one.row["id"]: {"cursor": str(ip_address(one.last.to_bytes(4 if one.row["ip_version"] == 4 else 16)))}
            for one in supplies.values()
            if one.last is not None
        }
        self.tx.update_each(subnet, "id", moved)


def allocate(tx: Tx, subnets: Mapping[str, Sequence[Row]], asks: Sequence[Ask]) -> list[list[Given]]:
    """Choose addresses for ports, in the order of `asks`; nothing is inserted yet.

    `subnets` are those of `lock_subnets` for all networks.  Raises InvalidInput, InvalidIpForNetwork,
    InvalidIpForSubnet, IpAddressInUse and IpAddressGenerationFailure.
    """
    plan = _Plan(tx, subnets, asks)
    plan.resolve()
    plan.check()
    plan.fill()
    return [[one[order] for order in sorted(one)] for one in plan.given]


def rows_of(port_id: str, given: Iterable[Given], start: int = 0) -> list[Row]:
    """Rows to insert for a port's addresses."""
    return [
        {
            "subnet_id": one.subnet_id,
            "packed": packed(one.ip_address),
            "ip_address": one.ip_address,
            "port_id": port_id,
            "position": place,
        }
        for place, one in enumerate(given, start)
    ]


_OF_PORTS = (
    sa.select(address.c.port_id, address.c.subnet_id, address.c.ip_address)
    .where(address.c.port_id.in_(many("ids")))
    .order_by(address.c.position)
)


def addresses_of(tx: Tx, port_ids: Collection[str]) -> dict[str, list[Given]]:
    """The addresses of ports, in the order in which they were given; every id is in the answer."""
    found: dict[str, list[Given]] = {one: [] for one in port_ids}
    for row in tx.all(_OF_PORTS, {"ids": port_ids}) if port_ids else ():
        found[row.port_id].append(Given(row.subnet_id, row.ip_address))
    return found
