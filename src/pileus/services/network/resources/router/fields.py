"""The shapes of routers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from pileus.core.fields import Body, Guard, View
from pileus.core.listing import Filter, Listing
from pileus.services.network.resources.address import Given
from pileus.services.network.resources.network.fields import ZONE, Zones
from pileus.services.network.resources.port.fields import FixedIPBody, FixedIPView
from pileus.services.network.resources.router.table import router
from pileus.services.network.resources.standard_attribute import (
    BULK,
    SOME,
    Id,
    Name,
    Owned,
    StandardView,
    Text,
    filters,
    sort_keys,
    standard,
)
from pileus.services.network.resources.subnet.fields import RouteBody

ROUTES = 30
"""How many routes a router may have."""


class GatewayCreate(Body, kw_only=True):
    """The external gateway of a new router; an empty object is none."""

    network_id: Id | UnsetType = UNSET
    enable_snat: Annotated[bool | UnsetType, Guard("create_router:external_gateway_info:enable_snat")] = UNSET
    external_fixed_ips: Annotated[
        Annotated[list[FixedIPBody], SOME] | UnsetType | None,
        Guard("create_router:external_gateway_info:external_fixed_ips"),
    ] = UNSET


class GatewayUpdate(Body, kw_only=True):
    """The external gateway of a router."""

    network_id: Id | UnsetType = UNSET
    enable_snat: Annotated[bool | UnsetType, Guard("update_router:external_gateway_info:enable_snat")] = UNSET
    external_fixed_ips: Annotated[
        Annotated[list[FixedIPBody], SOME] | UnsetType | None,
        Guard("update_router:external_gateway_info:external_fixed_ips"),
    ] = UNSET


class RouterCreate(Owned, kw_only=True):
    """A new router. It is on one host: neither distributed nor highly available."""

    name: Name = ""
    description: Text = ""
    admin_state_up: bool = True
    external_gateway_info: GatewayCreate | None = None
    availability_zone_hints: Zones = msgspec.field(default_factory=list)
    distributed: Annotated[Literal[False] | UnsetType | None, Guard("create_router:distributed")] = UNSET
    ha: Annotated[Literal[False] | UnsetType | None, Guard("create_router:ha")] = UNSET
    flavor_id: None = None


class RoutersCreate(Body, kw_only=True):
    """One router, or several at once."""

    router: RouterCreate | UnsetType = UNSET
    routers: Annotated[list[RouterCreate], BULK] | UnsetType = UNSET


class RouterUpdate(Body, kw_only=True):
    """What may be changed of a router."""

    name: Name | UnsetType = UNSET
    description: Text | UnsetType = UNSET
    admin_state_up: bool | UnsetType = UNSET
    external_gateway_info: GatewayUpdate | UnsetType | None = UNSET
    routes: Annotated[list[RouteBody], SOME] | UnsetType | None = UNSET
    distributed: Annotated[Literal[False] | UnsetType, Guard("update_router:distributed")] = UNSET
    ha: Annotated[Literal[False] | UnsetType, Guard("update_router:ha")] = UNSET


class RoutesBody(Body, kw_only=True):
    """Routes to be added or removed."""

    routes: Annotated[list[RouteBody], SOME]


class InterfaceBody(Body, kw_only=True):
    """What a router shall have a leg in: a subnet, or by way of a port."""

    subnet_id: Id | UnsetType = UNSET
    port_id: Id | UnsetType = UNSET


class GatewayView(View, kw_only=True):
    """The external gateway in a response."""

    network_id: str
    enable_snat: bool
    external_fixed_ips: list[FixedIPView]


class RouterView(StandardView, kw_only=True):
    """A router in a response."""

    name: str
    admin_state_up: bool
    status: str
    external_gateway_info: GatewayView | None
    routes: list[dict[str, str]]
    availability_zone_hints: list[str]
    availability_zones: list[str]
    flavor_id: None = None
    distributed: Annotated[bool | UnsetType, Guard("get_router:distributed")] = False
    ha: Annotated[bool | UnsetType, Guard("get_router:ha")] = False


class RouterReply(View, kw_only=True):
    """One router, or those of a bulk request."""

    router: RouterView | UnsetType = UNSET
    routers: list[RouterView] | UnsetType = UNSET


class InterfaceView(View, kw_only=True):
    """A leg that was added or removed. `id` is the router's."""

    id: str
    project_id: str
    tenant_id: str
    port_id: str
    network_id: str
    subnet_id: str
    subnet_ids: list[str]
    tags: list[str] = msgspec.field(default_factory=list)


def view(row: Mapping[str, Any], gateway: Sequence[Given], tags: Sequence[str] = ()) -> RouterView:
    """A router's row, and the addresses of its gateway, as a response shows them."""
    info = None
    if row["gateway_network_id"] is not None:
        info = GatewayView(
            network_id=row["gateway_network_id"],
            enable_snat=row["enable_snat"],
            external_fixed_ips=[FixedIPView(subnet_id=one.subnet_id, ip_address=one.ip_address) for one in gateway],
        )
    return RouterView(
        **standard(row, tags),
        name=row["name"],
        admin_state_up=row["admin_state_up"],
        status=row["status"],
        external_gateway_info=info,
        routes=row["routes"],
        availability_zone_hints=row["availability_zone_hints"],
        availability_zones=[ZONE] if row["host_id"] is not None else [],
    )


class _Gateway(Filter):
    """`external_gateway_info`: by `network_id=…`."""

    __slots__ = ()

    def condition(self, values: Sequence[str]) -> sa.ColumnElement[bool]:
        """The condition for the values of one parameter."""
        pairs = [value.partition("=") for value in values]
        return self.column.in_([text for key, _, text in pairs if key == "network_id"])


listing = Listing(
    router,
    filters={
        **filters(router, "name", "status", flags=("admin_state_up",)),
        "external_gateway_info": _Gateway(router.c.gateway_network_id),
    },
    sort=sort_keys(router, "name", "admin_state_up", "status"),
    maximum=None,
    view=RouterView,
)
