"""What every image store that is written to must do: `pileus.contracts.images`, as tests."""

from __future__ import annotations

import threading
from typing import Protocol

import pytest

from pileus.contracts.images import ImageStore, StoreFailure


class ImageStoreHarness(Protocol):
    """Where a store under test is."""

    def open(self) -> ImageStore:
        """A store, empty at first; or the same one as another process sees it."""


def put(store: ImageStore, key: str, data: bytes) -> str:
    """Write data under a key, in several parts, and commit it."""
    with store.open_new(key) as file:
        for start in range(0, len(data), 100_000):
            file.write(data[start : start + 100_000])
    return store.commit(key)


def get(store: ImageStore, location: str, start: int = 0) -> bytes:
    """All of the data from a byte on."""
    with store.open(location, start) as file:
        found = b""
        while block := file.read(65_536):
            found += block
        return found


class ImageStoreContract:
    """Subclass it and give it a fixture `harness`."""

    @pytest.fixture
    def store(self, harness: ImageStoreHarness) -> ImageStore:
        """The store under test."""
        return harness.open()

    def test_it_says_what_it_is(self, store: ImageStore) -> None:
        assert store.kind
        assert not store.read_only
        assert all(isinstance(name, str) for name in store.properties())

    def test_data_is_read_as_it_was_written(self, store: ImageStore) -> None:
        data = bytes(range(256)) * 2000
        location = put(store, "a-1", data)
        assert get(store, location) == data
        assert store.size(location) == len(data)
        assert store.url(location)

    def test_no_data_is_data(self, store: ImageStore) -> None:
        location = put(store, "a-1", b"")
        assert get(store, location) == b""
        assert store.size(location) == 0

    @pytest.mark.parametrize("start", [0, 1, 65_535, 65_536, 199_999, 200_000])
    def test_a_range_starts_where_it_should(self, store: ImageStore, start: int) -> None:
        data = bytes(range(200)) * 1000
        assert get(store, put(store, "a-1", data), start) == data[start:]

    def test_several_read_at_once(self, store: ImageStore) -> None:
        data = bytes(range(256)) * 2000
        location = put(store, "a-1", data)
        with store.open(location) as first, store.open(location, 7) as second:
            assert first.read(3) == data[:3]
            assert second.read(3) == data[7:10]
            assert first.read(3) == data[3:6]

    def test_several_write_at_once(self, store: ImageStore) -> None:
        wanted = {f"a-{number}": bytes([number]) * 300_000 for number in range(4)}
        threads = [threading.Thread(target=put, args=(store, key, data)) for key, data in wanted.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {key: get(store, store.commit(key)) for key in wanted} == wanted

    def test_nothing_is_visible_before_commit(self, harness: ImageStoreHarness, store: ImageStore) -> None:
        with store.open_new("a-1") as file:
            file.write(b"half")
            assert list(store.locations()) == []
        assert list(harness.open().locations()) == []
        location = store.commit("a-1")
        assert list(harness.open().locations()) == [location]

    def test_abort_forgets(self, store: ImageStore) -> None:
        with store.open_new("a-1") as file:
            file.write(b"half")
        store.abort("a-1")
        store.abort("a-1")
        with pytest.raises(StoreFailure):
            store.commit("a-1")
        assert list(store.locations()) == []
        assert get(store, put(store, "a-1", b"anew")) == b"anew"

    def test_commit_again_gives_the_same_location(self, harness: ImageStoreHarness, store: ImageStore) -> None:
        location = put(store, "a-1", b"x")
        assert store.commit("a-1") == location
        assert harness.open().commit("a-1") == location

    def test_committed_data_is_never_written_again(self, store: ImageStore) -> None:
        location = put(store, "a-1", b"first")
        with pytest.raises(StoreFailure):
            store.open_new("a-1")
        assert get(store, location) == b"first"

    def test_abort_after_commit_keeps_the_data(self, store: ImageStore) -> None:
        location = put(store, "a-1", b"first")
        store.abort("a-1")
        assert get(store, location) == b"first"

    def test_writing_anew_forgets_the_earlier_attempt(self, store: ImageStore) -> None:
        first = store.open_new("a-1")
        first.write(b"a long first attempt")
        with store.open_new("a-1") as second:
            second.write(b"second")
        location = store.commit("a-1")
        first.close()
        assert get(store, location) == b"second"

    def test_removed_data_is_gone(self, harness: ImageStoreHarness, store: ImageStore) -> None:
        location = put(store, "a-1", b"x")
        kept = put(store, "a-2", b"y")
        store.remove(location)
        store.remove(location)
        for call in (store.open, store.size):
            with pytest.raises(StoreFailure):
                call(location)
        assert list(harness.open().locations()) == [kept]

    def test_a_local_file_holds_the_data_as_it_is(self, store: ImageStore) -> None:
        path = store.path(put(store, "a-1", b"x" * 5000))
        assert path is None or path.read_bytes() == b"x" * 5000

    @pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", "/etc/passwd", ".hidden", "a\nb", "é", "x" * 200])
    def test_names_stay_within_the_store(self, store: ImageStore, name: str) -> None:
        for call in (store.open_new, store.commit, store.abort, store.open, store.size, store.remove, store.url):
            with pytest.raises(StoreFailure):
                call(name)
