"""The codec of tokens: a compact MessagePack payload in a Fernet envelope, at most 255 characters.

A token holds who (user), how (methods), for what (scope), by whose leave (delegation), since and until when, and its
audit ids.  It also holds the generations of its user, of its scope and of its delegation: those grow when what was
issued before must not be good any longer, so that no clock has a say in what is revoked.  Roles and names are not in
it: they are looked up when it is validated.

Source: Fernet specification (github.com/fernet/spec); Keystone administration guide, "Fernet - Frequently Asked
Questions".
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

LONGEST = 255
"""The most characters that a token may have: what clients and databases of other services keep."""

METHODS = ("password", "token", "application_credential", "totp", "oauth1", "external", "mapped")
"""Ways to authenticate, in the order of their bits. Only ever append."""

DELEGATED = frozenset({"application_credential", "oauth1"})
"""Methods by which one acts within what was delegated: no other token is made from a token by one of these."""

Kind = Literal["unscoped", "project", "domain", "system"]
_KINDS: tuple[Kind, ...] = ("unscoped", "project", "domain", "system")

DelegationKind = Literal["trust", "application_credential", "access_token"]
"""What a token may stand on besides its user: what somebody gave to somebody else, or to a program."""
_DELEGATIONS: tuple[DelegationKind, ...] = ("trust", "application_credential", "access_token")

_HEX_ID = re.compile(r"[0-9a-f]{32}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SECOND = timedelta(seconds=1)


class BadToken(ValueError):
    """The text is no token, or none of ours. The message does not hold the text."""


class Payload(msgspec.Struct, frozen=True, kw_only=True):
    """What a token holds. Ids are text; audit ids are 22 characters of URL-safe base64, as clients see them."""

    user_id: str
    user_generation: int
    methods: tuple[str, ...]
    kind: Kind = "unscoped"
    scope_id: str | None = None
    """Id of the project or domain."""
    scope_generation: int = 0
    delegation: DelegationKind | None = None
    delegation_id: str | None = None
    delegation_generation: int = 0
    issued_at: datetime
    expires_at: datetime
    """A whole second."""
    audit_id: str
    parent_audit_id: str | None = None
    """Audit id of the first token of the chain, None for that one itself."""

    @property
    def chain_id(self) -> str:
        """Audit id of the first token of the chain."""
        return self.parent_audit_id or self.audit_id


class _Packed(msgspec.Struct, frozen=True, array_like=True):
    # Ids are bytes when they are 32 hexadecimal digits, else text; msgspec has no type for either.
    form: Literal[2]
    user_id: Any
    user_generation: int
    methods: int
    kind: int
    scope_id: Any
    scope_generation: int
    delegation: int
    delegation_id: Any
    delegation_generation: int
    issued_at: int
    expires_at: int
    audit_id: bytes
    parent_audit_id: bytes | None


_decoder = msgspec.msgpack.Decoder(_Packed)


def _short(text: str) -> bytes | str:
    return bytes.fromhex(text) if _HEX_ID.fullmatch(text) else text


def _long(packed: Any) -> str:
    return packed.hex() if isinstance(packed, bytes) else str(packed)


def audit_id(random: bytes) -> str:
    """An audit id of 16 random bytes."""
    return base64.urlsafe_b64encode(random).rstrip(b"=").decode()


def _audit_bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "==")


def _pack(payload: Payload) -> bytes:
    return msgspec.msgpack.encode(
        _Packed(
            form=2,
            user_id=_short(payload.user_id),
            user_generation=payload.user_generation,
            methods=sum(1 << METHODS.index(method) for method in set(payload.methods)),
            kind=_KINDS.index(payload.kind),
            scope_id=None if payload.scope_id is None else _short(payload.scope_id),
            scope_generation=payload.scope_generation,
            delegation=0 if payload.delegation is None else _DELEGATIONS.index(payload.delegation) + 1,
            delegation_id=None if payload.delegation_id is None else _short(payload.delegation_id),
            delegation_generation=payload.delegation_generation,
            issued_at=(payload.issued_at - _EPOCH) // _MICROSECOND,
            expires_at=(payload.expires_at - _EPOCH) // _SECOND,
            audit_id=_audit_bytes(payload.audit_id),
            parent_audit_id=None if payload.parent_audit_id is None else _audit_bytes(payload.parent_audit_id),
        )
    )


def _unpack(data: bytes) -> Payload:
    packed = _decoder.decode(data)
    return Payload(
        user_id=_long(packed.user_id),
        user_generation=packed.user_generation,
        methods=tuple(method for bit, method in enumerate(METHODS) if packed.methods >> bit & 1),
        kind=_KINDS[packed.kind],
        scope_id=None if packed.scope_id is None else _long(packed.scope_id),
        scope_generation=packed.scope_generation,
        delegation=_DELEGATIONS[packed.delegation - 1] if packed.delegation > 0 else None,
        delegation_id=None if packed.delegation_id is None else _long(packed.delegation_id),
        delegation_generation=packed.delegation_generation,
        issued_at=_EPOCH + timedelta(microseconds=packed.issued_at),
        expires_at=_EPOCH + timedelta(seconds=packed.expires_at),
        audit_id=audit_id(packed.audit_id),
        parent_audit_id=None if packed.parent_audit_id is None else audit_id(packed.parent_audit_id),
    )


class Keyring:
    """The Fernet keys of a cloud, primary first: it seals, and all of them open."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def seal(self, payload: Payload) -> str:
        """The token of a payload. Raises ValueError when it would be longer than LONGEST."""
        seconds = int(payload.issued_at.timestamp())
        text = self._fernet.encrypt_at_time(_pack(payload), seconds).rstrip(b"=").decode()
        if len(text) > LONGEST:
            raise ValueError(f"a token of {len(text)} characters is longer than {LONGEST}")
        return text

    def open(self, text: str) -> Payload:
        """The payload of a token, whether or not it has expired. Raises BadToken."""
        if not text or len(text) > LONGEST:
            raise BadToken("not a token")
        try:
            return _unpack(self._fernet.decrypt(text.encode("ascii") + b"=" * (-len(text) % 4)))
        except (InvalidToken, UnicodeEncodeError, binascii.Error, msgspec.DecodeError, IndexError, OverflowError):
            raise BadToken("not a token of this cloud") from None
