"""Shapes of endpoint groups and of their associations with projects."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from pileus.core.context import Context
from pileus.core.fields import Body, View
from pileus.services.identity.resources.attribute import Links, Name, link
from pileus.services.identity.resources.endpoint import Interface

RegionId = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class Filters(Body, omit_defaults=True):
    """What the endpoints of a group have in common."""

    interface: Interface | UnsetType = UNSET
    service_id: str | UnsetType = UNSET
    region_id: RegionId | UnsetType | None = UNSET


class EndpointGroup(View):
    """An endpoint group."""

    id: str
    name: str
    description: str | None
    filters: dict[str, Any]
    links: Links


class EndpointGroupCreate(Body):
    """A new endpoint group, with at least one filter."""

    name: Name
    filters: Filters
    description: str | UnsetType | None = UNSET


class EndpointGroupUpdate(Body):
    """What is to be changed of an endpoint group; filters are replaced as a whole."""

    name: Name | UnsetType = UNSET
    filters: Filters | UnsetType = UNSET
    description: str | UnsetType | None = UNSET


class ProjectEndpointGroup(View):
    """That a project is associated with an endpoint group."""

    endpoint_group_id: str
    project_id: str
    links: Links


def view(ctx: Context, row: sa.Row[Any]) -> EndpointGroup:
    """A row as an endpoint group."""
    return EndpointGroup(
        id=row.id,
        name=row.name,
        description=row.description,
        filters=row.filters,
        links=link(ctx, "OS-EP-FILTER/endpoint_groups", row.id),
    )
