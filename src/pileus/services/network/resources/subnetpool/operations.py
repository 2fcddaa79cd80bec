"""The operations on subnet pools, and how subnets are allocated out of them.

Whoever allocates counts up the pool's revision, so that two subnets cannot have the same prefix.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_network
from typing import Any

import sqlalchemy as sa
from msgspec import UNSET

from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest
from pileus.core.fields import given
from pileus.core.store import Tx
from pileus.services.network.resources import address_scope, quota
from pileus.services.network.resources.network import policy as networks
from pileus.services.network.resources.standard_attribute import (
    Row,
    bump,
    change,
    check_revision,
    drop_tags,
    enforce,
    every,
    first_row,
    fresh,
    owner,
    page,
    tag_operations,
    tags_of,
)
from pileus.services.network.resources.subnet.table import TOPIC as SUBNET
from pileus.services.network.resources.subnet.table import subnet
from pileus.services.network.resources.subnetpool import fields, policy
from pileus.services.network.resources.subnetpool.fields import (
    Onboarding,
    PoolCreate,
    PoolUpdate,
    PoolView,
    PrefixList,
    PrefixView,
    view,
)
from pileus.services.network.resources.subnetpool.policy import kind
from pileus.services.network.resources.subnetpool.table import TOPIC, subnetpool
from pileus.services.network.rules import prefix as rules
from pileus.services.network.rules.fault import (
    AddressScopePrefixConflict,
    IllegalSubnetPoolAssociationToAddressScope,
    IllegalSubnetPoolPrefixUpdate,
    InvalidInput,
    PolicyNotAuthorized,
    SubnetAllocationError,
    SubnetPoolDeleteError,
    SubnetPoolQuotaExceeded,
)
from pileus.services.network.rules.subnet import Cidr

resource = Resource("subnetpool", "subnetpools", rules=policy.RULES)


def _listed(prefixes: fields.Prefixes) -> list[str]:
    return [prefixes] if isinstance(prefixes, str) else prefixes


def _parsed(texts: Iterable[str]) -> list[Cidr]:
    return [ip_network(text) for text in texts]


def _check_scope(ctx: Context, row: Row) -> None:
    """Raise unless a pool can be in its address scope: the same IP version, an owner who may, unique prefixes."""
    scope_id = row["address_scope_id"]
    if scope_id is None:
        return
    table = address_scope.address_scope
    scope = first_row(ctx.tx, sa.select(table).where(table.c.id == scope_id).with_for_update())
    if scope is None or not ctx.allows("get_address_scope", address_scope.kind.target(scope)):
        raise address_scope.kind.missing(scope_id)
    if scope["project_id"] != row["project_id"] and not (scope["shared"] or ctx.auth.is_admin):
        raise IllegalSubnetPoolAssociationToAddressScope(scope_id, "it is of another project")
    if scope["ip_version"] != row["ip_version"]:
        raise IllegalSubnetPoolAssociationToAddressScope(scope_id, f"its IP version is {scope['ip_version']}")
    query = sa.select(subnetpool.c.prefixes).where(
        subnetpool.c.address_scope_id == scope_id, subnetpool.c.id != row["id"]
    )
    others = [one for found in ctx.tx.all(query) for one in _parsed(found.prefixes)]
    mine = _parsed(row["prefixes"])
    if rules.overlap(mine, others):
        raise AddressScopePrefixConflict


def _check_default(tx: Tx, row: Row) -> None:
    """Raise InvalidInput when there is another default pool."""
    query = sa.select(subnetpool.c.id).where(subnetpool.c.default_of == row["ip_version"], subnetpool.c.id != row["id"])
    if row["is_default"] and tx.first(query) is not None:
        raise InvalidInput(f"a default subnetpool for IPv{row['ip_version']} exists already: only one may")


def _settled(row: Row, values: Mapping[str, Any]) -> Row:
    """A row with new values, in canonical form. Raises what is wrong with them."""
    new = {**row, **values}
    prefixes = rules.parse(new["prefixes"])
    limit = max(rules.MOST, len(row.get("prefixes", ())))  # a pool of before may have more, and get no further
    if len(prefixes) > limit:
        raise InvalidInput(f"a subnet pool has at most {limit} prefixes")
    version = prefixes[0].version
    new["prefixes"], new["ip_version"] = [str(one) for one in prefixes], version
    least, most = new["min_prefixlen"], new["max_prefixlen"]
    least = rules.DEFAULT_LEAST[version] if least is None else least
    most = rules.LONGEST[version] if most is None else most
    default = least if new["default_prefixlen"] is None else new["default_prefixlen"]
    rules.check_bounds(version, least, default, most)
    new |= {"min_prefixlen": least, "default_prefixlen": default, "max_prefixlen": most}
    return {**new, "default_of": version if new["is_default"] else None}


@resource.post(
    "/subnetpools", policy="create_subnetpool", guarded=True, status=201, accepts="subnetpool", wraps="subnetpool"
)
def create(ctx: Context, body: PoolCreate) -> PoolView:
    """Make a subnet pool."""
    tx, project_id = ctx.tx, owner(ctx, body)
    kind.may_create(ctx, project_id)
    lengths = ("min_prefixlen", "default_prefixlen", "max_prefixlen")
    values = {name: None if getattr(body, name) is UNSET else getattr(body, name) for name in lengths}
    row = _settled(
        fresh(tx, project_id, body.description),
        {
            **values,
            "name": body.name,
            "prefixes": _listed(body.prefixes),
            "default_quota": None if body.default_quota is UNSET else body.default_quota,
            "is_default": bool(body.is_default),
            "shared": bool(body.shared),
            "address_scope_id": body.address_scope_id,
        },
    )
    _check_default(tx, row)
    _check_scope(ctx, row)
    quota.take(tx, project_id, {"subnetpool": 1})
    tx.insert(subnetpool, row)
    tx.changed(TOPIC, row["id"])
    return view(row)


@resource.get("/subnetpools", policy="get_subnetpool", guarded=True, wraps="subnetpools")
def index(ctx: Context) -> Page:
    """The subnet pools that the caller sees."""
    rows, make = page(ctx, fields.listing, sa.select(subnetpool).where(kind.visible(ctx)))
    tags = tags_of(ctx.tx, [row["id"] for row in rows])
    return make([view(row, tags.get(row["id"], ())) for row in rows])


@resource.get("/subnetpools/{pool_id}", policy="get_subnetpool", guarded=True, wraps="subnetpool")
def show(ctx: Context, pool_id: str) -> PoolView:
    """A subnet pool."""
    row = kind.find(ctx, pool_id)
    return view(row, tags_of(ctx.tx, [pool_id]).get(pool_id, ()))


@resource.put(
    "/subnetpools/{pool_id}", policy="update_subnetpool", guarded=True, accepts="subnetpool", wraps="subnetpool"
)
def update(ctx: Context, pool_id: str, body: PoolUpdate) -> PoolView:
    """Change a subnet pool."""
    row = kind.find(ctx, pool_id, "update")
    values = given(body)
    if "prefixes" in values:
        values["prefixes"] = _listed(values["prefixes"])
        if not rules.covered(rules.parse(values["prefixes"]), _parsed(row["prefixes"])):
            raise IllegalSubnetPoolPrefixUpdate("existing prefixes must be a subset of the new prefixes")
    new = _settled(row, values)
    if new["ip_version"] != row["ip_version"]:
        raise IllegalSubnetPoolPrefixUpdate("the IP version of a subnet pool stays as it is")
    _check_default(ctx.tx, new)
    _check_scope(ctx, new)
    names = [*PoolUpdate.__struct_fields__, "default_of"]
    changed = change(ctx, subnetpool, TOPIC, row, {name: new[name] for name in names})
    return view(changed, tags_of(ctx.tx, [pool_id]).get(pool_id, ()))


@resource.delete("/subnetpools/{pool_id}", policy="delete_subnetpool", guarded=True)
def delete(ctx: Context, pool_id: str) -> None:
    """Delete a subnet pool. Raises SubnetPoolDeleteError while subnets are of it."""
    tx, row = ctx.tx, kind.find(ctx, pool_id, "delete")
    check_revision(ctx, row)
    bump(tx, subnetpool, TOPIC, row, {})
    if tx.first(sa.select(subnet.c.id).where(subnet.c.subnetpool_id == pool_id).limit(1)) is not None:
        raise SubnetPoolDeleteError
    tx.execute(sa.delete(subnetpool).where(subnetpool.c.id == pool_id))
    drop_tags(tx, [pool_id])
    quota.give_back(tx, row["project_id"], {"subnetpool": 1})


@resource.put("/subnetpools/{pool_id}/add_prefixes", policy="add_prefixes", guarded=True)
def add_prefixes(ctx: Context, pool_id: str, body: PrefixList) -> PrefixView:
    """Add prefixes to a subnet pool."""
    row = kind.find(ctx, pool_id)
    enforce(ctx, "add_prefixes", kind.target(row))
    return _with_prefixes(ctx, row, [*row["prefixes"], *_listed(body.prefixes)])


@resource.put("/subnetpools/{pool_id}/remove_prefixes", policy="remove_prefixes", guarded=True)
def remove_prefixes(ctx: Context, pool_id: str, body: PrefixList) -> PrefixView:
    """Take prefixes from a subnet pool. Raises IllegalSubnetPoolPrefixUpdate for what subnets have."""
    row = kind.find(ctx, pool_id)
    enforce(ctx, "remove_prefixes", kind.target(row))
    most = max(rules.MOST, len(row["prefixes"]))
    left = rules.free(_parsed(row["prefixes"]), rules.parse(_listed(body.prefixes)), most)
    if not rules.covered(left, _taken(ctx.tx, pool_id)):
        raise IllegalSubnetPoolPrefixUpdate("subnets have been allocated from the prefixes")
    return _with_prefixes(ctx, row, [str(one) for one in left])


def _with_prefixes(ctx: Context, row: Row, prefixes: Sequence[str]) -> PrefixView:
    new = _settled(row, {"prefixes": list(prefixes)})
    if new["ip_version"] != row["ip_version"]:
        raise IllegalSubnetPoolPrefixUpdate("the IP version of a subnet pool stays as it is")
    _check_scope(ctx, new)
    return PrefixView(prefixes=change(ctx, subnetpool, TOPIC, row, {"prefixes": new["prefixes"]})["prefixes"])


@resource.put("/subnetpools/{pool_id}/onboard_network_subnets", policy="onboard_network_subnets", guarded=True)
def onboard(ctx: Context, pool_id: str, body: Onboarding) -> list[dict[str, str]]:
    """Let a pool have the subnets of a network, and their prefixes."""
    tx, row = ctx.tx, kind.find(ctx, pool_id)
    enforce(ctx, "onboard_network_subnets", kind.target(row))
    net = networks.find(ctx, body.network_id)
    if net["project_id"] != ctx.auth.project_id and not ctx.auth.is_admin:
        raise PolicyNotAuthorized("onboard_network_subnets")
    query = sa.select(subnet).where(subnet.c.network_id == net["id"], subnet.c.ip_version == row["ip_version"])
    found = every(tx, query.order_by(subnet.c.created_at, subnet.c.id))
    taken = _taken(tx, pool_id)
    for one in found:
        if any(ip_network(one["cidr"]).overlaps(other) for other in taken):
            raise BadRequest(f"Illegal subnetpool update: subnet {one['id']} conflicts with allocated prefixes.")
    if found:
        _with_prefixes(ctx, row, [*row["prefixes"], *(one["cidr"] for one in found)])
    for one in found:
        bump(tx, subnet, SUBNET, one, {"subnetpool_id": pool_id})
    return [{"id": one["id"], "cidr": one["cidr"]} for one in found]


# -- allocation ------------------------------------------------------------------------------------------------------


def _taken(tx: Tx, pool_id: str, project_id: str | None = None) -> list[Cidr]:
    query = sa.select(subnet.c.cidr).where(subnet.c.subnetpool_id == pool_id)
    if project_id is not None:
        query = query.where(subnet.c.project_id == project_id)
    return _parsed(row.cidr for row in tx.all(query))


def pool_of(ctx: Context, pool_id: str | None, *, default: bool, ip_version: int | None) -> Row | None:
    """The pool that a new subnet asks for; None when it asks for none.

    Raises SubnetPoolNotFound, and BadRequest when it is not clear which one is meant.
    """
    if pool_id is not None and default:
        raise BadRequest("subnetpool_id and use_default_subnetpool cannot both be specified.")
    if pool_id is not None:
        row = kind.find(ctx, pool_id)
        if ip_version is not None and row["ip_version"] != ip_version:
            raise BadRequest("Cannot allocate a subnet of another IP version than the subnet pool's.")
        return row
    if not default:
        return None
    if ip_version is None:
        raise BadRequest("ip_version must be specified in the absence of cidr and subnetpool_id.")
    found = first_row(ctx.tx, sa.select(subnetpool).where(subnetpool.c.default_of == ip_version, kind.visible(ctx)))
    if found is None:
        raise BadRequest(f"No default subnetpool found for IPv{ip_version}.")
    return found


def allocate(ctx: Context, row: Row, project_id: str, *, cidr: str | None, length: int | None) -> str:
    """A prefix out of a pool for a subnet of a project: the one that is asked for, or one of a length.

    Raises SubnetAllocationError, SubnetPoolQuotaExceeded, and BadRequest for a length that the pool does not give.
    """
    wanted = rules.parse([cidr])[0] if cidr is not None else None
    if wanted is not None and length is not None:
        raise BadRequest("cidr and prefixlen must not be supplied together.")
    size = wanted.prefixlen if wanted is not None else row["default_prefixlen"] if length is None else length
    for name, wrong in (("min", size < row["min_prefixlen"]), ("max", size > row["max_prefixlen"])):
        if wrong:
            limit = row[f"{name}_prefixlen"]
            raise BadRequest(f"Unable to allocate subnet with prefix length {size}, {name} allowed prefix is {limit}.")
    bump(ctx.tx, subnetpool, TOPIC, row, {})
    available = rules.free(_parsed(row["prefixes"]), _taken(ctx.tx, row["id"]))
    if wanted is not None:
        if wanted.version != row["ip_version"]:
            raise SubnetAllocationError("cannot allocate requested subnet from the available set of prefixes")
        rules.check_free(available, wanted)
    found = wanted or rules.choose(available, size)
    most = row["default_quota"]
    if most and rules.units([*_taken(ctx.tx, row["id"], project_id), found]) > most:
        raise SubnetPoolQuotaExceeded
    return str(found)


def scopes_of(tx: Tx, ids: Iterable[str]) -> dict[str, str]:
    """The address scope of each pool that is in one."""
    wanted = set(ids)
    query = sa.select(subnetpool.c.id, subnetpool.c.address_scope_id).where(
        subnetpool.c.id.in_(wanted), subnetpool.c.address_scope_id.is_not(None)
    )
    return {row.id: row.address_scope_id for row in tx.all(query)} if wanted else {}


tag_operations(resource, "/subnetpools", subnetpool, TOPIC, kind.find)
