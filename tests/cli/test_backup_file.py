"""The file that a backup is: whole or not there, and refused when anything is wrong with it."""

from __future__ import annotations

import os
import resource
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from pileus import migration
from pileus.app import archive, declare_tables
from pileus.app.backup import BackupFailure, backup, copy_database
from pileus.app.restore import examine_backup, restore
from pileus.cli.main import CommandFailure
from pileus.core.config import Config
from pileus.core.store import Store
from pileus.services.fleet.interface import begin


def silent(text: object) -> None:
    """Nobody looks."""


@pytest.fixture(autouse=True)
def no_privilege(monkeypatch: pytest.MonkeyPatch) -> None:
    """The children of these tests keep the tests' user, whose directories they work in."""
    monkeypatch.setattr("pileus.core.privilege.drop", silent)
    monkeypatch.setattr("os.chown", lambda *arguments: None)


@pytest.fixture
def config(tmp_path: Path, database_url: str) -> Config:
    """A cloud that has run once, and has one image."""
    state = tmp_path / "state"
    found = Config(state=state, database=None if database_url.startswith("sqlite") else database_url)
    (found.control / "keys").mkdir(parents=True)
    (found.control / "keys" / "master").write_text("the master key")
    (found.control / "tls").mkdir()
    (found.control / "tls" / "authority.pem").write_text("the authority")
    (state / "pileus.toml").write_text(f"database = '{found.database}'\n" if found.database else "")
    (state / "policy.yaml").write_text("{}")
    data = found.control / "images" / "data"
    data.mkdir(parents=True)
    (data / "one").write_bytes(b"x" * 5000 + b"\0" * (3 << 20))
    prepare(found)
    return found


def prepare(config: Config) -> None:
    declare_tables()
    store = Store(config.database_url)
    migration.upgrade(store.engine, migration.load())
    store.write_here(begin)
    store.close()


