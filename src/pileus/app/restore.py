"""Bringing a cloud back to a backup.  What is replaced is kept aside; no guest is touched."""

from __future__ import annotations

import functools
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from pileus import migration
from pileus.app.archive import Reader, opened
from pileus.app.backup import SECRET, copy_database, image_places, libpq_environment, libpq_url, make_durable
from pileus.app.child import Say, as_owner
from pileus.cli.credential import keep_credentials
from pileus.cli.main import CommandFailure
from pileus.cli.place import settings
from pileus.cli.supervise import claim
from pileus.core import secret_file
from pileus.core.config import Config

SETTINGS = "pileus.toml"
DERIVED = ("clouds.yaml", "openrc")
"""Files that follow from the settings, which may be others by now: they are made anew."""

_EMPTY = """
DO $$ DECLARE found record; BEGIN
  FOR found IN SELECT tablename FROM pg_tables WHERE schemaname = current_schema() LOOP
    EXECUTE format('DROP TABLE %I CASCADE', found.tablename);
  END LOOP;
END $$
"""


def examine_backup(file: Path, say: Say) -> str:
    """Read all of a backup, and judge whether this Pileus can use it; what it is. Raises CommandFailure."""
    with opened(file, lambda share: say(f"checking, {share:.0%}")) as found:
        manifest = found.manifest
    if manifest.schema > migration.HEAD:
        raise CommandFailure(
            f"{file} holds a store of revision {manifest.schema}, made by Pileus {manifest.version}, and this Pileus "
            f"knows {migration.HEAD}: restore it with a newer one"
        )
    images = "with" if manifest.images else "without"
    return f"of {manifest.made_at:%Y-%m-%d %H:%M:%S} UTC, by Pileus {manifest.version}, {images} data of images"


def restore(state: Path, file: Path, with_settings: bool, say: Say) -> str:
    """Put a backup in the place of what the cloud of a state directory has; where what was replaced is kept.

    Nothing of the control plane may run, and `file` was examined.  Raises CommandFailure; what was not replaced by then
    is as it was.
    """
    from pileus.core.store import load_driver

    with opened(file) as found:
        if f"settings/{SETTINGS}" in found.manifest.files and (with_settings or not (state / SETTINGS).exists()):
            state.mkdir(mode=0o755, parents=True, exist_ok=True)
            _replace(state / SETTINGS, found.read(f"settings/{SETTINGS}"))
        config = settings(state)
        engine = sa.make_url(config.database_url).get_backend_name()
        if engine != found.manifest.engine:
            raise CommandFailure(f"{file} is of a cloud on {found.manifest.engine}, and this one is on {engine}")
        load_driver(config.database_url)
        config.control.mkdir(mode=0o700, exist_ok=True)
        if os.getuid() == 0:
            os.chown(config.control, config.unprivileged_uid, config.unprivileged_uid)
        aside = config.control / f"replaced-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
        # The child holds a lock of its own: who is told to end here leaves it behind, half-way through.
        begin = functools.partial(claim, state, "replacement")
        as_owner(config.unprivileged_uid, lambda tell: _put(config, found, aside, tell), say, begin)
        _put_settings(state, found)
        keep_credentials(config)
    return str(aside)


def _put_settings(state: Path, found: Reader) -> None:
    for name in found.names("settings"):
        target = state / name.partition("/")[2]
        if target.name not in (SETTINGS, *DERIVED):
            _replace(target, found.read(name))


def _replace(target: Path, content: bytes) -> None:
    """Put a file in the state directory; one that it replaces stays beside, as NAME.replaced."""
    if target.exists() and target.read_bytes() != content:
        target.replace(target.with_name(f"{target.name}.replaced"))
    if not target.exists():
        secret_file.write(target, content)


def _put(config: Config, found: Reader, aside: Path, say: Say) -> None:
    try:
        aside.mkdir(mode=0o700)
        _put_images(config, found, say)
        say("store")
        if found.manifest.engine == "sqlite":
            _put_sqlite(Path(sa.make_url(config.database_url).database or ""), found, aside)
        else:
            _put_postgresql(config.database_url, found, aside)
        for folder in SECRET:
            _put_keys(config.control / folder, found, aside)
    except (OSError, sqlite3.Error) as error:
        raise CommandFailure(f"the backup cannot be put in place: {error}; what was replaced is in {aside}") from error


def _put_images(config: Config, found: Reader, say: Say) -> None:
    """Data that is there is never written again: what is missing is added."""
    places, names = image_places(config), found.names("images")
    for number, name in enumerate(names, 1):
        _, store, key = name.split("/")
        if store not in places:
            continue
        target = places[store] / "data" / key
        if target.exists():
            continue
        say(f"data of images, {number} of {len(names)}")
        for directory in (places[store] / "incoming", target.parent):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = places[store] / "incoming" / f"{key}.restored"
        partial.unlink(missing_ok=True)
        found.extract(name, partial)
        partial.rename(target)
        make_durable(target.parent)


def _put_sqlite(store: Path, found: Reader, aside: Path) -> None:
    fresh = aside / "restored.db"
    found.extract("store.db", fresh)
    with closing(sqlite3.connect(fresh)) as connection:
        damage = [row[0] for row in connection.execute("PRAGMA quick_check(3)") if row[0] != "ok"]
    if damage:
        raise CommandFailure(f"the store in the backup is damaged, nothing was replaced: {'; '.join(damage)}")
    with suppress(sqlite3.Error), closing(sqlite3.connect(store)) as connection:  # what is damaged stays as it is
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    old = list(_files(store))
    if old == [store]:
        # In one step: whoever is killed here leaves one store or the other, and never none.
        os.link(store, aside / store.name)
    else:
        for one in old:
            one.rename(aside / one.name)
    fresh.replace(store)
    make_durable(store.parent)


def _files(store: Path) -> Iterator[Path]:
    """An SQLite database and what belongs to it: a write-ahead log holds what was committed last."""
    for ending in ("-shm", "-wal", ""):
        path = store.with_name(store.name + ending)
        if path.exists():
            yield path


def _put_postgresql(url: str, found: Reader, aside: Path) -> None:
    made = sa.make_url(url)
    dump, script = aside / "restored.dump", aside / "restored.sql"
    copy_database(url, aside / "store.dump")
    found.extract("store.dump", dump)
    _run(["pg_restore", "--no-owner", "--no-privileges", f"--file={script}", str(dump)], made)
    once = ["--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1", "--output=/dev/null"]
    _run(["psql", *once, "--command", _EMPTY, "--file", str(script), libpq_url(made)], made)
    for left in (dump, script):
        left.unlink()


def _run(words: list[str], url: sa.URL) -> None:
    program = shutil.which(words[0])
    if program is None:
        raise CommandFailure(f"{words[0]} is not installed; Debian's package is called postgresql-client")
    done = subprocess.run(
        [program, *words[1:]],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=libpq_environment(url),
    )
    if done.returncode:
        said = done.stdout.decode(errors="replace").strip()
        raise CommandFailure(f"{words[0]} failed, and the store is as it was: {said}")


def _put_keys(keys: Path, found: Reader, aside: Path) -> None:
    names = found.names(keys.name)
    if not names:
        return
    if keys.exists():
        shutil.copytree(keys, aside / keys.name)
    keys.mkdir(mode=0o700, exist_ok=True)
    for name in names:
        partial = keys / "restored.new"
        partial.unlink(missing_ok=True)
        found.extract(name, partial)
        partial.replace(keys / name.partition("/")[2])
    make_durable(keys)
