"""The shapes of subnet pools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from pileus.core.fields import Body, Guard, View
from pileus.core.listing import Filter, Listing, integer
from pileus.services.network.resources.standard_attribute import (
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
from pileus.services.network.resources.subnetpool.table import subnetpool

Length = Annotated[int, msgspec.Meta(ge=0, le=128)]
Amount = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
PoolName = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Prefixes = Annotated[list[str], SOME] | str
"""Several, or one by itself."""


class PoolCreate(Owned, kw_only=True):
    """A new subnet pool: the value of `subnetpool`."""

    name: PoolName
    prefixes: Prefixes
    description: Text = ""
    default_quota: Amount | UnsetType | None = UNSET
    min_prefixlen: Length | UnsetType = UNSET
    default_prefixlen: Length | UnsetType = UNSET
    max_prefixlen: Length | UnsetType = UNSET
    address_scope_id: Id | None = None
    is_default: Annotated[bool | UnsetType, Guard("create_subnetpool:is_default")] = UNSET
    shared: Annotated[bool | UnsetType, Guard("create_subnetpool:shared")] = UNSET


class PoolUpdate(Body, kw_only=True):
    """What may be changed of a subnet pool. Prefixes may only become more."""

    name: PoolName | UnsetType = UNSET
    prefixes: Prefixes | UnsetType = UNSET
    description: Text | UnsetType = UNSET
    default_quota: Amount | UnsetType | None = UNSET
    min_prefixlen: Length | UnsetType = UNSET
    default_prefixlen: Length | UnsetType = UNSET
    max_prefixlen: Length | UnsetType = UNSET
    address_scope_id: Id | UnsetType | None = UNSET
    is_default: Annotated[bool | UnsetType, Guard("update_subnetpool:is_default")] = UNSET


class PrefixList(Body, kw_only=True):
    """Prefixes that a pool gets or loses."""

    prefixes: Prefixes


class Onboarding(Body, kw_only=True):
    """The network whose subnets a pool gets: the value of `subnetpool` or the body itself."""

    network_id: Id


class PoolView(StandardView, kw_only=True):
    """A subnet pool in a response."""

    name: Name
    ip_version: int
    prefixes: list[str]
    min_prefixlen: str
    default_prefixlen: str
    max_prefixlen: str
    default_quota: int | None
    is_default: bool
    shared: bool
    address_scope_id: str | None


class PrefixView(View, kw_only=True):
    """The prefixes that a pool has now."""

    prefixes: list[str]


def view(row: Mapping[str, Any], tags: Sequence[str] = ()) -> PoolView:
    """A pool's row as a response shows it; lengths are texts, as they have always been."""
    plain = ("name", "ip_version", "prefixes", "default_quota", "is_default", "shared", "address_scope_id")
    lengths = ("min_prefixlen", "default_prefixlen", "max_prefixlen")
    shown = {name: row[name] for name in plain} | {name: str(row[name]) for name in lengths}
    return PoolView(**standard(row, tags), **shown)


_NUMBERS = ("ip_version", "default_quota", "min_prefixlen", "default_prefixlen", "max_prefixlen")

listing = Listing(
    subnetpool,
    filters={
        **filters(subnetpool, "name", "address_scope_id", flags=("is_default", "shared")),
        **{name: Filter(subnetpool.c[name], integer) for name in _NUMBERS},
    },
    sort=sort_keys(subnetpool, "name", *_NUMBERS, "is_default", "shared", "address_scope_id"),
    maximum=None,
    view=PoolView,
)
