"""Backup and restore of a cloud that runs, and of one that rests. The tests build on each other, in their order."""

from __future__ import annotations

import os
import re
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.simulated import Cloud

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    """A cloud with one server."""
    found = Cloud()
    try:
        found.first_up()
        yield found
    finally:
        found.remove()


@pytest.fixture(scope="module")
def file(cloud: Cloud) -> Path:
    """A backup of it."""
    done = cloud.run("backup", "--images")
    assert re.search(r"✓ backup .* MiB", done.stderr)
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def later(cloud: Cloud, file: Path) -> str:
    """A server that is younger than the backup."""
    words = ("server", "create", "later", "--flavor", "m1.nano", "--image", "tiny", "--network", "private", "--wait")
    return cloud.run("openstack", *words, "-f", "value", "-c", "id").stdout.strip()


def test_a_backup_holds_what_a_cloud_cannot_be_without(file: Path) -> None:
    with tarfile.open(file) as tar:
        names = tar.getnames()
    assert {"store.db", "keys/master", "settings/admin-password", "settings/pileus.toml"} <= set(names)
    assert names[-1] == "manifest.json"
    assert len([name for name in names if name.startswith("images/file/")]) == 1


def test_a_damaged_backup_stops_nothing(cloud: Cloud, file: Path, later: str) -> None:
    damaged = cloud.base / "damaged.tar"
    damaged.write_bytes(file.read_bytes()[:-20_000])
    pids = [cloud.pid(name) for name in ("supervisor", "control", "agent")]
    assert "not a whole backup" in cloud.run("restore", str(damaged), status=1).stderr
    assert pids == [cloud.pid(name) for name in ("supervisor", "control", "agent")]


def test_a_running_cloud_goes_back_and_no_guest_is_touched(cloud: Cloud, file: Path, later: str) -> None:
    boots, supervisor = cloud.boots(), cloud.pid("supervisor")
    said = cloud.run("restore", str(file)).stdout
    assert "Servers that it knows: 1 ACTIVE." in said
    assert re.search(rf"host fake-\d holds guest {later}, which the backup does not know: it is left alone", said)
    assert cloud.servers() == {"hello": "ACTIVE"}
    assert cloud.boots() == boots
    assert cloud.pid("supervisor") == supervisor


def test_what_was_replaced_is_kept_and_a_cloud_that_rests_goes_back_too(cloud: Cloud, file: Path, later: str) -> None:
    (aside,) = (cloud.state / "control").glob("replaced-*")
    assert {"pileus.db", "keys"} <= {one.name for one in aside.iterdir()}
    boots = cloud.boots()
    cloud.run("down")
    assert "`pileus up` starts it" in cloud.run("restore", str(file)).stdout
    cloud.up()
    assert cloud.servers() == {"hello": "ACTIVE"}
    assert cloud.boots() == boots
    assert later in boots


# -- what is left over -----------------------------------------------------------------------------------------------


def test_doctor_mends_what_is_left_over_when_it_is_told_to(cloud: Cloud, later: str) -> None:
    left = cloud.state / "control" / "backup-abc"
    left.mkdir()
    os.utime(left, (0, 0))
    with closing(sqlite3.connect(cloud.state / "control" / "pileus.db")) as connection:
        connection.execute("UPDATE core_quota_usage SET used = used + 7 WHERE resource = 'instances' AND used = 1")
        connection.commit()
    said = cloud.run("doctor", status=1).stdout
    assert re.search(
        r"✗ quota/\w+/compute/instances: 8 are counted .*, and there are 1\n +→ count 1: .* --repair", said
    )
    assert "✗ control/backup-abc: a backup that was killed left it" in said
    assert "give --yes" in cloud.run("doctor", "--repair", status=1).stderr
    said = cloud.run("doctor", "--repair", "--yes", status=1).stdout
    assert re.search(r"  quota/\w+/compute/instances counts 1, not 8\n", said)
    assert "  control/backup-abc is deleted\n" in said
    assert "1 to mend" in said  # the guest that nobody knows is nobody's to delete, unless it is named
    assert later in cloud.boots()


def test_what_nobody_knows_goes_when_it_is_named(cloud: Cloud, later: str) -> None:
    (known,) = (one["id"] for one in cloud.get("/compute/v2.1/servers")["servers"])
    assert "nothing of this name" in cloud.run("doctor", "--remove", f"guest/{known}", "--yes", status=1).stderr
    assert "give --yes" in cloud.run("doctor", "--remove", f"guest/{later}", status=1).stderr
    assert later in cloud.boots()
    assert f"guest/{later} is gone" in cloud.run("doctor", "--remove", f"guest/{later}", "--yes").stdout
    assert {one for one, (state, *_) in cloud.boots().items() if state != "absent"} == {known}
    assert "nothing to mend" in cloud.run("doctor").stdout
