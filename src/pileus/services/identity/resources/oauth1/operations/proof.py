"""Whether a request was signed by a consumer, and with the secret of its token.

Source: RFC 5849, section 3.2; https://docs.openstack.org/api-ref/identity/v3-ext/#os-oauth1-api.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import sqlalchemy as sa

from pileus.core.context import Context, Request
from pileus.core.errors import BadRequest, Unauthorized
from pileus.services.identity.resources.oauth1.table import first_time
from pileus.services.identity.resources.secret import Secrets
from pileus.services.identity.rules import signature
from pileus.services.identity.rules.signature import BadSignature, Claim


def claim(ctx: Request) -> Claim:
    """What a request says of itself. Raises BadRequest."""
    header = ctx.headers.get(b"authorization")
    if header is None:
        raise BadRequest("Expecting to find an Authorization header of OAuth in the request.")
    try:
        return signature.read(header.decode("latin-1"))
    except BadSignature as flaw:
        raise BadRequest(str(flaw)) from None


def check(ctx: Context, shown: Claim, consumer: sa.Row[Any], token: sa.Row[Any] | None = None) -> None:
    """Raise Unauthorized unless a request was signed with these secrets, about now, and was not sent before."""
    secrets = ctx.of(Secrets)
    client_secret = secrets.open(ctx.tx, consumer)
    token_secret = "" if token is None else secrets.open(ctx.tx, token)
    genuine = signature.genuine(shown, "POST", _urls(ctx), client_secret, token_secret)
    if not genuine or not signature.timely(shown, ctx.now):
        raise Unauthorized("Invalid signature")
    if not first_time(ctx.tx, shown.consumer_key, shown.token or "", shown.timestamp, shown.nonce):
        raise Unauthorized("Invalid signature")


def _urls(ctx: Request) -> list[str]:
    """The URLs by which a client may know what it asks: the cloud's public one, or the one that it connected to."""
    roots = [ctx.url]
    host = ctx.headers.get(b"host", b"").decode("latin-1")
    scheme, _, rest = ctx.url.partition("://")
    if host:
        roots.append(f"{scheme}://{host}{rest.partition('/')[1]}{rest.partition('/')[2]}")
    bare = [f"{root}{ctx.path}" for root in dict.fromkeys(roots)]
    pairs = ctx.query.pairs()
    if not pairs:
        return bare
    return [*bare, *(f"{url}?{urlencode(pairs)}" for url in bare)]
