"""Operations by which a consumer gets a user's leave.

A consumer asks for a request token, the user authorizes it and hands over the verifier, and the consumer exchanges both
for an access token (https://docs.openstack.org/api-ref/identity/v3-ext/#os-oauth1-api).
"""

from __future__ import annotations

from datetime import timedelta
from hmac import compare_digest
from typing import Any

import sqlalchemy as sa

from pileus.core.api import Reply, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Unauthorized
from pileus.services.identity.resources.assignment import table as assignments
from pileus.services.identity.resources.attribute import missing, permit
from pileus.services.identity.resources.delegation import own_only, role_ids
from pileus.services.identity.resources.oauth1 import table as tables
from pileus.services.identity.resources.oauth1.fields import Authorization, Verifier
from pileus.services.identity.resources.oauth1.operations.proof import check, claim
from pileus.services.identity.resources.oauth1.policy import TOKEN_RULES
from pileus.services.identity.resources.project import table as projects
from pileus.services.identity.resources.role import effective
from pileus.services.identity.resources.secret import Secrets
from pileus.services.identity.resources.token.fields import moment

_MEDIA = "application/x-www-form-urlencoded"

_VERIFIER = "".join(
    letter for letter in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789" if letter not in "jiIl1oO0"
)
"""The characters of a verifier: none that a person could take for another."""

_KEPT = timedelta(days=1)
"""How long a request token that has ended is remembered, so that its consumer is told so."""

resource = Resource("request_token", "request_tokens", rules=TOKEN_RULES)


def _consumer(ctx: Context, key: str) -> sa.Row[Any]:
    row = tables.find(ctx.tx, tables.consumer, key)
    if row is None:
        raise missing("consumer", key)
    return row


def _request_token(ctx: Context, key: str) -> sa.Row[Any]:
    """A request token that has not ended. Raises NotFound, Unauthorized."""
    row = tables.find(ctx.tx, tables.request_token, key)
    if row is None:
        raise missing("request token", key)
    if row.expires_at <= ctx.now:
        raise Unauthorized("Request token is expired")
    return row


def _given(ctx: Context, table: sa.Table, lifetime: timedelta, **values: Any) -> Reply:
    """Write a token, and give it to the consumer with its secret, this once."""
    key, secret = ctx.seams.hex(), ctx.seams.hex()
    expires_at = ctx.now + lifetime
    row = {"id": key, "expires_at": expires_at, **values, **ctx.of(Secrets).seal(ctx.tx, secret)}
    ctx.tx.insert(table, row)
    body = f"oauth_token={key}&oauth_token_secret={secret}&oauth_expires_at={moment(expires_at)}"
    return Reply(body.encode(), {"content-type": _MEDIA})


@resource.post("/OS-OAUTH1/request_token", public=True, status=201)
def create(ctx: Context) -> Reply:
    """Give a request token to a consumer, for the project in the header Requested-Project-Id."""
    shown = claim(ctx)
    project_id = ctx.headers.get(b"requested-project-id", b"").decode("latin-1")
    if not project_id:
        raise BadRequest("Expecting to find Requested-Project-Id in request.")
    consumer = _consumer(ctx, shown.consumer_key)
    if shown.token is not None:
        raise BadRequest("A request token is asked for without another.")
    check(ctx, shown, consumer)
    project = projects.find(ctx.tx, project_id)
    if project is None or project.is_domain:
        raise missing("project", project_id)
    tables.forget_requests(ctx.tx, ctx.now - _KEPT)
    return _given(
        ctx,
        tables.request_token,
        tables.REQUEST_LIFETIME,
        consumer_id=consumer.id,
        project_id=project_id,
        role_ids=[],
    )


@resource.put(
    "/OS-OAUTH1/authorize/{request_token_id}", policy="identity:authorize_request_token", guarded=True, wraps="token"
)
def authorize(ctx: Context, request_token_id: str, body: Authorization) -> Verifier:
    """Let a consumer act in the caller's place, with some of its roles in the project of the request token.

    Raises Unauthorized for roles that the caller does not hold there.
    """
    permit(ctx, ctx.operation)
    own_only(ctx, "authorize a request token")
    row = _request_token(ctx, request_token_id)
    keys = role_ids(ctx.tx, body.roles)
    held = {one.id for one in assignments.roles_of(ctx.tx, ctx.auth.user_id, "project", row.project_id)}
    if not held.issuperset(keys) or not held.issuperset(one.id for one in effective(ctx.tx, keys)):
        raise Unauthorized("authorizing user does not have role required")
    verifier = "".join(ctx.seams.random.sample(_VERIFIER, 8))
    table = tables.request_token
    changes = {"authorizing_user_id": ctx.auth.user_id, "verifier": verifier, "role_ids": keys}
    ctx.tx.compare_and_set(table, {"id": row.id}, changes)
    return Verifier(oauth_verifier=verifier)


@resource.post("/OS-OAUTH1/access_token", public=True, status=201)
def exchange(ctx: Context) -> Reply:
    """Give an access token to a consumer, for a request token that a user has authorized. It can be had once.

    Raises Unauthorized for another consumer's request token and for a wrong verifier or signature.
    """
    shown = claim(ctx)
    for name, value in (("oauth_token", shown.token), ("oauth_verifier", shown.verifier)):
        if not value:
            raise BadRequest(f"Expecting to find {name} in request.")
    row = _request_token(ctx, shown.token or "")
    consumer = tables.find(ctx.tx, tables.consumer, shown.consumer_key)
    if consumer is None or row.consumer_id != consumer.id:
        raise Unauthorized("Provided consumer key does not match stored consumer key.")
    check(ctx, shown, consumer, row)
    if row.authorizing_user_id is None or row.verifier is None:
        raise Unauthorized("Request Token does not have an authorizing user id.")
    if not compare_digest(row.verifier.encode(), (shown.verifier or "").encode()):
        raise Unauthorized("Provided verifier does not match stored verifier")
    table = tables.request_token
    if ctx.tx.execute(sa.delete(table).where(table.c.id == row.id, table.c.verifier == row.verifier)).rowcount != 1:
        raise missing("request token", row.id)
    return _given(
        ctx,
        tables.access_token,
        tables.ACCESS_LIFETIME,
        consumer_id=row.consumer_id,
        project_id=row.project_id,
        authorizing_user_id=row.authorizing_user_id,
        role_ids=row.role_ids,
    )
