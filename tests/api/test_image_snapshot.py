"""Images of servers: made by Compute's transaction, filled by the host that is to make them, and by no other."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from pileus.contracts.hypervisor import SnapshotSpec
from pileus.core.context import Auth
from pileus.core.errors import TooLarge
from pileus.core.http import Edge
from pileus.core.policy import Policy
from pileus.core.store import Tx
from pileus.services.fleet import interface as fleet
from pileus.services.fleet.service import link_service
from pileus.services.image import interface as image
from pileus.services.image.resources.image.table import image as table
from pileus.services.image.resources.usage import change
from tests.api.compute_cloud import FACTS
from tests.api.edge import Client, Response
from tests.api.image_cloud import OCTETS, ImageCloud

WANTED = image.Snapshot(
    name="snap",
    server_id="11111111-1111-4111-8111-111111111111",
    server_project_id="p1",
    project_id="p1",
    user_id="p1-user",
    base_image_id="base",
    min_disk=3,
    min_ram=64,
    inherited={"hw_disk_bus": "scsi", "os_glance_x": "1", "img_signature": "x", "user_id": "somebody"},
    properties={"why": "because"},
)


def qcow2(size: int = 1 << 30) -> bytes:
    """An empty qcow2 image of version 2: header, tables of one cluster each."""
    header = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 2, 0, 0, 16, size, 0, 2, 1 << 16, 2 << 16, 1, 0, 0)
    return header.ljust(1 << 16, b"\0") + bytes(3 << 16)


def _host(tx: Tx, token: str, headers: Mapping[bytes, bytes]) -> Auth:
    return Auth(user_id=token, roles=frozenset({"host"}))


class Scene:
    """An image service, the link, and two hosts on it."""

    def __init__(self, cloud: ImageCloud) -> None:
        self.cloud = cloud
        self.store = cloud.served.store
        known = fleet.Fleet(cloud.clock)
        provided: dict[type[Any], Any] = {fleet.Fleet: known, image.ImageStores: cloud.stores}
        self.edge = Edge([link_service([image.snapshot_resource])], self.store, Policy(), _host, provided)
        self.store.write_here(fleet.begin)
        self.hosts = [self._hello("h1"), self._hello("h2")]

    def _hello(self, name: str) -> str:
        hello = {"host": name, "facts": FACTS, "network": "bridge", "version": "0.1.0"}
        answer = Client(self.edge, self.cloud.served.loop).request("POST", "/hello", json=hello)
        return str(answer.json["host_id"])

    def begin(self, wanted: image.Snapshot = WANTED, *, assign: bool = True) -> str:
        """What Compute does in its transaction; the image's id."""

        def work(tx: Tx) -> str:
            image_id = image.begin_snapshot(tx, wanted)
            if assign:
                spec = SnapshotSpec(id=image_id, guest_id=wanted.server_id, format=wanted.disk_format)
                fleet.assign(tx, [fleet.Spec(self.hosts[0], "snapshot", image_id, spec)])
            return image_id

        return self.store.write_here(work)

    def send(self, image_id: str, data: bytes | list[bytes], host: int = 0) -> Response:
        """What a host does."""
        client = Client(self.edge, self.cloud.served.loop, self.hosts[host])
        return client.request("PUT", f"/snapshots/{image_id}/data", data=data, headers=OCTETS)

    def write(self, image_id: str, **values: Any) -> None:
        self.store.write_here(lambda tx: tx.execute(sa.update(table).where(table.c.id == image_id).values(values)))


@pytest.fixture
def scene(tmp_path: Path, database_url: str) -> Iterator[Scene]:
    cloud = ImageCloud(tmp_path, database_url)
    with cloud.served:
        yield Scene(cloud)


def test_the_image_says_what_it_is_of(scene: Scene) -> None:
    found = scene.cloud.show(scene.begin())
    shown = {name: found.get(name) for name in ("status", "name", "owner", "visibility", "disk_format", "min_disk")}
    assert shown == {
        "status": "queued",
        "name": "snap",
        "owner": "p1",
        "visibility": "private",
        "disk_format": "qcow2",
        "min_disk": 3,
    }
    assert (found["min_ram"], found["container_format"]) == (64, "bare")
    of = {
        name: found[name] for name in ("instance_uuid", "base_image_ref", "image_type", "user_id", "hw_disk_bus", "why")
    }
    assert of == {
        "instance_uuid": WANTED.server_id,
        "base_image_ref": "base",
        "image_type": "snapshot",
        "user_id": "p1-user",
        "hw_disk_bus": "scsi",
        "why": "because",
    }
    assert not {"os_glance_x", "img_signature"} & found.keys()


