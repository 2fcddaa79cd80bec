from __future__ import annotations

from pathlib import Path

import pytest

from pileus.cli import package
from pileus.cli.main import CommandFailure
from pileus.cli.package import Package

GONE = Package("phlogiston", "no-such-command-anywhere")


def test_what_is_there_is_found_by_command_or_file(tmp_path: Path) -> None:
    (tmp_path / "15" / "bin").mkdir(parents=True)
    (tmp_path / "15" / "bin" / "initdb").touch()
    assert Package("sh", "sh").present()
    assert Package("postgresql", f"{tmp_path}/*/bin/initdb").present()
    assert not Package("postgresql", f"{tmp_path}/*/bin/postgres").present()
    assert package.missing([Package("sh", "sh"), GONE]) == ["phlogiston"]


@pytest.mark.parametrize(
    ("debian", "user", "message"),
    [(False, 0, r"by their names in Debian\): phlogiston"), (True, 1000, "as root: apt-get install phlogiston")],
)
def test_where_nothing_can_be_installed_it_is_named(
    monkeypatch: pytest.MonkeyPatch, debian: bool, user: int, message: str
) -> None:
    monkeypatch.setattr(package, "is_debian", lambda: debian)
    monkeypatch.setattr("os.geteuid", lambda: user)
    assert not package.can_install()
    with pytest.raises(CommandFailure, match=message):
        package.install(["phlogiston"], print)


def test_stale_lists_are_fetched_before_and_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def apt(*arguments: str) -> None:
        calls.append(arguments[0])
        if calls.count("install") == 1 and arguments[0] == "install":
            raise CommandFailure("404")

    monkeypatch.setattr(package, "is_debian", lambda: True)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(package, "_apt", apt)
    monkeypatch.setattr(package, "_lists_age", lambda: 0.0)
    package.install(["phlogiston"], lambda text: None)
    assert calls == ["install", "update", "install"]
    calls.clear()
    monkeypatch.setattr(package, "_lists_age", lambda: package.LIST_AGE + 1.0)
    package.install(["phlogiston"], lambda text: None)
    assert calls[:2] == ["update", "install"]


def test_nothing_missing_needs_no_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "is_debian", lambda: False)
    package.install([], pytest.fail)
