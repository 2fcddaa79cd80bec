"""What a token by delegation may not do, whatever roles it carries.

Who acts by a trust, an application credential or an access token of OAuth has been given a part of somebody's rights,
for some time.  It must not make of them what is wider or lasts longer, nor see secrets from which that could be made.

Source: "Trusts", "Application Credentials" and "OAuth 1.0a" of https://docs.openstack.org/api-ref/identity/v3/.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from pileus.core.context import Request
from pileus.core.errors import BadRequest, Forbidden
from pileus.core.fields import Body
from pileus.core.store import Tx
from pileus.services.identity.resources import role as roles
from pileus.services.identity.resources.attribute import Id, Name, missing
from pileus.services.identity.rules import name as names

NOT_DOMAIN = "domain_id:None"
"""The part of a rule that lets no domain's token pass."""

PROJECT = "domain_id:None and system_scope:None"
"""The part of a rule that lets neither a domain's token nor one for the system pass."""


class RoleReference(Body):
    """A role that is to be delegated: by its id or by its name."""

    id: Id | None = None
    name: Name | None = None


def own_only(ctx: Request, what: str) -> None:
    """Raise Forbidden for a token by delegation of any kind."""
    if ctx.auth.delegated:
        raise Forbidden(f"A token that was given by delegation cannot be used to {what}.")


def no_further(ctx: Request) -> None:
    """Raise Forbidden for a token by a trust or by OAuth, of which nothing may be made that would outlast them.

    Application credentials are another matter: those that are not restricted are meant to manage others.
    """
    if ctx.auth.delegated and ctx.auth.application_credential_id is None:
        raise Forbidden("A token that was given by delegation cannot be used for application credentials.")


def role_ids(tx: Tx, wanted: list[RoleReference]) -> list[str]:
    """The ids of roles that are named, each once. Raises NotFound, and BadRequest for a name that is not unique."""
    for one in wanted:
        if (one.id is None) == (one.name is None):
            raise BadRequest("Invalid input for field 'roles': each role is named by its id or by its name.")
    table = roles.table
    by_id = {one.id for one in wanted if one.id is not None}
    by_name = {names.key(one.name): one.name for one in wanted if one.name is not None}
    query = sa.select(table.c.id, table.c.name_key).where(table.c.id.in_(by_id) | table.c.name_key.in_(by_name))
    rows = tx.all(query) if wanted else ()
    found: dict[str, None] = {}
    for one in wanted:
        if one.id is not None:
            matching = [row.id for row in rows if row.id == one.id]
        else:
            matching = [row.id for row in rows if row.name_key == names.key(one.name or "")]
        if not matching:
            raise missing("role", one.id or one.name or "")
        if len(matching) > 1:
            raise BadRequest(f"There are several roles of the name {one.name}: name it by its id.")
        found[matching[0]] = None
    return list(found)


def role_rows(tx: Tx, keys: list[str]) -> dict[str, sa.Row[Any]]:
    """Roles by id; those that are gone are left out."""
    query = sa.select(roles.table).where(roles.table.c.id.in_(keys))
    return {row.id: row for row in tx.all(query)} if keys else {}
