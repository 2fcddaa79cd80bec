"""Shapes of flavors."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import sqlalchemy as sa

from pileus.core.api import Parameters
from pileus.core.context import Context
from pileus.core.fields import UNSET, Body, Guard, UnsetType, View, W
from pileus.services.compute.rules.shape import Flag, Link, MetaKey, Name, Natural, Positive, links
from pileus.services.compute.versions import swap

Description = Annotated[str, msgspec.Meta(max_length=65535, pattern=r"^[^\x00-\x09\x0b-\x1f\x7f]*$")]
FlavorId = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"^(?! )[a-zA-Z0-9. _-]+(?<! )$")]
SpecValue = Annotated[str, msgspec.Meta(max_length=255)] | int | float

LIST_PARAMETERS = Parameters(
    *("limit", "marker", "is_public", "minRam", "minDisk", "sort_key", "sort_dir"),
    later={"name": "2.102"},
    closed="2.75",
)


class FlavorCreate(Body):
    """Body of create: the value of `flavor`."""

    name: Name
    ram: Positive
    vcpus: Positive
    disk: Natural
    id: FlavorId | int | float | None = None
    ephemeral: Natural = msgspec.field(name="OS-FLV-EXT-DATA:ephemeral", default=0)
    swap: Natural = 0
    rxtx_factor: Annotated[float | UnsetType, W(Annotated[float, msgspec.Meta(gt=0, le=3.4e38)], until="2.101")] = UNSET
    is_public: Flag = msgspec.field(name="os-flavor-access:is_public", default=True)
    description: Annotated[Description | None, W(since="2.55")] = None


class FlavorUpdate(Body):
    """Body of update: the value of `flavor`."""

    description: Description | None


class ExtraSpecs(Body):
    """Body of the creation of extra specs."""

    extra_specs: dict[MetaKey, SpecValue]


class Access(Body):
    """Body of addTenantAccess and removeTenantAccess."""

    tenant: Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"^[a-zA-Z0-9-]*$")]


class FlavorName(View):
    """A flavor in brief."""

    id: str
    name: str
    links: list[Link]
    description: Annotated[str | UnsetType | None, W(since="2.55")]


class Flavor(View):
    """A flavor in full."""

    id: str
    name: str
    ram: int
    disk: int
    swap: int | str
    ephemeral: int = msgspec.field(name="OS-FLV-EXT-DATA:ephemeral")
    vcpus: int
    is_public: bool = msgspec.field(name="os-flavor-access:is_public")
    rxtx_factor: Annotated[float | UnsetType, W(until="2.101")]
    links: list[Link]
    description: Annotated[str | UnsetType | None, W(since="2.55")]
    extra_specs: Annotated[
        dict[str, str] | UnsetType, W(since="2.61"), Guard("os_compute_api:os-flavor-extra-specs:index")
    ]
    disabled: Annotated[bool | UnsetType, W(until="2.101")] = msgspec.field(
        name="OS-FLV-DISABLED:disabled", default=False
    )


def brief(ctx: Context, row: sa.Row[Any]) -> FlavorName:
    """A row in brief."""
    found = links(ctx.url, ctx.path, "flavors", row.id)
    return FlavorName(id=row.id, name=row.name, links=found, description=row.description)


def view(ctx: Context, row: sa.Row[Any], specs: dict[str, str]) -> Flavor:
    """A row in full, with its extra specs."""
    return Flavor(
        id=row.id,
        name=row.name,
        ram=row.ram,
        disk=row.disk,
        swap=swap(row.swap, ctx.version),
        ephemeral=row.ephemeral,
        vcpus=row.vcpus,
        is_public=row.is_public,
        rxtx_factor=row.rxtx_factor,
        links=links(ctx.url, ctx.path, "flavors", row.id),
        description=row.description,
        extra_specs=specs,
    )
