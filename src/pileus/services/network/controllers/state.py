"""What the loops tell hosts, read from the store: the specs of networks and security groups by id."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from pileus.contracts.network import NetworkSpec, SecurityGroupSpec
from pileus.core.statement import by, many
from pileus.core.store import Tx
from pileus.services.network.resources.draft import DHCP, LEG
from pileus.services.network.resources.network.table import network
from pileus.services.network.resources.port.table import address, port, port_group
from pileus.services.network.resources.security_group.operations import rules_of
from pileus.services.network.resources.security_group.table import group, rule
from pileus.services.network.resources.standard_attribute import every
from pileus.services.network.resources.subnet.table import subnet
from pileus.services.network.rules import spec


def network_specs(tx: Tx, ids: Collection[str]) -> dict[str, NetworkSpec]:
    """The specs of those of the networks that are there."""
    if not ids:
        return {}
    nets = every(tx, by(network, "id"), {"values": ids})
    query = sa.select(subnet).where(subnet.c.network_id.in_(ids)).order_by(subnet.c.created_at, subnet.c.id)
    rows = every(tx, query)
    macs: dict[str, str] = {}
    served: dict[str, str] = {}
    held = (
        sa.select(port.c.network_id, port.c.mac_address, address.c.subnet_id, address.c.ip_address)
        .join(address, address.c.port_id == port.c.id)
        .where(port.c.network_id.in_(ids), port.c.device_owner == DHCP)
    )
    for one in tx.all(held):
        macs[one.network_id] = one.mac_address
        served[one.subnet_id] = one.ip_address
    routed = (
        sa.select(subnet.c.id)
        .join(address, sa.and_(address.c.subnet_id == subnet.c.id, address.c.ip_address == subnet.c.gateway_ip))
        .join(port, port.c.id == address.c.port_id)
        .where(subnet.c.network_id.in_(ids), port.c.device_owner == LEG)
    )
    gateways = {one.id for one in tx.all(routed)}
    return {
        net["id"]: spec.network_spec(
            net,
            [row for row in rows if row["network_id"] == net["id"]],
            macs.get(net["id"]) or spec.metadata_mac(net["id"]),
            served,
            gateways,
        )
        for net in nets
    }


def group_specs(tx: Tx, ids: Collection[str]) -> dict[str, SecurityGroupSpec]:
    """The specs of those of the groups that are there; with members where a rule names the group."""
    if not ids:
        return {}
    rows = every(tx, by(group, "id"), {"values": ids})
    found = [row["id"] for row in rows]
    rules = rules_of(tx, found)
    members = members_of(tx, remotes_among(tx, found))
    return {row["id"]: spec.group_spec(row, rules[row["id"]], members.get(row["id"], ())) for row in rows}


_NAMED = sa.select(rule.c.remote_group_id).where(rule.c.remote_group_id.in_(many("ids"))).distinct()
_NAMES = sa.select(rule.c.group_id, rule.c.remote_group_id).where(
    rule.c.group_id.in_(many("ids")), rule.c.remote_group_id.is_not(None)
)
_OWN = (
    sa.select(port_group.c.group_id, address.c.ip_address)
    .join(address, address.c.port_id == port_group.c.port_id)
    .where(port_group.c.group_id.in_(many("ids")))
)
_PAIRS = (
    sa.select(port_group.c.group_id, port.c.allowed_address_pairs)
    .join(port, port.c.id == port_group.c.port_id)
    .where(port_group.c.group_id.in_(many("ids")), sa.cast(port.c.allowed_address_pairs, sa.String) != "[]")
)


def remotes_among(tx: Tx, ids: Collection[str]) -> set[str]:
    """Those of the groups that some rule names as its remote."""
    return {row.remote_group_id for row in tx.all(_NAMED, {"ids": ids})} if ids else set()


def members_of(tx: Tx, ids: Collection[str]) -> dict[str, set[str]]:
    """The addresses from which the members of groups send: their own and those of their address pairs."""
    found: dict[str, set[str]] = {}
    if not ids:
        return found
    for row in tx.all(_OWN, {"ids": ids}):
        found.setdefault(row.group_id, set()).add(row.ip_address)
    for row in tx.all(_PAIRS, {"ids": ids}):
        found.setdefault(row.group_id, set()).update(one["ip_address"] for one in row.allowed_address_pairs)
    return found


def remotes_of(tx: Tx, ids: Collection[str]) -> dict[str, set[str]]:
    """The groups that the rules of groups name, by group."""
    found: dict[str, set[str]] = {}
    for row in tx.all(_NAMES, {"ids": ids}) if ids else ():
        found.setdefault(row.group_id, set()).add(row.remote_group_id)
    return found
