"""Images by way of Compute, until microversion 2.35; their metadata until 2.38. They are Image's.

https://docs.openstack.org/api-ref/compute/#images-deprecated

Image's own rules decide who may do what; Compute has none for it.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import msgspec

from pileus.core.api import Page, Parameters, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Forbidden, NotFound
from pileus.core.fields import UNSET, UnsetType, View
from pileus.core.listing import boolean, integer
from pileus.services.compute.resources.quota import QUOTA
from pileus.services.compute.rules.shape import Link, Metadata, image_url, instant, links
from pileus.services.image import interface as image


class ImageName(View):
    """An image in brief."""

    id: str
    name: str | None
    links: list[Link]


class Image(ImageName):
    """An image in full."""

    status: str
    progress: int
    min_ram: int = msgspec.field(name="minRam")
    min_disk: int = msgspec.field(name="minDisk")
    created: str
    updated: str
    metadata: dict[str, str | None]
    size: int | None = msgspec.field(name="OS-EXT-IMG-SIZE:size")
    server: dict[str, Any] | UnsetType = UNSET
    disk_config: str | UnsetType = msgspec.field(name="OS-DCF:diskConfig", default=UNSET)


OneItem = Annotated[Metadata, msgspec.Meta(min_length=1, max_length=1)]

resource = Resource("image", "images")

_FILTERS = {
    "name": "name",
    "status": "status",
    "server": "instance_uuid",
    "type": "image_type",
    "minRam": "min_ram",
    "minDisk": "min_disk",
    "marker": "marker",
}
"""Query parameters by what Image calls them."""

_MANY = Parameters(*_FILTERS, "changes-since", "limit", "page_size", "offset")


class _State(NamedTuple):
    word: str
    progress: int


_STATES = {
    "active": _State("ACTIVE", 100),
    "queued": _State("SAVING", 25),
    "saving": _State("SAVING", 50),
    "deleted": _State("DELETED", 0),
    "pending_delete": _State("DELETED", 0),
    "killed": _State("ERROR", 0),
}


def _links(ctx: Context, image_id: str) -> list[Link]:
    other = {"rel": "alternate", "type": "application/vnd.openstack.image", "href": image_url(ctx.url, image_id)}
    return [*links(ctx.url, ctx.path, "images", image_id), other]


def _brief(ctx: Context, one: image.ShownImage) -> ImageName:
    return ImageName(id=one.id, name=one.name, links=_links(ctx, one.id))


def _full(ctx: Context, one: image.ShownImage) -> Image:
    state = _STATES.get(one.status, _State("UNKNOWN", 0))
    view = Image(
        id=one.id,
        name=one.name,
        links=_links(ctx, one.id),
        status=state.word,
        progress=state.progress,
        min_ram=one.min_ram,
        min_disk=one.min_disk,
        created=instant(one.created_at),
        updated=instant(one.updated_at),
        metadata=one.properties,
        size=one.size,
    )
    server_id = one.properties.get("instance_uuid")
    if server_id is not None:
        view.server = {"id": server_id, "links": links(ctx.url, ctx.path, "servers", server_id)}
    automatic = one.properties.get("auto_disk_config")
    if automatic is not None:
        view.disk_config = "AUTO" if _true(automatic) else "MANUAL"
    return view


def _true(text: str) -> bool:
    try:
        return boolean(text)
    except BadRequest:
        return False


def _page(ctx: Context) -> image.ImagePage:
    """Raises BadRequest."""
    wanted: dict[str, str] = {"limit": "1000"}
    for name, value in ctx.query.pairs():
        if name in _FILTERS:
            wanted[_FILTERS[name]] = value
        elif name.startswith("property-"):
            wanted[name.removeprefix("property-")] = value
        elif name == "changes-since":
            wanted["updated_at"] = f"gte:{value}"
        elif name == "limit":
            wanted["limit"] = str(integer(value) or 1000)
    if "status" in wanted:
        wanted["status"] = wanted["status"].lower()
    if "instance_uuid" in wanted:
        wanted["instance_uuid"] = wanted["instance_uuid"].rpartition("/")[2]
    return image.page_of(ctx, wanted)


def _marker(ctx: Context, found: image.ImagePage) -> str | None:
    return found.next_marker if ctx.query.get("limit") else None


@resource.get("/images", until="2.35", query=_MANY)
def list_names(ctx: Context) -> Page:
    """Images in brief."""
    found = _page(ctx)
    return Page([_brief(ctx, one) for one in found.images], _marker(ctx, found))


@resource.get("/images/detail", until="2.35", query=_MANY)
def list_details(ctx: Context) -> Page:
    """Images in full."""
    found = _page(ctx)
    return Page([_full(ctx, one) for one in found.images], _marker(ctx, found))


@resource.get("/images/{image_id}", until="2.35", wraps="image")
def show(ctx: Context, image_id: str) -> Image:
    """One image."""
    return _full(ctx, image.show(ctx, image_id))


@resource.delete("/images/{image_id}", until="2.35")
def delete(ctx: Context, image_id: str) -> None:
    """Delete an image."""
    try:
        image.remove(ctx, image_id)
    except NotFound:
        raise NotFound("Image not found.") from None
    except Forbidden:
        raise Forbidden("You are not allowed to delete the image.") from None


def _set(ctx: Context, image_id: str, properties: dict[str, str | None]) -> None:
    """Raises Forbidden over quota."""
    most = QUOTA.limits(ctx.tx, ctx.auth.project_id or "")["metadata_items"]
    if most != -1 and len(properties) > most:
        raise Forbidden("Image metadata limit exceeded")
    image.set_properties(ctx, image_id, properties)


@resource.get("/images/{image_id}/metadata", until="2.38", wraps="metadata")
def list_metadata(ctx: Context, image_id: str) -> dict[str, str | None]:
    """An image's properties."""
    return image.show(ctx, image_id).properties


