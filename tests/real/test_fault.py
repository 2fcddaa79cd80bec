"""Faults of what a real guest stands on: its process, its DHCP service, its image, the emulator itself.

A guest that ends by itself is known within two seconds: one that was turned off from inside is off, one whose process
was killed runs again.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pileus.cli.main import CommandFailure
from tests.real.cloud import Cloud, until

pytestmark = pytest.mark.slow

EMULATOR = "qemu-system-x86_64"
KNOWN = 2.0
"""Seconds within which the end of a guest is known, and acted upon."""


class Hello:
    """The server `hello`."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.id, self.pid = next(iter(cloud.guests().items()))

    def status(self) -> str:
        """What the API says of it."""
        try:
            return str(self.cloud.get(f"/compute/v2.1/servers/{self.id}")["server"]["status"])
        except CommandFailure:
            return ""

    def address(self) -> str:
        """Its floating IP."""
        server = self.cloud.get(f"/compute/v2.1/servers/{self.id}")["server"]
        addresses = [one for found in server["addresses"].values() for one in found]
        return next(str(one["addr"]) for one in addresses if one["OS-EXT-IPS:type"] == "floating")

    def start(self) -> None:
        """Have it run again."""
        self.cloud.openstack("server", "start", self.id)
        until(lambda: self.status() == "ACTIVE", "ACTIVE", 60)
        self.pid = self.cloud.guests()[self.id]

    def answers(self) -> bool:
        """Whether its system is up."""
        return "here" in self.cloud.ssh(self.address(), "echo here", check=False)


def programs(cloud: Cloud) -> Path:
    """The directory where this cloud looks for programs."""
    return cloud.state / "bin"


@pytest.fixture(scope="module")
def hello(cloud: Cloud) -> Iterator[Hello]:
    """A cloud whose programs are links of its own, so that one can go without being missed by any other cloud."""
    programs(cloud).mkdir()
    for place in os.get_exec_path():
        for file in Path(place).glob("*"):
            link = programs(cloud) / file.name
            if not link.is_symlink():
                link.symlink_to(file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(programs(cloud)))
        cloud.pileus("up", "--detach")
        yield Hello(cloud)


def test_a_guest_whose_process_is_killed_runs_again_within_two_seconds(
    hello: Hello, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was to run, and nobody inside turned it off: the host starts it again (contracts/hypervisor.py)."""
    os.kill(hello.pid, signal.SIGKILL)
    began = time.monotonic()
    pid = until(lambda: hello.cloud.guests().get(hello.id, hello.pid) != hello.pid, "another process", 30, 0.02)
    seconds = time.monotonic() - began
    with capsys.disabled():
        print(f"\n  SIGKILL of QEMU: another process after {seconds * 1e3:.0f} ms")
    assert pid
    assert seconds < KNOWN
    assert hello.status() == "ACTIVE"
    hello.pid = hello.cloud.guests()[hello.id]


def test_a_guest_that_powers_itself_off_is_known_to_be_off(hello: Hello, capsys: pytest.CaptureFixture[str]) -> None:
    until(hello.answers, "SSH answers", 150, 1.0)
    (console,) = (hello.cloud.state / "agent" / "hypervisor" / "guests" / hello.id).glob("console*")
    address = hello.address()
    threading.Thread(target=lambda: hello.cloud.ssh(address, "sudo poweroff", check=False)).start()
    until(lambda: b"Power down" in console.read_bytes(), "the kernel's last words", 60, 0.02)
    began = time.monotonic()
    until(lambda: hello.status() == "SHUTOFF", "SHUTOFF", 60, 0.02)
    seconds = time.monotonic() - began
    with capsys.disabled():
        print(f"\n  poweroff in the guest: SHUTOFF {seconds * 1e3:.0f} ms after its kernel's last words")
    assert seconds < KNOWN
    hello.start()


def ask_for(hello: Hello, name: str) -> str:
    """A server that is asked for; its id."""
    words = ["--image", "tiny", "--flavor", "m1.nano", "--network", "private"]
    return str(hello.cloud.json("server", "create", name, *words)["id"])


def comes_up(hello: Hello, server: str) -> None:
    """It is ACTIVE, sooner or later."""
    path = f"/compute/v2.1/servers/{server}"
    until(lambda: hello.cloud.get(path)["server"]["status"] == "ACTIVE", "ACTIVE", 90, 0.5)


def is_told(hello: Hello, server: str, words: str) -> None:
    """Its story says why it does not come up."""
    said = ""

    def told() -> bool:
        nonlocal said
        said = hello.cloud.pileus("trace", server)
        return words in said

    try:
        until(told, words, 40, 1.0)
    except AssertionError as error:
        raise AssertionError(said) from error


def remove(hello: Hello, *names: str) -> None:
    """Delete servers, and wait until the host has let go of them."""
    hello.cloud.openstack("server", "delete", *names)
    until(lambda: list(hello.cloud.guests()) == [hello.id], "the guest is gone", 60)


def test_without_the_emulator_new_servers_wait_with_the_reason_and_the_others_go_on(hello: Hello) -> None:
    cloud = hello.cloud
    program = programs(cloud) / EMULATOR
    target = program.readlink()
    program.unlink()
    try:
        without = ask_for(hello, "without")
        is_told(hello, without, EMULATOR)
        cloud.kill("agent")
        log = cloud.state / "log" / "agent.log"
        until(lambda: f"this host cannot hold guests: {EMULATOR}" in log.read_text(), "the agent says why", 30)
        assert hello.status() == "ACTIVE"
        assert cloud.guests() == {hello.id: hello.pid}
    finally:
        program.symlink_to(target)
    comes_up(hello, without)
    remove(hello, without)
    assert cloud.guests() == {hello.id: hello.pid}


def flip(file: Path) -> None:
    """One bit of a file is another, and neither its size nor its time tells."""
    times = file.stat()
    with file.open("r+b") as stream:
        stream.seek(times.st_size // 2)
        (byte,) = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte ^ 1]))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_damaged_image_is_refused_by_its_hash_and_fetched_again(hello: Hello) -> None:
    cloud = hello.cloud
    (image,) = (cloud.state / "agent" / "cache").glob("*.qcow2")
    whole = image.read_bytes()
    files = [one for one in (cloud.state / "control").rglob("*") if one.is_file()]
    stored = [one for one in files if one.stat().st_size == len(whole) and one.read_bytes() == whole]
    assert stored
    flip(image)
    cloud.kill("agent")
    again = ask_for(hello, "again")
    comes_up(hello, again)
    assert image.read_bytes() == whole
    assert f"{image} is damaged; it is fetched again" in (cloud.state / "log" / "agent.log").read_text()
    remove(hello, again)
    # And the store's own: no host takes it.
    for one in stored:
        flip(one)
    image.unlink()
    refused = ask_for(hello, "refused")
    is_told(hello, refused, "does not hash to what it should")
    assert not image.exists()
    for one in stored:
        flip(one)
    comes_up(hello, refused)
    assert image.read_bytes() == whole
    remove(hello, refused)
    assert cloud.guests() == {hello.id: hello.pid}
