"""Operations on consumers (https://docs.openstack.org/api-ref/identity/v3-ext/#os-oauth1-api)."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from msgspec import UNSET

from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest
from pileus.core.fields import given
from pileus.core.listing import Listing
from pileus.services.identity.resources import revision
from pileus.services.identity.resources.attribute import (
    extended,
    found,
    further,
    link,
    page,
    permit,
    same_id,
    save,
    something,
)
from pileus.services.identity.resources.oauth1.fields import Consumer, ConsumerCreate, ConsumerUpdate
from pileus.services.identity.resources.oauth1.policy import CONSUMER_RULES
from pileus.services.identity.resources.oauth1.table import consumer as table
from pileus.services.identity.resources.secret import Secrets

resource = Resource("consumer", "consumers", rules=CONSUMER_RULES)

_listing = Listing(table, filters={}, sort={"id": table.c.id}, maximum=None)


def _plain(ctx: Context, row: sa.Row[Any]) -> Consumer:
    return Consumer(id=row.id, description=row.description, links=link(ctx, "OS-OAUTH1/consumers", row.id))


def _view(ctx: Context, row: sa.Row[Any]) -> Consumer:
    return extended(_plain(ctx, row), row.extra)


def _get(ctx: Context, key: str) -> sa.Row[Any]:
    return found(ctx.tx, table, "consumer", key)


@resource.get("/OS-OAUTH1/consumers", policy="identity:list_consumers", guarded=True)
def list_all(ctx: Context) -> Page:
    """List consumers."""
    permit(ctx, ctx.operation)
    return page(ctx, _listing, sa.select(table), _view)


@resource.get("/OS-OAUTH1/consumers/{consumer_id}", policy="identity:get_consumer", guarded=True, wraps="consumer")
def show(ctx: Context, consumer_id: str) -> Consumer:
    """Show a consumer, without its secret."""
    permit(ctx, ctx.operation)
    return _view(ctx, _get(ctx, consumer_id))


@resource.post(
    "/OS-OAUTH1/consumers",
    policy="identity:create_consumer",
    guarded=True,
    accepts="consumer",
    wraps="consumer",
    status=201,
)
def create(ctx: Context, body: ConsumerCreate) -> Consumer:
    """Create a consumer, and give its secret this once."""
    permit(ctx, ctx.operation)
    key, secret = ctx.seams.hex(), ctx.seams.hex()
    row = {"id": key, "description": body.description, "extra": further(ctx, "secret")}
    ctx.tx.insert(table, {**row, **ctx.of(Secrets).seal(ctx.tx, secret)})
    ctx.tx.changed("identity.consumer", key)
    written = _get(ctx, key)
    made = _plain(ctx, written)
    made.secret = secret
    return extended(made, written.extra)


@resource.patch(
    "/OS-OAUTH1/consumers/{consumer_id}",
    policy="identity:update_consumer",
    guarded=True,
    accepts="consumer",
    wraps="consumer",
)
def update(ctx: Context, consumer_id: str, body: ConsumerUpdate) -> Consumer:
    """Change a consumer's description."""
    permit(ctx, ctx.operation)
    if "secret" in ctx.extra:
        raise BadRequest("The secret of a consumer cannot be changed.")
    row = _get(ctx, consumer_id)
    same_id(ctx, consumer_id)
    something(given(body), ctx, "consumer")
    save(ctx, table, "consumer", row, {} if body.description is UNSET else {"description": body.description})
    return _view(ctx, _get(ctx, consumer_id))


@resource.delete("/OS-OAUTH1/consumers/{consumer_id}", policy="identity:delete_consumer", guarded=True)
def delete(ctx: Context, consumer_id: str) -> None:
    """Delete a consumer; all that users let it do is void."""
    permit(ctx, ctx.operation)
    _get(ctx, consumer_id)
    ctx.tx.execute(sa.delete(table).where(table.c.id == consumer_id))
    ctx.tx.changed("identity.consumer", consumer_id)
    revision.grow(ctx.tx)
