"""Backup and restore of a cloud that runs, and of one that rests. The tests build on each other, in their order."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
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
