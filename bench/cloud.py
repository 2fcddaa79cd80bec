"""A cloud to measure: `./pileus up` in a directory of its own, and what an operation on it costs."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from pileus.drivers.host.process import apart

ROOT = Path(__file__).parent.parent
TICK = os.sysconf("SC_CLK_TCK")
KEPT = 30.0
"""Seconds after which a connection that nobody used is left to the cloud, which is about to hang up."""


def yardstick() -> float:
    """Milliseconds that this machine takes for a piece of work that stays the same: figures of two days need it."""
    began = time.perf_counter()
    rows = [{"id": str(number), "name": f"name-{number}", "tags": [number, number % 7]} for number in range(10_000)]
    text = json.dumps(sorted(rows, key=lambda row: (row["tags"][1], row["id"])))
    json.loads(text)
    return (time.perf_counter() - began) * 1000


def machine(times: Sequence[float]) -> str:
    """How quick the machine was while something was measured, by yardsticks that were taken meanwhile."""
    low, *_, high = sorted(times)
    middle = statistics.median(times)
    return f"this machine: {middle:.1f} ms for a yardstick of work of one core ({low:.1f} to {high:.1f})"


class Figure(NamedTuple):
    """One row of the table; times in milliseconds."""

    name: str
    p50: float
    p95: float
    cpu: float
    upstream: float | None
    most: float | None


class _Connection(http.client.HTTPConnection):
    """A connection that is made inside a network namespace, and used from anywhere."""

    def __init__(self, port: int, namespace: str | None) -> None:
        super().__init__("127.0.0.1", port, timeout=60)
        self._namespace = namespace

    def connect(self) -> None:
        apart(super().connect, self._namespace)


class Cloud:
    """A cloud of its own in a directory of its own, of the code below `root`, and a session with it.

    It simulates `hosts`.  With none of them the host is this machine, and guests are real: `namespace` is the network
    namespace that plays the host then, and `image` the image tiny.
    """

    def __init__(
        self, hosts: int, root: Path = ROOT, *, namespace: str | None = None, image: Path | None = None
    ) -> None:
        self.root = root
        self.namespace = namespace
        self.state = Path(tempfile.mkdtemp(prefix="pileus-bench-"))
        self.state.chmod(0o755)
        self.local = threading.local()
        if image is not None:
            for folder in ("images", "metadefs"):  # nothing is left to be fetched
                (self.state / folder).mkdir()
            shutil.copy(image, self.state / "images" / "tiny.qcow2")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        argv = ["up", "--detach", "--no-demo", "--listen", f"127.0.0.1:{self.port}"]
        try:
            self.pileus(*argv, *(["--fake", str(hosts)] if hosts else []))
            self.password = (self.state / "admin-password").read_text().strip()
            self.token = self.log_in()
        except BaseException:
            self.close()
            raise

    def pileus(self, *argv: str) -> None:
        """Run the command line on this cloud. Raises RuntimeError."""
        inside = [] if self.namespace is None else ["ip", "netns", "exec", self.namespace]
        command = [*inside, sys.executable, "-m", "pileus", argv[0], "--state", str(self.state), *argv[1:]]
        path = {**os.environ, "PYTHONPATH": str(self.root / "src")}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=path)
        if done.returncode:
            raise RuntimeError(f"pileus {argv[0]} ended with {done.returncode}: {done.stderr[-2000:]}")

    def connection(self) -> http.client.HTTPConnection:
        """A connection to the API, which is made when it is first used."""
        return _Connection(self.port, self.namespace)

    def log_in(self) -> str:
        """A new token of the administrator, by password."""
        domain = {"name": "Default"}
        user = {"name": "admin", "password": self.password, "domain": domain}
        auth = {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": "admin", "domain": domain}},
        }
        connection = self.connection()
        headers = {"content-type": "application/json"}
        connection.request("POST", "/identity/v3/auth/tokens", json.dumps({"auth": auth}), headers)
        answer = connection.getresponse()
        answer.read()
        return str(answer.headers["X-Subject-Token"])

    def call(self, method: str, path: str, body: Any = None, **more: str) -> Any:
        """One request on this thread's connection. Raises RuntimeError for a fault."""
        connection, used = getattr(self.local, "connection", (None, 0.0))
        if connection is None or time.monotonic() - used > KEPT:
            connection = self.connection()
        headers = {"x-auth-token": self.token, "x-openstack-nova-api-version": "2.90", **more}
        if body is not None:
            headers["content-type"] = "application/json"
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        content = answer.read()
        self.local.connection = connection, time.monotonic()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:500]!r}")
        return json.loads(content) if content else None

    def hang_up(self) -> None:
        """Let the next call of this thread make a new connection: the cloud was down meanwhile."""
        self.local.connection = None, 0.0

    def processes(self) -> list[int]:
        """The supervisor and all its descendants."""
        found = [int((self.state / "run" / "supervisor.pid").read_text())]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        return found

    def cpu(self) -> float:
        """CPU time of the cloud so far, in milliseconds."""
        total = 0
        for pid in self.processes():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total * 1000 / TICK

    def pss(self) -> float:
        """Proportional set size of the cloud, in MiB."""
        total = 0
        for pid in self.processes():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        return total / 1024

    def close(self) -> None:
        """End the cloud and forget it."""
        try:
            self.pileus("down", "--purge")
        finally:
            shutil.rmtree(self.state, ignore_errors=True)


