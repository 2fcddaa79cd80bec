"""Tokens for clients of OAuth 2.0 (https://docs.openstack.org/api-ref/identity/v3-ext/#os-oauth2-api).

The grant is that of client credentials: a client shows the id and the secret of an application credential and gets a
token by it, to be sent as `X-Auth-Token`.

Source: RFC 6749, sections 2.3.1, 4.4 and 5.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl

from pileus.core.api import Reply, Resource
from pileus.core.context import Request
from pileus.core.errors import Fault, TooLarge
from pileus.services.identity.resources.token.fields import ApplicationCredentialProof, AuthRequest, Proofs
from pileus.services.identity.resources.token.operations.authentication import authenticate
from pileus.services.identity.resources.token.operations.registry import Tokens

LONGEST = 16_384
"""Bytes of a form."""

_FORM = "application/x-www-form-urlencoded"
_NEVER_KEPT = {"cache-control": "no-store", "pragma": "no-cache"}
_ERRORS = {400: "invalid_request", 401: "invalid_client"}

resource = Resource("token", "tokens")


class _Refusal(Exception):
    """What RFC 6749 section 5.2 answers."""

    def __init__(self, status: int, error: str, description: str) -> None:
        super().__init__(description)
        self.status, self.error, self.description = status, error, description


@resource.post("/OS-OAUTH2/token", public=True, media=(_FORM,), successes=(400, 401), faults=(413, 415))
async def create(ctx: Request, stream: AsyncIterator[bytes]) -> Reply:
    """Give a client a token by its application credential. Refusals have OAuth's own form."""
    try:
        form = await _form(ctx, stream)
        key, secret = _client(ctx, form)
        text = await _authenticate(ctx, key, secret)
    except _Refusal as refusal:
        headers = dict(_NEVER_KEPT)
        if refusal.status == 401:
            headers["www-authenticate"] = f'Keystone uri="{ctx.url}/v3"'
        return Reply({"error": refusal.error, "error_description": refusal.description}, headers, refusal.status)

    def lasts(ctx: Any) -> int:
        ends = ctx.of(Tokens).validate(ctx.tx, text).payload.expires_at
        return int((ends - ctx.now).total_seconds())

    found = {"access_token": text, "token_type": "Bearer", "expires_in": await ctx.read(lasts)}
    return Reply(found, _NEVER_KEPT)


async def _form(ctx: Request, stream: AsyncIterator[bytes]) -> dict[str, str]:
    """The form that was sent, with the grant that is wanted in it. Raises _Refusal, TooLarge."""
    data = bytearray()
    async for chunk in stream:
        data += chunk
        if len(data) > LONGEST:
            raise TooLarge(f"The body is larger than {LONGEST} bytes.")
    media = ctx.headers.get(b"content-type", b"").split(b";")[0].strip().lower().decode("latin-1")
    try:
        form = dict(parse_qsl(data.decode(), keep_blank_values=True, max_num_fields=32)) if media == _FORM else {}
    except ValueError:
        raise _Refusal(400, "invalid_request", "The form cannot be read.") from None
    if "grant_type" not in form:
        raise _Refusal(400, "invalid_request", "The parameter grant_type is required.")
    if form["grant_type"] != "client_credentials":
        wanted = form["grant_type"][:64]
        raise _Refusal(400, "unsupported_grant_type", f"The parameter grant_type {wanted} is not supported.")
    return form


def _client(ctx: Request, form: dict[str, str]) -> tuple[str, str]:
    """Id and secret of the client: of the header `Authorization`, or else of the form. Raises _Refusal."""
    kind, _, encoded = ctx.headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    key, secret = form.get("client_id", ""), form.get("client_secret", "")
    if kind.lower() == "basic":
        try:
            key, _, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            key = ""
    if not key or not secret or "\x00" in key + secret:
        raise _Refusal(401, "invalid_client", "Client authentication failed.")
    return key, secret


async def _authenticate(ctx: Request, key: str, secret: str) -> str:
    shown = ApplicationCredentialProof(id=key, secret=secret)
    proofs = Proofs(methods=["application_credential"], application_credential=shown)
    try:
        return await authenticate(ctx, AuthRequest(identity=proofs))
    except Fault as fault:
        if fault.status not in _ERRORS:
            raise
        raise _Refusal(fault.status, _ERRORS[fault.status], fault.message) from None
