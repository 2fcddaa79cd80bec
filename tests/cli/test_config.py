"""`pileus config`, and the page that it prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from pileus.cli.config import page
from pileus.cli.main import main
from tests.cli.role import NO_ROLES
from tests.tidy.tree import ROOT


def test_the_page_on_settings_is_as_the_program_says() -> None:
    said = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert said == page(), "write it anew: ./pileus config --markdown > docs/configuration.md"


def test_config_shows_values_origins_and_meanings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pileus.toml").write_text('\ndatabase = "postgresql+psycopg://pileus:sesame@db/pileus"\n')
    assert main(["config", "--state", str(tmp_path)], lambda: NO_ROLES) == 0
    said = capsys.readouterr().out
    origin = f"{tmp_path / 'pileus.toml'}:2"
    assert f'database = "postgresql+psycopg://pileus:***@db/pileus"  # {origin}\n' in said
    assert "\n# Name of the region in the catalog\n" + 'region = "RegionOne"  # default\n' in said
    assert "sesame" not in said


def test_config_refuses_as_the_processes_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pileus.toml").write_text("fake = -1\nlissten = 1\n")
    assert main(["config", "--state", str(tmp_path)], lambda: NO_ROLES) == 78
    said = capsys.readouterr().err
    assert "pileus.toml:1: fake: Expected `int` >= 0" in said
    assert "pileus.toml:2: there is no setting `lissten`; did you mean `listen`?" in said


def test_a_file_is_checked_before_it_is_put_in_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new.toml"
    assert main(["config", "--check", str(file)], lambda: NO_ROLES) == 1
    file.write_text('listen = "192.0.2.1:5000"')
    assert main(["config", "--check", str(file)], lambda: NO_ROLES) == 78
    assert "without TLS" in capsys.readouterr().err
    file.write_text('listen = "192.0.2.1:5000"\ntls = true')
    assert main(["config", "--check", str(file)], lambda: NO_ROLES) == 0
    assert "every setting can be used" in capsys.readouterr().out
