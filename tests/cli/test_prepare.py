from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from pileus.cli import definition, image, package
from pileus.cli.main import CommandFailure
from pileus.cli.prepare import is_prepared, prepare, tiny_image
from pileus.cli.progress import Progress


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was installed and built, in order; nothing really is."""
    found: list[str] = []

    def install(names: list[str], say: Callable[[str], None]) -> None:
        found.append(f"install {' '.join(names)}")

    def build(output: Path, *, cache: Path, progress: Callable[[str], None]) -> None:
        found.append("build")
        output.write_bytes(b"QFI\xfb")

    def fetch(state: Path, say: Callable[[str], None]) -> int:
        found.append("fetch")
        definition.directory(state).mkdir()
        return 7

    monkeypatch.setattr(definition, "fetch", fetch)
    monkeypatch.setattr(package, "missing", lambda packages: [] if found else ["nftables"])
    monkeypatch.setattr(package, "install", install)
    monkeypatch.setattr(image, "missing_packages", lambda: ["syslinux"])
    monkeypatch.setattr(image, "build_tiny", build)
    return found


def test_prepare_installs_then_builds_then_has_nothing_to_do(calls: list[str], tmp_path: Path) -> None:
    stream = io.StringIO()
    assert not is_prepared(tmp_path)
    prepare(tmp_path, Progress(stream))
    assert calls == ["install nftables syslinux", "build", "fetch"]
    assert [line.split()[0] for line in stream.getvalue().splitlines()] == ["…", "✓"] * 3
    assert is_prepared(tmp_path)
    prepare(tmp_path, Progress(stream))
    assert len(calls) == 3
    assert len(stream.getvalue().splitlines()) == 7


def test_a_cloud_works_without_definitions(calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(state: Path, say: Callable[[str], None]) -> int:
        raise definition.DefinitionFailure("nobody answers")

    monkeypatch.setattr(definition, "fetch", fail)
    stream = io.StringIO()
    prepare(tmp_path, Progress(stream))
    assert "✗ metadata definitions" in stream.getvalue()
    assert "works without them: nobody answers" in stream.getvalue()
    assert not is_prepared(tmp_path)


def test_an_image_that_cannot_be_built_is_told(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(output: Path, *, cache: Path, progress: Callable[[str], None]) -> None:
        raise image.BuildFailure("no kernel")

    monkeypatch.setattr(image, "build_tiny", fail)
    stream = io.StringIO()
    with pytest.raises(CommandFailure, match="no kernel"):
        prepare(tmp_path, Progress(stream))
    assert "✗ image tiny" in stream.getvalue()
    assert not tiny_image(tmp_path).exists()
