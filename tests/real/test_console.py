"""A real guest's consoles, through the API's own address: what a browser would show is what QEMU shows."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from pileus.drivers.host.process import apart
from tests.api.websocket import Refused, Screen, Socket
from tests.real.cloud import Cloud, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(cloud: Cloud, tiny: Path) -> str:
    """A server without networks, whose guest has come up; its id."""
    cloud.pileus("up", "--detach", "--no-demo")
    cloud.openstack("image", "create", "mine", "--file", tiny, "--disk-format", "qcow2", "--container-format", "bare")
    cloud.openstack("flavor", "create", "mine", "--ram", "128", "--disk", "1", "--vcpus", "1")
    cloud.openstack("server", "create", "hello", "--image", "mine", "--flavor", "mine", "--nic", "none", "--wait")
    found: str = cloud.json("server", "show", "hello")["id"]
    until(lambda: "login:" in cloud.openstack("console", "log", "show", "hello"), "the guest's login prompt", 120)
    return found


def address(cloud: Cloud, kind: str) -> str:
    """Where a console is, as the unmodified client is told."""
    found: str = cloud.json("console", "url", "show", "hello", f"--{kind}")["url"]
    return found


def test_the_serial_port_asks_who_logs_in(cloud: Cloud, server: str) -> None:
    url = address(cloud, "serial")
    assert url.startswith("ws://")

    def log_in() -> str:
        with Socket(url, seconds=30) as line:
            line.send(b"\r")
            said = b""
            while b"login:" not in said:
                said += line.receive()
            line.send(b"cirros\r")
            while b"assword:" not in said:
                said += line.receive()
            return said.decode(errors="replace")

    assert "cirros" in apart(log_in, cloud.namespace)
    apart(log_in, cloud.namespace)  # the next client has it as well


def test_the_screen_is_what_qemu_shows(cloud: Cloud, server: str, tmp_path: Path) -> None:
    url = address(cloud, "novnc")

    def look() -> tuple[int, int, bytes]:
        with Socket(url, seconds=30) as line:
            screen = Screen(line)
            assert len(set(screen.pixels())) > 1  # more than one colour: something is shown
            # A guest that stands still shows one picture, with its cursor as it was.
            cloud.openstack("server", "pause", "hello")
            until(lambda: cloud.get(f"/compute/v2.1/servers/{server}")["server"]["status"] == "PAUSED", "it pauses")
            return screen.width, screen.height, screen.pixels()

    width, height, shown = apart(look, cloud.namespace)
    cloud.rest()  # QEMU talks to one at a time
    header, dumped = ppm(screendump(cloud, server))
    assert header == (width, height)
    assert dumped == shown
    cloud.pileus("up", "--detach", "--no-demo")
    with pytest.raises(Refused, match="403"):
        apart(lambda: Socket(url.replace("token%3D", "token%3Dx")), cloud.namespace)
    cloud.openstack("server", "unpause", "hello")

    def again() -> bytes:
        with Socket(url, seconds=30) as line:
            return Screen(line).pixels()

    assert len(apart(again, cloud.namespace)) == len(shown)  # the token outlives the control plane


def test_a_deleted_server_s_console_is_gone(cloud: Cloud, server: str) -> None:
    url = address(cloud, "serial")

    def wait() -> None:
        with Socket(url, seconds=60) as line:
            cloud.openstack("server", "delete", "hello")
            while line.receive():
                pass
        with pytest.raises(Refused, match="403"):
            Socket(url)

    apart(wait, cloud.namespace)


def screendump(cloud: Cloud, server: str) -> bytes:
    """What QEMU says that its screen shows, as PPM; while no agent holds its monitor."""
    place = cloud.state / "agent" / "hypervisor" / "guests" / server
    file = Path(f"/var/tmp/{server}.ppm")
    file.touch()
    file.chmod(0o666)
    try:
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(20)
            monitor.connect(str(place / "qmp.sock"))
            lines = monitor.makefile("rwb")
            lines.readline()
            for command in (
                {"execute": "qmp_capabilities"},
                {"execute": "screendump", "arguments": {"filename": str(file)}},
            ):
                lines.write(json.dumps(command).encode() + b"\n")
                lines.flush()
                answer: dict[str, Any] = {}
                while not {"return", "error"} & answer.keys():
                    answer = json.loads(lines.readline())
                assert "return" in answer, answer
        return file.read_bytes()
    finally:
        file.unlink()


def ppm(data: bytes) -> tuple[tuple[int, int], bytes]:
    """Size and pixels of a picture (ppm(5))."""
    kind, width, height, most = data.split(maxsplit=4)[:4]
    assert (kind, most) == (b"P6", b"255")
    size = int(width) * int(height) * 3
    return (int(width), int(height)), data[-size:]
