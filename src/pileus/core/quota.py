"""Quotas: how much of each resource a project may have, and how much it has.

`take` is one conditional UPDATE, so that two requests for the last unit cannot both have it, on any engine.  Services
name their resources and defaults; usage is counted in the same transaction as what it counts.

Limits are kept in the table here, service by service, unless the composition root gives a `Source`: then those limits
hold for whoever asks, and those in the table sleep.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import sqlalchemy as sa

from pileus.core.errors import QuotaExceeded
from pileus.core.statement import many
from pileus.core.store import Tx, metadata

UNLIMITED = -1

usage = sa.Table(
    "core_quota_usage",
    metadata,
    sa.Column("project_id", sa.String(64), primary_key=True),
    sa.Column("service", sa.String(32), primary_key=True),
    sa.Column("resource", sa.String(64), primary_key=True),
    sa.Column("used", sa.BigInteger, nullable=False, server_default="0"),
    sa.CheckConstraint("used >= 0", name="not_negative"),
)

limit = sa.Table(
    "core_quota_limit",
    metadata,
    sa.Column("project_id", sa.String(64), primary_key=True),
    sa.Column("service", sa.String(32), primary_key=True),
    sa.Column("resource", sa.String(64), primary_key=True),
    sa.Column("limit", sa.BigInteger, nullable=False),
)

_HELD = (
    usage.c.project_id == sa.bindparam("holder"),
    usage.c.service == sa.bindparam("of_service"),
    usage.c.resource == sa.bindparam("of_resource"),
)
_COUNT = sa.update(usage).where(*_HELD).values(used=usage.c.used + sa.bindparam("amount"))
_COUNT_UP_TO = _COUNT.where(usage.c.used + sa.bindparam("amount") <= sa.bindparam("allowed"))
_USED = sa.select(usage.c.resource, usage.c.used).where(
    usage.c.project_id == sa.bindparam("project_id"), usage.c.service == sa.bindparam("service")
)
_LIMITS = sa.select(limit.c.project_id, limit.c.resource, limit.c.limit).where(
    limit.c.project_id.in_(many("projects")), limit.c.service == sa.bindparam("service")
)

DEFAULT = "default"
"""The pseudo project whose limits, where set, replace a service's built-in defaults."""


class Shared(NamedTuple):
    """What several projects may have together: their limits by the source's names, and who they are."""

    root: str
    """Id under which all of them wait for each other; no project of its own."""
    limits: Mapping[str, int]
    members: sa.Select[Any]
    """The query of the projects' ids."""


class Source(Protocol):
    """Where limits come from when not from the table here. It names resources in its own way."""

    def limits(self, tx: Tx, service: str, project_id: str | None) -> Mapping[str, int]:
        """The limits of a project in a service, or (None) of one for which nothing was set; only what is known."""

    def shared(self, tx: Tx, service: str, project_id: str) -> Shared | None:
        """What the project may have together with others; None where each is alone."""


