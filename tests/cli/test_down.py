"""`pileus down` without a cloud's processes."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest

from pileus.cli import down


def test_a_file_that_goes_meanwhile_stops_no_purge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that copied a disk takes its unfinished file away when the agent has ended."""
    state = tmp_path / "state"
    for name in ("agent/disks/one", "agent/disks/two", "images"):
        (state / name).mkdir(parents=True)
    (state / "pileus.toml").touch()
    real, unfinished = shutil.rmtree, [state / "agent" / "disks" / "one"]

    def meanwhile(path: Path, *arguments: Any, **more: Any) -> None:
        if unfinished:
            unfinished.pop().rmdir()
            raise FileNotFoundError(path)
        real(path, *arguments, **more)

    monkeypatch.setattr(shutil, "rmtree", meanwhile)
    assert down._purge(state) == "is gone, but for what `prepare` made"
    assert [entry.name for entry in state.iterdir()] == ["images"]


def test_backups_outlive_a_purge(tmp_path: Path) -> None:
    (tmp_path / "backups").mkdir()
    (tmp_path / "backups" / "one.tar").touch()
    (tmp_path / "pileus.toml").touch()
    assert down._purge(tmp_path) == "is gone, but for its backups"
    assert (tmp_path / "backups" / "one.tar").exists()


def test_a_directory_that_stays_is_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one on which a disk of its own is mounted."""

    def busy(path: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    (tmp_path / "pileus.toml").touch()
    monkeypatch.setattr(Path, "rmdir", busy)
    assert down._purge(tmp_path) == "is empty"
