"""Secrets that must be read again (what a signature is made with): kept under Fernet, never in plain text.

Each is kept with the hash of the key that sealed it, so that what an old key sealed can be found and sealed anew before
that key is forgotten.

Source: Keystone administration guide, "Credential Encryption"; Fernet specification (github.com/fernet/spec).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from cryptography.fernet import Fernet, InvalidToken, MultiFernet


class SecretUnreadable(Exception):
    """None of the keys opens a secret. The message holds nothing of it."""


class Sealed(NamedTuple):
    """A secret as it is kept, and the hash of the key that sealed it (hexadecimal, 64 characters)."""

    text: str
    key_hash: str


class Box:
    """The keys in force, primary first: it seals, and all of them open."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys])
        self.primary_hash = hashlib.sha256(keys[0]).hexdigest()

    def seal(self, secret: str) -> Sealed:
        """A secret, sealed with the primary key."""
        return Sealed(self._fernet.encrypt(secret.encode()).decode(), self.primary_hash)

    def open(self, text: str) -> str:
        """A secret of its sealed text. Raises SecretUnreadable."""
        try:
            return self._fernet.decrypt(text.encode()).decode()
        except (InvalidToken, ValueError):
            raise SecretUnreadable("a secret cannot be read with any of the keys") from None
