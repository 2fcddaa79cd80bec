"""Images' data through the edge: upload, download, ranges, refusals, interruptions, removal."""

from __future__ import annotations

import errno
import hashlib
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from pileus.contracts.images import StoreFailure
from pileus.core.seams import ManualClock, Seams
from pileus.core.store import Tx
from pileus.drivers.images.file import FileImageStore
from pileus.services.image.interface import ImageStores, by_id, open_data, strangers
from pileus.services.image.resources.data import TTL
from pileus.services.image.resources.usage import QUOTA
from pileus.services.image.service import service
from tests.api.edge import Client, Served, make_edge
from tests.api.image_cloud import settle

OCTETS = {"content-type": "application/octet-stream"}


class HeldStore(FileImageStore):
    """A store whose commit waits until it is let go, and which may be full."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.may_commit = threading.Event()
        self.may_commit.set()
        self.reached = threading.Event()
        self.full = False

    def open_new(self, image_id: str) -> BinaryIO:
        if self.full:
            raise OSError(errno.ENOSPC, "no space")
        return super().open_new(image_id)

    def commit(self, image_id: str) -> str:
        self.reached.set()
        assert self.may_commit.wait(30)
        return super().commit(image_id)


class Cloud:
    """An edge, its store of image data, its clock and its loops."""

    def __init__(self, place: Path, url: str) -> None:
        self.clock = ManualClock()
        self.images = HeldStore(place / "images")
        self.stores = ImageStores({"file": self.images}, "file")
        self.served: Served = make_edge(
            url, service(), provided={ImageStores: self.stores}, seams=Seams(self.clock, seed=1)
        )
        self.member = self.served.client("member:p1")

    def make(self, disk_format: str = "raw", container_format: str = "bare", **more: Any) -> str:
        body = {"disk_format": disk_format, "container_format": container_format, **more}
        answer = self.member.request("POST", "/image/v2/images", json=body)
        assert answer.status == 201
        return str(answer.json["id"])

    def put(self, image_id: str, data: bytes | list[bytes], **headers: str) -> Any:
        path = f"/image/v2/images/{image_id}/file"
        return self.member.request("PUT", path, data=data, headers=OCTETS | headers)

    def show(self, image_id: str) -> Any:
        return self.member.request("GET", f"/image/v2/images/{image_id}").json

    def file(self, image_id: str, client: Client | None = None, **headers: str) -> Any:
        return (client or self.member).request("GET", f"/image/v2/images/{image_id}/file", headers=headers)

    def files(self) -> list[str]:
        return sorted(path.name for place in (self.images.incoming, self.images.data) for path in place.iterdir())

    def settle(self) -> None:
        """Let the loops work until nothing is left to do."""
        settle(self.served, self.stores)


@pytest.fixture(name="cloud")
def one_cloud(tmp_path: Path, database_url: str) -> Iterator[Cloud]:
    cloud = Cloud(tmp_path, database_url)
    with cloud.served:
        yield cloud


def test_data_comes_back_as_it_was_sent(cloud: Cloud) -> None:
    image_id = cloud.make()
    data = bytes(range(256)) * 20_000
    cloud.clock.advance(5)
    assert cloud.put(image_id, [data[:7], data[7:1_000_000], b"", data[1_000_000:]]).status == 204
    image = cloud.show(image_id)
    assert image["status"] == "active"
    assert image["size"] == image["virtual_size"] == len(data)
    assert image["checksum"] == hashlib.md5(data).hexdigest()
    assert image["os_hash_algo"] == "sha512"
    assert image["os_hash_value"] == hashlib.sha512(data).hexdigest()
    assert image["stores"] == "file"
    assert image["updated_at"] > image["created_at"]
    answer = cloud.file(image_id)
    assert answer.status == 200
    assert answer.body == data
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-length"] == str(len(data))
    assert answer.headers["content-md5"] == image["checksum"]


MANY = "9" * 5000
"""More digits than Python makes a number of."""


def test_ranges(cloud: Cloud) -> None:
    image_id = cloud.make()
    data = bytes(range(256)) * 8192
    cloud.put(image_id, data)
    size = len(data)
    for text, start, end in (
        ("bytes=0-4", 0, 5),
        ("bytes=5-5", 5, 6),
        ("bytes=100-", 100, size),
        ("bytes=-7", size - 7, size),
        (f"bytes=10-{size * 2}", 10, size),
        (f"bytes=-{size * 2}", 0, size),
        (f"bytes=0-{size - 1}", 0, size),
    ):
        answer = cloud.file(image_id, range=text)
        assert answer.status == 206, text
        assert answer.body == data[start:end], text
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{size}", text
        assert answer.headers["content-length"] == str(end - start), text
    answer = cloud.file(image_id, None, **{"content-range": "bytes 3-9/*"})
    assert (answer.status, answer.body) == (206, data[3:10])
    for text in (
        f"bytes={size}-",
        "bytes=9-3",
        "bytes=-",
        "bytes=x-y",
        "bits=0-4",
        "bytes=-0",
        f"bytes=0-{MANY}",
        f"bytes={MANY}-",
        f"bytes=-{MANY}",
    ):
        assert cloud.file(image_id, range=text).status == 416, text
    assert cloud.file(image_id, range="bytes=0-1,4-5").status == 400
    for text in (f"bytes 0-{size}/*", "bytes 9-3/*", "x", f"bytes 0-{MANY}/*", f"bytes {MANY}-1/*"):
        assert cloud.file(image_id, None, **{"content-range": text}).status == 416, text


def test_no_data_is_no_content(cloud: Cloud) -> None:
    image_id = cloud.make()
    answer = cloud.file(image_id)
    assert (answer.status, answer.body) == (204, b"")
    assert cloud.file("11111111-2222-3333-4444-555555555555").status == 404


def test_data_that_the_store_lost_is_no_content(cloud: Cloud) -> None:
    image_id = cloud.make()
    cloud.put(image_id, b"x")
    for path in cloud.images.data.iterdir():
        path.unlink()
    assert cloud.file(image_id).status == 204


def test_empty_data_is_data(cloud: Cloud) -> None:
    image_id = cloud.make()
    assert cloud.put(image_id, b"").status == 204
    assert cloud.show(image_id)["status"] == "active"
    assert cloud.show(image_id)["size"] == 0


def test_data_is_written_once(cloud: Cloud) -> None:
    image_id = cloud.make()
    assert cloud.put(image_id, b"first").status == 204
    assert cloud.put(image_id, b"second").status == 409
    assert cloud.file(image_id).body == b"first"


@pytest.mark.parametrize(
    ("attributes", "headers", "status"),
    [
        ({}, {"content-type": "application/json"}, 415),
        ({}, {"content-type": ""}, 415),
        ({}, {"x-image-meta-store": "nowhere"}, 400),
        ({}, {"x-openstack-image-size": "many"}, 400),
        ({}, {"x-openstack-image-size": "9" * 5000}, 400),
        ({}, {"x-openstack-image-size": str(2 << 40)}, 413),
        ({"disk_format": None}, {}, 400),
        ({"container_format": None}, {}, 400),
    ],
)
def test_uploads_that_are_refused_at_once(cloud: Cloud, attributes: Any, headers: dict[str, str], status: int) -> None:
    image_id = cloud.make(**attributes)
    assert cloud.put(image_id, b"x", **headers).status == status
    assert cloud.show(image_id)["status"] == "queued"
    assert cloud.files() == []


@pytest.mark.parametrize(
    ("disk_format", "data"),
    [
        ("qcow2", b"not a disk at all"),
        ("qcow2", b""),
        ("raw", b"QFI\xfb" + bytes(1000)),
        ("qcow2", b"QFI\xfb" + b"\xff" * 1000),
        ("vmdk", bytes(100_000)),
    ],
)
def test_data_that_is_something_else_leaves_nothing(cloud: Cloud, disk_format: str, data: bytes) -> None:
    image_id = cloud.make(disk_format)
    answer = cloud.put(image_id, data)
    assert answer.status == 415
    assert "disk_format" in answer.json["message"] or "safety" in answer.json["message"]
    image = cloud.show(image_id)
    assert (image["status"], image["size"], image["checksum"]) == ("queued", None, None)
    assert cloud.files() == []
    cloud.settle()
    assert cloud.put(image_id, b"x").status == (415 if disk_format != "raw" else 204)


def test_data_that_is_no_disk_is_not_looked_at(cloud: Cloud) -> None:
    image_id = cloud.make("qcow2", "compressed")
    assert cloud.put(image_id, b"\x1f\x8b" + bytes(100)).status == 204
    image = cloud.show(image_id)
    assert (image["status"], image["virtual_size"]) == ("active", None)


def test_an_interrupted_upload_leaves_nothing(cloud: Cloud) -> None:
    image_id = cloud.make()
    path = f"/image/v2/images/{image_id}/file"
    answer: list[Any] = []

    async def cut() -> None:
        """Send a part, say that more comes, and go away."""
        parts = [{"type": "http.request", "body": b"x" * 3_000_000, "more_body": True}, {"type": "http.disconnect"}]
        scope = {
            "type": "http",
            "scheme": "http",
            "method": "PUT",
            "path": path,
            "query_string": b"",
            "headers": [
                (b"host", b"testserver"),
                (b"x-auth-token", b"member:p1"),
                (b"content-type", b"application/octet-stream"),
            ],
        }

        async def receive() -> Any:
            return parts.pop(0)

        async def send(message: Any) -> None:
            answer.append(message)

        await cloud.served.edge(scope, receive, send)

    cloud.served.run(cut())
    assert answer[0]["status"] == 400
    assert cloud.show(image_id)["status"] == "queued"
    assert cloud.files() == []
    assert cloud.put(image_id, b"again").status == 204
    cloud.settle()
    assert cloud.file(image_id).body == b"again"
    assert len(cloud.files()) == 1


def test_a_full_store_says_so(cloud: Cloud) -> None:
    image_id = cloud.make()
    cloud.images.full = True
    assert cloud.put(image_id, b"x").status == 413
    assert cloud.show(image_id)["status"] == "queued"


def test_the_bytes_of_a_project_are_limited(cloud: Cloud) -> None:
    def limit(tx: Tx) -> None:
        QUOTA.set(tx, "p1", {"image_size_total": 2})

    cloud.served.run(cloud.served.store.write(limit))
    first, second, third = cloud.make(), cloud.make(), cloud.make()
    assert cloud.put(first, bytes(1 << 20)).status == 204
    assert cloud.put(second, bytes((1 << 20) + 1)).status == 413
    assert cloud.put(second, [bytes(1 << 20), b"x"]).status == 413
    assert cloud.show(second)["status"] == "queued"
    assert cloud.put(second, bytes(1 << 20)).status == 204
    assert cloud.put(third, b"x").status == 413
    assert cloud.member.request("DELETE", f"/image/v2/images/{first}").status == 204
    assert cloud.put(third, b"x").status == 204
    usage = cloud.member.request("GET", "/image/v2/info/usage").json["usage"]
    assert usage["image_size_total"] == {"usage": 2, "limit": 2}


def test_two_uploads_at_once_cannot_pass_the_limit_together(cloud: Cloud) -> None:
    def limit(tx: Tx) -> None:
        QUOTA.set(tx, "p1", {"image_size_total": 1})

    cloud.served.run(cloud.served.store.write(limit))
    both = [cloud.make(), cloud.make()]
    cloud.images.may_commit.clear()
    answers = [
        cloud.member.submit("PUT", f"/image/v2/images/{image_id}/file", data=bytes(1 << 20), headers=OCTETS)
        for image_id in both
    ]
    assert cloud.images.reached.wait(30)
    cloud.images.may_commit.set()
    assert sorted(answer.result(30).status for answer in answers) == [204, 413]
    assert sorted(cloud.show(image_id)["status"] for image_id in both) == ["active", "queued"]
    cloud.settle()
    assert len(cloud.files()) == 1


def held(cloud: Cloud, image_id: str) -> Callable[[], Any]:
    """Start an upload that stops before its data is committed; what waits for its answer."""
    cloud.images.may_commit.clear()
    path = f"/image/v2/images/{image_id}/file"
    future = cloud.member.submit("PUT", path, data=b"x" * 100, headers=OCTETS)
    assert cloud.images.reached.wait(30)
    assert cloud.show(image_id)["status"] == "saving"

    def answer() -> Any:
        cloud.images.may_commit.set()
        return future.result(30)

    return answer


def test_an_image_may_be_deleted_while_its_data_comes(cloud: Cloud) -> None:
    image_id = cloud.make()
    answer = held(cloud, image_id)
    assert cloud.put(image_id, b"another").status == 409
    assert cloud.member.request("DELETE", f"/image/v2/images/{image_id}").status == 204
    assert answer().status == 410
    cloud.settle()
    assert cloud.files() == []


def test_an_upload_that_died_is_ended_by_a_loop(cloud: Cloud) -> None:
    image_id = cloud.make()
    answer = held(cloud, image_id)
    cloud.clock.advance(TTL.total_seconds() - 1)
    cloud.images.may_commit.set()
    cloud.settle()
    assert answer().status == 204

    image_id = cloud.make()
    cloud.images.reached.clear()
    answer = held(cloud, image_id)
    cloud.clock.advance((TTL + timedelta(seconds=1)).total_seconds())
    # The loop ends the upload; what it wrote is removed when its own process has let go of it.
    from pileus.services.image.resources import data

    dead = cloud.served.run(cloud.served.store.read(data.expired))
    assert [row.id for row in dead] == [image_id]
    assert cloud.served.run(cloud.served.store.write(lambda tx: data.abandon(tx, image_id, dead[0].upload_key)))
    assert cloud.show(image_id)["status"] == "queued"
    assert answer().status == 410
    cloud.settle()
    assert len(cloud.files()) == 1
    assert cloud.put(image_id, b"again").status == 204


def test_data_goes_with_its_image(cloud: Cloud) -> None:
    image_id = cloud.make()
    cloud.put(image_id, b"x")
    assert len(cloud.files()) == 1
    assert cloud.member.request("DELETE", f"/image/v2/images/{image_id}").status == 204
    assert cloud.file(image_id).status == 404
    cloud.settle()
    assert cloud.files() == []


def test_data_that_no_row_names_is_told_and_kept(cloud: Cloud) -> None:
    image_id = cloud.make()
    cloud.put(image_id, b"x")
    with cloud.images.open_new("unknown") as file:
        file.write(b"precious")
    cloud.images.commit("unknown")
    cloud.settle()
    found = cloud.served.run(cloud.served.store.read(lambda tx: strangers(tx, cloud.stores)))
    assert found == [("file", "unknown")]
    assert len(cloud.files()) == 2


def test_deactivated_data_is_for_admins(cloud: Cloud) -> None:
    image_id = cloud.make()
    path = f"/image/v2/images/{image_id}"
    assert cloud.member.request("POST", f"{path}/actions/deactivate").status == 403
    cloud.put(image_id, b"x")
    assert cloud.member.request("POST", f"{path}/actions/deactivate").status == 204
    assert cloud.member.request("POST", f"{path}/actions/deactivate").status == 204
    assert cloud.show(image_id)["status"] == "deactivated"
    assert cloud.file(image_id).status == 403
    assert cloud.file(image_id, cloud.served.client("admin:ops")).body == b"x"
    assert cloud.member.request("POST", f"{path}/actions/reactivate").status == 204
    assert cloud.file(image_id).body == b"x"
    assert cloud.member.request("POST", f"{path}/actions/reactivate").status == 204


def test_others_read_what_they_may(cloud: Cloud) -> None:
    image_id = cloud.make(visibility="community")
    cloud.put(image_id, b"x")
    assert cloud.file(image_id, cloud.served.client("member:p2")).body == b"x"
    assert cloud.file(image_id, cloud.served.client("reader:p2")).status == 403
    private = cloud.make(visibility="private")
    cloud.put(private, b"x")
    assert cloud.file(private, cloud.served.client("member:p2")).status == 404


def test_neighbours_read_data_too(cloud: Cloud) -> None:
    image_id = cloud.make(os_distro="debian")
    empty = cloud.served.run(cloud.served.store.read(lambda tx: by_id(tx, image_id)))
    assert empty is not None
    with pytest.raises(StoreFailure):
        open_data(cloud.stores, empty)
    cloud.put(image_id, b"abc")
    info = cloud.served.run(cloud.served.store.read(lambda tx: by_id(tx, image_id)))
    assert info is not None
    assert (info.status, info.size, info.virtual_size, info.properties) == ("active", 3, 3, {"os_distro": "debian"})
    assert info.sha512 == hashlib.sha512(b"abc").hexdigest()
    with open_data(cloud.stores, info) as file:
        assert file.read() == b"abc"
    assert cloud.served.run(cloud.served.store.read(lambda tx: by_id(tx, "none"))) is None


def test_memory_does_not_grow_with_the_data(cloud: Cloud) -> None:
    image_id, block = cloud.make(), bytes(1 << 20)
    tracemalloc.start()
    try:
        assert cloud.put(image_id, [block] * 64).status == 204
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12 << 20
    assert cloud.show(image_id)["size"] == 64 << 20
    (path,) = cloud.images.data.iterdir()
    assert path.stat().st_size == 64 << 20
    assert path.stat().st_blocks * 512 < 1 << 20  # zeros are holes


def test_holes_are_read_as_zeros(cloud: Cloud) -> None:
    image_id = cloud.make()
    data = b"a" * 70_000 + bytes(3 << 20) + b"b" + bytes(2 << 20)
    assert cloud.put(image_id, [data[:70_000], data[70_000:]]).status == 204
    assert cloud.file(image_id).body == data
    assert cloud.show(image_id)["checksum"] == hashlib.md5(data).hexdigest()
