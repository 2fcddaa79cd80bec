"""Drafts: ports that are to be made, and how ports are made, loaded and removed, whoever wants them.

https://docs.openstack.org/api-ref/network/v2/#ports
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sqlalchemy as sa
from msgspec import UnsetType

from pileus.core.statement import by
from pileus.core.store import Tx
from pileus.services.network.resources import address as addresses
from pileus.services.network.resources import association, hold, quota
from pileus.services.network.resources.address import Ask, Given, Wish
from pileus.services.network.resources.port.table import TOPIC, address, port, port_group
from pileus.services.network.resources.router.table import TOPIC as ROUTER
from pileus.services.network.resources.security_group.table import MEMBER
from pileus.services.network.resources.standard_attribute import Row, drop_tags, fresh
from pileus.services.network.rules import address as rules
from pileus.services.network.rules.fault import MacAddressInUse

DHCP = "network:dhcp"
LEG = "network:router_interface"
GATEWAY = "network:router_gateway"
FLOATING = "network:floatingip"
OURS = (DHCP, LEG, GATEWAY, FLOATING)
"""Device owners of ports that the cloud makes for itself; they go with what they are for."""


class Port(NamedTuple):
    """A port with its addresses and the ids of its security groups."""

    row: Row
    addresses: list[Given]
    groups: list[str]


@dataclass(kw_only=True)
class Draft:
    """A port to be made. `values` are columns that are not as usual; `wishes` of None: any addresses."""

    network: Mapping[str, Any]
    project_id: str
    wishes: Sequence[Wish] | None = None
    groups: Sequence[str] = ()
    mac: str | None = None
    description: str | UnsetType = ""
    values: dict[str, Any] = field(default_factory=dict)


def make(tx: Tx, drafts: Sequence[Draft], subnets: Mapping[str, Sequence[Row]] | None = None) -> list[Port]:
    """Make ports, with few statements however many they are. Quotas are the caller's affair.

    No host hears of a port before it is bound.  `subnets` are those of `addresses.lock_subnets`, where the caller has
    them.  Raises what `addresses.allocate` does, and MacAddressInUse.
    """
    if subnets is None:
        subnets = addresses.lock_subnets(tx, {one.network["id"] for one in drafts})
    check_macs(tx, [(one.network["id"], one.mac) for one in drafts if one.mac is not None])
    rows = [_row(tx, one) for one in drafts]
    asks = [
        Ask(row["network_id"], row["mac_address"], one.wishes, router=row["device_owner"] in (LEG, GATEWAY))
        for one, row in zip(drafts, rows, strict=True)
    ]
    found = addresses.allocate(tx, subnets, asks)
    made = [Port(row, ips, list(one.groups)) for row, ips, one in zip(rows, found, drafts, strict=True)]
    tx.insert(port, rows)
    given_rows = [one for each in made for one in addresses.rows_of(each.row["id"], each.addresses)]
    tx.insert(address, given_rows)
    join(tx, made)
    for each in made:
        if each.row["host_id"] is not None:
            tx.changed(TOPIC, each.row["id"])
    return made


def _row(tx: Tx, draft: Draft) -> Row:
    return {
        **fresh(tx, draft.project_id, draft.description),
        "network_id": draft.network["id"],
        "name": "",
        "admin_state_up": True,
        "status": "DOWN",
        "mac_address": draft.mac or rules.mac_address(tx.seams.random.getrandbits(24)),
        "device_id": "",
        "device_owner": "",
        "port_security_enabled": draft.network["port_security_enabled"],
        "allowed_address_pairs": [],
        "extra_dhcp_opts": [],
        "dns_name": "",
        "hostname": "",
        "transient": False,
        "attached_at": None,
        "position": 0,
        "vnic_type": "normal",
        "binding_profile": {},
        "binding_host": "",
        "host_id": None,
        **draft.values,
    }


def check_macs(tx: Tx, wanted: Sequence[tuple[str, str]]) -> None:
    """Raise MacAddressInUse when one of these, (network id, MAC address), is taken or named twice."""
    if not wanted:
        return
    c = port.c
    query = sa.select(c.network_id, c.mac_address).where(
        c.network_id.in_({one[0] for one in wanted}), c.mac_address.in_({one[1] for one in wanted})
    )
    known = {(row.network_id, row.mac_address) for row in tx.all(query)}
    for place, one in enumerate(wanted):
        if one in known or one in wanted[:place]:
            raise MacAddressInUse(*one)


def join(tx: Tx, ports: Sequence[Port]) -> None:
    """Put ports that are in no group yet into their groups."""
    rows = [{"port_id": one.row["id"], "group_id": group_id} for one in ports for group_id in one.groups]
    tx.insert(port_group, rows)
    for row in rows:
        tx.changed(MEMBER, row["group_id"])


def groups_of(tx: Tx, port_ids: Collection[str]) -> dict[str, list[str]]:
    """The ids of the security groups of ports; every id is in the answer."""
    found: dict[str, list[str]] = {one: [] for one in port_ids}
    for row in tx.all(by(port_group, "port_id", "group_id"), {"values": port_ids}) if port_ids else ():
        found[row.port_id].append(row.group_id)
    return found


def load(tx: Tx, rows: Sequence[Row]) -> list[Port]:
    """Ports of their rows."""
    ids = [row["id"] for row in rows]
    ips, members = addresses.addresses_of(tx, ids), groups_of(tx, ids)
    return [Port(row, ips[row["id"]], members[row["id"]]) for row in rows]


def remove(tx: Tx, ports: Sequence[Port]) -> None:
    """Delete ports, whoever's they are, and give back what they counted for.

    Raises whatever the database says when something still leans on one of them.
    """
    if not ports:
        return
    ids = [one.row["id"] for one in ports]
    association.release(tx, ids)
    drop_tags(tx, ids)
    tx.execute(sa.delete(port).where(port.c.id.in_(ids)))
    counted: dict[str, int] = {}
    for one in ports:
        if one.row["project_id"] and one.row["device_owner"] != DHCP:
            counted[one.row["project_id"]] = counted.get(one.row["project_id"], 0) + 1
        announce(tx, one)
    for project_id in sorted(counted):
        quota.give_back(tx, project_id, {"port": counted[project_id]})


def announce(tx: Tx, one: Port) -> None:
    """Tell that a port changed, was bound, let go or deleted: to the loops of all that it touches."""
    row = one.row
    tx.changed(TOPIC, row["id"])
    for group_id in one.groups:
        tx.changed(MEMBER, group_id)
    if row["host_id"] is not None:
        hold.review(tx, row["host_id"], [row["network_id"]], one.groups)
    if row["device_owner"] in (LEG, GATEWAY):
        tx.changed(ROUTER, row["device_id"])
    elif row["attached_at"] is not None:
        tx.changed(association.DEVICE, row["device_id"])
