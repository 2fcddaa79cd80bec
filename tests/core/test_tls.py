"""The cloud's own authority and certificate: made, renewed in time, and served with modern TLS only."""

from __future__ import annotations

import asyncio
import socket
import ssl
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import pytest
from cryptography import x509

from pileus.core import serve, tls
from pileus.core.config import Config
from pileus.core.http import Receive, Scope, Send

NAMES = {"localhost", "127.0.0.1", "cloud.example.org"}


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": scope["scheme"][:2].encode()})


@contextmanager
def serving(context: ssl.SSLContext) -> Iterator[int]:
    """A server in a thread of its own; gives the port."""
    listener = serve.listen_tcp("127.0.0.1", 0)
    server = serve.server(answer, context=context)
    thread = Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def trusting(directory: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(directory / tls.AUTHORITY))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def greet(port: int, context: ssl.SSLContext, name: str = "localhost") -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    return context.wrap_socket(plain, server_hostname=name)


def ask(port: int, context: ssl.SSLContext, name: str = "localhost") -> tuple[bytes, bytes]:
    """The last bytes of the answer, and the certificate."""
    with greet(port, context, name) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        data = b""
        while part := client.recv(4096):
            data += part
        return data[-2:], client.getpeercert(binary_form=True) or b""


def test_a_client_that_trusts_the_authority_reaches_each_name(tmp_path: Path) -> None:
    tls.prepare(tmp_path, NAMES)
    with serving(tls.context(*(tmp_path / name for name in (tls.SERVER, tls.SERVER_KEY)))) as port:
        for name in NAMES:
            assert ask(port, trusting(tmp_path), name)[0] == b"ht"  # https, as the application sees it
        with pytest.raises(ssl.SSLCertVerificationError):
            ask(port, trusting(tmp_path), "other.example.org")
        with pytest.raises(ssl.SSLCertVerificationError):
            ask(port, ssl.create_default_context())


def test_old_protocols_and_weak_ciphers_are_refused(tmp_path: Path) -> None:
    tls.prepare(tmp_path, NAMES)
    with serving(tls.context(tmp_path / tls.SERVER, tmp_path / tls.SERVER_KEY)) as port:
        for ciphers in ("AES256-GCM-SHA384", "ECDHE-ECDSA-AES256-SHA", "NULL"):
            weak = trusting(tmp_path)
            weak.maximum_version = ssl.TLSVersion.TLSv1_2
            weak.set_ciphers(f"{ciphers}:@SECLEVEL=0")
            with pytest.raises(ssl.SSLError):
                ask(port, weak)
        old = trusting(tmp_path)
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ask(port, old)
        good = trusting(tmp_path)
        good.maximum_version = ssl.TLSVersion.TLSv1_2
        assert ask(port, good)[0] == b"ht"


def test_a_plain_request_is_not_answered(tmp_path: Path) -> None:
    tls.prepare(tmp_path, NAMES)
    with (
        serving(tls.context(tmp_path / tls.SERVER, tmp_path / tls.SERVER_KEY)) as port,
        socket.create_connection(("127.0.0.1", port), timeout=10) as client,
    ):
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"HTTP/1.1 200" not in client.recv(100)


