"""What the driver of QEMU does when its host fails it, with programs that only pass for QEMU."""

from __future__ import annotations

from pathlib import Path

import pytest

from pileus.drivers.hypervisor.qemu import accelerator


def test_a_full_disk_makes_no_host_forget_what_runs_its_guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def probe(timeout: float, *, binary: str) -> tuple[str, str]:
        asked.append(binary)
        return "tcg", "it was tried"

    monkeypatch.setattr(accelerator, "probe_accelerator", probe)
    monkeypatch.setattr(accelerator, "version", lambda binary: 8_000_000)
    cache = tmp_path / "none" / "accelerator.json"
    found = accelerator.remembered(cache, "true", 1.0)
    assert found.name == "tcg"
    assert accelerator.remembered(cache, "true", 1.0) == found
    assert asked == ["true"]
