"""Public keys: what they are, and their fingerprints."""

from __future__ import annotations

import base64
import binascii
import hashlib
from datetime import datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PRINCIPAL_NAME = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")
"""User principal name (MS-WCCE): by it Windows finds whose account a certificate opens."""

CERTIFICATE_DAYS = 3650


class Pair(NamedTuple):
    """A new pair: of type ssh, the private key in OpenSSH's form and the public one as a line of authorized_keys; of
    type x509, a PKCS #12 archive without password in base64, and the certificate in PEM.
    """

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


def generate_x509(user_id: str, now: datetime) -> Pair:
    """A new RSA key with a certificate that a user signs for himself, to log in to Windows by."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, user_id[:64])])
    principal = f"{user_id}@localhost".encode()
    other = x509.OtherName(PRINCIPAL_NAME, bytes([0x0C, len(principal)]) + principal)  # DER: a short UTF8String
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=CERTIFICATE_DAYS))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([other]), critical=False)
        .sign(private, hashes.SHA256())
    )
    archive = pkcs12.serialize_key_and_certificates(None, private, certificate, None, serialization.NoEncryption())
    public = certificate.public_bytes(serialization.Encoding.PEM)
    return Pair(base64.b64encode(archive).decode(), public.decode())
