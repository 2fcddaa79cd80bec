"""The service manager is told how a process is (sd_notify(3))."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pileus.app.readiness import tell
from pileus.core.notify import notify, watchdog_seconds


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A socket that stands for systemd's."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    address = str(tmp_path / "notify") if request.param == "path" else f"@pileus-test-{os.getpid()}"
    channel.bind(address.replace("@", "\0", 1))
    channel.settimeout(5)
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    yield channel
    channel.close()


def test_a_process_says_that_it_serves_goes_on_and_ends(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))

    heard: list[str] = []

    async def live() -> None:
        task = asyncio.create_task(tell("serves"))
        heard.extend([(await asyncio.to_thread(systemd.recv, 200)).decode() for _ in range(4)])
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(live())
    assert heard == ["READY=1\nSTATUS=serves", *["WATCHDOG=1"] * 3]
    while (last := systemd.recv(200).decode()) == "WATCHDOG=1":
        pass
    assert last == "STOPPING=1\nSTATUS=ending"


def test_nobody_listens() -> None:
    assert "NOTIFY_SOCKET" not in os.environ
    assert notify("READY=1") is False


def test_a_listener_that_went_away_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert notify("READY=1") is False


@pytest.mark.parametrize(
    ("microseconds", "pid", "seconds"),
    [
        ("30000000", None, 15.0),
        ("30000000", "own", 15.0),
        ("30000000", "1", None),
        ("0", None, None),
        ("x", None, None),
    ],
)
def test_how_often_systemd_wants_to_hear(
    monkeypatch: pytest.MonkeyPatch, microseconds: str, pid: str | None, seconds: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)
    assert watchdog_seconds() == seconds
