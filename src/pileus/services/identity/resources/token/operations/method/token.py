"""The method `token`: an earlier token proves who the caller is.

What may not be made from it is upstream's: nothing from a token by delegation, which must not outgrow what was
delegated; no project's or domain's token from the system's; and, where `allow_rescope_scoped_token` is off, nothing
from a token that has a scope.

Source: "Token Authentication" of https://docs.openstack.org/api-ref/identity/v3/#authentication-and-token-management.
"""

from __future__ import annotations

from msgspec import UNSET

from pileus.core.context import Context, Request
from pileus.core.errors import BadRequest, Forbidden, NotFound, Unauthorized
from pileus.services.identity.resources.token.fields import Proofs
from pileus.services.identity.resources.token.operations.evidence import Evidence, Proof
from pileus.services.identity.resources.token.operations.registry import Tokens
from pileus.services.identity.rules.token import DELEGATED


async def prove(ctx: Request, proofs: Proofs) -> Proof:
    """Take the token; whether it is good is found when the new one is issued."""
    if proofs.token is UNSET:
        raise BadRequest("Expecting to find token in identity.")
    text = proofs.token.id
    return Proof(lambda ctx: _conclude(ctx, text))


def _conclude(ctx: Context, text: str) -> Evidence:
    """Raises NotFound for a token that is not good, Forbidden for one that must not be exchanged."""
    try:
        payload = ctx.of(Tokens).validate(ctx.tx, text).payload
    except Unauthorized:
        raise NotFound("Could not find token.") from None
    if payload.delegation is not None or not DELEGATED.isdisjoint(payload.methods):
        raise Forbidden("A token by delegation cannot be exchanged for another: show what was delegated again.")
    if payload.kind != "unscoped" and not ctx.of(Tokens).rescope_scoped:
        raise Forbidden("A token that has a scope cannot be exchanged for another in this cloud.")
    methods = ("token", *payload.methods)
    return Evidence(
        user_id=payload.user_id,
        methods=tuple(dict.fromkeys(methods)),
        generation=payload.user_generation,
        parent=payload,
    )
