"""Which servers a list shows: filters, order and pages."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from itertools import zip_longest
from typing import Any

import sqlalchemy as sa

from pileus.core.context import Context
from pileus.core.errors import BadRequest, Forbidden
from pileus.core.fields import W
from pileus.core.listing import Filter, Listing, Rows, boolean, instant, integer
from pileus.services.compute.resources import aggregate
from pileus.services.compute.resources.server.table import (
    has_status,
    server,
    tag,
    task_state_sql,
    vm_state_sql,
)
from pileus.services.compute.rules.expression import Expression, ExpressionError
from pileus.services.compute.rules.pattern import ESCAPE, like, plain
from pileus.services.compute.rules.status import ALL_STATUSES, POWER_STATES
from pileus.services.compute.versions import (
    CHANGES_BEFORE_FILTER,
    HOSTNAME_FILTER,
    IP6_FILTER,
    LOCKED_FILTER,
    LOCKED_KEY_IDLE,
    SERVER_FILTERS,
    SORT_KEYS_IDLE,
    STATUS_FILTER_STRICT,
    TAG_FILTERS,
)
from pileus.services.network import interface as network

_c = server.c
_power = sa.case(
    (sa.or_(_c.launched_at.is_(None), _c.deleted_at.is_not(None)), 0),
    *((_c.state == state, number) for state, number in POWER_STATES.items()),
    else_=0,
)
_zone = sa.case((_c.host.is_(None), _c.availability_zone), else_=aggregate.zone_of(_c.host))
"""The zone that is shown: a server that has a host is in that host's, whatever was asked for."""

_NEVER = sa.false()


_MATCHES = 10_000
"""The most different values that a regular expression may find."""


class Match(Filter):
    """A filter by a regular expression: by the database where LIKE can say it, else by looking at all values."""

    def among(self, ctx: Context, query: sa.Select[Any], values: Sequence[str]) -> sa.ColumnElement[bool]:
        """The condition that the column matches one of the values. Raises BadRequest for what is no expression."""
        arms = []
        for value in values:
            pattern = like(value)
            if pattern is not None:
                arms.append(self.column.ilike(pattern, escape=ESCAPE))
            else:
                arms.append(self.column.in_(self._search(ctx, query, value)))
        return sa.or_(*arms)

    def _search(self, ctx: Context, query: sa.Select[Any], text: str) -> list[str]:
        try:
            expression = Expression(text)
            rows = ctx.tx.all(query.with_only_columns(self.column.label("value")).distinct())
            found = [row.value for row in rows if row.value is not None and expression.search(row.value)]
        except ExpressionError as error:
            raise BadRequest(str(error)) from None
        if len(found) > _MATCHES:
            raise BadRequest(f"{text!r} matches more than {_MATCHES} different values: use further filters")
        return found


class Exact(Filter):
    """A filter on something that is the same for all servers here: all of them, or none."""

    def __init__(self, constant: str, window: W | None = None) -> None:
        super().__init__(sa.literal(constant), window=window)


def _open(one: Filter) -> Filter:
    """The same filter, in every version."""
    found = copy(one)
    found.window = None
    return found


_BASE: dict[str, Filter] = {
    "reservation_id": Match(_c.reservation_id),
    "name": Match(_c.name),
    "image": Filter(_c.image_id),
    "flavor": Filter(_c.flavor_id),
    "locked": Filter(sa.case((_c.locked_by.is_(None), False), else_=True), boolean, window=LOCKED_FILTER),
    "hostname": Match(_c.hostname, window=HOSTNAME_FILTER),
}

_MORE: dict[str, Filter] = {
    "availability_zone": Match(_zone, window=SERVER_FILTERS),
    "config_drive": Filter(_c.config_drive, boolean, window=SERVER_FILTERS),
    "key_name": Match(_c.key_name, window=SERVER_FILTERS),
    "created_at": Filter(_c.created_at, instant, window=SERVER_FILTERS),
    "launched_at": Filter(_c.launched_at, instant, window=SERVER_FILTERS),
    "terminated_at": Filter(_c.deleted_at, instant, window=SERVER_FILTERS),
    "power_state": Filter(_power, integer, window=SERVER_FILTERS),
    "task_state": Filter(task_state_sql, window=SERVER_FILTERS),
    "vm_state": Filter(vm_state_sql, window=SERVER_FILTERS),
    "progress": Exact("0", window=SERVER_FILTERS),
    "user_id": Filter(_c.user_id, window=SERVER_FILTERS),
}