def runs(config: Config) -> int:
    """How often a control plane began on the store."""
    engine = sa.create_engine(config.database_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return int(connection.execute(sa.text("SELECT count(*) FROM fleet_store")).scalar_one())


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """Files cannot grow beyond some bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def everything(config: Config) -> set[Path]:
    """All files below the state, but for those that SQLite makes and removes beside a store that is in use."""
    return {one for one in config.state.rglob("*") if not one.name.endswith(("-wal", "-shm", ".pid"))}


def test_a_backup_brings_everything_back(config: Config, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    before = everything(config)
    backup(config, file, True, silent)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert everything(config) - before == {config.state / "run"}
    assert "with data of images" in examine_backup(file, silent)
    prepare(config)
    (config.control / "keys" / "master").write_text("another key")
    (config.control / "tls" / "authority.pem").unlink()
    (config.state / "policy.yaml").write_text("{a: '!'}")
    (config.control / "images" / "data" / "one").unlink()
    assert runs(config) == 2

    aside = Path(restore(config.state, file, False, silent))
    assert runs(config) == 1
    assert (config.control / "keys" / "master").read_text() == "the master key"
    assert (config.control / "tls" / "authority.pem").read_text() == "the authority"
    assert (config.state / "policy.yaml").read_text() == "{}"
    image = config.control / "images" / "data" / "one"
    assert image.read_bytes() == b"x" * 5000 + b"\0" * (3 << 20)
    assert image.stat().st_blocks * 512 < 2 << 20
    # What was replaced is there still.
    assert (aside / "keys" / "master").read_text() == "another key"
    assert (config.state / "policy.yaml.replaced").read_text() == "{a: '!'}"
    assert any(aside.glob("pileus.db" if config.database is None else "store.dump"))


def test_a_backup_makes_a_cloud_where_there_was_none(config: Config, tmp_path: Path) -> None:
    file, fresh = tmp_path / "backup.tar", tmp_path / "fresh"
    backup(config, file, False, silent)
    restore(fresh, file, False, silent)
    assert (fresh / "pileus.toml").read_text() == (config.state / "pileus.toml").read_text()
    assert runs(Config(state=fresh, database=config.database)) == 1
    assert "without data of images" in examine_backup(file, silent)


def test_what_clients_read_is_of_the_settings_that_hold_after_it(config: Config, tmp_path: Path) -> None:
    file, toml = tmp_path / "backup.tar", config.state / "pileus.toml"
    (config.state / "clouds.yaml").write_text("of then")
    (config.state / "admin-password").write_text("the password\n")
    toml.write_text(toml.read_text() + "listen = '127.0.0.1:5074'\n")
    backup(config, file, False, silent)
    toml.write_text(toml.read_text().replace("5074", "5084"))
    restore(config.state, file, False, silent)
    for name in ("clouds.yaml", "openrc"):
        text = (config.state / name).read_text()
        assert "127.0.0.1:5084" in text
        assert "the password" in text
    restore(config.state, file, True, silent)
    assert "5074" in toml.read_text()
    assert "127.0.0.1:5074" in (config.state / "clouds.yaml").read_text()


def test_a_backup_is_never_written_over_another(config: Config, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    file.write_text("dear to somebody")
    with pytest.raises(BackupFailure, match="is there already"):
        backup(config, file, False, silent)
    assert file.read_text() == "dear to somebody"


@pytest.mark.parametrize("size", [20_000, 1_500_000])
def test_a_full_disk_leaves_nothing(config: Config, tmp_path: Path, size: int) -> None:
    """First the copy of the store does not fit, then the archive."""
    (config.control / "images" / "data" / "two").write_bytes(os.urandom(2_000_000))
    before = everything(config)
    with small_disk(size), pytest.raises(CommandFailure, match=r"full|too large|I/O|pg_dump failed"):
        backup(config, tmp_path / "backup.tar", True, silent)
    assert everything(config) - before <= {config.state / "run"}
    assert list(tmp_path.glob("backup.tar*")) == []


def test_what_a_killed_backup_left_goes_with_the_next(config: Config, tmp_path: Path) -> None:
    (config.control / "backup-left" / "file").mkdir(parents=True)
    backup(config, tmp_path / "backup.tar", False, silent)
    assert list(config.control.glob("backup-*")) == []


@pytest.mark.parametrize("part", ["cut", "flipped", "renamed", "empty"])
def test_a_damaged_backup_replaces_nothing(config: Config, tmp_path: Path, part: str) -> None:
    file = tmp_path / "backup.tar"
    backup(config, file, False, silent)
    content = bytearray(file.read_bytes())
    if part == "cut":
        content = content[: len(content) // 2]
    elif part == "flipped":
        content[5000] ^= 1
    elif part == "renamed":
        content = content.replace(b"keys/master", b"keys/../abc", 1)
    else:
        content = bytearray()
    file.write_bytes(content)
    prepare(config)
    with pytest.raises(CommandFailure, match=r"not a whole backup|damaged|was changed"):
        examine_backup(file, silent)
    with pytest.raises(CommandFailure):
        restore(config.state, file, False, silent)
    assert runs(config) == 2
    assert list(config.control.glob("replaced-*")) == []


def test_a_newer_schema_is_refused(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "backup.tar"
    backup(config, file, False, silent)
    monkeypatch.setattr(migration, "HEAD", "0001")
    with pytest.raises(CommandFailure, match="restore it with a newer one"):
        examine_backup(file, silent)


def test_the_other_engine_is_refused(config: Config, tmp_path: Path) -> None:
    file, other = tmp_path / "backup.tar", tmp_path / "other"
    backup(config, file, False, silent)
    other.mkdir()
    url = "postgresql+psycopg://nobody@/nowhere" if config.database is None else "sqlite:////nowhere"
    (other / "pileus.toml").write_text(f"database = '{url}'\n")
    with pytest.raises(CommandFailure, match="is of a cloud on"):
        restore(other, file, False, silent)


def test_names_that_lead_elsewhere_have_no_place() -> None:
    for name in ("../etc/passwd", "keys/..", "keys/a/b", "/keys/a", "keys/", "settings", "other/a", "images/a/../b"):
        assert not archive._plain(name), name
    for name in ("store.db", "store.dump", "keys/master", "settings/pileus.toml", "images/file/key"):
        assert archive._plain(name), name


# -- the store alone -----------------------------------------------------------------------------------------------


def test_a_copy_is_of_one_moment_while_others_write(tmp_path: Path) -> None:
    source, target = tmp_path / "a.db", tmp_path / "b.db"
    with closing(sqlite3.connect(source)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE pair (a, b, filler)")
        connection.executemany("INSERT INTO pair VALUES (0, 0, ?)", [(os.urandom(4000),) for _ in range(5000)])
        connection.commit()
    stop = threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(source)) as connection:
            while not stop.is_set():
                connection.execute("UPDATE pair SET a = a + 1, b = b + 1")
                connection.commit()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        shares: list[float] = []
        copy_database(f"sqlite:///{source}", target, shares.append)
    finally:
        stop.set()
        writer.join()
    assert shares == sorted(shares)
    assert len(shares) > 1
    with closing(sqlite3.connect(target)) as connection:
        assert len(connection.execute("SELECT DISTINCT a, b FROM pair WHERE a = b").fetchall()) == 1
        assert connection.execute("SELECT count(DISTINCT a) FROM pair").fetchone() == (1,)
    assert sorted(one.name for one in tmp_path.glob("b.db*")) == ["b.db"]


def test_a_damaged_store_is_not_taken_for_a_backup(tmp_path: Path) -> None:
    source, target = tmp_path / "a.db", tmp_path / "b.db"
    with closing(sqlite3.connect(source)) as connection:
        connection.execute("CREATE TABLE one (a UNIQUE)")
        connection.executemany("INSERT INTO one VALUES (?)", [(str(number) * 50,) for number in range(2000)])
        connection.commit()
    with source.open("r+b") as stream:
        stream.seek(8192)
        stream.write(os.urandom(4096 * 4))
    target.write_text("the last good one")
    with pytest.raises(BackupFailure, match=r"damaged|malformed|not a database"):
        copy_database(f"sqlite:///{source}", target)
    assert target.read_text() == "the last good one"
    assert sorted(one.name for one in tmp_path.glob("b.db*")) == ["b.db"]
