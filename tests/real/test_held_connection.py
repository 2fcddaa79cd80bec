"""Restarts and upgrades drop no guest's connection: one is held through each, and counted.

A guest sends a line over TCP every second.  Control plane and agent are ended, one by one and together, as an upgrade
does it, and the supervisor with them; the lines go on, over the same connection and from the same process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.real.cloud import Cloud, until

pytestmark = pytest.mark.slow


class Held:
    """A connection to a guest on which lines come."""

    def __init__(self, cloud: Cloud, address: str) -> None:
        options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
        flags = [word for option in options for word in ("-o", option)]
        ticking = "while :; do echo tick; sleep 1; done"
        argv = ["ip", "netns", "exec", cloud.namespace, "ssh", "-i", str(cloud.state / "hello.key"), *flags]
        self.process = subprocess.Popen(
            [*argv, f"cirros@{address}", ticking], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        self.lines = 0
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        assert self.process.stdout is not None
        for _ in self.process.stdout:
            self.lines += 1

    def goes_on(self) -> None:
        """Three more lines come, over this very connection."""
        before = self.lines
        until(lambda: self.lines >= before + 3, "lines of the guest", 30)
        assert self.process.poll() is None

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def held(cloud: Cloud) -> Iterator[Held]:
    cloud.pileus("up", "--detach")
    servers = cloud.get("/compute/v2.1/servers/detail?name=hello")["servers"]
    addresses = [one for found in servers[0]["addresses"].values() for one in found]
    (address,) = [one["addr"] for one in addresses if one["OS-EXT-IPS:type"] == "floating"]
    connection = Held(cloud, address)
    try:
        connection.goes_on()
        yield connection
    finally:
        connection.close()


def restart(*names: str) -> Callable[[Cloud], None]:
    """End processes as their service manager would, and wait until others are in their place."""

    def act(cloud: Cloud) -> None:
        old = {name: cloud.pid(name) for name in names}
        for pid in old.values():
            assert pid is not None
            os.kill(pid, signal.SIGTERM)
        for name, pid in old.items():
            until(lambda name=name, pid=pid: cloud.pid(name) not in (None, pid), f"a new {name}", 60)  # type: ignore[misc]
        cloud.pileus("up", "--detach")

    return act


def upgrade(cloud: Cloud) -> None:
    """All three end, and `up` starts what is installed then."""
    cloud.rest()
    cloud.pileus("up", "--detach")


@pytest.mark.parametrize(
    "act",
    [restart("control"), restart("agent"), restart("control", "agent"), upgrade],
    ids=["control", "agent", "control and agent", "supervisor"],
)
def test_a_connection_outlives_it(cloud: Cloud, held: Held, act: Callable[[Cloud], None]) -> None:
    guests = cloud.guests()
    assert len(guests) == 1
    act(cloud)
    held.goes_on()
    assert cloud.guests() == guests
    (pid,) = guests.values()
    assert Path(f"/proc/{pid}").exists()
    cloud.openstack("server", "list")
