"""The store: commits in groups, failures of one, races, the change log, quotas, on both engines."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from pileus.core.cause import Causes
from pileus.core.errors import QuotaExceeded, Raced, Unavailable
from pileus.core.quota import Quota
from pileus.core.store import Change, Store, Tx, Work, change, metadata

number = sa.Table(
    "core_test_number",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("value", sa.Integer, nullable=False),
)


def insert(key: int, value: int = 0) -> Work[int]:
    def work(tx: Tx) -> int:
        tx.execute(sa.insert(number).values(id=key, value=value))
        tx.changed("number", str(key))
        return key

    return work


def count(store: Store) -> int:
    return int(store.read_here(lambda tx: tx.scalar(sa.select(sa.func.count()).select_from(number))))


def test_one_failure_leaves_its_neighbours_alone(store: Store) -> None:
    def fail(tx: Tx) -> None:
        tx.execute(sa.insert(number).values(id=1000, value=0))
        tx.changed("number", "1000")
        raise LookupError("mine")

    async def run() -> list[object]:
        good = [store.write(insert(key)) for key in range(20)]
        return list(await asyncio.gather(*good, store.write(fail), return_exceptions=True))

    found = asyncio.run(run())
    assert found[:20] == list(range(20))
    assert isinstance(found[20], LookupError)
    assert count(store) == 20
    told = store.read_here(lambda tx: {row.key for row in tx.all(sa.select(change.c.key))})
    assert told == {str(key) for key in range(20)}


def test_a_lost_race_is_run_again(store: Store) -> None:
    attempts = []

    def work(tx: Tx) -> str:
        attempts.append(1)
        tx.execute(sa.insert(number).values(id=len(attempts), value=0))
        if len(attempts) < 3:
            raise Raced("again")
        return "won"

    assert store.write_here(work) == "won"
    assert len(attempts) == 3
    assert count(store) == 1


def test_a_race_that_is_always_lost_is_given_up(store: Store) -> None:
    def work(tx: Tx) -> None:
        raise Raced("again")

    with pytest.raises(Raced):
        store.write_here(work)


def test_compare_and_set(store: Store) -> None:
    store.write_here(insert(1, 5))
    store.write_here(lambda tx: tx.compare_and_set(number, {"id": 1, "value": 5}, {"value": 6}))
    with pytest.raises(Raced):
        store.write_here(lambda tx: tx.compare_and_set(number, {"id": 1, "value": 5}, {"value": 7}))


def test_insert_missing_says_whether_it_inserted(store: Store) -> None:
    def work(tx: Tx) -> list[bool]:
        return [tx.insert_missing(number, {"id": 1, "value": value}, key=("id",)) for value in (5, 6)]

    assert store.write_here(work) == [True, False]
    assert store.read_here(lambda tx: tx.scalar(sa.select(number.c.value))) == 5


def test_observers_hear_of_commits_alone(store: Store) -> None:
    heard: list[Change] = []

    def observe(found: Sequence[Change]) -> None:
        heard.extend(found)

    store.observers.append(observe)

    def fail(tx: Tx) -> None:
        tx.changed("number", "no")
        raise LookupError

    with pytest.raises(LookupError):
        store.write_here(fail)
    store.write_here(insert(7))
    assert heard == [Change("number", "7")]


def test_the_last_unit_of_a_quota_is_given_once(store: Store) -> None:
    quota = Quota("test", {"thing": 10})

    def take(_: int) -> bool:
        try:
            store.write_here(lambda tx: quota.take(tx, "p", {"thing": 1}))
        except QuotaExceeded:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(40))) == 10
    assert store.read_here(lambda tx: quota.used(tx, "p")) == {"thing": 10}
    store.write_here(lambda tx: quota.give_back(tx, "p", {"thing": 1}))
    assert take(0)


def test_a_refused_quota_counts_nothing(store: Store) -> None:
    quota = Quota("test", {"a": 5, "b": 1})
    with pytest.raises(QuotaExceeded) as caught:
        store.write_here(lambda tx: quota.take(tx, "p", {"a": 5, "b": 2}))
    assert (caught.value.resource, caught.value.limit, caught.value.requested) == ("b", 1, 2)
    assert store.read_here(lambda tx: quota.used(tx, "p")) == {"a": 0, "b": 0}


def test_quota_limits_of_a_project_and_defaults(store: Store) -> None:
    quota = Quota("test", {"a": 5})
    store.write_here(lambda tx: quota.set(tx, "default", {"a": 7}))
    store.write_here(lambda tx: quota.set(tx, "p", {"a": -1}))
    assert store.read_here(lambda tx: quota.limits(tx, "q")) == {"a": 7}
    store.write_here(lambda tx: quota.take(tx, "p", {"a": 1000}))
    store.write_here(lambda tx: quota.reset(tx, "p"))
    assert store.read_here(lambda tx: quota.limits(tx, "p")) == {"a": 7}


def test_an_observer_that_fails_ends_neither_the_write_nor_the_writer(store: Store) -> None:
    def fail(found: Sequence[Change]) -> None:
        raise RuntimeError("the loop is closed")

    store.observers.append(fail)
    assert store.write_here(insert(1)) == 1
    assert store.write_here(insert(2)) == 2
    assert count(store) == 2


def test_writes_go_on_after_the_disk_was_full(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'store.sqlite'}")
    store.create()

    def limit(pages: int) -> Work[None]:
        def work(tx: Tx) -> None:
            tx.connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

        return work

    def much(tx: Tx) -> None:
        for key in range(2000):
            tx.execute(sa.insert(change).values(topic="x" * 60, key="y" * 250, xid=0, at=tx.now, seq=key + 1000))

    try:
        for _ in range(3):
            store.write_here(limit(1))  # of the writer's connection
            with pytest.raises(Unavailable):
                store.write_here(much)
        assert store.write_here(insert(1)) == 1
        assert count(store) == 1
    finally:
        store.close()


def test_a_store_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'nowhere' / 'store.sqlite'}")
    try:
        for _ in range(2):
            with pytest.raises(Unavailable):
                store._submit(insert(1)).result(5)
    finally:
        store.close()


def test_writes_that_nobody_waits_for_any_more_do_not_end_the_writer(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'store.sqlite'}")
    store.create()
    begun, gate = threading.Event(), threading.Event()

    def wait(tx: Tx) -> bool:
        begun.set()
        return gate.wait(5)

    try:
        first = store._submit(wait)
        assert begun.wait(5)
        given_up = [store._submit(insert(key)) for key in range(3)]
        assert all(one.cancel() for one in given_up)

        def broken(tx: Tx) -> None:
            raise sa.exc.OperationalError("x", None, sqlite3.OperationalError("disk I/O error"))

        bad = store._submit(broken)
        gate.set()
        assert first.result(5)
        with pytest.raises(Unavailable):
            bad.result(5)
        assert store.write_here(insert(9)) == 9
        assert count(store) == 1
    finally:
        store.close()


def test_a_statement_that_the_engine_refuses_leaves_its_neighbours_alone(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'store.sqlite'}")
    store.create()

    def deep(tx: Tx) -> None:
        tx.execute(insert_number(5))
        tx.all(sa.select(number).where(sa.or_(*(number.c.value == key for key in range(2000)))))

    def insert_number(key: int) -> sa.Insert:
        return sa.insert(number).values(id=key, value=0)

    async def run() -> list[object]:
        works = [store.write(insert(1)), store.write(deep), store.write(insert(2))]
        return list(await asyncio.gather(*works, return_exceptions=True))

    try:
        first, second, third = asyncio.run(run())
        assert (first, third) == (1, 2)
        assert isinstance(second, Unavailable)
        assert count(store) == 2
    finally:
        store.close()


def test_nothing_of_a_group_counts_that_the_engine_ended(tmp_path: Path) -> None:
    """SQLite may roll the whole transaction back when the disk is full: then nobody may be told of success."""
    store = Store(f"sqlite:///{tmp_path / 'store.sqlite'}")
    store.create()
    begun, gate = threading.Event(), threading.Event()

    def wait(tx: Tx) -> None:
        tx.connection.exec_driver_sql("PRAGMA max_page_count = 1")
        begun.set()
        gate.wait(5)

    def ended(tx: Tx) -> None:
        tx.connection.exec_driver_sql("ROLLBACK")  # as the engine does
        raise sa.exc.OperationalError("x", None, sqlite3.OperationalError("database or disk is full"))

    def much(tx: Tx) -> None:
        for key in range(2000):
            tx.execute(sa.insert(change).values(topic="x" * 60, key="y" * 250, xid=0, at=tx.now, seq=key + 1000))

    try:
        for bad in (much, ended):
            begun.clear()
            gate.clear()
            first = store._submit(wait)
            assert begun.wait(5)
            group: list[Future[Any]] = [store._submit(insert(1)), store._submit(bad), store._submit(insert(2))]
            gate.set()
            first.result(5)
            for one in group:
                with pytest.raises(Unavailable):
                    one.result(5)
            assert count(store) == 0
        assert store.write_here(insert(3)) == 3
    finally:
        store.close()


def test_neither_errors_nor_logs_hold_what_was_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(f"sqlite:///{tmp_path / 'store.sqlite'}")
    store.create()
    begun = store.seams.clock.now()

    def twice(tx: Tx) -> None:
        for _ in range(2):
            tx.execute(sa.insert(change).values(seq=1, topic="s3cret", key="s3cret", xid=0, at=begun))

    def wrong(tx: Tx) -> None:
        tx.execute(sa.text("SELECT no_column WHERE :x = 1").bindparams(x="s3cret"))

    try:
        for work in (twice, wrong):
            with pytest.raises((sa.exc.IntegrityError, Unavailable)) as caught:
                store.write_here(work)
            assert "s3cret" not in str(caught.value)
            assert "no_column" not in str(caught.value)
        assert "no_column" in caplog.text
        assert "s3cret" not in caplog.text
    finally:
        store.close()


# -- causes --------------------------------------------------------------------------------------------------------


def causes(store: Store) -> dict[str, str | None]:
    """The request of each change, by key; of several the last."""
    newest = sa.select(change).order_by(change.c.seq)
    return store.read_here(lambda tx: {row.key: row.request_id for row in tx.all(newest)})


def write_as(store: Store, request_id: str | None, *keys: str) -> None:
    def work(tx: Tx) -> None:
        tx.request_id = request_id
        for key in keys:
            tx.changed("topic", key)

    store.write_here(work)


def test_what_loops_change_is_put_down_to_who_asked_last(store: Store) -> None:
    write_as(store, "req-1", "a", "b")
    write_as(store, None, "guest/a", "c")
    assert causes(store) == {"a": "req-1", "b": "req-1", "guest/a": "req-1", "c": "req-1"}
    write_as(store, "req-2", "b")
    write_as(store, None, "a", "b", "d")  # of two causes: the third thing is nobody's
    found = causes(store)
    assert (found["a"], found["b"], found["d"]) == ("req-1", "req-2", None)
    write_as(store, None, "e")
    assert causes(store)["e"] is None


def test_what_is_remembered_of_causes_is_bounded() -> None:
    known = Causes()
    for number in range(3 * Causes.LIMIT):
        known.note(str(number), "req")
    assert len(known._known) <= Causes.LIMIT
    assert known.get(str(3 * Causes.LIMIT - 1)) == "req"
