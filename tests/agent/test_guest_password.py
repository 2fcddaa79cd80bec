"""Passwords that guests tell: from the metadata server to the control plane."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import msgspec
import pytest

from pileus.agent.guest_password import teller
from pileus.agent.link import Link, LinkDown, LinkRefused
from pileus.agent.metadata import Message, Metadata
from pileus.contracts.hypervisor import GuestSpec
from pileus.contracts.link import GuestPassword
from tests.agent.metadata_cloud import Cloud

PATH = "/openstack/2013-04-04/password"


def spec(guest_id: str, **documents: bytes) -> GuestSpec:
    """A guest that may read documents of two versions."""
    found = {f"openstack/{version}/meta_data.json": b"{}" for version in ("2012-08-10", "2013-04-04", "latest")}
    found |= {f"openstack/{version}/{name}": data for name, data in documents.items() for version in ("2013-04-04",)}
    return GuestSpec(id=guest_id, name="g", vcpus=1, memory_mib=64, disks=(), nics=(), power="running", documents=found)


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    made = Cloud()
    with closing(made.metadata):
        made.open("red", {"127.0.0.2": "a"})
        made.metadata.set_guest(spec("a"))
        for _ in range(200):
            if made.get("red", "127.0.0.2", "/openstack/latest/meta_data.json")[0] == 200:
                break
            time.sleep(0.01)
        yield made


def post(cloud: Cloud, body: bytes, path: str = PATH, source: str = "127.0.0.2", length: str = "") -> int:
    head = f"POST {path} HTTP/1.0\r\nContent-Length: {length or len(body)}\r\n\r\n".encode()
    return int(cloud.raw("red", source, head + body).split()[1])


def test_what_a_guest_tells_is_passed_on_with_its_own_id(cloud: Cloud) -> None:
    told: list[tuple[str, str]] = []

    def tell(guest_id: str, password: str) -> int:
        told.append((guest_id, password))
        return 409 if len(told) > 1 else 200

    cloud.metadata.tell = tell
    assert cloud.get("red", "127.0.0.2", PATH) == (200, b"")
    assert post(cloud, b"c2VhbGVk") == 200
    assert post(cloud, b"b3RoZXI=", "/openstack/latest/password") == 409
    assert told == [("a", "c2VhbGVk"), ("a", "b3RoZXI=")]
    cloud.metadata.set_guest(spec("a", password=b"c2VhbGVk"))
    for _ in range(200):
        if cloud.get("red", "127.0.0.2", PATH) == (200, b"c2VhbGVk"):
            return
        time.sleep(0.01)
    pytest.fail("the guest does not see what it told")


def test_what_is_refused(cloud: Cloud) -> None:
    cloud.metadata.tell = lambda guest_id, password: 200
    assert post(cloud, b"") == 400
    assert post(cloud, b"x" * 1021) == 400
    assert post(cloud, b"\xff\xfe") == 400
    assert post(cloud, b"x", length="-1") == 400
    assert post(cloud, b"x", "/openstack/2012-08-10/password") == 405
    assert post(cloud, b"x", "/openstack/latest/meta_data.json") == 405
    assert post(cloud, b"x", source="127.0.0.9") == 405
    assert post(cloud, b"x" * 1020) == 200


def test_a_control_plane_that_is_away_is_told_later(cloud: Cloud) -> None:
    cloud.metadata.tell = lambda guest_id, password: 503
    assert post(cloud, b"c2VhbGVk") == 503


def test_a_child_that_speaks_of_others_or_nonsense_is_not_believed() -> None:
    told: list[str] = []
    sockets: list[socket.socket] = []

    def start(channel: socket.socket) -> Callable[[], bool]:
        sockets.append(channel.dup())
        return lambda: True

    def tell(guest_id: str, password: str) -> int:
        told.append(guest_id)
        return 200

    metadata = Metadata(start)
    metadata.tell = tell
    with closing(metadata):
        metadata.set_guest(spec("a"))
        child = sockets[0]
        child.settimeout(5)
        received = b""
        while not received.endswith(b"\n"):
            received += child.recv(1 << 16)
        child.sendall(msgspec.json.encode(Message(verb="password", id="b", password="x")) + b"\n")
        assert msgspec.json.decode(child.recv(1 << 16), type=Message).status == 404
        child.sendall(msgspec.json.encode(Message(verb="password", id="a", password="x")) + b"\n")
        assert msgspec.json.decode(child.recv(1 << 16), type=Message).status == 200
        child.sendall(b"nonsense\n" + msgspec.json.encode(Message(verb="password", id="a", password="x")) + b"\n")
        child.settimeout(0.2)
        with pytest.raises(TimeoutError):
            child.recv(1 << 16)
        assert told == ["a"]
        child.close()


class _Link(Link):
    """Answers as it is told to."""

    def __init__(self, answer: Exception | None) -> None:
        self.answer = answer
        self.sent: list[tuple[str, str]] = []

    async def send(self, path: str, body: msgspec.Struct) -> None:
        assert isinstance(body, GuestPassword)
        self.sent.append((path, body.password))
        if self.answer is not None:
            raise self.answer


@pytest.mark.parametrize(
    ("answer", "status"), [(None, 200), (LinkRefused(409, "told already"), 409), (LinkDown("away"), 503)]
)
def test_the_link_gives_the_answer(answer: Exception | None, status: int) -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    link = _Link(answer)
    try:
        assert teller(link, loop)("a", "c2VhbGVk") == status
        assert link.sent == [("/guests/a/password", "c2VhbGVk")]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()
