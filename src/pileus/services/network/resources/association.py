"""Associations: what floating IPs lead to, as far as ports and routers need to know.

https://docs.openstack.org/api-ref/network/v2/#floating-ips-floatingips
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import sqlalchemy as sa

from pileus.core.statement import by
from pileus.core.store import Tx
from pileus.services.network.resources import quota
from pileus.services.network.resources.floatingip.table import TOPIC, floatingip
from pileus.services.network.resources.port.table import port
from pileus.services.network.resources.router.table import TOPIC as ROUTER
from pileus.services.network.resources.standard_attribute import Row, bump, drop_tags, every

DEVICE = "network.device"
"""Topic of the change log whose keys are the ids of devices whose ports or addresses changed."""


def release(tx: Tx, port_ids: Collection[str], *, keep: Collection[str] = ()) -> None:
    """Let the floating IPs that lead to these ports lead nowhere, but for those of the fixed addresses `keep`."""
    for row in every(tx, by(floatingip, "port_id"), {"values": port_ids}):
        if row["fixed_ip_address"] in keep:
            continue
        nowhere = {"port_id": None, "fixed_ip_address": None, "router_id": None, "status": "DOWN"}
        bump(tx, floatingip, TOPIC, row, nowhere)
        if row["router_id"] is not None:
            tx.changed(ROUTER, row["router_id"])


def forget_idle(tx: Tx, network_id: str) -> list[str]:
    """Delete the floating IPs of a network that lead nowhere; the ports that held their addresses, which are left."""
    idle = sa.select(floatingip).where(floatingip.c.floating_network_id == network_id, floatingip.c.port_id.is_(None))
    rows = every(tx, idle.order_by(floatingip.c.id).with_for_update())
    if not rows:
        return []
    ids = [row["id"] for row in rows]
    tx.execute(sa.delete(floatingip).where(floatingip.c.id.in_(ids)))
    drop_tags(tx, ids)
    for project_id, amount in sorted(Counter(row["project_id"] for row in rows).items()):
        quota.give_back(tx, project_id, {"floatingip": amount})
    for floatingip_id in ids:
        tx.changed(TOPIC, floatingip_id)
    return [row["floating_port_id"] for row in rows]


def tell_device(tx: Tx, port_id: str | None) -> None:
    """Tell that a port has other floating IPs than before: to whoever keeps the device that it belongs to."""
    if port_id is not None:
        query = sa.select(port.c.device_id).where(port.c.id == port_id, port.c.attached_at.is_not(None))
        device_id = tx.scalar(query)
        if device_id is not None:
            tx.changed(DEVICE, device_id)


def floating_of(tx: Tx, port_ids: Collection[str]) -> dict[str, list[Row]]:
    """The floating IPs that lead to ports, by port; ports without one are not in the answer."""
    found: dict[str, list[Row]] = {}
    query = sa.select(floatingip).where(floatingip.c.port_id.in_(port_ids)).order_by(floatingip.c.created_at)
    for row in every(tx, query) if port_ids else ():
        found.setdefault(row["port_id"], []).append(row)
    return found