class Quota:
    """The quotas of one service: resource names and their built-in default limits.

    `names` gives those that a source calls otherwise.  What a source does not know is as it is built in.
    """

    def __init__(self, service: str, defaults: Mapping[str, int], *, names: Mapping[str, str] | None = None) -> None:
        self.service = service
        self.builtin = dict(defaults)
        self.names = {resource: resource for resource in self.builtin} | dict(names or {})
        self.source: Source | None = None

    def _known(self, limits: Mapping[str, int]) -> dict[str, int]:
        """A source's limits by this service's own names."""
        return {resource: limits[name] for resource, name in self.names.items() if name in limits}

    def defaults(self, tx: Tx) -> dict[str, int]:
        """The limits of a project for which nothing was set."""
        if self.source is not None:
            return self.builtin | self._known(self.source.limits(tx, self.service, None))
        return self.builtin | self._set(tx, DEFAULT)

    def limits(self, tx: Tx, project_id: str) -> dict[str, int]:
        """The limit of each resource for a project."""
        if self.source is not None:
            return self.builtin | self._known(self.source.limits(tx, self.service, project_id))
        rows = tx.all(_LIMITS, {"projects": [DEFAULT, project_id], "service": self.service})
        found = dict(self.builtin)
        for row in sorted(rows, key=lambda row: row.project_id != DEFAULT):
            found[row.resource] = row.limit
        return found

    def used(self, tx: Tx, project_id: str) -> dict[str, int]:
        """What a project has of each resource."""
        rows = tx.all(_USED, {"project_id": project_id, "service": self.service})
        return dict.fromkeys(self.builtin, 0) | {row.resource: row.used for row in rows}

    def set(self, tx: Tx, project_id: str, limits: Mapping[str, int]) -> None:
        """Give a project limits of its own; UNLIMITED is -1. Does nothing where a source has the limits."""
        if self.source is not None:
            return
        for resource, value in limits.items():
            tx.upsert(
                limit,
                {"project_id": project_id, "service": self.service, "resource": resource, "limit": value},
                key=("project_id", "service", "resource"),
            )

    def reset(self, tx: Tx, project_id: str) -> None:
        """Let a project have the defaults again. Does nothing where a source has the limits."""
        if self.source is None:
            tx.execute(sa.delete(limit).where(limit.c.project_id == project_id, limit.c.service == self.service))

    def projects(self, tx: Tx) -> list[str]:
        """Projects that have limits of their own."""
        query = sa.select(limit.c.project_id).where(limit.c.service == self.service, limit.c.project_id != DEFAULT)
        return sorted({row.project_id for row in tx.all(query)})

    def take(self, tx: Tx, project_id: str, amounts: Mapping[str, int], *, holder: str | None = None) -> None:
        """Count what a project is about to have. Raises QuotaExceeded, and then nothing is counted.

        With `holder`, the project's limits hold for what that user has.  Rows are locked in the order of their names,
        so that two requests cannot wait for each other.
        """
        limits = self.limits(tx, project_id)
        gain = {resource: amount for resource, amount in sorted(amounts.items()) if amount > 0}
        shared = self.source.shared(tx, self.service, project_id) if gain and self.source and holder is None else None
        for resource, amount in sorted(amounts.items()):
            if amount == 0:
                continue
            allowed = limits.get(resource, UNLIMITED)
            if not self._count(tx, holder or project_id, resource, amount, allowed):
                used = self.used(tx, holder or project_id).get(resource, 0)
                raise QuotaExceeded(resource, limit=allowed, used=used, requested=amount)
            if shared is not None and amount > 0:
                self._check_shared(tx, shared, resource, amount)

    def _count(self, tx: Tx, holder: str, resource: str, amount: int, allowed: int) -> bool:
        """Count what a holder has more, or less, of a resource; whether it may."""
        bounded = allowed != UNLIMITED and amount > 0
        row = {"holder": holder, "of_service": self.service, "of_resource": resource, "amount": amount}
        values = {**row, "allowed": allowed} if bounded else row
        update = _COUNT_UP_TO if bounded else _COUNT
        if tx.execute(update, values).rowcount == 1:
            return True
        # A holder is counted for the first time, or has too much.
        self._row(tx, holder, resource)
        return tx.execute(update, values).rowcount == 1

    def _row(self, tx: Tx, holder: str, resource: str) -> list[sa.ColumnElement[bool]]:
        """The conditions for the row of what a holder has of a resource; it is made where it is missing."""
        key = {"project_id": holder, "service": self.service, "resource": resource}
        tx.insert_missing(usage, {**key, "used": 0}, key=tuple(key))
        return [usage.c[name] == value for name, value in key.items()]

    def _check_shared(self, tx: Tx, shared: Shared, resource: str, amount: int) -> None:
        """Raise QuotaExceeded when projects have together, with what was just counted, more than they may."""
        allowed = self._known(shared.limits).get(resource, UNLIMITED)
        if allowed == UNLIMITED:
            return
        # Whoever counts for one of these projects waits here for the others, and then sees what they have counted.
        tx.execute(sa.update(usage).where(*self._row(tx, shared.root, resource)).values(used=usage.c.used))
        mine = (usage.c.service == self.service, usage.c.resource == resource, usage.c.project_id.in_(shared.members))
        total = tx.scalar(sa.select(sa.func.coalesce(sa.func.sum(usage.c.used), 0)).where(*mine))
        if total > allowed:
            raise QuotaExceeded(resource, limit=allowed, used=total - amount, requested=amount)

    def give_back(self, tx: Tx, project_id: str, amounts: Mapping[str, int], *, holder: str | None = None) -> None:
        """Count what a project, or a user of it, has no longer."""
        self.take(tx, project_id, {resource: -amount for resource, amount in amounts.items()}, holder=holder)

    def _set(self, tx: Tx, project_id: str) -> dict[str, int]:
        query = sa.select(limit.c.resource, limit.c.limit)
        rows = tx.all(query.where(limit.c.project_id == project_id, limit.c.service == self.service))
        return {row.resource: row.limit for row in rows}
