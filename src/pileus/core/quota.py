"""Quotas: how much of each resource a project may have, and how much it has.

`take` is one conditional UPDATE, so that two requests for the last unit cannot both have it, on any engine.  Services
name their resources and defaults; usage is counted in the same transaction as what it counts.
"""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from pileus.core.errors import QuotaExceeded
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

DEFAULT = "default"
"""The pseudo project whose limits, where set, replace a service's built-in defaults."""


class Quota:
    """The quotas of one service: resource names and their built-in default limits."""

    def __init__(self, service: str, defaults: Mapping[str, int]) -> None:
        self.service = service
        self.builtin = dict(defaults)

    def defaults(self, tx: Tx) -> dict[str, int]:
        """The limits of a project for which nothing was set."""
        return self.builtin | self._set(tx, DEFAULT)

    def limits(self, tx: Tx, project_id: str) -> dict[str, int]:
        """The limit of each resource for a project."""
        rows = tx.all(
            sa.select(limit.c.project_id, limit.c.resource, limit.c.limit).where(
                limit.c.project_id.in_([DEFAULT, project_id]), limit.c.service == self.service
            )
        )
        found = dict(self.builtin)
        for row in sorted(rows, key=lambda row: row.project_id != DEFAULT):
            found[row.resource] = row.limit
        return found

    def used(self, tx: Tx, project_id: str) -> dict[str, int]:
        """What a project has of each resource."""
        rows = tx.all(
            sa.select(usage.c.resource, usage.c.used).where(
                usage.c.project_id == project_id, usage.c.service == self.service
            )
        )
        return dict.fromkeys(self.builtin, 0) | {row.resource: row.used for row in rows}

    def set(self, tx: Tx, project_id: str, limits: Mapping[str, int]) -> None:
        """Give a project limits of its own; UNLIMITED is -1."""
        for resource, value in limits.items():
            tx.upsert(
                limit,
                {"project_id": project_id, "service": self.service, "resource": resource, "limit": value},
                key=("project_id", "service", "resource"),
            )

    def reset(self, tx: Tx, project_id: str) -> None:
        """Let a project have the defaults again."""
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
        for resource, amount in sorted(amounts.items()):
            if amount == 0:
                continue
            key = {"project_id": holder or project_id, "service": self.service, "resource": resource}
            tx.insert_missing(usage, {**key, "used": 0}, key=tuple(key))
            allowed = limits.get(resource, UNLIMITED)
            update = sa.update(usage).where(*(usage.c[name] == value for name, value in key.items()))
            if allowed != UNLIMITED and amount > 0:
                update = update.where(usage.c.used + amount <= allowed)
            if tx.execute(update.values(used=usage.c.used + amount)).rowcount != 1:
                used = self.used(tx, holder or project_id).get(resource, 0)
                raise QuotaExceeded(resource, limit=allowed, used=used, requested=amount)

    def give_back(self, tx: Tx, project_id: str, amounts: Mapping[str, int], *, holder: str | None = None) -> None:
        """Count what a project, or a user of it, has no longer."""
        self.take(tx, project_id, {resource: -amount for resource, amount in amounts.items()}, holder=holder)

    def _set(self, tx: Tx, project_id: str) -> dict[str, int]:
        query = sa.select(limit.c.resource, limit.c.limit)
        rows = tx.all(query.where(limit.c.project_id == project_id, limit.c.service == self.service))
        return {row.resource: row.limit for row in rows}
