"""TLS: an authority of the cloud's own, the certificate that it makes, and contexts to serve with.

The authority is made once, and may make certificates but no further authorities (RFC 5280, section 4.2.1.9).
A server's certificate is short-lived, and made anew before it ends or when it is to name others.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - else it is looked for when a name is encoded, by who may not read it
import ipaddress
import os
import socket
import ssl
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import cryptography.hazmat.backends.openssl.backend  # noqa: F401 - else it is looked for when something is signed
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pileus.core import secret_file
from pileus.core.config import Config

AUTHORITY_LIFETIME = timedelta(days=3650)
AUTHORITY_RENEWAL = timedelta(days=365)
"""How long before its end the authority's certificate is made anew, of the same key."""
SERVER_LIFETIME = timedelta(days=90)
SERVER_RENEWAL = timedelta(days=30)
"""How long before its end a server's certificate is made anew."""
SKEW = timedelta(hours=1)
"""How far a client's clock may be behind."""

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2; those of TLS 1.3 are all sound. Each has forward secrecy and authenticated encryption."""

AUTHORITY, AUTHORITY_KEY = "ca.pem", "ca.key"
SERVER, SERVER_KEY = "server.pem", "server.key"


class TlsFailure(Exception):
    """TLS cannot be spoken; the message says why and what to do."""


def files(config: Config) -> tuple[Path, Path]:
    """The certificate that the API speaks TLS with, and its key."""
    if config.tls_certificate:
        return Path(config.tls_certificate), Path(config.tls_key)
    return config.tls_directory / SERVER, config.tls_directory / SERVER_KEY


def names(config: Config) -> set[str]:
    """Names and addresses by which clients may reach the API."""
    host = config.address[0]
    found = {"localhost", "127.0.0.1", "::1", host, socket.gethostname(), *config.tls_names}
    if config.public_url:
        found.add(urlsplit(config.public_url).hostname or "")
    if host in ("0.0.0.0", "::"):  # noqa: S104 - what is listened on, no listening
        found |= _own_addresses()
    return {name for name in found if name}


def prepare(directory: Path, wanted: Iterable[str], now: datetime | None = None) -> bool:
    """Make what is missing of authority and certificate, and anew what ends soon or names others; whether it did.

    Keys have mode 0600. Post-condition: the four files are there, whole, and belong together.
    """
    now = now or datetime.now(UTC)
    directory.mkdir(mode=0o700, exist_ok=True)
    key, authority, fresh = _authority(directory, now)
    sought = {_general(name) for name in wanted}
    try:
        found = x509.load_pem_x509_certificate((directory / SERVER).read_bytes())
        held = set(found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        _read_key(directory / SERVER_KEY)
        good = held == sought and found.not_valid_after_utc - now > SERVER_RENEWAL and found.not_valid_before_utc <= now
        found.verify_directly_issued_by(authority)
    except (OSError, ValueError, TypeError, x509.ExtensionNotFound, InvalidSignature):
        good = False
    if good and not fresh:
        return False
    own = ec.generate_private_key(ec.SECP256R1())
    secret_file.write(directory / SERVER_KEY, _pem(own))
    signed = _server(own, key, authority, sorted(sought, key=str), now)
    secret_file.write(directory / SERVER, signed.public_bytes(serialization.Encoding.PEM))
    return True


def context(certificate: Path, key: Path) -> ssl.SSLContext:
    """A server's context: TLS 1.2 or newer. Raises TlsFailure."""
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.minimum_version = ssl.TLSVersion.TLSv1_2
    found.set_ciphers(CIPHERS)
    found.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    load(found, certificate, key)
    return found


def load(held: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Let connections from here on see the certificate that is in the files now. Raises TlsFailure.

    Post-condition of a failure: the context is as it was.
    """
    for file in (certificate, key):
        try:
            file.open("rb").close()
        except OSError as error:
            raise TlsFailure(
                f"{file}: {error.strerror}; it must be readable for user {os.getuid()}, who serves the API"
            ) from None
    try:
        # On a context of its own first: a certificate is taken before its key is found not to belong to it.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=_no_password)
        held.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        raise TlsFailure(f"{certificate} and {key} are no certificate and its key in PEM: {error}") from None


def ends(certificate: Path) -> datetime:
    """Until when a certificate is good. Raises OSError and ValueError."""
    return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc


def _no_password() -> str:
    raise ValueError("the key has a password, which nobody would be there to type")


def _authority(directory: Path, now: datetime) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate, bool]:
    """The authority's key and certificate, and whether they are new."""
    fresh = False
    try:
        key = _read_key(directory / AUTHORITY_KEY)
    except FileNotFoundError:
        key, fresh = ec.generate_private_key(ec.SECP256R1()), True
        secret_file.write(directory / AUTHORITY_KEY, _pem(key))
    try:
        found = x509.load_pem_x509_certificate((directory / AUTHORITY).read_bytes())
        begun = found.not_valid_before_utc <= now  # a clock that was ahead makes one that nobody takes for years
        if begun and found.public_key() == key.public_key() and found.not_valid_after_utc - now > AUTHORITY_RENEWAL:
            return key, found, fresh
    except FileNotFoundError:
        pass
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Pileus authority {os.urandom(4).hex()}")])
    usage = _usage(key_cert_sign=True, crl_sign=True)
    made = (
        _begin(name, name, key, now, AUTHORITY_LIFETIME, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    secret_file.write(directory / AUTHORITY, made.public_bytes(serialization.Encoding.PEM))
    return key, made, True


def _server(
    own: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    alternatives: list[x509.GeneralName],
    now: datetime,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Pileus")])
    return (
        _begin(subject, authority.subject, own, now, SERVER_LIFETIME, key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .sign(key, hashes.SHA256())
    )


def _begin(
    subject: x509.Name,
    issuer: x509.Name,
    own: ec.EllipticCurvePrivateKey,
    now: datetime,
    lifetime: timedelta,
    signer: ec.EllipticCurvePrivateKey,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name.encode("idna").decode())


def _own_addresses() -> set[str]:
    """The addresses that this machine's name has, and the one that it would speak to the world from."""
    found = set()
    with suppress(OSError):
        found |= {str(one[4][0]).partition("%")[0] for one in socket.getaddrinfo(socket.gethostname(), None)}
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing (connect(2) of a datagram socket)
        found.add(str(probe.getsockname()[0]))
    return found


def _read_key(file: Path) -> ec.EllipticCurvePrivateKey:
    found = serialization.load_pem_private_key(file.read_bytes(), None)
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{file} is no key of an elliptic curve")
    return found


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
