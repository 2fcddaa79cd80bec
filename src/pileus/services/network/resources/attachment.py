"""What a server that is there gets and loses: ports, addresses, and what floating IPs lead to it.

https://docs.openstack.org/api-ref/compute/#port-interfaces-servers-os-interface
https://docs.openstack.org/api-ref/network/v2/#ports

Compute asks for it on behalf of the server's users.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from pileus.core.context import Context
from pileus.core.errors import BadRequest, Conflict, NotFound
from pileus.core.store import Tx
from pileus.services.network.resources import device, draft
from pileus.services.network.resources.address import Given
from pileus.services.network.resources.draft import Port
from pileus.services.network.resources.floatingip import operations as floating
from pileus.services.network.resources.floatingip.fields import FloatingIPUpdate
from pileus.services.network.resources.floatingip.table import floatingip
from pileus.services.network.resources.port.fields import FixedIPBody
from pileus.services.network.resources.port.operations import readdress
from pileus.services.network.resources.port.table import TOPIC, port
from pileus.services.network.resources.standard_attribute import Row, bump, every
from pileus.services.network.resources.subnet.table import subnet
from pileus.services.network.rules.fault import ExternalGatewayForFloatingIPNotFound, IpAddressGenerationFailure

UNBOUND: dict[str, Any] = {"host_id": None, "binding_host": "", "status": "DOWN"}
_FREE: dict[str, Any] = {
    "device_id": "", "device_owner": "", "hostname": "", "attached_at": None, "position": 0, **UNBOUND,
}  # fmt: skip


def release(tx: Tx, rows: Sequence[Row]) -> None:
    """Take ports from their devices: those that were made for one are deleted, others are their users' again."""
    draft.remove(tx, draft.load(tx, [row for row in rows if row["transient"]]))
    for one in draft.load(tx, [row for row in rows if not row["transient"]]):
        bump(tx, port, TOPIC, one.row, _FREE)
        draft.announce(tx, one)


def detach(tx: Tx, device_id: str, port_id: str) -> bool:
    """Take one port from a device; whether the device had it."""
    rows = [row for row in device.rows_of(tx, [device_id]) if row["id"] == port_id]
    release(tx, rows)
    return bool(rows)


def _readdress(ctx: Context, one: Port, wanted: Sequence[FixedIPBody]) -> None:
    ips = readdress(ctx, one, one.row["mac_address"], wanted)
    row = bump(ctx.tx, port, TOPIC, one.row, {})
    draft.announce(ctx.tx, one)
    draft.announce(ctx.tx, Port(row, ips, one.groups))


def _bodies(given: Sequence[Given]) -> list[FixedIPBody]:
    return [FixedIPBody(subnet_id=one.subnet_id, ip_address=one.ip_address) for one in given]


def add_address(ctx: Context, device_id: str, network_id: str) -> None:
    """Give a device one more address in a network: on its first port there, of the first subnet that has one left.

    Raises NotFound when it has no port there, BadRequest when no subnet has an address left.
    """
    rows = [row for row in device.rows_of(ctx.tx, [device_id]) if row["network_id"] == network_id]
    if not rows:
        raise NotFound(f"Instance {device_id} is in no network {network_id}.")
    one = draft.load(ctx.tx, rows[:1])[0]
    query = sa.select(subnet.c.id).where(subnet.c.network_id == network_id)
    for row in ctx.tx.all(query.order_by(subnet.c.ip_version, subnet.c.created_at, subnet.c.id)):
        try:
            _readdress(ctx, one, [*_bodies(one.addresses), FixedIPBody(subnet_id=row.id)])
        except IpAddressGenerationFailure:
            continue
        return
    raise BadRequest("Zero fixed ips available.")


def remove_address(ctx: Context, device_id: str, ip_address: str) -> None:
    """Take an address from a device. Raises BadRequest when it has not got it."""
    for one in draft.load(ctx.tx, device.rows_of(ctx.tx, [device_id])):
        left = [each for each in one.addresses if each.ip_address != ip_address]
        if len(left) < len(one.addresses):
            _readdress(ctx, one, _bodies(left))
            return
    raise BadRequest(f"Instance {device_id} does not have fixed IP '{ip_address}'.")


def _floating(ctx: Context, floating_address: str) -> Row:
    """The floating IP of the caller's project with an address. Raises NotFound."""
    mine = (floatingip.c.floating_ip_address == floating_address, floatingip.c.project_id == ctx.auth.project_id)
    rows = every(ctx.tx, sa.select(floatingip).where(*mine).limit(1))
    if not rows:
        raise NotFound("floating IP not found")
    return rows[0]


def associate(ctx: Context, device_id: str, floating_address: str, fixed_address: str | None) -> None:
    """Let a floating IP lead to an address of a device: to its first IPv4 address where none is named.

    Raises NotFound for an unknown floating IP, and BadRequest when it cannot lead there.
    """
    ports = draft.load(ctx.tx, device.rows_of(ctx.tx, [device_id]))
    ports.sort(key=lambda one: (one.row["attached_at"], one.row["position"]))
    known = [(one, each.ip_address) for one in ports for each in one.addresses]
    if not known:
        raise BadRequest("No fixed IPs associated to instance")
    fitting = [pair for pair in known if pair[1] == fixed_address or (fixed_address is None and ":" not in pair[1])]
    if not fitting:
        raise BadRequest(
            f"Unable to associate floating IP {floating_address} to any fixed IPs for instance {device_id}. Instance "
            "has no fixed IPv4 addresses to associate."
            if fixed_address is None
            else "Specified fixed address not assigned to instance"
        )
    one, text = fitting[0]
    row = _floating(ctx, floating_address)
    try:
        floating.update(ctx, row["id"], FloatingIPUpdate(port_id=one.row["id"], fixed_ip_address=text))
    except (Conflict, ExternalGatewayForFloatingIPNotFound) as fault:
        raise BadRequest(
            f"Unable to associate floating IP {floating_address} to fixed IP {text} for instance {device_id}. Error: "
            f"{fault.message}"
        ) from None


def disassociate(ctx: Context, device_id: str, floating_address: str) -> None:
    """Let a floating IP that leads to a device lead nowhere. Raises NotFound, and Conflict when it leads elsewhere."""
    row = _floating(ctx, floating_address)
    if row["port_id"] not in {one["id"] for one in device.rows_of(ctx.tx, [device_id])}:
        raise Conflict(f"Floating IP {floating_address} is not associated with instance {device_id}.")
    floating.update(ctx, row["id"], FloatingIPUpdate(port_id=None))
