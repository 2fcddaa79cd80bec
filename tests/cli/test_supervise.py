"""Logs stay small while their writers go on, and those put aside are counted."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from pileus.cli.supervise import ending, grace, put_aside
from pileus.core.config import Config


def test_a_large_log_is_put_aside_and_its_writer_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "control.log"
    writer = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for number in range(5):
            os.write(writer, f"{number}".encode() * 100)
            put_aside(file, 99, 3)
        os.write(writer, b"last")
    finally:
        os.close(writer)
    assert sorted(one.name for one in tmp_path.iterdir()) == [file.name, *(f"{file.name}.{n}" for n in (1, 2, 3))]
    assert file.read_bytes() == b"last"
    assert [(tmp_path / f"{file.name}.{n}").read_bytes()[:1] for n in (1, 2, 3)] == [b"4", b"3", b"2"]
    assert stat.S_IMODE((tmp_path / f"{file.name}.1").stat().st_mode) == 0o600


def test_a_small_log_or_none_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "agent.log"
    put_aside(file, 10, 2)
    file.write_text("0123456789")
    put_aside(file, 10, 2)
    assert [one.name for one in tmp_path.iterdir()] == [file.name]


def test_a_log_that_cannot_be_put_aside_is_kept_whole_and_so_are_those_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, before = tmp_path / "agent.log", tmp_path / "agent.log.1"
    file.write_text("0123456789")
    before.write_text("before")

    def full(source: object, target: object, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfileobj", full)
        with pytest.raises(OSError, match="No space"):
            put_aside(file, 9, 2)
    assert (file.read_text(), before.read_text()) == ("0123456789", "before")
    put_aside(file, 9, 2)
    assert [(tmp_path / f"agent.log{end}").read_text() for end in ("", ".1", ".2")] == ["", "0123456789", "before"]


def test_the_control_plane_gets_the_time_that_its_requests_get() -> None:
    assert grace(Config(state=Path("/x"), drain_seconds=5, drain_transfer_seconds=300)) == 310
    assert grace(Config(state=Path("/x"), drain_seconds=5, drain_transfer_seconds=0)) == 15


def test_how_a_process_ended_is_told_by_name() -> None:
    assert [ending(status) for status in (0, 78, -9, -200)] == [
        "ended with status 0",
        "ended with status 78",
        "ended with status -9 (SIGKILL)",
        "ended with status -200 (signal 200)",
    ]
