"""Metadata for guests: what is answered, by whom, and what a hostile guest gets."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import msgspec
import pytest

from pileus.agent import metadata_server
from pileus.agent.metadata import Message, Metadata
from pileus.agent.metadata_server import answer, serve
from pileus.contracts.hypervisor import GuestSpec
from pileus.contracts.network import FixedIP, NetworkSpec, NetworkState, PortSpec, SubnetSpec
from pileus.drivers.network.fake import FakeHost, FakeNetwork

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
    ["/openstack/2099-01-01", "/lat", "/latest/meta", "/latest/user-data/x", "/openstack/latest/password", "/.."],
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


# -- the agent's side and the child, over a real socket pair and listeners of the loopback ---------------------------


class Network(FakeNetwork):
    """Listens on the loopback, and remembers where."""

    def __init__(self, host: FakeHost) -> None:
        super().__init__(host=host)
        self.port: dict[str, int] = {}

    def listen(self, network_id: str, address: str, port: int) -> socket.socket:
        listener = super().listen(network_id, address, port)
        self.port[network_id] = listener.getsockname()[1]
        return listener


class Child:
    """The metadata server on a thread in place of a process."""

    def __init__(self) -> None:
        self.started = 0
        self._thread: threading.Thread | None = None
        self._channel: socket.socket | None = None

    def start(self, channel: socket.socket) -> Callable[[], bool]:
        ours = channel.dup()
        thread = threading.Thread(target=lambda: asyncio.run(serve(ours)), daemon=True)
        thread.start()
        self.started += 1
        self._thread, self._channel = thread, ours
        return thread.is_alive

    def kill(self) -> None:
        assert self._channel is not None
        assert self._thread is not None
        self._channel.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        assert not self._thread.is_alive()


class Cloud:
    """Networks whose guests are the addresses of the loopback."""

    def __init__(self) -> None:
        self.network = Network(FakeHost())
        self.child = Child()
        self.metadata = Metadata(self.child.start)

    def open(self, network_id: str, guests: dict[str, str], version: int = 4) -> None:
        cidr, ip_version = ("127.0.0.0/8", 4) if version == 4 else ("::/64", 6)
        subnet = msgspec.convert(
            {"id": "s", "cidr": cidr, "ip_version": ip_version, "gateway_ip": None, "enable_dhcp": True}, SubnetSpec
        )
        ports = tuple(
            PortSpec(
                id=f"port-of-{guest_id}",
                network_id=network_id,
                mac_address="fa:16:3e:00:00:01",
                fixed_ips=(FixedIP(subnet_id="s", ip_address=address),),
                guest_id=guest_id,
            )
            for address, guest_id in guests.items()
        )
        spec = NetworkSpec(id=network_id, mtu=1450, subnets=(subnet,), dhcp_mac="fa:16:3e:00:00:02")
        state = NetworkState(network=spec, ports=ports, groups={})
        self.network.ensure_network(state)
        self.metadata.open_network(state, self.network)

    def tell(self, guest_id: str, **documents: bytes) -> None:
        spec = GuestSpec(
            id=guest_id,
            name=guest_id,
            vcpus=1,
            memory_mib=64,
            disks=(),
            nics=(),
            power="running",
            documents={f"latest/{name}": data for name, data in documents.items()},
        )
        self.metadata.set_guest(spec)

    def connect(self, network_id: str, source: str) -> socket.socket:
        place = ("127.0.0.1", self.network.port[network_id])
        return socket.create_connection(place, timeout=5, source_address=(source, 0))

    def raw(self, network_id: str, source: str, data: bytes) -> bytes:
        with self.connect(network_id, source) as client:
            with suppress(OSError):
                client.sendall(data)
            return read(client)

    def get(self, network_id: str, source: str, path: str = "/latest/name") -> tuple[int, bytes]:
        head, _, found = self.raw(network_id, source, f"GET {path} HTTP/1.0\r\n\r\n".encode()).partition(b"\r\n\r\n")
        return int(head.split()[1]), found

    def wait(self, network_id: str, source: str, wanted: tuple[int, bytes]) -> None:
        """What was told arrives in a moment."""
        for _ in range(200):
            if self.get(network_id, source) == wanted:
                return
            time.sleep(0.01)
        assert self.get(network_id, source) == wanted


def read(client: socket.socket) -> bytes:
    found = b""
    with suppress(ConnectionResetError):
        while data := client.recv(65536):
            found += data
    return found


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    made = Cloud()
    with closing(made.metadata):
        yield made


NOBODY = (404, b"")


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


# -- hostile guests --------------------------------------------------------------------------------------------------


@pytest.fixture
def victim(cloud: Cloud) -> Cloud:
    cloud.open("red", {"127.0.0.2": "a", "127.0.0.3": "b"})
    cloud.tell("a", name=b"a")
    cloud.tell("b", name=b"b", large=b"x" * 8_000_000)
    cloud.wait("red", "127.0.0.2", (200, b"a"))
    return cloud


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
