"""The contract of image stores, for every store that the package brings."""

from __future__ import annotations

from pathlib import Path

import pytest

from pileus.contracts.images import ImageStore, StoreFailure
from pileus.drivers.images.file import FileImageStore


@pytest.fixture(name="store")
def any_store(tmp_path: Path) -> ImageStore:
    return FileImageStore(tmp_path / "images")


def put(store: ImageStore, key: str, data: bytes) -> str:
    with store.open_new(key) as file:
        file.write(data)
    return store.commit(key)


def test_data_is_read_as_it_was_written(store: ImageStore) -> None:
    location = put(store, "a-1", b"one" * 100_000)
    with store.open(location) as file:
        assert file.read() == b"one" * 100_000
        file.seek(3)
        assert file.read(3) == b"one"


def test_nothing_is_visible_before_commit(store: ImageStore) -> None:
    with store.open_new("a-1") as file:
        file.write(b"half")
        assert list(store.locations()) == []
    assert list(store.locations()) == []
    location = store.commit("a-1")
    assert list(store.locations()) == [location]


def test_abort_forgets(store: ImageStore) -> None:
    with store.open_new("a-1") as file:
        file.write(b"half")
    store.abort("a-1")
    store.abort("a-1")
    with pytest.raises(StoreFailure):
        store.commit("a-1")
    assert list(store.locations()) == []


def test_commit_again_gives_the_same_location(store: ImageStore) -> None:
    location = put(store, "a-1", b"x")
    assert store.commit("a-1") == location


def test_committed_data_is_never_written_again(store: ImageStore) -> None:
    location = put(store, "a-1", b"first")
    with pytest.raises(StoreFailure):
        store.open_new("a-1")
    with store.open(location) as file:
        assert file.read() == b"first"


def test_abort_after_commit_keeps_the_data(store: ImageStore) -> None:
    location = put(store, "a-1", b"first")
    store.abort("a-1")
    with store.open(location) as file:
        assert file.read() == b"first"


def test_writing_anew_forgets_the_earlier_attempt(store: ImageStore) -> None:
    with store.open_new("a-1") as first:
        first.write(b"a long first attempt")
        with store.open_new("a-1") as second:
            second.write(b"second")
        first.write(b" that goes on")
    with store.open(store.commit("a-1")) as file:
        assert file.read() == b"second"


def test_removed_data_is_gone(store: ImageStore) -> None:
    location = put(store, "a-1", b"x")
    store.remove(location)
    store.remove(location)
    with pytest.raises(StoreFailure):
        store.open(location)
    assert list(store.locations()) == []


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", "/etc/passwd", ".hidden", "a\nb", "é", "x" * 200])
def test_names_stay_within_the_store(store: ImageStore, name: str) -> None:
    for call in (store.open_new, store.commit, store.abort, store.open, store.remove):
        with pytest.raises(StoreFailure):
            call(name)


def test_files_are_private_and_the_directory_may_move(tmp_path: Path) -> None:
    location = put(FileImageStore(tmp_path / "one"), "a-1", b"x")
    path = tmp_path / "one" / "data" / "a-1"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    (tmp_path / "one").rename(tmp_path / "two")
    with FileImageStore(tmp_path / "two").open(location) as file:
        assert file.read() == b"x"
