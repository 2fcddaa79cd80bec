"""Nouns that a project owns and may share: finding one for its caller, and the ones that a caller sees.

https://docs.openstack.org/api-ref/network/v2/#general-api-overview
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from pileus.core.context import Context
from pileus.core.errors import NotFound
from pileus.core.statement import at
from pileus.services.network.resources.standard_attribute import Row, enforce, first_row, sees_all


class Kind(NamedTuple):
    """A noun: its word in the names of rules, its table, and the fault for one that is not there.

    A table with a column `shared` has rows that everybody sees.
    """

    noun: str
    table: sa.Table
    missing: Callable[[str], NotFound]

    def target(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A thing as a target of rules."""
        shared = {"shared": row["shared"]} if "shared" in row else {}
        return {"id": row["id"], "project_id": row["project_id"], "tenant_id": row["project_id"], **shared}

    def visible(self, ctx: Context) -> sa.ColumnElement[bool]:
        """The condition for those that the caller sees."""
        if sees_all(ctx, f"get_{self.noun}"):
            return sa.true()
        c = self.table.c
        own = c.project_id == (ctx.auth.project_id or "")
        return sa.or_(own, c.shared.is_(True)) if "shared" in c else own

    def find(self, ctx: Context, key: str, verb: str = "get") -> Row:
        """One that the caller may `get`, `update` or `delete`. Raises `missing`, and PolicyNotAuthorized."""
        row = first_row(ctx.tx, at(self.table, "id"), {"value": key})
        if row is None or not ctx.allows(f"get_{self.noun}", self.target(row)):
            raise self.missing(key)
        if verb != "get":
            enforce(ctx, f"{verb}_{self.noun}", self.target(row))
        return row

    def may_create(self, ctx: Context, project_id: str) -> None:
        """Raise PolicyNotAuthorized unless the caller may make one for a project."""
        enforce(ctx, f"create_{self.noun}", {"project_id": project_id, "tenant_id": project_id})
