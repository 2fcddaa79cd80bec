"""Access rules: the requests that application credentials are good for.

(https://docs.openstack.org/api-ref/identity/v3/#list-access-rules)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from pileus.core.api import Page, Parameters, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Forbidden, Raced
from pileus.core.fields import View
from pileus.core.listing import Filter, Listing
from pileus.core.policy import Rule
from pileus.core.store import Tx, metadata
from pileus.services.identity.resources import user as users
from pileus.services.identity.resources.attribute import Links, link, missing, page, permit
from pileus.services.identity.resources.delegation import NOT_DOMAIN, no_further
from pileus.services.identity.rules.access_rule import AccessRule

table = sa.Table(
    "identity_access_rule",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("user_id", sa.String(64), sa.ForeignKey(users.table.c.id, ondelete="CASCADE"), nullable=False),
    sa.Column("service", sa.String(64), nullable=False),
    sa.Column("method", sa.String(16), nullable=False),
    sa.Column("path", sa.String(255), nullable=False),
    sa.UniqueConstraint("user_id", "service", "method", "path"),
)

use = sa.Table(
    "identity_access_rule_use",
    metadata,
    sa.Column(
        "credential_id",
        sa.String(64),
        sa.ForeignKey("identity_application_credential.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column(
        "access_rule_id", sa.String(64), sa.ForeignKey(table.c.id, ondelete="CASCADE"), primary_key=True, index=True
    ),
)
"""Which application credentials use which rules.

A credential also holds what its rules say, so that whatever happens here never makes it good for more.
"""


class Permission(View):
    """An access rule: requests of a method, on paths that look like this, to services of a type."""

    id: str
    service: str
    method: str
    path: str
    links: Links


_OWNS = "user_id:%(target.user.id)s"

resource = Resource(
    "access_rule",
    "access_rules",
    rules=[
        Rule(
            "identity:get_access_rule",
            f"{NOT_DOMAIN} and ((role:reader and system_scope:all) or {_OWNS})",
            "Show an access rule",
        ),
        Rule(
            "identity:list_access_rules",
            f"{NOT_DOMAIN} and ((role:reader and system_scope:all) or {_OWNS})",
            "List the access rules of a user",
        ),
        Rule(
            "identity:delete_access_rule",
            f"{NOT_DOMAIN} and ((role:admin and system_scope:all) or {_OWNS})",
            "Delete an access rule",
        ),
    ],
)

_listing = Listing(
    table,
    filters={"service": Filter(table.c.service), "path": Filter(table.c.path), "method": Filter(table.c.method)},
    sort={"id": table.c.id},
    maximum=None,
)


def plain(row: sa.Row[Any]) -> dict[str, str]:
    """A rule as what uses it holds and shows it."""
    return {"id": row.id, "service": row.service, "method": row.method, "path": row.path}


def pure(held: Mapping[str, str]) -> AccessRule:
    """A rule, as `plain` gave it, as it is asked about requests."""
    return AccessRule(held["id"], held["service"], held["method"], held["path"])


def ensure(tx: Tx, user_id: str, wanted: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """A user's rules, each once: those of these ids, or those that say the same, or new ones.

    Raises NotFound for an id of no rule of the user, BadRequest for a rule that has neither an id nor all of service,
    method and path.
    """
    found: dict[str, dict[str, str]] = {}
    for one in wanted:
        given = one.get("id")
        row = _same(tx, user_id, one) if given is None else _get(tx, user_id, given)
        found[row.id] = plain(row)
    return list(found.values())


def _same(tx: Tx, user_id: str, one: Mapping[str, str]) -> sa.Row[Any]:
    """The rule of a user that says the same, made where there is none."""
    says = {name: one.get(name) for name in ("service", "method", "path")}
    if None in says.values():
        raise BadRequest("An access rule needs an id, or a service, a method and a path.")
    row = {"id": tx.seams.hex(), "user_id": user_id, **says}
    tx.insert_missing(table, row, key=("user_id", "service", "method", "path"))
    same = [table.c[name] == value for name, value in says.items()]
    found = tx.first(sa.select(table).where(table.c.user_id == user_id, *same))
    if found is None:
        raise Raced("The access rule was deleted at the same time.")
    return found


def _get(tx: Tx, user_id: str, key: str) -> sa.Row[Any]:
    row = tx.first(sa.select(table).where(table.c.id == key, table.c.user_id == user_id))
    if row is None:
        raise missing("access rule", key)
    return row


def _permit(ctx: Context, user_id: str) -> None:
    row = users.find(ctx.tx, user_id)
    permit(ctx, ctx.operation, user=None if row is None else {"id": row.id})
    no_further(ctx)


def _view(ctx: Context, row: sa.Row[Any]) -> Permission:
    return Permission(**plain(row), links=link(ctx, f"users/{row.user_id}/access_rules", row.id))


@resource.get(
    "/users/{user_id}/access_rules",
    policy="identity:list_access_rules",
    guarded=True,
    query=Parameters("service", "path", "method"),
)
def list_all(ctx: Context, user_id: str) -> Page:
    """List the access rules of a user."""
    _permit(ctx, user_id)
    return page(ctx, _listing, sa.select(table).where(table.c.user_id == user_id), _view)


@resource.get(
    "/users/{user_id}/access_rules/{access_rule_id}",
    policy="identity:get_access_rule",
    guarded=True,
    wraps="access_rule",
)
def show(ctx: Context, user_id: str, access_rule_id: str) -> Permission:
    """Show an access rule of a user."""
    _permit(ctx, user_id)
    return _view(ctx, _get(ctx.tx, user_id, access_rule_id))


@resource.delete("/users/{user_id}/access_rules/{access_rule_id}", policy="identity:delete_access_rule", guarded=True)
def delete(ctx: Context, user_id: str, access_rule_id: str) -> None:
    """Delete an access rule. Raises Forbidden while an application credential uses it."""
    _permit(ctx, user_id)
    _get(ctx.tx, user_id, access_rule_id)
    if ctx.tx.first(sa.select(use).where(use.c.access_rule_id == access_rule_id).limit(1)) is not None:
        raise Forbidden("May not delete access rule in use")
    ctx.tx.execute(sa.delete(table).where(table.c.id == access_rule_id))
    ctx.tx.changed("identity.access_rule", access_rule_id)