@resource.post("/images/{image_id}/metadata", until="2.38", accepts="metadata", wraps="metadata")
def create_metadata(ctx: Context, image_id: str, body: Metadata) -> dict[str, str | None]:
    """Set properties; others stay."""
    wanted = {**image.show(ctx, image_id).properties, **body}
    _set(ctx, image_id, wanted)
    return wanted


@resource.put("/images/{image_id}/metadata", until="2.38", accepts="metadata", wraps="metadata")
def replace_metadata(ctx: Context, image_id: str, body: Metadata) -> dict[str, str]:
    """Set properties; others go."""
    image.show(ctx, image_id)
    _set(ctx, image_id, {**body})
    return body


@resource.get("/images/{image_id}/metadata/{key}", until="2.38", wraps="meta")
def show_metadata(ctx: Context, image_id: str, key: str) -> dict[str, str | None]:
    """One property."""
    found = image.show(ctx, image_id).properties
    if key not in found:
        raise NotFound(f"Image {image_id} has no metadata with key {key}.")
    return {key: found[key]}


@resource.put("/images/{image_id}/metadata/{key}", until="2.38", accepts="meta", wraps="meta")
def update_metadata(ctx: Context, image_id: str, key: str, body: OneItem) -> dict[str, str]:
    """Set one property. Raises BadRequest when body and path name different ones."""
    if key not in body:
        raise BadRequest("Request body and URI mismatch")
    _set(ctx, image_id, {**image.show(ctx, image_id).properties, **body})
    return body


@resource.delete("/images/{image_id}/metadata/{key}", until="2.38")
def delete_metadata(ctx: Context, image_id: str, key: str) -> None:
    """Delete one property."""
    found = image.show(ctx, image_id).properties
    if key not in found:
        raise NotFound("Invalid metadata key")
    _set(ctx, image_id, {name: value for name, value in found.items() if name != key})
