"""A whole cloud for tests: `./pileus up` in a network namespace with nothing but its loopback.

Everything that a test sees of it goes through the command line, the unmodified OpenStack client, or the host's own
tools (`ip`, `nft`, /proc), as an operator would look.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from pileus.cli.client import Api, ApiFailure
from pileus.core.privilege import LATE_IMPORT
from pileus.drivers.host.process import apart

ROOT = Path(__file__).parent.parent.parent


class Failure(AssertionError):
    """A program failed: what it was, and what it printed."""


class Cloud:
    """One cloud: `state` is its directory, `namespace` the network namespace that plays its host."""

    def __init__(self, state: Path, namespace: str) -> None:
        self.state = state
        self.namespace = namespace
        self.failpoints = state / "failpoints"
        self._api: Api | None = None
        state.mkdir(parents=True, exist_ok=True)
        self.failpoints.mkdir(exist_ok=True)
        self.failpoints.chmod(0o777)
        run("ip", "netns", "add", namespace)
        run("ip", "-n", namespace, "link", "set", "lo", "up")

    def inside(self, *words: str | Path, timeout: float = 120, check: bool = True, **options: Any) -> str:
        """Run a program in the host's namespace; what it printed. Raises Failure."""
        return run("ip", "netns", "exec", self.namespace, *words, timeout=timeout, check=check, **options)

    def pileus(self, *words: str | Path, timeout: float = 360, check: bool = True) -> str:
        """Run `pileus` on this cloud."""
        command = [sys.executable, "-m", "pileus", words[0], "--state", self.state, *words[1:]]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PILEUS_FAILPOINTS": str(self.failpoints)}
        return self.inside(*command, timeout=timeout, check=check, env=environment)

    def openstack(self, *words: str | Path, check: bool = True) -> str:
        """Run the OpenStack client with this cloud's credentials; what it printed."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
        environment |= {"OS_CLIENT_CONFIG_FILE": str(self.state / "clouds.yaml"), "OS_CLOUD": "pileus"}
        client = Path(sys.executable).parent / "openstack"
        return self.inside(client, *words, check=check, env=environment)

    def json(self, *words: str | Path) -> Any:
        """`openstack … -f json`, decoded."""
        return json.loads(self.openstack(*words, "-f", "json"))

    def get(self, path: str) -> Any:
        """GET a path of the API as the administrator: quicker than the client, for what is asked again and again."""
        kept, self._api = self._api, None
        if kept is not None:
            try:
                found = apart(lambda: kept.get(path), self.namespace)
            except ApiFailure as failure:
                if failure.code != HTTPStatus.UNAUTHORIZED:
                    raise  # a token is of the store that it was given by, and there may be another now
            else:
                self._api = kept
                return found
        api = Api(self.state)
        found = apart(lambda: api.get(path), self.namespace)
        self._api = api
        return found

    def ssh(self, address: str, command: str, *, key: Path | None = None, check: bool = True) -> str:
        """Run a command on a guest as `cirros`."""
        options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ConnectTimeout=5",
                   "LogLevel=ERROR"]  # fmt: skip
        flags = [word for option in options for word in ("-o", option)]
        return self.inside(
            "ssh", "-i", key or self.state / "hello.key", *flags, f"cirros@{address}", command, check=check
        )

    def pid(self, process: str) -> int | None:
        """The pid of `control` or `agent`, a child of the supervisor; None when it does not run."""
        supervisor = int((self.state / "run" / "supervisor.pid").read_text() or 0)
        for task in Path(f"/proc/{supervisor}/task").glob("*/children"):
            for child in task.read_text().split():
                words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
                if process.encode() in words:
                    return int(child)
        return None

    def kill(self, *processes: str) -> None:
        """SIGKILL processes of the cloud; `supervisor` is one of them."""
        pids = [
            int((self.state / "run" / "supervisor.pid").read_text()) if process == "supervisor" else self.pid(process)
            for process in processes
        ]
        for pid in pids:
            if pid is not None:
                os.kill(pid, signal.SIGKILL)

    def rest(self) -> None:
        """End control plane and agent, as Ctrl-C on `up` does; guests go on."""
        file = self.state / "run" / "supervisor.pid"
        os.kill(int(file.read_text()), signal.SIGTERM)
        until(lambda: not file.read_text(), "the supervisor has ended", 30)

    def arm(self, point: str) -> Path:
        """Let the next process that reaches a point die there; the file that is gone when it did."""
        file = self.failpoints / point
        file.touch()
        return file

    def guests(self) -> dict[str, int]:
        """Pid of each QEMU process of this cloud, by guest id."""
        found = {}
        for place in Path("/proc").iterdir():
            if not place.name.isdecimal():
                continue
            try:
                words = (place / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"qemu-system" in words[0] and any(str(self.state).encode() in word for word in words):
                uuid = words[words.index(b"-uuid") + 1].decode()
                found[uuid] = int(place.name)
        return found

    def leftovers(self) -> list[str]:
        """Whatever of guests and networks is on the host: processes, interfaces, namespaces, rules, files."""
        found = [f"process of guest {guest}" for guest in self.guests()]
        links = json.loads(self.inside("ip", "-j", "link"))
        found += [f"interface {link['ifname']}" for link in links if link["ifname"] != "lo"]
        rules = self.inside("nft", "list", "ruleset").strip()
        found += [f"rules: {rules}"] if rules else []
        for place in ("hypervisor/guests", "disks"):
            directory = self.state / "agent" / place
            found += [str(entry) for entry in directory.glob("*") if entry.is_dir()]
        for process in Path("/proc").iterdir():
            if process.name.isdecimal():
                try:
                    words = (process / "cmdline").read_bytes()
                except OSError:
                    continue
                if b"dnsmasq" in words.split(b"\0")[0] and str(self.state).encode() in words:
                    found.append(f"dnsmasq {process.name}")
        return found

    def close(self) -> None:
        """End the cloud and its host."""
        if "PILEUS_KEEP" in os.environ:  # for whoever looks for a cause
            return
        said = [line for file in self.state.glob("log/*.log") for line in file.read_text().splitlines()]
        self.pileus("down", "--purge", check=False)
        for guest in self.guests().values():
            os.kill(guest, signal.SIGKILL)
        run("ip", "netns", "del", self.namespace, check=False)
        shutil.rmtree(self.state, ignore_errors=True)
        assert [line for line in said if LATE_IMPORT in line] == []


def run(*words: str | Path, timeout: float = 120, check: bool = True, **options: Any) -> str:
    """Run a program; what it printed, both streams when it failed. Raises Failure when it failed and `check`."""
    argv = [str(word) for word in words]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL, **options
    )
    if check and done.returncode != 0:
        raise Failure(f"{' '.join(argv)}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return str(done.stdout)


def until(true: Callable[[], Any], what: str, seconds: float = 60, pause: float = 0.2) -> Any:
    """Wait until something holds, at most some seconds; what it gave. Raises Failure."""
    deadline = time.monotonic() + seconds
    while True:
        found = true()
        if found:
            return found
        if time.monotonic() > deadline:
            raise Failure(f"not after {seconds:.0f} s: {what}")
        time.sleep(pause)
