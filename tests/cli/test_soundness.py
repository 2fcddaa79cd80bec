"""What a control plane finds at its start: a damaged store and a disk that takes nothing are refused in clear words."""

from __future__ import annotations

import errno
import os
import resource
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

import pytest

from pileus.app import soundness
from pileus.cli import main
from pileus.cli.main import CommandFailure
from pileus.core.config import Config
from tests.cli.role import NO_ROLES


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A cloud with a store; its owner is who runs the test."""
    monkeypatch.setattr("pileus.core.privilege.drop", lambda uid: None)
    found = Config(state=tmp_path)
    found.control.mkdir()
    with closing(sqlite3.connect(found.control / "pileus.db")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE one (a UNIQUE)")
        connection.executemany("INSERT INTO one VALUES (?)", [(str(number) * 50,) for number in range(2000)])
        connection.commit()
    return found


def store(config: Config) -> Path:
    return config.control / "pileus.db"


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def overwrite(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.seek(8192)
        stream.write(b"\xff" * 4096 * 4)


def replace(file: Path) -> None:
    file.write_bytes(b"no database at all" * 1000)


def test_a_sound_store_is_taken_and_so_is_none(config: Config) -> None:
    soundness.check(config)
    store(config).unlink()
    soundness.check(config)
    assert not store(config).exists()


@pytest.mark.parametrize("harm", [cut, overwrite, replace])
def test_a_damaged_store_is_refused_with_what_to_do_and_left_as_it_is(
    config: Config, harm: Callable[[Path], None]
) -> None:
    harm(store(config))
    before = store(config).read_bytes()
    with pytest.raises(CommandFailure, match="is damaged, and nothing was changed") as refused:
        soundness.check(config)
    assert "`pileus restore FILE`; there is none in its usual place" in str(refused.value)
    assert refused.value.status == 65
    assert store(config).read_bytes() == before


def test_the_newest_backup_is_named(config: Config) -> None:
    (config.state / "backups").mkdir()
    for number, name in enumerate(("b.tar", "a.tar")):
        file = config.state / "backups" / name
        file.touch()
        os.utime(file, (number, number))
    replace(store(config))
    with pytest.raises(CommandFailure, match=r"`pileus restore \S+/a.tar` \(the newest of 2\)"):
        soundness.check(config)


def test_a_full_disk_is_named(config: Config) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soundness.ROOM // 2, hard))
    try:
        with pytest.raises(CommandFailure, match=r"is full .* make room"):
            soundness.check(config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("number", "words"), [(errno.EROFS, "read-only.*dmesg"), (errno.EACCES, "cannot be written to")]
)
def test_a_disk_that_takes_nothing_is_named(
    config: Config, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def refuse(**more: Any) -> NoReturn:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(CommandFailure, match=words):
        soundness.check(config)


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "is full"), (errno.EROFS, "is read-only")])
def test_commands_say_it_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, words: str
) -> None:
    def fail(*arguments: Any) -> NoReturn:
        raise OSError(number, os.strerror(number), "/var/lib/pileus/file")

    monkeypatch.setattr("pileus.cli.main._run", fail)
    assert main.main(["up"], lambda: NO_ROLES) == 1
    assert f"the disk of /var/lib/pileus/file {words}" in capsys.readouterr().err
