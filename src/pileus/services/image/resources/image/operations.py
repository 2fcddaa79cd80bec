"""What can be done with images."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import sqlalchemy as sa

from pileus.core.api import Page, Reply, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Conflict, Forbidden, NotFound, Raced, TooLarge
from pileus.core.statement import at
from pileus.core.store import Tx
from pileus.services.image.resources import location, place
from pileus.services.image.resources.image import fields, policy
from pileus.services.image.resources.image.table import Record, gone, image, prop, records, tag
from pileus.services.image.resources.store import ImageStores
from pileus.services.image.resources.usage import give_back, held, take
from pileus.services.image.rules import patch, schema

MOST_PROPERTIES = 128
MOST_TAGS = 128

resource = Resource("image", "images", rules=policy.RULES)


def check_counts(properties: Mapping[str, Any], tags: list[str]) -> None:
    """Raise TooLarge for an image with too many properties or tags."""
    if len(properties) > MOST_PROPERTIES:
        raise TooLarge(f"The limit of {MOST_PROPERTIES} properties of an image is exceeded: {len(properties)}.")
    if len(tags) > MOST_TAGS:
        raise TooLarge(f"The limit of {MOST_TAGS} tags of an image is exceeded: {len(tags)}.")


@resource.post("/images", policy="add_image", guarded=True, status=201)
def create(ctx: Context, body: dict[str, Any]) -> Reply:
    """Register an image; its data comes later.

    Raises BadRequest, Forbidden (attributes that are not the client's, an owner or a visibility that the caller may
    not give, a token without a project), Conflict (the id is or was in use) and TooLarge (quota).
    """
    if body.get("owner", ctx.auth.project_id) is None:
        # An image without an owner would be everybody's.
        raise Forbidden("An image needs an owner: use a token that is scoped to a project.")
    for name in body:
        if name in patch.LINKS:
            raise Forbidden(f"Attribute '{name}' is read-only.")
    schema.check(body)
    for name in body:
        if name != "id" and (name in patch.READ_ONLY or patch.reserved(name) or name == "locations"):
            raise Forbidden(f"Attribute '{name}' is read-only or reserved.")
        if len(name) > 255:
            raise BadRequest("Custom property should not be greater than 255 characters.")
    values = _values(ctx, body)
    tags = list(dict.fromkeys(body.get("tags", [])))
    properties = {name: value for name, value in body.items() if name not in schema.BASE}
    check_counts(properties, tags)
    insert(ctx.tx, values, properties, tags)
    headers = {
        "Location": f"{ctx.url}/v2/images/{values['id']}",
        "OpenStack-image-store-ids": ",".join(ctx.of(ImageStores).by_name),
    }
    if ctx.of(ImageStores).methods:
        headers["OpenStack-image-import-methods"] = ",".join(ctx.of(ImageStores).methods)
    return Reply(fields.view(ctx, _load(ctx, values["id"])), headers)


def _values(ctx: Context, body: Mapping[str, Any]) -> dict[str, Any]:
    owner = body.get("owner", ctx.auth.project_id)
    visibility = body.get("visibility", "shared")
    owned = {"project_id": owner, "owner": owner, "visibility": visibility}
    if not ctx.allows("add_image", owned):
        if owner != ctx.auth.project_id:
            raise Forbidden(f"You are not permitted to create images owned by '{owner}'.")
        raise Forbidden("You are not authorized to complete add_image action.")
    policy.check_visibility(ctx, visibility, owned)
    return {
        "id": body.get("id") or ctx.seams.uuid(),
        "name": body.get("name"),
        "owner": owner,
        "status": "queued",
        "visibility": visibility,
        "protected": body.get("protected", False),
        "os_hidden": body.get("os_hidden", False),
        "container_format": body.get("container_format"),
        "disk_format": body.get("disk_format"),
        "min_ram": body.get("min_ram", 0),
        "min_disk": body.get("min_disk", 0),
        "created_at": ctx.now,
        "updated_at": ctx.now,
    }


def insert(tx: Tx, values: dict[str, Any], properties: Mapping[str, Any], tags: list[str]) -> None:
    """Add an image. Raises Conflict (the id is or was in use) and TooLarge (quota)."""
    image_id = values["id"]
    used = tx.first(sa.select(gone.c.id).where(gone.c.id == image_id))
    if used is not None or not tx.insert_missing(image, values, key=("id",)):
        raise Conflict(f"Image ID {image_id} already exists!")
    take(tx, values["owner"], {"image_count_total": 1})
    if properties:
        rows = [{"image_id": image_id, "name": name, "value": value} for name, value in properties.items()]
        tx.insert(prop, rows)
    if tags:
        tx.insert(tag, [{"image_id": image_id, "tag": word} for word in tags])
    tx.changed("image.image", image_id)


def _load(ctx: Context, image_id: str) -> Record:
    row = ctx.tx.first(at(image, "id"), {"value": image_id})
    if row is None:
        raise NotFound(f"No image found with ID {image_id}")
    return records(ctx.tx, [row])[0]


@resource.get("/images", policy="get_images", query=fields.PARAMETERS)
def index(ctx: Context) -> Page:
    """The images that the caller sees, newest first unless the request says otherwise. Raises BadRequest."""
    visibility = fields.choice(ctx, "visibility", fields.VISIBILITIES, "") if ctx.query.get("visibility") else None
    status = fields.choice(ctx, "member_status", fields.MEMBER_STATUSES, "accepted")
    page = fields.page(ctx, policy.Sight(policy.is_admin(ctx), visibility, status))
    found = records(ctx.tx, policy.seen(ctx, page.rows))
    return Page([fields.view(ctx, record) for record in found], page.next_marker)


@resource.get("/images/{image_id}", policy="get_image", guarded=True)
def show(ctx: Context, image_id: str) -> dict[str, Any]:
    """One image. Raises NotFound."""
    return fields.view(ctx, policy.get(ctx, image_id))


@resource.patch("/images/{image_id}", policy="modify_image", guarded=True, media=patch.MEDIA)
def update(ctx: Context, image_id: str, body: Any) -> dict[str, Any]:
    """Change attributes, properties and tags by JSON patch, all of it or nothing.

    Raises BadRequest, Forbidden, NotFound, Conflict (a property that is there, or is not) and TooLarge.
    """
    media = ctx.headers.get(b"content-type", b"").split(b";")[0].strip().lower().decode("latin-1")
    changes = patch.parse(body, media)
    record = policy.get(ctx, image_id, "modify_image")
    if not changes:
        return fields.view(ctx, record)
    changes, record = _locations(ctx, record, changes)
    row = record.row
    draft = patch.Draft(
        status=row.status,
        attributes={name: row._mapping[name] for name in patch.ATTRIBUTES},
        properties=dict(record.properties),
        tags=list(record.tags),
    )
    patch.apply(draft, changes, partial(_permit, ctx, policy.target(ctx, row)))
    check_counts(draft.properties, draft.tags)
    _save(ctx, record, draft)
    return fields.view(ctx, _load(ctx, image_id))


def _permit(ctx: Context, owned: dict[str, Any], change: patch.Change) -> None:
    """Raise Forbidden for a change that needs more than the right to change the image."""
    if change.operation == "remove":
        return
    if change.name == "visibility":
        policy.check_visibility(ctx, change.value, owned)
    if change.name == "owner" and not policy.is_admin(ctx):
        raise Forbidden("Owner can't be updated by non admin.")
    if change.name == "owner" and change.value is None:
        raise Forbidden("An image needs an owner.")  # without one it would be everybody's


def _locations(ctx: Context, record: Record, changes: list[patch.Change]) -> tuple[list[patch.Change], Record]:
    """Make the changes of locations, one after the other; the others, and the image as it is by then."""
    others = [change for change in changes if change.name != "locations"]
    for change in changes:
        if change.name == "locations":
            location.patch(ctx, record, change.operation, change.position, change.value)
            record = _load(ctx, record.row.id)
    return others, record


def _save(ctx: Context, record: Record, draft: patch.Draft) -> None:
    tx, row = ctx.tx, record.row
    if draft.attributes["owner"] != row.owner:
        take(tx, draft.attributes["owner"], held(row))
        give_back(tx, row.owner, held(row))
    tx.compare_and_set(
        image,
        {"id": row.id, "status": row.status, "owner": row.owner, "updated_at": row.updated_at},
        {**draft.attributes, "updated_at": ctx.now},
    )
    before, after = record.properties.items(), draft.properties.items()
    if before - after:
        lost = [name for name, _ in before - after]
        tx.execute(sa.delete(prop).where(prop.c.image_id == row.id, prop.c.name.in_(lost)))
    if after - before:
        tx.insert(prop, [{"image_id": row.id, "name": name, "value": one} for name, one in after - before])
    if set(draft.tags) != set(record.tags):
        tx.execute(sa.delete(tag).where(tag.c.image_id == row.id))
        if draft.tags:
            tx.insert(tag, [{"image_id": row.id, "tag": word} for word in draft.tags])
    tx.changed("image.image", row.id)


@resource.delete("/images/{image_id}", policy="delete_image", guarded=True)
def delete(ctx: Context, image_id: str) -> None:
    """Forget an image and have its data removed. Raises NotFound and Forbidden (not the caller's, or protected)."""
    row = policy.get(ctx, image_id, "delete_image").row
    if row.protected:
        raise Forbidden(f"Image {image_id} is protected and cannot be deleted.")
    remove(ctx.tx, row)


def remove(tx: Tx, row: sa.Row[Any]) -> None:
    """Delete an image, with what it counts for and what is kept of it. Raises Raced when it was changed meanwhile."""
    place.release(tx, row)
    found = tx.execute(
        sa.delete(image).where(
            image.c.id == row.id,
            image.c.status == row.status,
            image.c.protected == sa.false(),
            image.c.owner == row.owner,
            image.c.updated_at == row.updated_at,
        )
    )
    if found.rowcount != 1:
        raise Raced(f"The image {row.id} was changed by another request at the same time.")
    tx.insert_missing(gone, {"id": row.id, "at": tx.now}, key=("id",))
    give_back(tx, row.owner, held(row))
    tx.changed("image.image", row.id)


def _act(ctx: Context, image_id: str, rule: str, before: str, after: str) -> None:
    row = policy.get(ctx, image_id, rule).row
    if row.status == after:
        return
    if row.status != before:
        raise Forbidden(f"Not allowed to {rule} image in status '{row.status}'")
    ctx.tx.compare_and_set(image, {"id": image_id, "status": before}, {"status": after, "updated_at": ctx.now})
    ctx.tx.changed("image.image", image_id)


@resource.post("/images/{image_id}/actions/deactivate", policy="deactivate", guarded=True, status=204)
def deactivate(ctx: Context, image_id: str) -> None:
    """Keep an image's data from being read by anyone but admins. Raises NotFound and Forbidden."""
    _act(ctx, image_id, "deactivate", "active", "deactivated")


@resource.post("/images/{image_id}/actions/reactivate", policy="reactivate", guarded=True, status=204)
def reactivate(ctx: Context, image_id: str) -> None:
    """Let an image's data be read again. Raises NotFound and Forbidden."""
    _act(ctx, image_id, "reactivate", "deactivated", "active")
