"""An image of gibibytes goes through a whole cloud in constant memory, and its zeros take no space."""

from __future__ import annotations

import http.client
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pileus.drivers.host.process import apart
from tests.effort import times
from tests.real.cloud import Cloud

pytestmark = [pytest.mark.real, pytest.mark.slow]

SIZE = times(1, 8) << 30
"""Far more than memory may grow: what matters is that it does not grow with it."""
BLOCK = 1 << 20
GROWTH = 48 << 20
"""Bytes of memory that the control plane may take more than before, whatever the size of the image."""


@pytest.fixture(name="cloud")
def simulated_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    state = Path(f"/var/tmp/pileus-size-{os.getpid()}")
    found = Cloud(state, f"ps{os.getpid()}")
    try:
        found.pileus("up", "--fake", "1", "--no-demo", "--detach")
        yield found
    finally:
        found.close()
        shutil.rmtree(state, ignore_errors=True)


class Session:
    """One connection to the API, as the administrator."""

    def __init__(self, state: Path) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", 5000, timeout=600)
        domain = {"name": "Default"}
        password = (state / "admin-password").read_text().strip()
        auth = {
            "identity": {
                "methods": ["password"],
                "password": {"user": {"name": "admin", "password": password, "domain": domain}},
            },
            "scope": {"project": {"name": "admin", "domain": domain}},
        }
        answer = self._ask("POST", "/identity/v3/auth/tokens", {"auth": auth})
        self.token = answer.headers["X-Subject-Token"]
        answer.read()

    def _ask(self, method: str, path: str, body: Any = None, **headers: str) -> http.client.HTTPResponse:
        given = {"content-type": "application/json", **headers}
        self.connection.request(method, path, None if body is None else json.dumps(body), given)
        return self.connection.getresponse()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        found = self._ask(method, path, body, **{"x-auth-token": self.token}).read()
        return json.loads(found) if found else None

    def upload(self, image_id: str) -> int:
        self.connection.putrequest("PUT", f"/image/v2/images/{image_id}/file")
        for name, value in (("x-auth-token", self.token), ("content-type", "application/octet-stream")):
            self.connection.putheader(name, value)
        self.connection.putheader("content-length", str(SIZE))
        self.connection.endheaders()
        block = bytes(BLOCK)
        for _ in range(SIZE // BLOCK):
            self.connection.send(block)
        answer = self.connection.getresponse()
        answer.read()
        return answer.status

    def download(self, image_id: str) -> int:
        answer = self._ask("GET", f"/image/v2/images/{image_id}/file", **{"x-auth-token": self.token})
        size = 0
        while block := answer.read(BLOCK):
            size += len(block)
        return size


def control(state: Path) -> Path:
    """The control plane's process."""
    for found in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = found.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"control" in words and str(state).encode() in words:
            return found.parent
    raise AssertionError("the control plane does not run")


def memory(process: Path, name: str) -> int:
    line = next(line for line in (process / "status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) << 10


def test_gibibytes(cloud: Cloud) -> None:
    process = control(cloud.state)
    session = apart(lambda: Session(cloud.state), cloud.namespace)
    new = {"name": "huge", "disk_format": "raw", "container_format": "bare"}
    image_id = session.call("POST", "/image/v2/images", new)["id"]
    before = memory(process, "VmRSS")
    (process / "clear_refs").write_text("5")  # the peak is counted from here (proc(5))
    assert session.upload(image_id) == 204
    image = session.call("GET", f"/image/v2/images/{image_id}")
    assert (image["status"], image["size"], image["virtual_size"]) == ("active", SIZE, SIZE)
    assert memory(process, "VmHWM") - before < GROWTH
    held = list((cloud.state / "control" / "images" / "data").iterdir())
    assert [one.stat().st_size for one in held] == [SIZE]
    assert held[0].stat().st_blocks * 512 < BLOCK
    assert session.download(image_id) == SIZE
    assert memory(process, "VmHWM") - before < GROWTH