def test_an_administrator_s_image_of_somebody_s_server_is_shared_with_its_project(scene: Scene) -> None:
    image_id = scene.begin(msgspec.structs.replace(WANTED, project_id="ops", user_id="ops-user"))
    found = scene.cloud.ask("GET", f"/images/{image_id}", None, scene.cloud.admin).json
    assert (found["owner"], found["visibility"], found["instance_owner"]) == ("ops", "shared", "p1")
    assert scene.cloud.ask("GET", f"/images/{image_id}").status == 200
    assert scene.cloud.ask("GET", f"/images/{image_id}", None, scene.cloud.other).status == 404


def test_the_host_s_data_makes_it_active_once(scene: Scene) -> None:
    image_id, data = scene.begin(), qcow2()
    assert scene.send(image_id, [data[:1000], data[1000:]]).status == 204
    found = scene.cloud.show(image_id)
    assert (found["status"], found["size"], found["virtual_size"]) == ("active", len(data), 1 << 30)
    assert scene.cloud.data(image_id) == data
    assert scene.send(image_id, b"something else").status == 204
    assert scene.cloud.data(image_id) == data


def test_only_the_host_that_is_to_make_it_may_send_it(scene: Scene) -> None:
    image_id = scene.begin()
    assert scene.send(image_id, qcow2(), host=1).status == 404
    other = scene.begin(assign=False)
    assert scene.send(other, qcow2()).status == 404
    scene.store.write_here(lambda tx: fleet.tombstone(tx, "snapshot", [image_id]))
    assert scene.send(image_id, qcow2()).status == 404
    made = scene.cloud.make("qcow2")
    assert scene.send(made, qcow2()).status == 404
    assert scene.cloud.files() == []


def test_what_is_not_what_it_says_is_refused_and_may_come_again(scene: Scene) -> None:
    image_id = scene.begin()
    hostile = bytearray(qcow2())
    hostile[8:20] = struct.pack(">QI", 512, 11)
    hostile[512:523] = b"/etc/passwd"
    for bad in (b"no disk at all", bytes(hostile)):
        assert scene.send(image_id, bad).status == 415
        assert scene.cloud.show(image_id)["status"] == "queued"
    assert scene.cloud.files() == []
    assert scene.send(image_id, qcow2()).status == 204


def test_an_attempt_that_died_gives_way_to_the_next(scene: Scene) -> None:
    image_id = scene.begin()
    dead = {"status": "saving", "upload_key": f"{image_id}.dead", "store": "file"}

    def work(tx: Tx) -> None:
        change(tx, tx.all(sa.select(table).where(table.c.id == image_id))[0], {**dead, "upload_until": tx.now})

    scene.store.write_here(work)
    assert scene.send(image_id, qcow2()).status == 204
    assert scene.cloud.show(image_id)["status"] == "active"


def test_a_raw_disk_is_taken_as_it_is(scene: Scene) -> None:
    image_id = scene.begin(msgspec.structs.replace(WANTED, disk_format="raw"))
    assert scene.send(image_id, bytes(1 << 20)).status == 204
    assert scene.cloud.show(image_id)["virtual_size"] == 1 << 20


def test_an_image_that_failed_goes_and_one_that_is_there_stays(scene: Scene) -> None:
    failed, made = scene.begin(), scene.begin()
    scene.write(failed, protected=True)
    assert scene.send(made, qcow2()).status == 204
    assert scene.store.write_here(lambda tx: [image.fail_snapshot(tx, one) for one in (failed, made, "none")]) == [
        True,
        False,
        False,
    ]
    assert scene.cloud.ask("GET", f"/images/{failed}").status == 404
    assert scene.send(failed, qcow2()).status == 404
    assert scene.cloud.show(made)["status"] == "active"
    assert scene.store.write_here(lambda tx: [image.delete(tx, made), image.delete(tx, made)]) == [True, False]


def test_backups_are_found_by_server_and_type_newest_first(scene: Scene) -> None:
    def backup(kind: str, server: str = WANTED.server_id) -> str:
        scene.cloud.clock.advance(1)
        wanted = msgspec.structs.replace(
            WANTED, image_type="backup", server_id=server, properties={"backup_type": kind}
        )
        return scene.begin(wanted)

    first, weekly, second = backup("daily"), backup("weekly"), backup("daily")
    backup("daily", "22222222-2222-4222-8222-222222222222")
    scene.begin()

    def found(kind: str) -> list[str]:
        return [one.id for one in scene.store.read_here(lambda tx: image.backups(tx, WANTED.server_id, kind))]

    assert found("daily") == [second, first]
    assert found("weekly") == [weekly]
    scene.write(first, protected=True)
    assert not scene.store.write_here(lambda tx: image.delete(tx, first))
    assert scene.store.write_here(lambda tx: image.delete(tx, second))
    assert found("daily") == [first]


def test_too_many_properties_are_too_many(scene: Scene) -> None:
    many = msgspec.structs.replace(WANTED, properties={f"p{number}": "x" for number in range(130)})
    with pytest.raises(TooLarge):
        scene.begin(many)
