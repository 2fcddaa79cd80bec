"""The store is put back from an older copy, or lost: no guest dies of it, and the newest copy finds them all again.

One guest lives through all of this. The tests build on each other, in their order.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.real.cloud import Cloud, Failure, until
from tests.real.tenant import SDK, Guest, Land, Tenant, administrator, furnish, let_in, settle

pytestmark = [pytest.mark.slow, SDK]


@dataclass
class Scene:
    """A cloud with one guest, and copies of its store."""

    cloud: Cloud
    admin: Tenant
    land: Land
    guest: Guest
    pid: int
    older: Path
    """Taken when networks were there, and no guest."""

    def put(self, copy: Path | None) -> Path:
        """Put a copy of the store in the place of the one that is there, or nothing; a copy of that one.

        The control plane and the agent rest meanwhile.
        """
        control = self.cloud.state / "control"
        kept = self.cloud.state / f"kept-{copy.name if copy else 'nothing'}"
        self.cloud.rest()
        control.rename(kept)
        if copy is not None:
            shutil.copytree(copy, control, copy_function=_copy)
            _own(kept, control)
        return kept

    def runs(self) -> None:
        """The guest is the same process."""
        assert self.cloud.guests() == {self.guest.server: self.pid}

    def unharmed(self) -> None:
        """The guest is the same process, and answers."""
        self.runs()
        until(lambda: self.guest.shell("hostname", check=False).strip() == "witness", "SSH", 60)


def _copy(source: str, target: str) -> None:
    shutil.copy2(source, target)
    found = Path(source).stat()
    shutil.chown(target, found.st_uid, found.st_gid)


def _own(like: Path, place: Path) -> None:
    """Give directories the owners that they have elsewhere."""
    for directory in (like, *(each for each in like.rglob("*") if each.is_dir())):
        found = directory.stat()
        copy = place / directory.relative_to(like)
        if copy.exists():
            shutil.chown(copy, found.st_uid, found.st_gid)


@pytest.fixture(scope="module")
def scene(cloud: Cloud, tiny: Path) -> Scene:
    """The cloud is up, and its guest answers."""
    cloud.pileus("up", "--detach", "--no-demo")
    admin = administrator(cloud)
    furnish(admin, tiny)
    land = settle(admin, "10.8.0.0/24")
    let_in(admin)
    cloud.rest()
    older = cloud.state / "older"
    shutil.copytree(cloud.state / "control", older, copy_function=_copy)
    _own(cloud.state / "control", older)
    cloud.pileus("up", "--detach", "--no-demo")
    guest = Guest(admin, land, "witness", "10.8.0.10")
    guest.booted()
    until(lambda: guest.shell("hostname", check=False).strip() == "witness", "SSH", 120)
    return Scene(cloud, admin, land, guest, cloud.guests()[guest.server], older)


def _refuses(scene: Scene, why: str) -> None:
    """The host does not obey the store that is there; the guest goes on."""
    with pytest.raises(Failure, match="refuse this store"):
        scene.cloud.pileus("up", "--detach", "--no-demo")
    assert why in scene.cloud.pileus("doctor", check=False)
    assert "accept-store" in scene.cloud.pileus("status", check=False)
    assert scene.cloud.get("/compute/v2.1/servers?all_tenants=1")["servers"] == []
    scene.unharmed()


def _accept(scene: Scene) -> None:
    assert "obeys the store that is there" in scene.cloud.pileus("accept-store")


def _found_unknown(scene: Scene) -> set[tuple[str, str]]:
    """Kind and id of all that the host holds and the cloud does not know."""
    (host,) = scene.cloud.get("/fleet/v1/hosts")["hosts"]
    return {(one["kind"], one["id"]) for one in host["unknown"]}


def _unknown(scene: Scene, *things: tuple[str, str]) -> None:
    """`doctor` comes to list things that the cloud does not know."""
    until(lambda: set(things) <= _found_unknown(scene), f"{things} are found", 60, 0.5)
    said = scene.cloud.pileus("doctor", check=False)
    for kind, identifier in things:
        assert f"holds {kind} {identifier}, which this cloud does not know" in said


def _adopted(scene: Scene) -> None:
    """The newest copy is obeyed: the guest is known, runs on as it was, and answers."""
    scene.cloud.pileus("up", "--detach", "--no-demo", check=False)
    _accept(scene)
    server = scene.cloud.json("server", "show", "witness")
    assert (server["id"], server["status"]) == (scene.guest.server, "ACTIVE")
    until(lambda: not _found_unknown(scene), "all is known", 60, 0.5)
    assert "does not know" not in scene.cloud.pileus("doctor", check=False)
    scene.unharmed()


def test_an_older_copy_harms_no_guest(scene: Scene) -> None:
    newest = scene.put(scene.older)
    _refuses(scene, "this store was restored from an older copy")
    _accept(scene)
    _unknown(scene, ("guest", scene.guest.server))
    scene.runs()
    # The copy knows its network, and may give its address to another: it runs on, and is closed off.
    assert scene.guest.shell("hostname", check=False) == ""
    scene.put(newest)
    _adopted(scene)


def test_an_empty_store_harms_no_guest(scene: Scene) -> None:
    newest = scene.put(None)
    _refuses(scene, "this host obeys the store")
    _accept(scene)
    _unknown(scene, ("guest", scene.guest.server), ("network", scene.land.network), ("router", scene.land.router))
    scene.unharmed()
    scene.put(newest)
    _adopted(scene)


def test_what_was_adopted_is_deleted_as_ever(scene: Scene) -> None:
    scene.cloud.openstack("server", "delete", "witness", "--wait")
    until(lambda: scene.cloud.guests() == {}, "the guest is gone", 30)
