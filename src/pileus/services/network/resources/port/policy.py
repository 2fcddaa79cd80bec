"""Who may do what with ports, and which ports somebody sees.

Some rules ask about the port's network (`rule:network_owner`, `rule:shared`), so they are asked when that is known,
and not by a `Guard`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from pileus.core.context import Context
from pileus.core.policy import Rule
from pileus.core.statement import at
from pileus.services.network.resources.network import policy as networks
from pileus.services.network.resources.network.table import network
from pileus.services.network.resources.port.table import port
from pileus.services.network.resources.standard_attribute import (
    ADMIN_OR_PROJECT_MEMBER,
    ADMIN_OR_SERVICE,
    NET_OWNER_MANAGER,
    NET_OWNER_MEMBER,
    NET_OWNER_READER,
    PROJECT_MEMBER,
    PROJECT_READER,
    Row,
    enforce,
    first_row,
    sees_all,
)
from pileus.services.network.rules.fault import PortNotFound

_OWNER = f"{ADMIN_OR_SERVICE} or {NET_OWNER_MEMBER}"
# Upstream lets everybody who sees a shared network; that is readers too, who are to change nothing.
_OWNER_OR_SHARED = f"{_OWNER} or (role:member and rule:shared)"
_DEVICE_OWNER = f"not rule:network_device or {_OWNER}"
_DELETE = (
    f"{ADMIN_OR_SERVICE} or (not rule:compute_device and not rule:baremetal_device and not rule:manila_device"
    f" and ({NET_OWNER_MEMBER} or {PROJECT_MEMBER}))"
)

RULES = (
    Rule("network_device", "True:%(network_device)s", "Ports of the cloud itself"),
    Rule("compute_device", "True:%(compute_device)s", "Ports of servers"),
    Rule("baremetal_device", "True:%(baremetal_device)s", "Ports of bare metal nodes"),
    Rule("manila_device", "True:%(manila_device)s", "Ports of shares"),
    Rule("create_port", _OWNER_OR_SHARED, "Create a port"),
    Rule("create_port:device_id", f"{ADMIN_OR_PROJECT_MEMBER} or role:service", "Say whose port it is"),
    Rule("create_port:device_owner", _DEVICE_OWNER, "Say what kind of device has the port"),
    Rule("create_port:mac_address", _OWNER, "Choose the MAC address"),
    Rule("create_port:fixed_ips", _OWNER_OR_SHARED, "Choose addresses"),
    Rule("create_port:fixed_ips:ip_address", _OWNER, "Choose an address"),
    Rule("create_port:fixed_ips:subnet_id", _OWNER_OR_SHARED, "Choose a subnet"),
    Rule("create_port:port_security_enabled", _OWNER, "Turn port security on or off"),
    Rule("create_port:allowed_address_pairs", _OWNER, "Allow further addresses"),
    Rule("create_port:binding:host_id", ADMIN_OR_SERVICE, "Say where a port is bound"),
    Rule("create_port:binding:profile", "role:service", "Say how a port is bound"),
    Rule("get_port", f"{ADMIN_OR_SERVICE} or {NET_OWNER_READER} or {PROJECT_READER}", "Show a port"),
    Rule("get_port:binding:vif_type", ADMIN_OR_SERVICE, "See how a port is plugged"),
    Rule("get_port:binding:vif_details", ADMIN_OR_SERVICE, "See how a port is plugged"),
    Rule("get_port:binding:host_id", ADMIN_OR_SERVICE, "See where a port is bound"),
    Rule("get_port:binding:profile", ADMIN_OR_SERVICE, "See how a port is bound"),
    Rule("update_port", f"{ADMIN_OR_SERVICE} or {PROJECT_MEMBER}", "Update a port"),
    Rule("update_port:device_id", f"{ADMIN_OR_PROJECT_MEMBER} or role:service", "Say whose port it is"),
    Rule("update_port:device_owner", _DEVICE_OWNER, "Say what kind of device has the port"),
    Rule("update_port:mac_address", f"{ADMIN_OR_SERVICE} or {NET_OWNER_MANAGER}", "Change the MAC address"),
    Rule("update_port:fixed_ips", _OWNER, "Change addresses"),
    Rule("update_port:fixed_ips:ip_address", _OWNER, "Choose an address"),
    Rule("update_port:fixed_ips:subnet_id", _OWNER_OR_SHARED, "Choose a subnet"),
    Rule("update_port:port_security_enabled", _OWNER, "Turn port security on or off"),
    Rule("update_port:allowed_address_pairs", _OWNER, "Allow further addresses"),
    Rule("update_port:binding:host_id", ADMIN_OR_SERVICE, "Say where a port is bound"),
    Rule("update_port:binding:profile", "role:service", "Say how a port is bound"),
    Rule("delete_port", _DELETE, "Delete a port"),
)


def target(row: Mapping[str, Any], net: Mapping[str, Any]) -> dict[str, Any]:
    """A port as a target of rules. `row` needs but a project and a device's owner."""
    device_owner = row["device_owner"]
    return {
        **networks.facts(net),
        "project_id": row["project_id"],
        "tenant_id": row["project_id"],
        "network_device": device_owner.startswith("network:"),
        "compute_device": device_owner.startswith("compute:"),
        "baremetal_device": device_owner.startswith("baremetal:"),
        "manila_device": device_owner.startswith("manila:"),
    }


def visible(ctx: Context) -> sa.ColumnElement[bool]:
    """The condition for ports that the caller sees: its project's, and those on its project's networks."""
    if sees_all(ctx, "get_port"):
        return sa.true()
    project_id = ctx.auth.project_id
    if project_id is None:
        return sa.false()  # ports of the cloud itself have no project either
    own = sa.select(network.c.id).where(network.c.project_id == project_id)
    return sa.or_(port.c.project_id == project_id, port.c.network_id.in_(own))


def find(ctx: Context, port_id: str, verb: str = "get") -> tuple[Row, Row]:
    """A port that the caller may `get`, `update` or `delete`, and its network.

    Raises PortNotFound when the caller must not see it, and PolicyNotAuthorized.
    """
    row = first_row(ctx.tx, at(port, "id"), {"value": port_id})
    net = networks.load(ctx, row["network_id"]) if row else None
    if row is None or net is None or not ctx.allows("get_port", target(row, net)):
        raise PortNotFound(port_id)
    if verb != "get":
        enforce(ctx, f"{verb}_port", target(row, net))
    return row, net
