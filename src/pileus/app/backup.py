"""Backups: copies of the store that are whole at one moment, with all that a cloud cannot be brought back without."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

import pileus
from pileus.app.archive import Manifest, Writer
from pileus.app.child import Say, as_owner
from pileus.cli.main import CommandFailure
from pileus.cli.supervise import hold
from pileus.core.config import Config

Progress = Callable[[float], None]
"""Is told now and then which share is done, from 0 to 1."""

PAGES = 4096
"""Pages of SQLite that are copied between two words about the progress."""


SECRET = ("keys", "tls")
"""Directories of the control plane that hold keys: those of tokens and secrets, and the cloud's own authority."""

SETTING_BYTES = 1 << 20
"""Files of the state directory that are larger are no settings."""


class BackupFailure(CommandFailure):
    """No copy was made, and nothing was left behind; the message says why and what to do."""


def copy_database(url: str, target: Path, progress: Progress = lambda share: None) -> None:
    """Copy a store, as it is at one moment, to a new file of mode 0600, while others read and write it.

    Of SQLite (Online Backup API) the file is a database of one file, checked by `quick_check`; of PostgreSQL it is an
    archive of pg_dump's custom format.  Post-condition: the file is whole and durable, or `target` is as it was and
    BackupFailure is raised.  `target`'s directory must have room for the file beside one that it replaces.
    """
    made = sa.make_url(url)
    partial = target.with_name(f"{target.name}.partial")
    partial.unlink(missing_ok=True)
    partial.touch(0o600, exist_ok=False)
    try:
        if made.get_backend_name() == "sqlite":
            _copy_sqlite(Path(made.database or ""), partial, progress)
        else:
            _dump_postgresql(made, partial)
        make_durable(partial)
        partial.replace(target)
        make_durable(target.parent)
    except (OSError, sqlite3.Error) as error:
        raise BackupFailure(f"the store cannot be copied to {target}: {error}") from error
    finally:
        for left in ("", "-journal", "-wal", "-shm"):
            with suppress(OSError):
                partial.with_name(partial.name + left).unlink(missing_ok=True)


def make_durable(path: Path) -> None:
    """Wait until a file or directory is on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy_sqlite(source: Path, target: Path, progress: Progress) -> None:
    def step(status: int, remaining: int, total: int) -> None:
        progress(1 - remaining / total if total else 1.0)

    with closing(_open_sqlite(source)) as old, closing(_open_sqlite(target)) as new:
        # One snapshot from the first page to the last: else each write of others would begin the copy anew.
        old.execute("BEGIN")
        old.execute("SELECT count(*) FROM sqlite_master").fetchone()
        new.execute("PRAGMA synchronous=OFF")  # the whole file is made durable at its end
        old.backup(new, pages=PAGES, progress=step, sleep=0)
        old.execute("ROLLBACK")
        new.execute("PRAGMA journal_mode=DELETE")
        damage = [row[0] for row in new.execute("PRAGMA quick_check(3)") if row[0] != "ok"]
    if damage:
        raise BackupFailure(f"the store is damaged, and no copy was made: {'; '.join(damage)}")


def _open_sqlite(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=30)


def _dump_postgresql(url: sa.URL, target: Path) -> None:
    program = shutil.which("pg_dump")
    if program is None:
        raise BackupFailure("pg_dump is not installed; Debian's package is called postgresql-client")
    with target.open("wb") as stream:
        done = subprocess.run(
            [program, "--format=custom", "--no-owner", "--no-privileges", f"--dbname={libpq_url(url)}"],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.PIPE,
            env=libpq_environment(url),
        )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise BackupFailure(f"pg_dump failed, and no copy was made: {said}")


def libpq_url(url: sa.URL) -> str:
    """A URL as libpq's programs take it, without the password: everybody can read the arguments of a process."""
    return sa.URL.create(
        "postgresql", url.username, None, url.host, url.port, url.database, url.query
    ).render_as_string()


def libpq_environment(url: sa.URL) -> dict[str, str]:
    """The environment of libpq's programs: with the password, where the URL has one."""
    return {**os.environ, **({"PGPASSWORD": url.password} if url.password else {})}


