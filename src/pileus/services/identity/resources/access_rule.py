"""Access rules: the requests that application credentials are good for.

(https://docs.openstack.org/api-ref/identity/v3/#list-access-rules)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from pileus.core.api import Page, Parameters, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Forbidden
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
    sa.Column("access_rule_id", sa.String(64), sa.ForeignKey(table.c.id), primary_key=True, index=True),
)
"""Which application credentials are limited to which rules."""


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
    """A rule as it is shown within what uses it."""
    return {"id": row.id, "service": row.service, "method": row.method, "path": row.path}


def pure(row: sa.Row[Any]) -> AccessRule:
    """A rule as it is asked about requests."""
    return AccessRule(row.id, row.service, row.method, row.path)


def ensure(tx: Tx, user_id: str, wanted: Iterable[Mapping[str, str]]) -> list[str]:
    """The ids of a user's rules, each once: rules of these ids, or those that say the same, or new ones.

    Raises NotFound for an id of no rule of the user, BadRequest for a rule that has neither an id nor all of service,
    method and path.
    """
    found: dict[str, None] = {}
    for one in wanted:
        given = one.get("id")
        if given is not None:
            found[_get(tx, user_id, given).id] = None
            continue
        says = {name: one.get(name) for name in ("service", "method", "path")}
        if None in says.values():
            raise BadRequest("An access rule needs an id, or a service, a method and a path.")
        row = {"id": tx.seams.hex(), "user_id": user_id, **says}
        tx.insert_missing(table, row, key=("user_id", "service", "method", "path"))
        same = [table.c[name] == value for name, value in says.items()]
        found[str(tx.scalar(sa.select(table.c.id).where(table.c.user_id == user_id, *same)))] = None
    return list(found)


def used_by(tx: Tx, keys: Sequence[str]) -> dict[str, list[sa.Row[Any]]]:
    """The access rules of some application credentials, by the id of the credential; those without are left out."""
    query = (
        sa.select(use.c.credential_id, table)
        .join(table, table.c.id == use.c.access_rule_id)
        .where(use.c.credential_id.in_(keys))
        .order_by(table.c.id)
    )
    found: dict[str, list[sa.Row[Any]]] = {}
    for row in tx.all(query) if keys else ():
        found.setdefault(row.credential_id, []).append(row)
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