def together(cloud: Cloud, act: Callable[[int], Any], rounds: int, parallel: int = 16) -> tuple[float, float, float]:
    """Run an operation from `parallel` clients at once: median in ms, operations a second, CPU ms for each."""
    times: list[float] = []

    def one(place: int) -> None:
        began = time.perf_counter()
        act(place)
        times.append((time.perf_counter() - began) * 1000)

    before, began = cloud.cpu(), time.perf_counter()
    with ThreadPoolExecutor(parallel) as pool:
        list(pool.map(one, range(rounds)))
    seconds = time.perf_counter() - began
    return statistics.median(times), rounds / seconds, (cloud.cpu() - before) / rounds


def measure(
    cloud: Cloud, name: str, act: Callable[[int], Any], rounds: int, upstream: float | None, most: float | None
) -> Figure:
    """Run an operation `rounds` times, one at a time, after a few that do not count."""
    for place in range(3):
        act(-1 - place)
    times, before = [], cloud.cpu()
    for place in range(rounds):
        began = time.perf_counter()
        act(place)
        times.append((time.perf_counter() - began) * 1000)
    cpu = (cloud.cpu() - before) / rounds
    times.sort()
    return Figure(name, statistics.median(times), times[int(len(times) * 0.95)], cpu, upstream, most)


def run(description: str, figures: Callable[[int], None], grow: Callable[[int], None], most: int, things: str) -> int:
    """The command line of a benchmark that prints figures, and how they grow; exit status."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=200, help="rounds of the quick operations")
    parser.add_argument("--grow", type=int, default=most, help=f"the most {things}; 0 leaves growth out")
    arguments = parser.parse_args()
    figures(arguments.rounds)
    if arguments.grow:
        grow(arguments.grow)
    return 0


HEADING = f"{'operation':42} {'p50 ms':>8} {'p95 ms':>8} {'CPU ms':>8} {'upstream':>9} {'times':>7} {'at most':>8}"


def row(figure: Figure) -> str:
    """A figure as a line of the table."""
    upstream = f"{figure.upstream:9.1f} {figure.upstream / figure.p50:6.0f}x" if figure.upstream else f"{'':9} {'':7}"
    most = f"{figure.most:8.1f}{' ' if figure.p50 <= figure.most else ' !'}" if figure.most else ""
    return f"{figure.name:42} {figure.p50:8.2f} {figure.p95:8.2f} {figure.cpu:8.2f} {upstream} {most}"
