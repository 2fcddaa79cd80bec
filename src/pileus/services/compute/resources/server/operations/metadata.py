"""A server's metadata: text by key, as its user likes, which the guest can read."""

from __future__ import annotations

from typing import Annotated

import msgspec

from pileus.core.context import Context
from pileus.core.errors import BadRequest, Forbidden, NotFound
from pileus.core.fields import Body
from pileus.core.quota import UNLIMITED
from pileus.core.store import Tx
from pileus.services.compute.resources.quota import QUOTA
from pileus.services.compute.resources.server.operations.row import allow, find, resource
from pileus.services.compute.resources.server.table import want
from pileus.services.compute.rules.shape import Metadata

_ALL = "/servers/{server_id}/metadata"
_ONE = "/servers/{server_id}/metadata/{key}"


class MetadataBody(Body):
    """Several items."""

    metadata: Metadata


class ItemBody(Body):
    """One item."""

    meta: Annotated[Metadata, msgspec.Meta(min_length=1, max_length=1)]


def check_count(tx: Tx, project_id: str, found: Metadata) -> None:
    """Raise Forbidden for more items than the project's servers may have each."""
    limit = QUOTA.limits(tx, project_id)["metadata_items"]
    if limit != UNLIMITED and len(found) > limit:
        raise Forbidden(f"Maximum number of metadata items exceeds {limit}")


def _set(ctx: Context, server_id: str, items: Metadata, *, replace: bool) -> Metadata:
    row = find(ctx, server_id)
    allow(ctx, row, "update metadata")
    found = items if replace else {**row.metadata, **items}
    check_count(ctx.tx, row.project_id, found)
    want(ctx.tx, row, metadata=found)
    return found


@resource.get(_ALL, policy="os_compute_api:server-metadata:index", wraps="metadata")
def list_metadata(ctx: Context, server_id: str) -> Metadata:
    """All items."""
    found: Metadata = find(ctx, server_id).metadata
    return found


@resource.post(_ALL, policy="os_compute_api:server-metadata:create", wraps="metadata")
def set_metadata(ctx: Context, server_id: str, body: MetadataBody) -> Metadata:
    """Set items; others stay."""
    return _set(ctx, server_id, body.metadata, replace=False)


@resource.put(_ALL, policy="os_compute_api:server-metadata:update_all", wraps="metadata")
def replace_metadata(ctx: Context, server_id: str, body: MetadataBody) -> Metadata:
    """Set items; others go."""
    return _set(ctx, server_id, body.metadata, replace=True)


@resource.get(_ONE, policy="os_compute_api:server-metadata:show", wraps="meta")
def show_item(ctx: Context, server_id: str, key: str) -> Metadata:
    """One item."""
    found: Metadata = find(ctx, server_id).metadata
    if key not in found:
        raise NotFound("Metadata item was not found")
    return {key: found[key]}


@resource.put(_ONE, policy="os_compute_api:server-metadata:update", wraps="meta")
def set_item(ctx: Context, server_id: str, key: str, body: ItemBody) -> Metadata:
    """Set one item. Raises BadRequest when body and path name different ones."""
    if key not in body.meta:
        raise BadRequest("Request body and URI mismatch")
    _set(ctx, server_id, body.meta, replace=False)
    return body.meta


@resource.delete(_ONE, policy="os_compute_api:server-metadata:delete")
def delete_item(ctx: Context, server_id: str, key: str) -> None:
    """Delete one item."""
    row = find(ctx, server_id)
    if key not in row.metadata:
        raise NotFound("Metadata item was not found")
    allow(ctx, row, "delete metadata")
    want(ctx.tx, row, metadata={name: value for name, value in row.metadata.items() if name != key})
