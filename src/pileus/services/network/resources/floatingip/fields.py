"""The shapes of floating IPs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from msgspec import UNSET, UnsetType

from pileus.core.fields import Body, Guard, View
from pileus.core.listing import Listing
from pileus.services.network.resources.floatingip.table import floatingip
from pileus.services.network.resources.standard_attribute import (
    BULK,
    Id,
    Owned,
    StandardView,
    Text,
    filters,
    sort_keys,
    standard,
)


class FloatingIPCreate(Owned, kw_only=True):
    """A new floating IP."""

    floating_network_id: Id
    description: Text = ""
    floating_ip_address: Annotated[str | UnsetType | None, Guard("create_floatingip:floating_ip_address")] = UNSET
    subnet_id: Id | None = None
    port_id: Id | None = None
    fixed_ip_address: str | None = None
    qos_policy_id: None = None


class FloatingIPsCreate(Body, kw_only=True):
    """One floating IP, or several at once."""

    floatingip: FloatingIPCreate | UnsetType = UNSET
    floatingips: Annotated[list[FloatingIPCreate], BULK] | UnsetType = UNSET


class FloatingIPUpdate(Body, kw_only=True):
    """What may be changed of a floating IP: what it leads to. A `port_id` of null: nowhere."""

    description: Text | UnsetType = UNSET
    port_id: Id | UnsetType | None = UNSET
    fixed_ip_address: str | UnsetType | None = UNSET
    qos_policy_id: UnsetType | None = UNSET


class PortDetails(View, kw_only=True):
    """The port that a floating IP leads to."""

    name: str
    network_id: str
    mac_address: str
    admin_state_up: bool
    status: str
    device_id: str
    device_owner: str


class FloatingIPView(StandardView, kw_only=True):
    """A floating IP in a response."""

    floating_network_id: str
    floating_ip_address: str
    router_id: str | None
    port_id: str | None
    fixed_ip_address: str | None
    status: str
    port_details: PortDetails | None
    qos_policy_id: None = None


class FloatingIPReply(View, kw_only=True):
    """One floating IP, or those of a bulk request."""

    floatingip: FloatingIPView | UnsetType = UNSET
    floatingips: list[FloatingIPView] | UnsetType = UNSET


def view(row: Mapping[str, Any], port: Mapping[str, Any] | None, tags: Sequence[str] = ()) -> FloatingIPView:
    """A floating IP's row, and that of the port it leads to, as a response shows them."""
    details = None if port is None else PortDetails(**{name: port[name] for name in PortDetails.__struct_fields__})
    return FloatingIPView(
        **standard(row, tags),
        floating_network_id=row["floating_network_id"],
        floating_ip_address=row["floating_ip_address"],
        router_id=row["router_id"],
        port_id=row["port_id"],
        fixed_ip_address=row["fixed_ip_address"],
        status=row["status"],
        port_details=details,
    )


_COLUMNS = ("floating_network_id", "floating_ip_address", "router_id", "port_id", "fixed_ip_address", "status")

listing = Listing(
    floatingip,
    filters=filters(floatingip, *_COLUMNS),
    sort=sort_keys(floatingip, *_COLUMNS),
    maximum=None,
    view=FloatingIPView,
)