def test_nothing_is_made_anew_before_its_time(tmp_path: Path) -> None:
    assert tls.prepare(tmp_path, NAMES)
    held = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert sorted(held) == ["ca.key", "ca.pem", "server.key", "server.pem"]
    assert not tls.prepare(tmp_path, NAMES)
    assert held == {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize(
    ("after", "changed"),
    [
        (timedelta(days=59), set()),
        (timedelta(days=61), {"server.pem", "server.key"}),
        (timedelta(days=3300), {"server.pem", "server.key", "ca.pem"}),
    ],
)
def test_what_ends_soon_is_made_anew_and_trust_stays(tmp_path: Path, after: timedelta, changed: set[str]) -> None:
    tls.prepare(tmp_path, NAMES)
    first = x509.load_pem_x509_certificate((tmp_path / tls.AUTHORITY).read_bytes())
    held = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert tls.prepare(tmp_path, NAMES, datetime.now(UTC) + after) is bool(changed)
    assert {file.name for file in tmp_path.iterdir() if file.read_bytes() != held[file.name]} == changed
    server = x509.load_pem_x509_certificate((tmp_path / tls.SERVER).read_bytes())
    # Who trusts the first certificate of the authority is served as long as that is good: its key stays.
    assert first.public_key() == x509.load_pem_x509_certificate((tmp_path / tls.AUTHORITY).read_bytes()).public_key()
    first.public_key().verify(  # type: ignore[union-attr,call-arg] # of an elliptic curve
        server.signature,
        server.tbs_certificate_bytes,
        server.signature_algorithm_parameters,  # type: ignore[arg-type]
    )


def test_an_authority_that_was_made_while_the_clock_was_ahead_is_made_anew(tmp_path: Path) -> None:
    tls.prepare(tmp_path, NAMES, datetime.now(UTC) + timedelta(days=400))
    assert tls.prepare(tmp_path, NAMES)
    for name in (tls.AUTHORITY, tls.SERVER):
        assert x509.load_pem_x509_certificate((tmp_path / name).read_bytes()).not_valid_before_utc <= datetime.now(UTC)


@pytest.mark.parametrize("damage", ["other names", "no key", "broken certificate", "other authority"])
def test_what_does_not_fit_is_made_anew(tmp_path: Path, damage: str) -> None:
    tls.prepare(tmp_path, NAMES)
    names = NAMES | {"192.0.2.7"} if damage == "other names" else NAMES
    if damage == "no key":
        (tmp_path / tls.SERVER_KEY).unlink()
    if damage == "broken certificate":
        (tmp_path / tls.SERVER).write_text("nonsense")
    if damage == "other authority":
        (tmp_path / tls.AUTHORITY_KEY).unlink()
    assert tls.prepare(tmp_path, names)
    with serving(tls.context(tmp_path / tls.SERVER, tmp_path / tls.SERVER_KEY)) as port:
        assert ask(port, trusting(tmp_path))[0] == b"ht"


def test_new_connections_see_a_new_certificate_and_old_ones_go_on(tmp_path: Path) -> None:
    tls.prepare(tmp_path, NAMES)
    files = tmp_path / tls.SERVER, tmp_path / tls.SERVER_KEY
    context = tls.context(*files)
    with serving(context) as port, greet(port, trusting(tmp_path)) as kept:
        before = ask(port, trusting(tmp_path))[1]
        tls.prepare(tmp_path, NAMES, datetime.now(UTC) + timedelta(days=61))
        tls.load(context, *files)
        client = trusting(tmp_path)
        client.verify_mode, client.check_hostname = ssl.CERT_REQUIRED, False
        client.verify_flags |= 0x200000  # X509_V_FLAG_NO_CHECK_TIME: the new one begins in two months
        assert ask(port, client)[1] != before
        kept.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert kept.recv(100).startswith(b"HTTP/1.1 200")


def test_a_key_of_another_certificate_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    tls.prepare(one, NAMES)
    tls.prepare(two, NAMES)
    context = tls.context(one / tls.SERVER, one / tls.SERVER_KEY)
    with pytest.raises(tls.TlsFailure, match="no certificate and its key"):
        tls.load(context, two / tls.SERVER, one / tls.SERVER_KEY)
    with pytest.raises(tls.TlsFailure, match="must be readable"):
        tls.load(context, two / tls.SERVER, two / "nowhere")
    with serving(context) as port:
        assert ask(port, trusting(one))[0] == b"ht"


def test_names_are_those_by_which_clients_come() -> None:
    state = Path("/x")
    named = tls.names(
        Config(state=state, listen="192.0.2.1:5000", public_url="https://cloud.example.org", tls_names=["c.example"])
    )
    assert {"192.0.2.1", "127.0.0.1", "::1", "localhost", "cloud.example.org", "c.example"} <= named
    assert "::1" in tls.names(Config(state=state, listen="[::1]:5000"))
    everywhere = tls.names(Config(state=state, listen="0.0.0.0:5000"))
    assert everywhere >= {"0.0.0.0", socket.gethostname()}