_ALL: dict[str, Filter] = {
    **{name: _open(one) for name, one in {**_BASE, **_MORE}.items()},
    "project_id": Filter(_c.project_id),
    "tenant_id": Filter(_c.project_id),
    "launch_index": Filter(_c.launch_index, integer),
    "image_ref": Filter(_c.image_id),
    "kernel_id": Exact(""),
    "ramdisk_id": Exact(""),
    "host": Filter(_c.host),
    "node": Match(_c.host),
    "display_name": Match(_c.name),
    "description": Match(_c.description),
    "display_description": Match(_c.description),
    "locked_by": Match(_c.locked_by),
    "uuid": Filter(_c.id),
    "root_device_name": Exact("/dev/vda"),
    "access_ip_v4": Match(_c.access_ip_v4),
    "access_ip_v6": Match(_c.access_ip_v6),
    "auto_disk_config": Filter(sa.case((_c.disk_config == "AUTO", True), else_=False), boolean),
}
"""For those who may filter by everything: no windows."""

_SORT: dict[str, sa.ColumnElement[Any]] = {
    "access_ip_v4": _c.access_ip_v4,
    "access_ip_v6": _c.access_ip_v6,
    "auto_disk_config": _c.disk_config,
    "availability_zone": _zone,
    "config_drive": _c.config_drive,
    "created_at": _c.created_at,
    "display_description": _c.description,
    "display_name": _c.name,
    "host": _c.host,
    "hostname": _c.hostname,
    "image_ref": _c.image_id,
    "instance_type_id": _c.flavor_id,
    "key_name": _c.key_name,
    "launch_index": _c.launch_index,
    "launched_at": _c.launched_at,
    "locked": sa.case((_c.locked_by.is_(None), False), else_=True),
    "locked_by": _c.locked_by,
    "node": _c.host,
    "power_state": _power,
    "project_id": _c.project_id,
    "task_state": task_state_sql,
    "terminated_at": _c.deleted_at,
    "updated_at": _c.updated_at,
    "user_id": _c.user_id,
    "uuid": _c.id,
    "vm_state": vm_state_sql,
    **dict.fromkeys(("kernel_id", "ramdisk_id", "root_device_name", "progress"), _c.id),
}

_IDLE = dict.fromkeys(
    (
        *("architecture", "cell_name", "cleaned", "default_ephemeral_device", "default_swap_device", "deleted"),
        *("deleted_at", "disable_terminate", "ephemeral_gb", "ephemeral_key_uuid", "id", "key_data", "launched_on"),
        *("memory_mb", "os_type", "reservation_id", "root_gb", "shutdown_terminate", "user_data", "vcpus", "vm_mode"),
    ),
    SORT_KEYS_IDLE,
) | {"locked": LOCKED_KEY_IDLE}
"""Sort keys that upstream passes over, and in which versions."""

_REFUSED = frozenset(
    {"block_device_mapping", "services", "metadata", "system_metadata", "info_cache", "security_groups", "pci_devices"}
)
"""What upstream refuses to filter by."""

_GUARDS = dict.fromkeys(("host", "node"), "os_compute_api:os-extended-server-attributes")


class _Servers(Listing):
    """The list of servers: of a filter that is given twice the last counts, and what has no direction takes the first
    that is given, else it descends."""

    def given(self, ctx: Context, name: str) -> list[str]:
        """The value of a filter that counts."""
        return ctx.query.all(name)[-1:]

    def keyed(self, ctx: Context) -> list[tuple[str, str]]:
        """The keys that count in this version, each with its direction."""
        directions = ctx.query.all("sort_dir")
        missing = directions[0] if directions else "desc"
        found = zip_longest(keys := ctx.query.all("sort_key"), directions[: len(keys)], fillvalue=missing)
        return [(key, way) for key, way in found if key not in _IDLE or not _IDLE[key].covers(ctx.version)]


_limited, _full, _own = (
    _Servers(server, filters=filters, sort=_SORT, order=("created_at:desc",), guards=_GUARDS)
    for filters in (
        {**_BASE, **_MORE},
        _ALL,
        {name: one for name, one in _ALL.items() if name not in ("project_id", "tenant_id")},
    )
)
"""For those who may not filter by everything, for those who may, and for those among them who look at their own project
alone: upstream passes over the name of another then."""


