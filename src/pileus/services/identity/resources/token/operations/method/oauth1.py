"""The method `oauth1`: a consumer signs its request with the secret of an access token.

Source: "Authenticate with Identity API" of https://docs.openstack.org/api-ref/identity/v3-ext/#os-oauth1-api.
"""

from __future__ import annotations

from typing import Final

from msgspec import UNSET

from pileus.core.context import Context, Request
from pileus.core.errors import BadRequest, Unauthorized
from pileus.services.identity.resources import user as users
from pileus.services.identity.resources.attribute import missing
from pileus.services.identity.resources.oauth1 import table as tables
from pileus.services.identity.resources.oauth1.operations.proof import check, claim
from pileus.services.identity.resources.token.fields import Proofs
from pileus.services.identity.resources.token.operations.evidence import Evidence, Leave, Proof
from pileus.services.identity.rules.signature import Claim

NAME: Final = "oauth1"


async def prove(ctx: Request, proofs: Proofs) -> Proof:
    """Read what the request says of itself; whether that is so is found in the transaction, which notes the nonce."""
    if proofs.oauth1 is UNSET:
        raise BadRequest("Expecting to find oauth1 in identity.")
    shown = claim(ctx)
    if shown.token is None:
        raise BadRequest("Expecting to find oauth_token in request.")
    return Proof(lambda ctx: _conclude(ctx, shown), writes=True)


def _conclude(ctx: Context, shown: Claim) -> Evidence:
    """Raises NotFound for an access token that is not there, Unauthorized for one that is another's, or has ended."""
    row = tables.find(ctx.tx, tables.access_token, shown.token or "")
    if row is None:
        raise missing("access token", shown.token or "")
    consumer = tables.find(ctx.tx, tables.consumer, shown.consumer_key)
    if consumer is None or row.consumer_id != consumer.id or row.expires_at <= ctx.now:
        raise Unauthorized("Could not validate the access token")
    check(ctx, shown, consumer, row)
    user = users.find(ctx.tx, row.authorizing_user_id)
    if user is None:
        raise Unauthorized
    return Evidence(user_id=user.id, methods=(NAME,), generation=user.generation, leave=Leave("access_token", row.id))
