"""The change log, read by cursors, on both engines."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from random import Random

import pytest
import sqlalchemy as sa

from pileus.core import changes, follower
from pileus.core.seams import ManualClock
from pileus.core.store import Store, Tx, Work, change


def entry(key: int) -> Work[None]:
    return lambda tx: tx.changed("number", str(key))


def catch_up(store: Store, cursor: changes.Cursor) -> changes.Cursor:
    """Read on until all transactions have ended that are older than the newest entry, other databases' too."""
    newest = store.read_here(lambda tx: tx.scalar(sa.select(sa.func.max(change.c.xid))))
    deadline = time.monotonic() + 60
    while cursor.running and cursor.running[0] < newest:
        assert time.monotonic() < deadline, cursor
        time.sleep(0.02)
        cursor = store.read_here(functools.partial(changes.since, cursor=cursor)).cursor
    return cursor


def test_the_change_log_is_read_from_a_cursor_and_says_what_it_lost(store: Store, clock: ManualClock) -> None:
    store.write_here(entry(8))
    start = catch_up(store, store.read_here(changes.head))
    for key in range(3):
        store.write_here(entry(key))
    found = store.read_here(lambda tx: changes.since(tx, start))
    assert [one.key for one in found.changes] == ["0", "1", "2"]
    assert not found.lost
    assert store.read_here(lambda tx: changes.since(tx, found.cursor)).changes == []
    further = store.read_here(lambda tx: changes.since(tx, start, topic="other"))
    assert further.changes == []
    assert not further.cursor.behind(found.cursor)
    current = catch_up(store, found.cursor)
    clock.advance(changes.RETENTION.total_seconds() + 1)
    if not store.embedded:  # another database's transaction takes a number
        store.write_here(lambda tx: tx.scalar(sa.text("SELECT pg_current_xact_id()::text")))
    store.write_here(entry(9))
    assert store.write_here(changes.trim) == 3
    assert store.read_here(lambda tx: changes.since(tx, start)).lost
    assert not store.read_here(lambda tx: changes.since(tx, current)).lost


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_the_change_log_is_read_in_pieces(store: Store, limit: int) -> None:
    """Each piece goes on where the last one ended; what one transaction wrote is in one piece."""
    cursor = store.read_here(changes.head)
    store.write_here(entry(1))

    def several(tx: Tx) -> None:
        for key in range(3):
            tx.changed("number", f"a{key}")

    store.write_here(several)
    store.write_here(entry(2))
    told: list[str] = []
    for _ in range(6):
        found = store.read_here(functools.partial(changes.since, cursor=cursor, limit=limit))
        told += [one.key for one in found.changes]
        cursor = found.cursor
    assert told == ["1", "a0", "a1", "a2", "2"]


class Slow:
    """A transaction that takes its time, in a thread of its own."""

    def __init__(self, store: Store, work: Callable[[Tx], object]) -> None:
        self._go, self._at_it = threading.Event(), threading.Event()

        def wait(tx: Tx) -> None:
            tx.scalar(sa.text("SELECT pg_current_xact_id()::text"))
            self._at_it.set()
            assert self._go.wait(30)
            work(tx)

        self._thread = threading.Thread(target=store.write_here, args=(wait,))
        self._thread.start()
        assert self._at_it.wait(30)

    def end(self) -> None:
        self._go.set()
        self._thread.join()


def test_a_slow_transaction_keeps_nobody_waiting_and_nothing_is_told_twice(store: Store) -> None:
    if store.embedded:
        pytest.skip("SQLite has one writer at a time")
    slow = [Slow(store, lambda tx: None), Slow(store, entry(20)), Slow(store, entry(21))]
    try:
        cursor = store.read_here(changes.head)
        store.write_here(entry(1))
        found = store.read_here(lambda tx: changes.since(tx, cursor))
        assert [one.key for one in found.changes] == ["1"], "it is committed"
        assert changes.Cursor.parse(str(found.cursor)) == found.cursor
        again = store.read_here(lambda tx: changes.since(tx, found.cursor))
        assert again.changes == []
        slow.pop().end()
        store.write_here(entry(2))
        late = store.read_here(lambda tx: changes.since(tx, again.cursor, limit=1))
        assert [one.key for one in late.changes] == ["21", "2"], "it began before them, and ended after"
        slow.pop().end()
        last = store.read_here(lambda tx: changes.since(tx, late.cursor))
        assert [one.key for one in last.changes] == ["20"]
    finally:
        for one in slow:
            one.end()
    assert store.read_here(lambda tx: changes.since(tx, last.cursor)).changes == []


def test_a_cursor_of_a_transaction_that_writes_leaves_out_what_it_writes_later(store: Store) -> None:
    if store.embedded:
        pytest.skip("SQLite's log has no transactions")
    cursors: list[changes.Cursor] = []

    def write(tx: Tx) -> None:
        tx.scalar(sa.text("SELECT pg_current_xact_id()::text"))
        store.write_here(entry(1))  # a later number that has ended
        cursors.append(changes.head(tx))
        entry(2)(tx)

    store.write_here(write)
    assert [one.key for one in store.read_here(lambda tx: changes.since(tx, cursors[0])).changes] == ["2"]


@pytest.mark.parametrize("text", ["", "x", "-1", "1:", "7:3,5", "1:x", "1:2,", "٣", "9" * 30])
def test_what_is_a_cursor(text: str) -> None:
    found = changes.Cursor.parse(text)
    assert (found is not None) == (text in ("1:", "7:3,5"))
    assert found is None or changes.Cursor.parse(str(found)) == found


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_lost_unsaid_when_a_clock_is_set(store: Store, clock: ManualClock, seed: int) -> None:
    """Who comes back with any cursor gets all that was written since, or hears that some of it is gone."""
    random = Random(seed)
    cursors, trimmed = [(store.read_here(changes.head), 0)], 0
    for key in range(60):
        store.write_here(entry(key))
        cursors.append((store.read_here(changes.head), key + 1))
        clock.jump(random.choice((0, 0, 0, -1.5, 1.5)) * changes.RETENTION.total_seconds())
        if random.random() < 0.3:
            trimmed += store.write_here(changes.trim)
            found = store.read_here(lambda tx: [changes.since(tx, cursor, topic="number") for cursor, _ in cursors])
            for (_, known), news in zip(cursors, found, strict=True):
                missed = {str(one) for one in range(known, key + 1)} - {one.key for one in news.changes}
                assert news.lost or not missed, (key, known, missed)
            # Of another database's transaction that has ended nobody knows what it wrote.
            assert not (found[-1].lost and store.embedded), "who is up to date has lost nothing"
    assert trimmed > 10


def test_a_copy_is_read_anew_for_many_things_and_not_for_many_changes_of_few(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "MANY", 3)
    copy = follower.Follower("number")
    store.write_here(entry(0))
    catch_up(store, store.read_here(changes.head))

    def heard(tx: Tx) -> set[str] | None:
        with copy.news(tx) as keys:
            return keys

    assert store.read_here(heard) is None, "there was no copy yet"
    for _ in range(5):
        store.write_here(entry(1))
        store.write_here(entry(2))
    assert store.read_here(heard) == {"1", "2"}
    assert store.read_here(heard) == set()
    for key in range(4):
        store.write_here(entry(key))
    assert store.read_here(heard) is None
    assert store.read_here(heard) == set()
