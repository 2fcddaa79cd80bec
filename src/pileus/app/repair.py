"""Looking for what is left over in a cloud, and mending it, from a command: the cloud may run or rest meanwhile."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import sqlalchemy as sa

from pileus import migration
from pileus.app import leftover, soundness, story
from pileus.app.child import Say, as_owner
from pileus.app.schema import newer
from pileus.app.service import declare_tables
from pileus.cli.main import CommandFailure, Leftover, Told
from pileus.core.config import Config
from pileus.core.errors import Fault
from pileus.core.store import Store, load_driver


def examine(config: Config) -> list[Leftover]:
    """All that is left over. Raises CommandFailure when the store cannot be read, or is damaged."""
    said: list[str] = []
    in_store(config, lambda store, say: _tell(store, config, say), said.append)
    return [msgspec.json.decode(line, type=Leftover) for line in said]


def _tell(store: Store, config: Config, say: Say) -> None:
    for found in store.read_here(lambda tx: leftover.find(tx, config)):
        say(msgspec.json.encode(found).decode())


def tell(config: Config, wanted: str) -> list[Told]:
    """What the store knows of a request or of a thing, by its id. Raises CommandFailure when it cannot be read."""
    said: list[str] = []

    def read(store: Store, say: Say) -> None:
        for told in store.read_here(lambda tx: list(story.tell(tx, wanted))):
            say(msgspec.json.encode(told).decode())

    in_store(config, read, said.append, check=False)
    return [msgspec.json.decode(line, type=Told) for line in said]


def mend(config: Config, keys: Sequence[str], say: Say) -> None:
    """Mend findings by their keys, each in a transaction of its own; says what was done line by line."""
    in_store(config, lambda store, tell: _mend(store, config, keys, tell), say)


def _mend(store: Store, config: Config, keys: Sequence[str], say: Say) -> None:
    for key in keys:
        try:
            done = store.write_here(functools.partial(leftover.mend, config=config, key=key))
        except Fault as fault:
            say(f"{key} cannot be mended now: {fault.message}")
        else:
            say(f"{key} {done or 'is as it should be by now'}")


def in_store(config: Config, work: Callable[[Store, Say], None], say: Say, *, check: bool = True) -> None:
    """Run work on the store in a child without privilege, which passes on what it says.

    Raises CommandFailure, with nothing touched, for a store that is damaged (if `check`, which reads all of it), is not
    of this version's schema, or does not answer.
    """
    declare_tables()
    load_driver(config.database_url)

    def within(tell: Say) -> None:
        _check(config, whole=check)
        with _opened(config) as store:
            work(store, tell)

    as_owner(config.unprivileged_uid, within, say)


def _check(config: Config, *, whole: bool) -> None:
    made = sa.make_url(config.database_url)
    if made.get_backend_name() != "sqlite":
        return
    if not made.database or not Path(made.database).exists():
        raise CommandFailure("there is no store yet")
    if whole and (damage := soundness.examine_store(Path(made.database))):
        raise CommandFailure(f"the store {made.database} is damaged: {damage}; see `pileus restore`")


@contextmanager
def _opened(config: Config) -> Iterator[Store]:
    store = Store(config.database_url)
    try:
        with store.engine.connect() as connection:
            schema = migration.current(connection)
        if schema is not None and schema > migration.HEAD:
            raise newer(config, schema)
        if schema != migration.HEAD:
            raise CommandFailure(
                f"the store is at revision {schema}, and this Pileus works on {migration.HEAD}: run `pileus up` first"
            )
        yield store
    except sa.exc.DBAPIError as error:
        raise CommandFailure(f"the store does not answer: {error.orig}") from None
    finally:
        store.close()
