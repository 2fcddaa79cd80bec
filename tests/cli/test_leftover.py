"""What is left over in a cloud is found by name, mended on request, and nothing else is touched."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from pileus.app import leftover
from pileus.cli.main import CommandFailure, Leftover
from pileus.cli.repair import advice, remove, repair
from pileus.core.quota import usage
from pileus.core.store import Tx
from pileus.services.compute.resources.server.table import server
from pileus.services.fleet import interface as fleet
from pileus.services.fleet.resources.assignment import assignment
from pileus.services.fleet.resources.host import host
from pileus.services.image.resources.image.table import image
from pileus.services.network.resources.port.table import port
from pileus.services.placement import interface as placement
from tests.api.whole import Whole, whole_cloud
from tests.cli.role import NO_ROLES

Made = dict[str, str]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    """A cloud in which some things are; the tests put it right again after they have spoiled it."""
    with whole_cloud(tmp_path_factory.mktemp("cloud")) as found:
        yield found


def make(whole: Whole, path: str, kind: str, **values: Any) -> dict[str, Any]:
    answer = whole.admin.request("POST", path, {kind: values})
    assert answer.status in (200, 201, 202), answer
    found: dict[str, Any] = answer.json.get(kind, answer.json)
    return found


@pytest.fixture(scope="module")
def made(whole: Whole) -> Made:
    """Ids of a network, a port of its user's, an image with data and a server with a port of its own."""
    network = make(whole, "/network/v2.0/networks", "network", name="one")["id"]
    make(whole, "/network/v2.0/subnets", "subnet", network_id=network, cidr="10.0.0.0/24", ip_version=4)
    own = make(whole, "/network/v2.0/ports", "port", network_id=network)["id"]
    make(whole, "/compute/v2.1/os-keypairs", "keypair", name="one")
    make(whole, "/compute/v2.1/os-server-groups", "server_group", name="one", policies=["affinity"])
    flavor = make(whole, "/compute/v2.1/flavors", "flavor", name="one", vcpus=2, ram=64, disk=1)["id"]
    body = {"name": "one", "disk_format": "raw", "container_format": "bare"}
    picture = whole.admin.request("POST", "/image/v2/images", body).json["id"]
    data = b"\0" * 5000
    headers = {"content-type": "application/octet-stream"}
    assert whole.admin.request("PUT", f"/image/v2/images/{picture}/file", data, headers=headers).status == 204
    networks = [{"uuid": network}, {"port": own}]
    values = {"flavorRef": flavor, "imageRef": picture, "name": "one", "networks": networks}
    return {"server": make(whole, "/compute/v2.1/servers", "server", **values)["id"], "port": own, "image": picture}


def write(whole: Whole, work: Callable[[Tx], Any]) -> Any:
    return whole.control.store.write_here(work)


def found(whole: Whole) -> dict[str, Leftover]:
    """Findings by their keys."""
    config = whole.control.config
    return {one.key: one for one in whole.control.store.read_here(lambda tx: leftover.find(tx, config))}


def mend(whole: Whole, key: str) -> str | None:
    done: str | None = write(whole, lambda tx: leftover.mend(tx, whole.control.config, key))
    return done


@pytest.fixture(autouse=True)
def clean(whole: Whole, made: Made) -> Iterator[None]:
    """Nothing is left over before a test, nor after it."""
    assert found(whole) == {}
    yield
    assert found(whole) == {}


def test_counters_are_set_to_what_there_is(whole: Whole) -> None:
    used = {(row.service, row.resource): row for row in write(whole, lambda tx: tx.all(sa.select(usage)))}
    assert used["compute", "cores"].used == 2
    assert used["image", "image_size_total"].used == 1
    assert used["network", "port"].used == 2

    def spoil(tx: Tx) -> None:
        tx.execute(sa.update(usage).values(used=usage.c.used + 3))

    write(whole, spoil)
    keys = {f"quota/{row.project_id}/{row.service}/{row.resource}": row.used for row in used.values()}
    assert found(whole).keys() == keys.keys()
    for key, amount in keys.items():
        assert mend(whole, key) == f"counts {amount}, not {amount + 3}"
    assert mend(whole, next(iter(keys))) is None


def test_what_is_in_use_is_never_taken(whole: Whole, made: Made) -> None:
    for kind in ("allocation", "port", "assignment"):
        assert mend(whole, f"{kind}/{made['port' if kind == 'port' else 'server']}") is None
    row = write(whole, lambda tx: tx.first(sa.select(image).where(image.c.id == made["image"])))
    file = whole.control.config.control / "images" / "data" / row.location
    assert mend(whole, f"file/file/data/{row.location}") is None
    assert file.exists()
    for key in ("file/file/data/../../../pileus.db", "control/../pileus.db", "control/keys", "nothing", "image/x"):
        assert mend(whole, key) is None
    assert (whole.control.config.control / "pileus.db").exists()


def old(path: Path) -> Path:
    """A file that was written yesterday."""
    path.write_bytes(b"x")
    os.utime(path, (time.time() - 86400, time.time() - 86400))
    return path


