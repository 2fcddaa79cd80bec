"""SIGKILL at named points while a server is created or deleted: what was asked is reached, and nobody else notices.

At each point the process that reaches it dies; at those that say `both`, the other one is killed at the same moment.
The supervisor brings them back.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pileus.cli.main import CommandFailure
from tests.real.cloud import Cloud, until

pytestmark = pytest.mark.slow

CREATE = (
    ("edge.compute.resources.server.operations.create.create", ""),
    ("loop.compute.scheduler.begun", ""),
    ("loop.compute.scheduler.done", "agent"),
    ("agent.network.ensured", ""),
    ("agent.disk.made", ""),
    ("agent.guest.ensured", ""),
    ("agent.guest.ensured", "control"),
    ("loop.compute.folder.begun", "agent"),
)
DELETE = (
    ("edge.compute.resources.server.operations.show.delete", ""),
    ("agent.guest.removed", ""),
    ("agent.disk.removed", "control"),
    ("loop.compute.folder.done", ""),
)


@pytest.fixture(scope="module", autouse=True)
def bystander(cloud: Cloud) -> Iterator[int]:
    """The server `hello`, whose process must live through all of this."""
    cloud.pileus("up", "--detach")
    (pid,) = cloud.guests().values()
    yield pid
    assert list(cloud.guests().values()) == [pid]


def create(cloud: Cloud, name: str) -> None:
    """Ask for a server; the control plane may die before it answers, and the client may ask again."""
    words = ["server", "create", name, "--image", "tiny", "--flavor", "m1.nano", "--network", "private"]
    cloud.openstack(*words, check=False)
    until(lambda: names(cloud) is not None, "the control plane answers", 30)
    if name not in (names(cloud) or []):
        cloud.openstack(*words)


def names(cloud: Cloud) -> list[str] | None:
    """The names of all servers; None while the cloud does not answer."""
    try:
        return [server["name"] for server in cloud.get("/compute/v2.1/servers")["servers"]]
    except CommandFailure:
        return None


def status(cloud: Cloud, name: str) -> str | None:
    """The status of a server, `GONE` when there is no such; None while the cloud does not answer."""
    try:
        servers = cloud.get("/compute/v2.1/servers/detail")["servers"]
    except CommandFailure:
        return None
    return next((str(server["status"]) for server in servers if server["name"] == name), "GONE")


@pytest.mark.parametrize(("point", "other"), CREATE)
def test_a_create_is_finished(cloud: Cloud, bystander: int, point: str, other: str) -> None:
    armed = cloud.arm(point)
    create(cloud, "victim")
    until(lambda: not armed.exists(), f"{point} is reached", 60)
    if other:
        cloud.kill(other)
    until(lambda: status(cloud, "victim") == "ACTIVE", "ACTIVE", 60)
    assert (names(cloud) or []).count("victim") == 1
    guests = cloud.guests()
    assert bystander in guests.values()
    assert len(guests) == 2
    cloud.openstack("server", "delete", "victim")
    until(lambda: status(cloud, "victim") == "GONE", "gone", 60)
    until(lambda: list(cloud.guests().values()) == [bystander], "the guest is gone", 30)


@pytest.mark.parametrize(("point", "other"), DELETE)
def test_a_delete_is_finished(cloud: Cloud, bystander: int, point: str, other: str) -> None:
    create(cloud, "victim")
    until(lambda: status(cloud, "victim") == "ACTIVE", "ACTIVE", 60)
    armed = cloud.arm(point)
    cloud.openstack("server", "delete", "victim", check=False)
    until(lambda: not armed.exists(), f"{point} is reached", 60)
    if other:
        cloud.kill(other)
    until(lambda: status(cloud, "victim") == "GONE", "gone", 60)
    until(lambda: list(cloud.guests().values()) == [bystander], "the guest is gone", 30)
    disks = [entry.name for entry in (cloud.state / "agent" / "disks").iterdir() if entry.is_dir()]
    assert len(disks) == 1


def test_everything_is_killed_and_comes_back(cloud: Cloud, bystander: int) -> None:
    cloud.kill("supervisor", "control", "agent")
    cloud.pileus("up", "--detach", timeout=60)
    assert list(cloud.guests().values()) == [bystander]
