"""Who may see and change definitions.

Source: Image administrator guide, "Policies"; the names and defaults are upstream's.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from pileus.core.context import Context
from pileus.core.errors import Forbidden, NotFound
from pileus.core.policy import Rule
from pileus.services.image.resources.image.policy import ADMIN, OWN_READER, PROJECT, is_admin
from pileus.services.image.resources.metadef.table import namespace

_READER = f"{ADMIN} or ({OWN_READER})"
_SEEN = f"{ADMIN} or (role:reader and {PROJECT} and (project_id:%(project_id)s or 'public':%(visibility)s))"
_WRITER = f"rule:metadef_admin and {PROJECT}"

RULES = [
    Rule("metadef_default", "", "What anybody may"),
    Rule("metadef_admin", "rule:context_is_admin", "What changes definitions"),
    Rule("get_metadef_namespace", _SEEN, "Show a namespace"),
    Rule("get_metadef_namespaces", _READER, "List namespaces"),
    Rule("add_metadef_namespace", _WRITER, "Create a namespace"),
    Rule("modify_metadef_namespace", _WRITER, "Change a namespace"),
    Rule("delete_metadef_namespace", _WRITER, "Delete a namespace, or all objects or properties of it"),
    Rule("get_metadef_object", _SEEN, "Show an object"),
    Rule("get_metadef_objects", _SEEN, "List objects"),
    Rule("add_metadef_object", _WRITER, "Create an object"),
    Rule("modify_metadef_object", _WRITER, "Change an object"),
    Rule("delete_metadef_object", _WRITER, "Delete an object"),
    Rule("list_metadef_resource_types", _SEEN, "List resource types"),
    Rule("get_metadef_resource_type", _SEEN, "List the resource types of a namespace"),
    Rule("add_metadef_resource_type_association", _WRITER, "Name a resource type for which a namespace is"),
    Rule("remove_metadef_resource_type_association", _WRITER, "Take a resource type from a namespace"),
    Rule("get_metadef_property", _SEEN, "Show a property"),
    Rule("get_metadef_properties", _SEEN, "List properties"),
    Rule("add_metadef_property", _WRITER, "Create a property"),
    Rule("modify_metadef_property", _WRITER, "Change a property"),
    Rule("remove_metadef_property", _WRITER, "Delete a property"),
    Rule("get_metadef_tag", _SEEN, "Show a tag"),
    Rule("get_metadef_tags", _SEEN, "List tags"),
    Rule("add_metadef_tag", _WRITER, "Create a tag"),
    Rule("add_metadef_tags", _WRITER, "Create tags"),
    Rule("modify_metadef_tag", _WRITER, "Change a tag"),
    Rule("delete_metadef_tag", _WRITER, "Delete a tag"),
    Rule("delete_metadef_tags", _WRITER, "Delete all tags of a namespace"),
]


def visible(ctx: Context) -> sa.ColumnElement[bool]:
    """Which namespaces a caller sees: public ones and those of its project; all, as an administrator."""
    if is_admin(ctx):
        return sa.true()
    return sa.or_(namespace.c.owner == (ctx.auth.project_id or ""), namespace.c.visibility == "public")


def target(row: sa.Row[Any]) -> dict[str, Any]:
    """What policy rules see of a namespace."""
    return {"project_id": row.owner, "visibility": row.visibility}


def find(ctx: Context, name: str, *more: str) -> sa.Row[Any]:
    """A namespace about which the caller may do the operation, and whatever the rules `more` guard.

    Raises NotFound for one that the caller does not see, and Forbidden.
    """
    missing = NotFound(f"Namespace {name} not found")
    row = ctx.tx.first(sa.select(namespace).where(namespace.c.namespace == name, visible(ctx)))
    if row is None:
        raise missing
    for rule in (ctx.operation, *more):
        if not ctx.allows(rule, target(row)):
            if not ctx.allows("get_metadef_namespace", target(row)):
                raise missing
            raise Forbidden(f"You are not authorized to complete {rule} action.")
    return row


def deletable(row: sa.Row[Any], what: str) -> None:
    """Raise Forbidden when a namespace is protected: neither it nor what belongs to it may be deleted."""
    if row.protected:
        raise Forbidden(f"Namespace {row.namespace} is protected: {what} cannot be deleted.")