def test_files_that_no_row_names(whole: Whole) -> None:
    images = whole.control.config.control / "images"
    stranger, partial = old(images / "data" / "stranger"), old(images / "incoming" / "partial")
    (images / "incoming" / "fresh").write_bytes(b"on its way")
    there = found(whole)
    assert there.keys() == {"file/file/data/stranger", "file/file/incoming/partial"}
    # Whole data may be of an image that the store has lost: it goes when it is named, and not before.
    assert there["file/file/data/stranger"].named
    assert "--remove file/file/data/stranger" in advice(there["file/file/data/stranger"])
    assert "--repair" in advice(there["file/file/incoming/partial"])
    assert [mend(whole, key) for key in there] == ["is deleted", "is deleted"]
    assert not stranger.exists()
    assert not partial.exists()
    (images / "incoming" / "fresh").unlink()


def test_an_image_without_its_data(whole: Whole, made: Made) -> None:
    row = write(whole, lambda tx: tx.first(sa.select(image).where(image.c.id == made["image"])))
    file = whole.control.config.control / "images" / "data" / row.location
    aside = file.rename(file.with_name("aside"))
    there = found(whole)
    assert there[f"image/{made['image']}"].by_hand
    assert mend(whole, f"image/{made['image']}") is None
    aside.rename(file)


def test_what_a_killed_backup_left(whole: Whole) -> None:
    left = whole.control.config.control / "backup-abc"
    (left / "file").mkdir(parents=True)
    old(left / "file" / "one")
    os.utime(left, (0, 0))
    assert found(whole).keys() == {"control/backup-abc"}
    assert mend(whole, "control/backup-abc") == "is deleted"
    assert not left.exists()


def test_a_deleted_server_leaves_its_allocation_port_and_guest(whole: Whole, made: Made) -> None:
    provider = "11111111-1111-1111-1111-111111111111"
    row = write(whole, lambda tx: tx.first(sa.select(server).where(server.c.id == made["server"])))
    ports = write(whole, lambda tx: tx.all(sa.select(port).where(port.c.device_id == made["server"])))
    transient = next(one.id for one in ports if one.transient)

    def spoil(tx: Tx) -> None:
        placement.ensure_provider(tx, provider, "gone")
        placement.set_inventory(tx, provider, {"VCPU": placement.Inventory(total=8)})
        claim = placement.Claim(
            consumer_uuid=made["server"],
            provider_uuid=provider,
            resources={"VCPU": 2},
            project_id=row.project_id,
            user_id=row.user_id,
        )
        assert placement.claim_many(tx, [claim]) == {}
        facts = {"id": "h", "name": "h", "facts": {}, "network_filter": "", "version": "", "created_at": tx.now}
        tx.execute(sa.insert(host).values(**facts, seen_at=tx.now))
        key = {"host_id": "h", "kind": "guest", "id": made["server"]}
        tx.execute(sa.insert(assignment).values(**key, generation=1, spec=b"{}", updated_at=tx.now))
        tx.execute(sa.update(server).where(server.c.id == made["server"]).values(deleted_at=tx.now))

    def restore(tx: Tx) -> None:
        tx.execute(sa.delete(assignment))
        tx.execute(sa.delete(host).where(host.c.id == "h"))

    write(whole, spoil)
    there = found(whole)
    assert {f"allocation/{made['server']}", f"port/{transient}", f"assignment/{made['server']}"} <= there.keys()
    assert f"port/{made['port']}" in there
    assert not any(one.named for one in there.values())
    assert mend(whole, f"allocation/{made['server']}") == "is released"
    assert mend(whole, f"port/{transient}") == "is deleted"
    assert mend(whole, f"assignment/{made['server']}") == "its host deletes it"
    for key in found(whole):
        mend(whole, key)
    # The port that its user made is there, and free.
    shown = whole.admin.request("GET", f"/network/v2.0/ports/{made['port']}").json["port"]
    assert (shown["device_id"], shown["device_owner"]) == ("", "")
    assert whole.admin.request("GET", f"/network/v2.0/ports/{transient}").status == 404
    assert write(whole, lambda tx: fleet.assigned(tx, "guest")) == []
    write(whole, restore)


# -- the command -----------------------------------------------------------------------------------------------------


def test_nothing_is_done_without_a_word(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    config = whole.control.config
    some = [
        Leftover("port/a", "x", "y"),
        Leftover("file/b", "x", "y", named=True),
        Leftover("image/c", "x", "y", by_hand=True),
    ]
    with pytest.raises(CommandFailure, match="give --yes"):
        repair(config, NO_ROLES, some, False)
    asked: list[str] = []

    def answer(question: str) -> str:
        asked.append(question)
        return "n"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", answer)
    with pytest.raises(CommandFailure, match="nothing was done"):
        repair(config, NO_ROLES, some, False)
    assert asked == ["mend 1 of these? [y/N] "]
    assert repair(config, NO_ROLES, some[1:], False) == set()


def test_names_of_nothing_are_refused(whole: Whole) -> None:
    with pytest.raises(CommandFailure, match="`pileus up` first"):
        remove(whole.control.config, NO_ROLES, ["guest/nobody"], True)
