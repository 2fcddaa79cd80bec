"""What a hostile guest gets of metadata: nothing that is not its own, and nobody else's share of the server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from pileus.agent import metadata_server
from tests.agent.metadata_cloud import NOBODY, Cloud, read


@pytest.fixture
def victim() -> Iterator[Cloud]:
    cloud = Cloud()
    with closing(cloud.metadata):
        cloud.open("red", {"127.0.0.2": "a", "127.0.0.3": "b"})
        cloud.tell("a", name=b"a")
        cloud.tell("b", name=b"b", large=b"x" * 8_000_000)
        cloud.wait("red", "127.0.0.2", (200, b"a"))
        yield cloud


@pytest.mark.parametrize(
    "request_",
    [
        b"\x00\xff\xfe\r\n\r\n",
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /" + b"a" * 9000 + b" HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.0\r\n" + b"x: y\r\n" * 3000 + b"\r\n",
        b"x" * 100_000,
    ],
    ids=["bytes", "empty", "no path", "long path", "many headers", "no end"],
)
def test_garbage_gets_nothing_and_disturbs_nobody(victim: Cloud, request_: bytes) -> None:
    found = victim.raw("red", "127.0.0.3", request_)
    assert found == b"" or found.startswith(b"HTTP/1.1 4")
    assert victim.get("red", "127.0.0.2") == (200, b"a")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "BREW"])
def test_other_methods_are_refused(victim: Cloud, method: str) -> None:
    found = victim.raw("red", "127.0.0.3", f"{method} /latest/name HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    assert found.startswith(b"HTTP/1.1 405 ")


def test_head_is_get_without_the_body(victim: Cloud) -> None:
    head, _, found = victim.raw("red", "127.0.0.3", b"HEAD /latest/name HTTP/1.1\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert b"content-length: 1" in head
    assert found == b""


def test_a_guest_that_says_nothing_is_hung_up_on(victim: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata_server, "TIMEOUT", 0.2)
    with victim.connect("red", "127.0.0.3") as client:
        client.sendall(b"GET / HT")
        began = time.monotonic()
        assert read(client) == b""
        assert 0.1 < time.monotonic() - began < 3


def test_a_guest_that_does_not_read_is_hung_up_on(victim: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata_server, "TIMEOUT", 0.3)
    with victim.connect("red", "127.0.0.3") as client:
        client.sendall(b"GET /latest/large HTTP/1.0\r\n\r\n")
        time.sleep(1.0)
        found = read(client)
    assert b"200 OK" in found
    assert len(found) < 8_000_000, "the rest was kept for a guest that does not read"


def test_connections_of_one_network_are_bounded(victim: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata_server, "CONNECTIONS", 3)
    victim.open("blue", {"127.0.0.2": "a"})
    held = [victim.connect("red", "127.0.0.3") for _ in range(3)]
    time.sleep(0.1)
    assert victim.raw("red", "127.0.0.2", b"GET / HTTP/1.0\r\n\r\n") == b""
    victim.wait("blue", "127.0.0.2", (200, b"a"))
    for one in held:
        one.close()
    time.sleep(0.1)
    assert victim.get("red", "127.0.0.2") == (200, b"a")


def test_one_guest_cannot_take_the_connections_of_its_neighbours(
    victim: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata_server, "EACH", 3)
    held = [victim.connect("red", "127.0.0.3") for _ in range(3)]
    time.sleep(0.1)
    assert victim.raw("red", "127.0.0.3", b"GET /latest/name HTTP/1.0\r\n\r\n") == b""
    assert victim.get("red", "127.0.0.2") == (200, b"a")
    for one in held:
        one.close()
    time.sleep(0.1)
    assert victim.get("red", "127.0.0.3") == (200, b"b")


@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-For: 127.0.0.2",
        "Forwarded: for=127.0.0.2",
        "X-Real-IP: 127.0.0.2",
        "X-Instance-ID: a",
        "X-Instance-ID: a\r\nX-Tenant-ID: b\r\nX-Instance-ID-Signature: 0",
        "X-Neutron-Network-ID: blue",
        "Host: 127.0.0.2",
    ],
)
def test_what_a_request_says_of_its_sender_is_not_believed(victim: Cloud, header: str) -> None:
    victim.open("blue", {"127.0.0.3": "c"})
    victim.tell("c", name=b"c")
    victim.wait("blue", "127.0.0.3", (200, b"c"))
    request = f"GET /latest/name HTTP/1.1\r\n{header}\r\n\r\n".encode()
    assert victim.raw("red", "127.0.0.3", request).endswith(b"\r\n\r\nb")
    # Who is nobody here cannot become somebody.
    assert victim.raw("red", "127.0.0.9", request).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize(
    "path",
    [
        "/../latest/name/../../etc/passwd",
        "/latest/../../../../etc/passwd",
        "/latest/%2e%2e/%2e%2e/etc/passwd",
        "/latest/name%00",
        "/..;/latest/name/x",
        "/a/latest/name",
        "/latest\\name",
        "file:///etc/passwd",
        "http://127.0.0.2/latest/name",
        "*",
        "/proc/self/environ",
    ],
)
def test_a_path_is_a_documents_name_and_nothing_else(victim: Cloud, path: str) -> None:
    assert victim.get("red", "127.0.0.3", path) == NOBODY


def test_a_guest_that_sends_drop_by_drop_is_hung_up_on(victim: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata_server, "TIMEOUT", 0.4)
    began = time.monotonic()
    with victim.connect("red", "127.0.0.3") as client, suppress(OSError):
        for byte in b"GET /latest/name HTTP/1.0\r\n" + b"x: y\r\n" * 10:
            client.sendall(bytes([byte]))
            time.sleep(0.05)
    assert time.monotonic() - began < 3
    assert victim.get("red", "127.0.0.2") == (200, b"a")
