"""What belongs to a namespace, all of it at once."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec
import sqlalchemy as sa

from pileus.core.errors import Conflict
from pileus.core.store import Tx
from pileus.services.image.resources.metadef import fields
from pileus.services.image.resources.metadef.table import (
    association,
    loaded,
    namespace,
    prop,
    resource_type,
    tag,
    thing,
)

OFFERED = (
    "OS::Cinder::Volume",
    "OS::Glance::Image",
    "OS::Nova::Aggregate",
    "OS::Nova::Flavor",
    "OS::Nova::Server",
)
"""Resource types that are there from the beginning: what OpenStack's services know properties of."""

NOBODY = "admin"
"""Owner of namespaces that belong to no project, as upstream calls it."""

log = logging.getLogger(__name__)


def once(names: Iterable[str], what: str) -> None:
    """Raise Conflict when a name is there twice."""
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise Conflict(f"There is more than one {what} of the name {twice[0]}.")


def fill(tx: Tx, namespace_id: str, body: fields.NamespaceBody) -> None:
    """Give a new namespace all that a body says belongs to it. Raises Conflict."""
    once((one.name for one in body.objects), "object")
    once((one.name for one in body.tags), "tag")
    once((one.name for one in body.resource_type_associations), "resource type")
    base = {"namespace_id": namespace_id, "created_at": tx.now, "updated_at": tx.now}
    ensure(tx, [one.name for one in body.resource_type_associations])
    rows: dict[sa.Table, list[dict[str, Any]]] = {
        association: [{**base, **association_values(one)} for one in body.resource_type_associations],
        prop: [{**base, "name": name, "definition": fields.definition(one)} for name, one in body.properties.items()],
        thing: [{**base, **object_values(one)} for one in body.objects],
        tag: [{**base, "name": one.name} for one in body.tags],
    }
    for table, found in rows.items():
        tx.insert(table, found)
    tx.changed("image.metadef", namespace_id)


def ensure(tx: Tx, names: Iterable[str]) -> None:
    """Make the resource types that are not there yet."""
    for name in names:
        values = {"name": name, "created_at": tx.now, "updated_at": tx.now}
        tx.insert_missing(resource_type, values, key=("name",))


def object_values(body: fields.ObjectBody) -> dict[str, Any]:
    """The columns of an object."""
    properties = fields.column(body.properties)
    return {
        "name": body.name,
        "description": fields.column(body.description),
        "required": fields.column(body.required),
        "properties": None if properties is None else fields.stored(properties),
    }


def association_values(body: fields.AssociationBody) -> dict[str, Any]:
    """The columns of an association."""
    return {
        "name": body.name,
        "prefix": fields.column(body.prefix),
        "properties_target": fields.column(body.properties_target),
    }


def contents(tx: Tx, row: sa.Row[Any], wanted: str | None = None) -> fields.Namespace:
    """A namespace with all that belongs to it, by four queries; names of properties as the resource type has them."""
    found = fields.namespace_view(row)

    def mine(table: sa.Table) -> list[sa.Row[Any]]:
        return list(tx.all(sa.select(table).where(table.c.namespace_id == row.id).order_by(table.c.name)))

    associations, objects, properties, tags = (mine(table) for table in (association, thing, prop, tag))
    prefix = next((one.prefix for one in associations if one.name == wanted), None) or ""
    if associations:
        found.resource_type_associations = [fields.association_view(one) for one in associations]
    if properties:
        found.properties = {prefix + one.name: one.definition for one in properties}
    if objects:
        views = [fields.object_view(row.namespace, one) for one in objects]
        found.objects = [_prefixed(view, prefix) for view in views] if prefix else views
    if tags:
        found.tags = [fields.TagName(name=one.name) for one in tags]
    return found


def _prefixed(view: fields.Object, prefix: str) -> fields.Object:
    if view.properties:
        view.properties = {prefix + name: one for name, one in view.properties.items()}
    if view.required:
        view.required = [prefix + name for name in view.required]
    return view


def offer(tx: Tx, documents: Iterable[bytes]) -> list[str]:
    """Make namespaces of public definitions, each of a JSON document; the names of those that were made.

    One is made once: what was offered before, or has the name of one that is there, is passed over, so that what an
    operator changed, renamed or deleted stays so.  A document that is no namespace is logged and passed over.  Where no
    visibility is named, they are public.
    """
    ensure(tx, OFFERED)
    known = {row.namespace for row in tx.all(sa.select(loaded.c.namespace))}
    made = []
    for document in documents:
        try:
            raw = msgspec.json.decode(document)
            body = msgspec.convert({"visibility": "public", **raw}, fields.NamespaceBody)
        except (msgspec.MsgspecError, TypeError) as error:
            log.warning("a metadata definition cannot be read: %s", error)
            continue
        if body.namespace not in known and _offer_one(tx, body):
            made.append(body.namespace)
    return made


def _offer_one(tx: Tx, body: fields.NamespaceBody) -> bool:
    if not tx.insert_missing(loaded, {"namespace": body.namespace, "at": tx.now}, key=("namespace",)):
        return False
    values = {
        "id": tx.seams.uuid(),
        "namespace": body.namespace,
        "display_name": fields.column(body.display_name),
        "description": fields.column(body.description),
        "visibility": body.visibility,
        "protected": body.protected,
        "owner": fields.column(body.owner) or NOBODY,
        "created_at": tx.now,
        "updated_at": tx.now,
    }
    if not tx.insert_missing(namespace, values, key=("namespace",)):
        return False
    fill(tx, values["id"], body)
    return True
