"""What is left over on a host of processes and interfaces is found, named and taken away; the rest is left alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pileus.app import remains
from pileus.app.host import prefix
from pileus.core.config import Config

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="only root sees all of a host")

GONE, THERE = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"


@contextmanager
def works_for(place: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has a file of a directory among its arguments."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", f"--conf-file={place}/file"])
    try:
        deadline = time.monotonic() + 10
        while not Path(f"/proc/{child.pid}/cmdline").read_bytes():  # the kernel tells them just after the program began
            assert time.monotonic() < deadline
            time.sleep(0.001)
        yield child
    finally:
        child.kill()
        child.wait()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(state=tmp_path)


def test_processes_of_what_is_gone(config: Config) -> None:
    networks, guests = config.agent / "network" / "networks", config.agent / "hypervisor" / "guests"
    (networks / THERE).mkdir(parents=True)
    with works_for(networks / GONE) as stray, works_for(networks / THERE) as used, works_for(guests / GONE) as guest:
        found = {one.key: one for one in remains.examine(config)}
        assert found.keys() == {f"process/{stray.pid}", f"process/{guest.pid}"}
        # Whatever a guest's process still does, only who names it may end it.
        assert found[f"process/{guest.pid}"].named
        assert not found[f"process/{stray.pid}"].named
        assert remains.mend(config, f"process/{used.pid}") is None
        assert remains.mend(config, f"process/{os.getpid()}") is None
        assert remains.mend(config, f"process/{stray.pid}") == "has ended"
        assert stray.poll() is not None
        assert used.poll() is None
        assert guest.poll() is None
        assert remains.mend(config, f"process/{stray.pid}") is None


def test_interfaces_of_networks_that_are_gone(config: Config) -> None:
    name = f"{prefix(config)}-11111111"
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    try:
        assert [one.key for one in remains.examine(config)] == [f"interface/{name}"]
        assert remains.mend(config, "interface/lo") is None
        assert remains.mend(config, f"interface/{name}") == "is deleted"
        assert remains.examine(config) == []
        assert Path("/sys/class/net/lo").exists()
    finally:
        subprocess.run(["ip", "link", "delete", name], check=False, stderr=subprocess.DEVNULL)
