"""Signatures of OAuth 1.0a: what a request says of itself, and whether the right secrets signed it.

The arithmetic is the library's; what is asked for is decided here: one HMAC of three, each parameter once, a timestamp
of about now.  That a nonce is new has to be seen by who keeps them.

Source: RFC 5849, sections 3.1 to 3.5.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from oauthlib.oauth1.rfc5849 import signature

WINDOW = timedelta(minutes=10)
"""How far a request's timestamp may be from now, and so for how long nonces have to be kept."""

LONGEST = 255
"""The most characters of a parameter."""


class _Signer(NamedTuple):
    """Who signs, by the names that the library looks for."""

    client_secret: str
    resource_owner_secret: str


_SIGN: Mapping[str, Callable[[str, _Signer], str]] = {
    "HMAC-SHA1": signature.sign_hmac_sha1_with_client,
    "HMAC-SHA256": signature.sign_hmac_sha256_with_client,
    "HMAC-SHA512": signature.sign_hmac_sha512_with_client,
}
_NEEDED = ("consumer_key", "signature", "signature_method", "timestamp", "nonce")


class BadSignature(ValueError):
    """A request says too little, or too much, to be checked at all. The message says what is wrong."""


class Claim(NamedTuple):
    """What a request says of itself."""

    consumer_key: str
    token: str | None
    verifier: str | None
    signature: str
    signature_method: str
    timestamp: str
    nonce: str
    signed: tuple[tuple[str, str], ...]
    """The parameters of the header that were signed."""


def read(header: str) -> Claim:
    """The claim of an Authorization header. Raises BadSignature."""
    try:
        pairs = signature.collect_parameters(headers={"Authorization": header}, exclude_oauth_signature=False)
    except ValueError:
        raise BadSignature("the Authorization header is not one of OAuth") from None
    found = {name.removeprefix("oauth_"): value for name, value in pairs if name.startswith("oauth_")}
    if len(found) != sum(name.startswith("oauth_") for name, _ in pairs):
        raise BadSignature("a parameter is there twice")
    for name in _NEEDED:
        if not found.get(name):
            raise BadSignature(f"Expecting to find oauth_{name} in request.")
    if any(len(value) > LONGEST for value in found.values()):
        raise BadSignature("a parameter is too long")
    if found.get("version", "1.0") != "1.0":
        raise BadSignature("oauth_version is not 1.0")
    if found["signature_method"] not in _SIGN:
        raise BadSignature(f"oauth_signature_method is none of {', '.join(_SIGN)}")
    return Claim(
        consumer_key=found["consumer_key"],
        token=found.get("token") or None,
        verifier=found.get("verifier") or None,
        signature=found["signature"],
        signature_method=found["signature_method"],
        timestamp=found["timestamp"],
        nonce=found["nonce"],
        signed=tuple((name, value) for name, value in pairs if name != "oauth_signature"),
    )


def timely(claim: Claim, now: datetime) -> bool:
    """Whether a claim was made about now."""
    if not (claim.timestamp.isascii() and claim.timestamp.isdecimal() and len(claim.timestamp) <= 12):
        return False
    try:
        made = datetime.fromtimestamp(int(claim.timestamp), UTC)
    except (ValueError, OverflowError, OSError):
        return False
    return abs(made - now) <= WINDOW


def genuine(claim: Claim, method: str, urls: Iterable[str], client_secret: str, token_secret: str = "") -> bool:
    """Whether the secrets signed a claim for a request of this method to one of these URLs, by which it is known."""
    return any(
        hmac.compare_digest(_signature(claim, method, url, client_secret, token_secret), claim.signature.encode())
        for url in urls
    )


def _signature(claim: Claim, method: str, url: str, client_secret: str, token_secret: str) -> bytes:
    bare, _, query = url.partition("?")
    signed = [*claim.signed, *signature.collect_parameters(uri_query=query)]
    text = signature.signature_base_string(
        method, signature.base_string_uri(bare), signature.normalize_parameters(signed)
    )
    return _SIGN[claim.signature_method](text, _Signer(client_secret, token_secret)).encode()