def page(ctx: Context, everywhere: str) -> Rows:
    """The page of servers that the request asks for; `everywhere` is the rule for seeing those of all projects.

    Raises BadRequest for filters that cannot be, and Forbidden for those that the caller may not use.
    """
    for name in ctx.query.names():
        if name in _REFUSED or name.startswith("_"):
            raise BadRequest(f"Invalid filter field: {name}.")
    everything = ctx.allows("os_compute_api:servers:allow_all_filters")
    whose = _whose(ctx, everywhere)
    query = sa.select(server).where(*whose, *_when(ctx, everything), *_further(ctx, everything))
    if (ctx.query.get("limit") or "").strip() == "0":
        query = query.where(sa.false())  # a page of no servers, where other lists take it for no limit
    return (_limited if not everything else _own if whose else _full).page(ctx, query)


def _whose(ctx: Context, everywhere: str) -> list[sa.ColumnElement[bool]]:
    asked = ctx.query.get("all_tenants")
    if asked is not None and (asked == "" or boolean(asked)):
        ctx.enforce(everywhere)
        return []
    if ctx.auth.project_id is None:
        return [_c.user_id == ctx.auth.user_id]
    return [_c.project_id == ctx.auth.project_id]


def _lenient(text: str) -> bool:
    try:
        return boolean(text)
    except BadRequest:
        return False


def _when(ctx: Context, everything: bool) -> list[sa.ColumnElement[bool]]:
    """Conditions on the time of change and on deletion: those who look for changes see deleted servers too."""
    found = []
    moment = sa.func.coalesce(_c.deleted_at, _c.updated_at, _c.created_at)
    since, before = ctx.query.get("changes-since"), ctx.query.get("changes-before")
    if not CHANGES_BEFORE_FILTER.covers(ctx.version):
        before = None
    if since is not None:
        found.append(moment >= instant(since))
    if before is not None:
        found.append(moment <= instant(before))
    if since is not None and before is not None and instant(before) < instant(since):
        raise BadRequest("The value of changes-since must be less than or equal to changes-before.")
    deleted = ctx.query.get("deleted") if everything else None
    if deleted is None and (ctx.query.get("status") or "").lower() == "deleted":
        if not ctx.auth.is_admin:
            raise Forbidden("Only administrators may list deleted instances")
        deleted = "true"
    softly = ctx.query.get("soft_deleted") if everything else None
    if deleted is not None and _lenient(deleted):
        found.append(_gone(_c.deleted_at.is_not(None), softly is None or _lenient(softly)))
    elif deleted is not None or (since is None and before is None):
        found.append(_c.deleted_at.is_(None))
        asked = "soft_deleted" in [one.lower() for one in ctx.query.all("status")]
        if not asked and (softly is None or not _lenient(softly)):
            found.append(_c.mode != "soft_deleted")
    return found


def _gone(deleted: sa.ColumnElement[bool], softly: bool) -> sa.ColumnElement[bool]:
    return sa.or_(deleted, _c.mode == "soft_deleted") if softly else deleted


def _further(ctx: Context, everything: bool) -> list[sa.ColumnElement[bool]]:
    found = []
    if statuses := ctx.query.all("status"):
        known = sorted({one.upper() for one in statuses} & ALL_STATUSES)
        if not known and STATUS_FILTER_STRICT.covers(ctx.version):
            raise BadRequest("Invalid status value")
        found.append(sa.or_(_NEVER, *(has_status(one) for one in known)))
    if everything or TAG_FILTERS.covers(ctx.version):
        found += _tagged(ctx)
    for name, version in (("ip", 4), ("ip6", 6)):
        if (text := ctx.query.get(name)) is not None and (version == 4 or everything or IP6_FILTER.covers(ctx.version)):
            found.append(_c.id.in_(network.devices_at(ctx.tx, like(text) or plain(text), version)))
    return found


def _tagged(ctx: Context) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = []
    for name in ("tags", "tags-any", "not-tags", "not-tags-any"):
        for text in ctx.query.all(name)[-1:]:
            wanted = sorted(set(text.split(",")))
            having = sa.select(tag.c.server_id).where(tag.c.tag.in_(wanted)).group_by(tag.c.server_id)
            if not name.endswith("any"):
                having = having.having(sa.func.count() == len(wanted))
            found.append(_c.id.not_in(having) if name.startswith("not") else _c.id.in_(having))
    return found
