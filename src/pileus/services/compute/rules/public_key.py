"""Public keys: what they are, and their fingerprints."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class Pair(NamedTuple):
    """A new pair: the private key in OpenSSH's form, the public one as a line of authorized_keys."""

    private: str
    public: str


def _colons(digest: bytes) -> str:
    return digest.hex(":")


def ssh_fingerprint(line: str) -> str:
    """The MD5 fingerprint of a line of authorized_keys. Raises ValueError when it is none (RFC 4253, section 6.6)."""
    words = line.split(None, 2)
    if len(words) < 2:
        raise ValueError("a public key has a type and data")
    try:
        blob = base64.b64decode(words[1], validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    length = int.from_bytes(blob[:4])
    if len(blob) < 8 or blob[4 : 4 + length] != words[0].encode():
        raise ValueError("the data is not of the type that is named before it")
    return _colons(hashlib.md5(blob, usedforsecurity=False).digest())


def x509_fingerprint(text: str) -> str:
    """The SHA-1 fingerprint of a certificate in PEM. Raises ValueError."""
    certificate = x509.load_pem_x509_certificate(text.encode())
    return _colons(certificate.fingerprint(hashes.SHA1()))  # noqa: S303 - the API's fingerprint, not a signature


def generate(comment: str) -> Pair:
    """A new Ed25519 pair."""
    private = Ed25519PrivateKey.generate()
    secret = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return Pair(secret.decode(), f"{public.decode()} {comment}")
