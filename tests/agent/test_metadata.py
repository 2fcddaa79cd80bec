"""Metadata for guests: what is answered, and by whom."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import msgspec
import pytest

from pileus.agent.metadata import Message
from pileus.agent.metadata_server import answer, serve
from tests.agent.metadata_cloud import NOBODY, Cloud, read

_TREE = {
    "meta_data.json": json.dumps(
        {"uuid": "u", "keys": [{"name": "my key", "type": "ssh", "data": "ssh-rsa A"}]},
    ).encode(),
    "network_data.json": b'{"links": []}',
    "user_data": b"#!/bin/sh\n",
}
_EC2 = {
    "ami-id": b"ami-1",
    "block-device-mapping/ami": b"vda",
    "block-device-mapping/root": b"/dev/vda",
    "instance-id": b"i-1",
    "placement/availability-zone": b"nova",
    "public-keys/0/openssh-key": b"ssh-rsa A",
    "security-groups": b"default\nweb",
}
DOCUMENTS = {
    **{f"openstack/{version}/{name}": data for version in ("2012-08-10", "latest") for name, data in _TREE.items()},
    **{f"{version}/meta-data/{name}": data for version in ("2009-04-04", "latest") for name, data in _EC2.items()},
    **{f"{version}/user-data": b"#!/bin/sh\n" for version in ("2009-04-04", "latest")},
}


def body(path: str) -> str:
    found = answer("GET", path, DOCUMENTS)
    assert found.status == "200 OK", path
    return found.body.decode()


# The form of each list is that of the Compute service's metadata API, which cloud-init and CirrOS read line by line.


def test_the_root_lists_the_versions_of_ec2() -> None:
    assert body("/") == body("") == "2009-04-04\nlatest"


@pytest.mark.parametrize("path", ["/openstack", "/openstack/", "//openstack//"])
def test_openstack_lists_versions_as_cloud_init_compares_them(path: str) -> None:
    assert body(path) == "2012-08-10\nlatest"


def test_a_version_of_openstack_lists_its_documents() -> None:
    assert body("/openstack/latest") == "meta_data.json\nnetwork_data.json\nuser_data"
    assert body("/openstack/2012-08-10/") == body("/openstack/latest/")


def test_a_version_of_ec2_lists_its_trees() -> None:
    assert body("/latest") == body("/latest/") == "meta-data/\nuser-data"


def test_a_directory_of_ec2_has_a_slash_and_a_document_none() -> None:
    listed = "ami-id\nblock-device-mapping/\ninstance-id\nplacement/\npublic-keys/\nsecurity-groups"
    assert body("/2009-04-04/meta-data/") == body("/latest/meta-data") == listed
    assert body("/latest/meta-data/block-device-mapping/") == "ami\nroot"
    assert body("/latest/meta-data/placement/availability-zone") == "nova"


def test_keys_are_listed_with_their_names() -> None:
    assert body("/latest/meta-data/public-keys/") == body("/2009-04-04/meta-data/public-keys") == "0=my key"
    assert body("/latest/meta-data/public-keys/0/") == "openssh-key"
    assert body("/latest/meta-data/public-keys/0/openssh-key") == "ssh-rsa A"


@pytest.mark.parametrize("meta_data", [None, b"", b"not json", b"[]", b'{"keys": []}', b'{"keys": [{}]}'])
def test_a_key_without_a_name_is_listed_all_the_same(meta_data: bytes | None) -> None:
    documents = {"latest/meta-data/public-keys/0/openssh-key": b"ssh-rsa A"}
    if meta_data is not None:
        documents["openstack/latest/meta_data.json"] = meta_data
    assert answer("GET", "/latest/meta-data/public-keys/", documents).body == b"0="


def test_a_document_is_given_as_it_is() -> None:
    assert body("/openstack/latest/user_data") == "#!/bin/sh\n"
    assert body("/latest/user-data?x=/y") == "#!/bin/sh\n"


@pytest.mark.parametrize(
    "path",
    ["/openstack/2099-01-01", "/lat", "/latest/meta", "/latest/user-data/x", "/openstack/2012-08-10/password", "/.."],
)
def test_what_is_not_there_is_not_found(path: str) -> None:
    assert answer("GET", path, DOCUMENTS).status == "404 Not Found"


def test_faults() -> None:
    assert answer("GET", "/", None).status == "404 Not Found"
    assert answer("GET", "/", {}).status == "404 Not Found"
    assert answer("PUT", "/latest/api/token", DOCUMENTS).status == "405 Method Not Allowed"


def crawl(path: str, fetch: Callable[[str], str]) -> dict[str, object]:
    """The EC2 tree as cloud-init takes it in: directories by their slash, keys by their number."""
    found: dict[str, object] = {}
    for line in fetch(path).splitlines():
        number, equals, name = line.partition("=")
        if line.endswith("/"):
            found[line[:-1]] = crawl(path + line, fetch)
        elif equals and number.isdigit():
            found[name] = fetch(f"{path}{number}/openssh-key")
        else:
            found[line] = fetch(path + line)
    return found


def test_a_crawler_finds_everything() -> None:
    assert crawl("/latest/meta-data/", body) == {
        "ami-id": "ami-1",
        "block-device-mapping": {"ami": "vda", "root": "/dev/vda"},
        "instance-id": "i-1",
        "placement": {"availability-zone": "nova"},
        "public-keys": {"my key": "ssh-rsa A"},
        "security-groups": "default\nweb",
    }


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    made = Cloud()
    with closing(made.metadata):
        yield made


def test_guests_are_told_apart_by_network_and_address(cloud: Cloud) -> None:
    cloud.open("red", {"127.0.0.2": "a", "127.0.0.3": "b"})
    cloud.open("blue", {"127.0.0.2": "c"})
    for guest_id in "abc":
        cloud.tell(guest_id, name=guest_id.encode())
    cloud.wait("blue", "127.0.0.2", (200, b"c"))
    assert cloud.get("red", "127.0.0.2") == (200, b"a")
    assert cloud.get("red", "127.0.0.3") == (200, b"b")
    assert cloud.get("blue", "127.0.0.3") == NOBODY
    assert cloud.get("red", "127.0.0.9") == NOBODY
    assert cloud.child.started == 1


def test_what_a_guest_may_read_changes_with_its_spec_and_ends_with_it(cloud: Cloud) -> None:
    cloud.open("red", {"127.0.0.2": "a"})
    cloud.tell("a", name=b"before")
    cloud.wait("red", "127.0.0.2", (200, b"before"))
    cloud.tell("a", name=b"after\n" * 100_000)
    cloud.wait("red", "127.0.0.2", (200, b"after\n" * 100_000))
    cloud.metadata.forget_guest("a")
    cloud.wait("red", "127.0.0.2", NOBODY)
    cloud.metadata.forget_guest("a")


def test_an_address_that_moves_moves_what_is_read(cloud: Cloud) -> None:
    cloud.open("red", {"127.0.0.2": "a"})
    cloud.tell("a", name=b"a")
    cloud.tell("b", name=b"b")
    cloud.wait("red", "127.0.0.2", (200, b"a"))
    cloud.open("red", {"127.0.0.2": "b"})
    cloud.wait("red", "127.0.0.2", (200, b"b"))


def test_a_closed_network_answers_no_more_and_can_be_opened_again(cloud: Cloud) -> None:
    cloud.open("red", {"127.0.0.2": "a"})
    cloud.tell("a", name=b"a")
    cloud.wait("red", "127.0.0.2", (200, b"a"))
    first = cloud.network.port["red"]
    cloud.metadata.close_network("red")
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", first), timeout=5).close()
        except ConnectionRefusedError:
            break
        except ConnectionResetError:
            pass  # it was waiting to be accepted when the listener went
        time.sleep(0.01)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", first), timeout=5)
    cloud.open("red", {"127.0.0.2": "a"})
    cloud.wait("red", "127.0.0.2", (200, b"a"))


def test_a_child_that_died_is_started_again_and_told_everything(cloud: Cloud) -> None:
    cloud.open("red", {"127.0.0.2": "a"})
    cloud.open("blue", {"127.0.0.2": "b"})
    cloud.tell("a", name=b"a")
    cloud.tell("b", name=b"b")
    cloud.wait("blue", "127.0.0.2", (200, b"b"))
    cloud.child.kill()
    cloud.tell("b", name=b"b")  # nothing new, but a look
    assert cloud.child.started == 2
    cloud.wait("red", "127.0.0.2", (200, b"a"))
    cloud.wait("blue", "127.0.0.2", (200, b"b"))


def test_a_child_that_died_unseen_is_replaced_when_it_cannot_be_told(cloud: Cloud) -> None:
    cloud.open("red", {"127.0.0.2": "a"})
    cloud.tell("a", name=b"a")
    cloud.wait("red", "127.0.0.2", (200, b"a"))
    cloud.metadata._alive = lambda: True  # a process that is there, but does not listen
    cloud.child.kill()
    cloud.tell("a", name=b"new")
    cloud.tell("a", name=b"new")
    assert cloud.child.started == 2
    cloud.wait("red", "127.0.0.2", (200, b"new"))


def test_places_that_came_before_the_listener_outlive_the_child(cloud: Cloud) -> None:
    """A network that had no IPv4 subnet when its child died."""
    cloud.open("red", {"127.0.0.2": "a"}, version=6)
    cloud.tell("a", name=b"a")
    cloud.child.kill()
    cloud.open("red", {"127.0.0.2": "a"})
    cloud.wait("red", "127.0.0.2", (200, b"a"))


def test_the_child_ends_when_the_agent_does(cloud: Cloud) -> None:
    cloud.open("red", {"127.0.0.2": "a"})
    cloud.metadata.close()
    thread = cloud.child._thread
    assert thread is not None
    thread.join(5)
    assert not thread.is_alive()


def test_messages_arrive_whole_however_they_are_cut() -> None:
    """The channel is a stream: lines may come in parts, and a listener beside the first byte of its line."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=lambda: asyncio.run(serve(theirs)), daemon=True)
    thread.start()
    with socket.create_server(("127.0.0.1", 0)) as listener, ours:
        messages = [
            Message(verb="guest", id="a", documents={"latest/name": b"a\n"}),
            Message(verb="places", id="red", places={"127.0.0.1": "a"}),
        ]
        for byte in b"".join(msgspec.json.encode(one) + b"\n" for one in messages):
            ours.sendall(bytes([byte]))
        line = msgspec.json.encode(Message(verb="listen", id="red")) + b"\n"
        socket.send_fds(ours, [line[:1]], [listener.fileno()])
        ours.sendall(line[1:])
        with socket.create_connection(listener.getsockname(), timeout=5) as client:
            client.sendall(b"GET /latest/name HTTP/1.0\r\n\r\n")
            assert read(client).endswith(b"\r\n\r\na\n")
    thread.join(5)
    assert not thread.is_alive()
