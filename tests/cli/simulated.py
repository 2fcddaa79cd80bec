"""A cloud of simulated hosts, started and asked as a user would: by commands, each in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pileus.cli.client import Api
from pileus.cli.supervise import holder
from pileus.core.privilege import LATE_IMPORT
from tests.tidy.tree import ROOT

HOSTS = 2


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(found: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline, f"not after {seconds} s"
        time.sleep(0.05)


class Cloud:
    """A state directory that users without privilege can reach, and the commands on it.

    With `closed`, code and Python packages are where root alone can read, as in root's home.
    """

    def __init__(self, *, closed: bool = False) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="pileus-test-", dir="/var/tmp"))
        self.base.chmod(0o755)
        self.state = self.base / "state"
        self.port = free_port()
        self.listen = f"127.0.0.1:{self.port}"
        self.code = ROOT
        self.python = [sys.executable]
        if closed:
            (self.base / "home").mkdir(mode=0o700)
            self.code = self.base / "home" / "code"
            self.code.mkdir()
            python = str(self.code / Path(sys.executable).relative_to(ROOT))
            # A copy of another test's mount would keep its file system in use when that is unmounted.
            script = """grep -o ' /var/tmp/pileus-test[^ ]*' /proc/self/mounts | xargs -r umount --lazy
                mount --bind "$0" "$1" && shift && exec "$@\""""
            self.python = ["unshare", "--mount", "sh", "-c", script, str(ROOT), str(self.code), python]

    def run(
        self, command: str, *words: str, status: int = 0, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `pileus COMMAND --state …`, which is to end with this status."""
        argv = [*self.python, "-m", "pileus", command, "--state", str(self.state), *words]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "PILEUS_"))}
        done = subprocess.run(
            argv,
            check=False,
            capture_output=True,
            text=True,
            timeout=90,
            env={**inherited, "PYTHONPATH": str(self.code / "src"), **(environment or {})},
        )
        assert done.returncode == status, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def up(self, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Bring the cloud up, with the settings that it has."""
        return self.run("up", "--detach", *words, status=status)

    def first_up(self) -> subprocess.CompletedProcess[str]:
        """Make the cloud."""
        return self.up("--fake", str(HOSTS), "--listen", self.listen)

    def get(self, path: str) -> Any:
        """GET a path as the administrator."""
        return Api(self.state).get(path)

    def servers(self) -> dict[str, str]:
        """Statuses of all servers by name."""
        found = self.get("/compute/v2.1/servers/detail?all_tenants=1")["servers"]
        return {one["name"]: one["status"] for one in found}

    def boots(self) -> dict[str, tuple[str, int, float]]:
        """What the simulated hosts hold: state, number of boots and time of the last one, by server."""
        found = {}
        for file in self.state.glob("agent/*/guests.jsonl"):
            for line in file.read_text().splitlines():
                one = json.loads(line)
                found[one["id"]] = (one["state"], one["boots"], one["started_at"])
        return found

    def pid(self, name: str) -> int:
        """The pid of `supervisor`, `control` or `agent`, which is to run."""
        pid = holder(self.state, name)
        assert pid, f"{name} does not run"
        return pid

    def kill(self, *names: str) -> None:
        """End processes without a warning."""
        pids = [self.pid(name) for name in names]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        until(lambda: all(holder(self.state, name) not in pids for name in names))

    def log(self, name: str) -> str:
        """What a process logged."""
        return (self.state / "log" / f"{name}.log").read_text()

    def remove(self) -> None:
        """End what runs, and delete everything."""
        said = []
        if self.state.exists():
            argv = [sys.executable, "-m", "pileus", "down", "--state", str(self.state)]
            subprocess.run(argv, check=False, capture_output=True, timeout=60)
            said = [line for file in self.state.glob("log/*.log") for line in file.read_text().splitlines()]
        shutil.rmtree(self.base)
        assert [line for line in said if LATE_IMPORT in line] == []