def backup(config: Config, target: Path, images: bool, say: Say) -> str:
    """Write a backup of a cloud, which may run, to a new file of mode 0600; what to say of it.

    Post-condition: the file is whole and durable, or it is not there and CommandFailure is raised.
    """
    from pileus.core.store import load_driver

    if target.exists():
        raise BackupFailure(f"{target} is there already: a backup is never written over another")
    load_driver(config.database_url)
    settings = dict(setting_files(config.state))
    partial = target.with_name(f"{target.name}.partial")
    with _alone(config), _opened_new(partial) as descriptor:
        for left in target.parent.glob("pileus-*.tar.partial"):  # by a backup that was killed: there is no other now
            if left != partial:
                left.unlink()
        as_owner(config.unprivileged_uid, lambda tell: _pack(config, descriptor, settings, images, tell), say)
        partial.rename(target)
        make_durable(target.parent)
    return f"{target.stat().st_size / 2**20:.1f} MiB"


def setting_files(state: Path) -> Iterator[tuple[str, bytes]]:
    """The small files of a state directory: settings, policy, credentials."""
    for file in sorted(state.iterdir()):
        if file.is_file() and not file.is_symlink() and file.stat().st_size <= SETTING_BYTES:
            yield file.name, file.read_bytes()


@contextmanager
def _alone(config: Config) -> Iterator[None]:
    lock = hold(config.state, "backup")
    if lock is None:
        raise BackupFailure("another backup of this cloud is under way")
    try:
        yield
    finally:
        os.close(lock)


@contextmanager
def _opened_new(path: Path) -> Iterator[int]:
    """A new file, which is gone after the block if it still has its name."""
    try:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise BackupFailure(f"{path} cannot be written: {error.strerror}") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)
        path.unlink(missing_ok=True)


def _pack(config: Config, descriptor: int, settings: dict[str, bytes], images: bool, say: Say) -> None:
    for left in config.control.glob("backup-*"):  # of a backup that was killed
        shutil.rmtree(left)
    place = Path(tempfile.mkdtemp(prefix="backup-", dir=config.control))
    try:
        # Data of images is never written again, but it may be deleted: it is held before the store is copied, and that
        # which came meanwhile once more after it.
        held = _hold_images(config, place) if images else {}
        copy = place / "store"
        copy_database(config.database_url, copy, lambda share: say(f"store, {share:.0%}"))
        held |= _hold_images(config, place) if images else {}
        with os.fdopen(os.dup(descriptor), "wb") as stream:
            writer = Writer(stream)
            writer.add("store.db" if _embedded(config) else "store.dump", copy)
            manifest = _describe(config, copy, images)
            copy.unlink()
            for folder in SECRET:
                for file in sorted((config.control / folder).glob("*")):
                    writer.add(f"{folder}/{file.name}", file)
            for name, content in settings.items():
                writer.add_bytes(f"settings/{name}", content)
            for number, (name, path) in enumerate(sorted(held.items()), 1):
                say(f"data of images, {number} of {len(held)}")
                writer.add(name, path)
            writer.finish(manifest)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise BackupFailure(f"no backup was made: {error}") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def image_places(config: Config) -> dict[str, Path]:
    """Directories of this machine that hold data of images, by the names of their stores."""
    named = (one.partition("=") for one in config.image_stores)
    found = {name: config.control / place for name, _, place in named}
    return {**found, "staging": config.control / "staging"}


def _hold_images(config: Config, place: Path) -> dict[str, Path]:
    """Give all committed data of images a second name, by names in the backup: it stays whatever becomes of its first.

    Where that cannot be done, on another file system, it is the first that is given.
    """
    found = {}
    for store, root in image_places(config).items():
        own = place / store
        own.mkdir(exist_ok=True)
        for path in (root / "data").glob("*"):
            link = own / path.name
            with suppress(FileNotFoundError):  # deleted just now
                try:
                    if not link.exists():
                        os.link(path, link)
                except OSError:
                    link = path
                if link.stat():
                    found[f"images/{store}/{path.name}"] = link
    return found


def _embedded(config: Config) -> bool:
    return sa.make_url(config.database_url).get_backend_name() == "sqlite"


def _describe(config: Config, copy: Path, images: bool) -> Manifest:
    url = f"sqlite:///{copy}" if _embedded(config) else config.database_url
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        schema = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one()
        run = connection.execute(
            sa.text("SELECT store_id, incarnation FROM fleet_store ORDER BY number DESC LIMIT 1")
        ).one()
        position = connection.execute(sa.text("SELECT max(seq) FROM core_change")).scalar()
    return Manifest(
        version=pileus.__version__,
        engine=engine.dialect.name,
        schema=schema,
        store_id=run.store_id,
        incarnation=run.incarnation,
        position=position or 0,
        made_at=datetime.now(UTC),
        images=images,
    )
