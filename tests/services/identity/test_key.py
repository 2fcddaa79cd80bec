"""The keys of tokens: in the store, sealed with a master key on disk."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from pileus.core.errors import Raced
from pileus.core.seams import ManualClock, Seams
from pileus.core.store import Store
from pileus.services.identity.interface import KeyFailure, Keys
from pileus.services.identity.resources.key import table

HOUR = timedelta(hours=1)


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    made = Store(database_url, Seams(ManualClock()))
    made.create()
    yield made
    made.close()


def numbers(store: Store) -> list[int]:
    query = sa.select(table.c.number).where(table.c.purpose == "token").order_by("number")
    return [row.number for row in store.read_here(lambda tx: tx.all(query))]


def rotate(store: Store, keys: Keys, *, forget: bool = False) -> None:
    store.write_here(lambda tx: keys.rotate(tx, forget=forget))


def test_the_master_key_is_secret_and_all_is_made_once(store: Store, tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")
    keys.prepare(store)
    assert keys.directory.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in keys.directory.iterdir()} == {"master": 0o600}
    assert numbers(store) == [0, 1]
    before = store.read_here(keys.current)
    keys.prepare(store)
    again = Keys(tmp_path / "keys")
    again.prepare(store)
    assert store.read_here(again.current) == store.read_here(keys.current) == before
    assert len(set(before)) == 2


def test_the_store_alone_gives_no_key_away(store: Store, tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")
    keys.prepare(store)
    sealed = [row.sealed.encode() for row in store.read_here(lambda tx: tx.all(sa.select(table.c.sealed)))]
    assert not set(sealed) & set(store.read_here(keys.current))
    other = Keys(tmp_path / "elsewhere")
    with pytest.raises(KeyFailure, match="copy its file"):
        other.prepare(store)
    assert not other.directory.exists()
    other.directory.mkdir()
    stranger = Keys(tmp_path / "stranger")
    made = Store(f"sqlite:///{tmp_path / 'stranger.sqlite'}")
    made.create()
    stranger.prepare(made)
    made.close()
    (other.directory / "master").write_bytes((stranger.directory / "master").read_bytes())
    with pytest.raises(KeyFailure, match="not the master key"):
        other.prepare(store)
    (other.directory / "master").write_bytes((keys.directory / "master").read_bytes())
    other = Keys(other.directory)
    other.prepare(store)
    assert store.read_here(other.current) == store.read_here(keys.current)


def test_there_are_no_keys_before_they_are_prepared(store: Store, tmp_path: Path) -> None:
    with pytest.raises(KeyFailure):
        store.read_here(Keys(tmp_path / "keys").current)


def test_a_rotation_is_known_to_others_at_once_and_forgets_nothing_that_is_in_use(store: Store, tmp_path: Path) -> None:
    here, there = Keys(tmp_path, lifetime=HOUR), Keys(tmp_path, lifetime=HOUR)
    here.prepare(store)
    there.prepare(store)
    first, staged = store.read_here(there.current)
    rotate(store, here)
    keys = store.read_here(there.current)
    assert keys == store.read_here(here.current)
    assert (keys[0], keys[1]) == (staged, first)
    assert len(keys) == 3
    for _ in range(3):
        rotate(store, there)
    assert first in store.read_here(here.current)
    assert numbers(store) == [0, 1, 2, 3, 4, 5]
    clock = store.seams.clock
    assert isinstance(clock, ManualClock)
    clock.advance(3601)
    rotate(store, there)
    assert numbers(store) == [0, 5, 6]
    assert first not in store.read_here(here.current)


def test_keys_that_somebody_may_have_seen_are_forgotten(store: Store, tmp_path: Path) -> None:
    here, there = Keys(tmp_path), Keys(tmp_path)
    here.prepare(store)
    rotate(store, here)
    before = store.read_here(there.current)
    rotate(store, here, forget=True)
    assert not set(before) & set(store.read_here(there.current))
    assert numbers(store) == [0, 3]


def test_keys_of_other_purposes_stay_as_they_are(store: Store, tmp_path: Path) -> None:
    tokens, others = Keys(tmp_path), Keys(tmp_path, "other")
    tokens.prepare(store)
    others.prepare(store)
    before = store.read_here(others.current)
    rotate(store, tokens, forget=True)
    assert store.read_here(others.current) == before
    assert not set(before) & set(store.read_here(tokens.current))


def test_two_rotations_at_once_do_not_get_in_each_others_way(store: Store, tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    keys.prepare(store)
    store.write_here(lambda tx: tx.execute(sa.delete(table).where(table.c.number == 0)))
    with pytest.raises(Raced):
        rotate(store, keys)
