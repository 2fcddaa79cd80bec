"""Showing and revoking a token, which is named by the header X-Subject-Token."""

from __future__ import annotations

from datetime import timedelta

from pileus.core.api import Parameters, Reply, Resource
from pileus.core.context import Context
from pileus.core.errors import Forbidden, NotFound, Unauthorized
from pileus.core.listing import boolean
from pileus.services.identity.resources import revision, revoke_event
from pileus.services.identity.resources.attribute import permit
from pileus.services.identity.resources.token.operations.registry import NO_WINDOW, Tokens
from pileus.services.identity.resources.token.policy import RULES
from pileus.services.identity.resources.token.table import revoke
from pileus.services.identity.rules.token import Payload

_SUBJECT = b"x-subject-token"
_ACCESS_RULES = b"openstack-identity-access-rules"

resource = Resource("token", "tokens", rules=RULES)


def _subject(ctx: Context, window: timedelta = NO_WINDOW) -> tuple[str, Payload]:
    """The token that the request is about. Raises NotFound when it is not good, Forbidden for who may not ask."""
    text = ctx.headers.get(_SUBJECT, b"").decode("latin-1")
    if not text:
        permit(ctx, ctx.operation)
        raise NotFound("No token in the request")
    try:
        token = ctx.of(Tokens).validate(ctx.tx, text, window)
    except Unauthorized:
        raise NotFound("Could not find token.") from None
    permit(ctx, ctx.operation, token={"user_id": token.user.id})
    return text, token.payload


def _window(ctx: Context) -> timedelta:
    return ctx.of(Tokens).window if boolean(ctx.query.get("allow_expired") or "false") else NO_WINDOW


@resource.get(
    "/auth/tokens",
    policy="identity:validate_token",
    guarded=True,
    query=Parameters("nocatalog", "allow_expired"),
)
def validate(ctx: Context) -> Reply:
    """Show (GET) or check (HEAD) the token in the header X-Subject-Token.

    With `allow_expired` also one that has expired not long ago.  A token with access rules is shown to those alone who
    say that they keep them.
    """
    window = _window(ctx)
    text, _ = _subject(ctx, window)
    tokens = ctx.of(Tokens)
    if tokens.limited(ctx.tx, text, window) and not _keeps_access_rules(ctx):
        raise NotFound("Could not find token.")
    document = tokens.document(ctx.tx, text, catalog="nocatalog" not in ctx.query.names(), window=window)
    return Reply(document, {"x-subject-token": text, "vary": "X-Auth-Token"})


def _keeps_access_rules(ctx: Context) -> bool:
    try:
        return float(ctx.headers.get(_ACCESS_RULES, b"0")) >= 1.0
    except ValueError:
        return False


@resource.delete("/auth/tokens", policy="identity:revoke_token", guarded=True, query=Parameters("cascade"))
def revoke_one(ctx: Context) -> None:
    """Revoke the token in the header X-Subject-Token and, unless `cascade` is false, those made from it."""
    _, payload = _subject(ctx)
    chain = (ctx.query.get("cascade") or "true").lower() not in ("0", "f", "false", "off", "n", "no")
    revoke(ctx.tx, payload.audit_id, payload.expires_at + ctx.of(Tokens).window, chain=chain)
    revoke_event.note(ctx.tx, audit_id=payload.audit_id)
    if chain:
        revoke_event.note(ctx.tx, audit_chain_id=payload.audit_id)
    revision.grow(ctx.tx)


@resource.get("/auth/tokens/OS-PKI/revoked", public=True, faults=(403,))
def list_signed(ctx: Context) -> None:
    """Revoked tokens that were signed: nobody may see what there is not, as upstream has it. Raises Forbidden."""
    raise Forbidden("You are not authorized to perform the requested action.")
