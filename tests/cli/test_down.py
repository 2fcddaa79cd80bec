"""`pileus down` without a cloud's processes."""

from __future__ import annotations

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
    down._purge(state)
    assert [entry.name for entry in state.iterdir()] == ["images"]
