"""Devices: servers of Compute, as Network knows them: by the ports that they have.

https://docs.openstack.org/api-ref/network/v2/#ports (attributes `device_id` and `device_owner`)

Users may write any device into their ports, also another project's server.  A server's own are therefore those that
Compute attached: `attached_at` is written by nobody else.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec
import sqlalchemy as sa

from pileus.contracts.network import HostRoute
from pileus.core.statement import by, many
from pileus.core.store import Tx
from pileus.services.network.resources.address import addresses_of
from pileus.services.network.resources.association import floating_of
from pileus.services.network.resources.network.table import network
from pileus.services.network.resources.port.table import address, port, port_group
from pileus.services.network.resources.security_group.table import group
from pileus.services.network.resources.standard_attribute import Row, every
from pileus.services.network.resources.subnet.table import subnet

ATTACHED = port.c.attached_at.is_not(None)
"""The condition for ports that Compute attached to the device that they name."""


class AddressInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An address of a port, with what a guest must know of its subnet."""

    ip_address: str
    floating_ip_address: str | None
    subnet_id: str
    ip_version: int
    cidr: str
    gateway_ip: str | None
    enable_dhcp: bool
    ipv6_ra_mode: str | None
    ipv6_address_mode: str | None
    dns_nameservers: tuple[str, ...]
    host_routes: tuple[HostRoute, ...]


class PortInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A port of a device, with what Compute shows of it and tells its guest."""

    id: str
    device_id: str
    network_id: str
    network_name: str
    mtu: int
    mac_address: str
    status: str
    admin_state_up: bool
    host_id: str | None
    transient: bool
    """It was made for the device, and goes with it."""
    addresses: tuple[AddressInfo, ...]
    security_group_ids: tuple[str, ...]
    security_group_names: tuple[str, ...]


_PLAIN = (
    "id",
    "device_id",
    "network_id",
    "network_name",
    "mtu",
    "mac_address",
    "status",
    "admin_state_up",
    "host_id",
    "transient",
)
_JOINED = {"network_name": network.c.name.label("network_name"), "mtu": network.c.mtu}
_PORTS = (
    sa.select(*(_JOINED[name] if name in _JOINED else port.c[name] for name in _PLAIN))
    .join(network, network.c.id == port.c.network_id)
    .where(port.c.device_id.in_(many("ids")), ATTACHED)
    .order_by(port.c.attached_at, port.c.position, port.c.created_at, port.c.id)
)
_GROUPS = (
    sa.select(port_group.c.port_id, group.c.id, group.c.name)
    .join(group, group.c.id == port_group.c.group_id)
    .where(port_group.c.port_id.in_(many("ids")))
    .order_by(group.c.name, group.c.id)
)


def ports_of(tx: Tx, device_ids: Collection[str]) -> dict[str, list[PortInfo]]:
    """The ports of devices, by device, in the order in which they were made; five queries however many."""
    found: dict[str, list[PortInfo]] = {}
    if not device_ids:
        return found
    rows = every(tx, _PORTS, {"ids": device_ids})
    if not rows:
        return found
    ids = [row["id"] for row in rows]
    given = addresses_of(tx, ids)
    subnet_ids = {one.subnet_id for each in given.values() for one in each}
    subnets = {row["id"]: row for row in every(tx, by(subnet, "id"), {"values": subnet_ids})}
    floating = {
        (row["port_id"], row["fixed_ip_address"]): row["floating_ip_address"]
        for each in floating_of(tx, ids).values()
        for row in each
    }
    groups = _groups(tx, ids)
    for row in rows:
        info = PortInfo(
            **{name: row[name] for name in _PLAIN},
            addresses=tuple(
                _address(subnets[one.subnet_id], one.ip_address, floating.get((row["id"], one.ip_address)))
                for one in given[row["id"]]
            ),
            security_group_ids=tuple(one[0] for one in groups.get(row["id"], ())),
            security_group_names=tuple(one[1] for one in groups.get(row["id"], ())),
        )
        found.setdefault(row["device_id"], []).append(info)
    return found


def _groups(tx: Tx, port_ids: Collection[str]) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for row in tx.all(_GROUPS, {"ids": port_ids}):
        found.setdefault(row.port_id, []).append((row.id, row.name))
    return found


def _address(row: Row, text: str, floating: str | None) -> AddressInfo:
    return AddressInfo(
        ip_address=text,
        floating_ip_address=floating,
        subnet_id=row["id"],
        ip_version=row["ip_version"],
        cidr=row["cidr"],
        gateway_ip=row["gateway_ip"],
        enable_dhcp=row["enable_dhcp"],
        ipv6_ra_mode=row["ipv6_ra_mode"],
        ipv6_address_mode=row["ipv6_address_mode"],
        dns_nameservers=tuple(row["dns_nameservers"]),
        host_routes=tuple(HostRoute(**one) for one in row["host_routes"]),
    )


def devices_at(pattern: str, escape: str, ip_version: int) -> sa.Select[tuple[str]]:
    """The ids of devices that have an address like a pattern of SQL."""
    return (
        sa.select(port.c.device_id)
        .join(address, address.c.port_id == port.c.id)
        .join(subnet, subnet.c.id == address.c.subnet_id)
        .where(subnet.c.ip_version == ip_version, address.c.ip_address.like(pattern, escape=escape), ATTACHED)
    )


_ROWS = (
    sa.select(port)
    .where(sa.or_(sa.and_(port.c.device_id.in_(many("device_ids")), ATTACHED), port.c.id.in_(many("port_ids"))))
    .order_by(port.c.id)
)


def rows_of(tx: Tx, device_ids: Collection[str] = (), port_ids: Collection[str] = ()) -> Sequence[Row]:
    """The rows of devices' ports, or those with certain ids."""
    return every(tx, _ROWS, {"device_ids": device_ids, "port_ids": port_ids})
