"""Two control planes on one PostgreSQL, as processes, and clients of both."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CLIENTS = 16

Answer = tuple[int, Any]


class Control:
    """One control plane process, and the clients' connections to it."""

    def __init__(self, state: Path, database: str, *, keys: Path | None = None) -> None:
        self.state = state
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        (state / "control").mkdir(parents=True)
        settings = {"database": database, "listen": f"127.0.0.1:{self.port}", "fake": 1}
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in settings.items()]
        (state / "pileus.toml").write_text("".join(lines))
        (state / "control" / "bootstrap-password").write_text("secret")
        if keys is not None:
            shutil.copytree(keys, state / "control" / "keys")
        self.processes = [self._start("control")]
        self.token = ""
        self._local = threading.local()
        self._ready()

    def _start(self, role: str) -> subprocess.Popen[bytes]:
        log = (self.state / f"{role}.log").open("ab")
        argv = [sys.executable, "-m", "pileus", role, "--state", str(self.state)]
        return subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def start_agent(self) -> None:
        """Start the simulated host that belongs to this control plane."""
        self.processes.append(self._start("agent"))

    def _ready(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                if self.call("GET", "/identity/v3")[0] == 200:
                    return
            except OSError:
                self._local = threading.local()
            if time.monotonic() > deadline or self.processes[0].poll() is not None:
                raise AssertionError((self.state / "control.log").read_text()[-3000:])
            time.sleep(0.1)

    def log_in(self) -> str:
        """A token of the administrator."""
        domain = {"name": "Default"}
        user = {"name": "admin", "password": "secret", "domain": domain}
        scope = {"project": {"name": "admin", "domain": domain}}
        body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("POST", "/identity/v3/auth/tokens", json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return str(answer.headers["X-Subject-Token"])

    def call(self, method: str, path: str, body: Any = None) -> Answer:
        """One request on this thread's connection: status and decoded body."""
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"x-auth-token": self.token, "openstack-api-version": "compute 2.90,placement 1.38"}
        if body is not None:
            headers["content-type"] = "application/json"
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if content else None

    def close(self) -> None:
        """End the processes."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(20)


class Pair:
    """Both control planes, and the clients."""

    def __init__(self, controls: list[Control]) -> None:
        self.controls = controls
        self.project = ""
        self._pool = ThreadPoolExecutor(CLIENTS)

    def one(self, method: str, path: str, body: Any = None) -> Any:
        """A request that must succeed; its body."""
        status, found = self.controls[0].call(method, path, body)
        assert status < 400, (method, path, status, found)
        return found

    def host(self) -> Any:
        """The simulated host, when it has come."""
        deadline = time.monotonic() + 20
        while not (found := self.one("GET", "/compute/v2.1/os-hypervisors/detail")["hypervisors"]):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return found[0]

    def all(self, ask: Callable[[Control, int], Answer]) -> list[Answer]:
        """Let all clients ask at the same moment."""
        barrier = threading.Barrier(CLIENTS)

        def client(number: int) -> Answer:
            barrier.wait(30)
            return ask(self.controls[number % len(self.controls)], number)

        return list(self._pool.map(client, range(CLIENTS)))


@contextmanager
def pair(databases: Any, root: Path) -> Iterator[Pair]:
    """Two control planes whose state lies below `root`; the first has a simulated host."""
    for place in (root, *root.parents):
        if place.stat().st_uid == os.getuid() and place != Path("/"):
            place.chmod(place.stat().st_mode | 0o011)
    database = databases.make(root, None)
    first = Control(root / "a", database)
    second = Control(root / "b", database, keys=root / "a" / "control" / "keys")
    controls = [first, second]
    try:
        token = first.log_in()
        for control in controls:
            control.token = token
        first.start_agent()
        found = Pair(controls)
        found.project = found.one("GET", "/identity/v3/auth/projects")["projects"][0]["id"]
        yield found
    finally:
        for control in controls:
            control.close()
        databases.drop(database)
