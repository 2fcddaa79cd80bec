"""Images on a host: fetched once, checked, whole or not there."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pileus.agent import image_cache
from pileus.agent.image_cache import FileImageCache, NoImages
from pileus.agent.link import Link, LinkDown, LinkRefused
from pileus.contracts.hypervisor import DiskSpec
from pileus.contracts.storage import StorageFailure
from pileus.drivers.storage.convert import convert
from tests.agent.control import until

DATA = b"QFI\xfb" + bytes(range(256)) * 64


class Source(Link):
    """A link that carries images alone: in parts, slowly, and as far as it is told to."""

    def __init__(self, data: bytes = DATA) -> None:
        super().__init__(Path("/nonexistent"))
        self.data = data
        self.asked: list[str] = []
        self.breaks_after: int | None = None
        self.refusal = 0
        self.pause = asyncio.Event()
        self.pause.set()

    async def download(self, path: str, sink: Callable[[bytes], object]) -> None:
        self.asked.append(path)
        if self.refusal:
            raise LinkRefused(self.refusal, "No image found")
        for number, start in enumerate(range(0, len(self.data), 1000)):
            if number == self.breaks_after:
                raise LinkDown("in the middle")
            sink(self.data[start : start + 1000])
            await self.pause.wait()
            await asyncio.sleep(0)


def refuse(source: Path, form: str, target: Path) -> None:
    raise AssertionError(f"{source} is not to be converted")


def disk(image_id: str | None = "image", *, form: str = "qcow2", sha512: str | None = None) -> DiskSpec:
    digest = sha512 or hashlib.sha512(DATA).hexdigest()
    return DiskSpec(id="root", image_id=image_id, image_format=form, image_sha512=digest, size_gib=1)


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_one_download_serves_all_who_wait(tmp_path: Path) -> None:
    async def scenario() -> None:
        cache, link = FileImageCache(tmp_path, refuse), Source()
        await asyncio.gather(*(cache.fetch(disk(), link) for _ in range(20)))
        await cache.fetch(disk(), link)
        assert link.asked == ["/images/image/data"]
        path = cache.path(disk())
        assert path is not None
        assert path.read_bytes() == DATA
        assert path.stat().st_mode & 0o777 == 0o644
        assert names(tmp_path) == [path.name]

    asyncio.run(scenario())


def test_images_are_fetched_side_by_side(tmp_path: Path) -> None:
    async def scenario() -> None:
        cache, slow, fast = FileImageCache(tmp_path, refuse), Source(), Source()
        slow.pause.clear()
        waiting = asyncio.create_task(cache.fetch(disk("slow"), slow))
        await asyncio.wait_for(cache.fetch(disk("fast"), fast), 5)
        assert not waiting.done()
        slow.pause.set()
        await waiting

    asyncio.run(scenario())


def test_the_same_image_with_another_hash_is_another_file(tmp_path: Path) -> None:
    cache = FileImageCache(tmp_path, refuse)
    assert cache.path(disk()) != cache.path(disk(sha512="0" * 128))


def test_a_disk_that_starts_empty_needs_nothing(tmp_path: Path) -> None:
    cache, link = FileImageCache(tmp_path, refuse), Source()
    asyncio.run(cache.fetch(disk(None), link))
    assert link.asked == []
    assert cache.path(disk(None)) is None


def test_data_with_another_hash_is_refused_and_not_kept(tmp_path: Path) -> None:
    async def scenario() -> None:
        cache, link = FileImageCache(tmp_path, refuse), Source(DATA + b"x")
        found = await asyncio.gather(*(cache.fetch(disk(), link) for _ in range(3)), return_exceptions=True)
        assert all(isinstance(one, StorageFailure) and "hash" in str(one) for one in found)
        assert names(tmp_path) == []
        link.data = DATA
        await cache.fetch(disk(), link)
        assert len(names(tmp_path)) == 1

    asyncio.run(scenario())


def test_other_formats_are_converted(tmp_path: Path) -> None:
    seen: list[tuple[bytes, str]] = []

    def convert(source: Path, form: str, target: Path) -> None:
        seen.append((source.read_bytes(), form))
        target.write_bytes(b"converted")

    async def scenario() -> None:
        cache = FileImageCache(tmp_path, convert)
        await asyncio.gather(*(cache.fetch(disk(form="raw"), Source()) for _ in range(3)))
        path = cache.path(disk(form="raw"))
        assert path is not None
        assert path.read_bytes() == b"converted"
        assert names(tmp_path) == [path.name, path.with_suffix(".sha512").name]

    asyncio.run(scenario())
    assert seen == [(DATA, "raw")]


def test_what_was_not_checked_is_not_converted(tmp_path: Path) -> None:
    cache = FileImageCache(tmp_path, refuse)
    with pytest.raises(StorageFailure, match="hash"):
        asyncio.run(cache.fetch(disk(form="raw"), Source(b"evil")))
    assert names(tmp_path) == []


def test_a_conversion_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def convert(source: Path, form: str, target: Path) -> None:
        target.write_bytes(b"half")
        raise StorageFailure("too large", permanent=True)

    cache = FileImageCache(tmp_path, convert)
    with pytest.raises(StorageFailure, match="too large") as caught:
        asyncio.run(cache.fetch(disk(form="raw"), Source()))
    assert caught.value.permanent
    assert names(tmp_path) == []


def test_a_download_that_breaks_off_leaves_nothing_and_the_next_is_whole(tmp_path: Path) -> None:
    async def scenario() -> None:
        cache, link = FileImageCache(tmp_path, refuse), Source()
        link.breaks_after = 3
        with pytest.raises(LinkDown):
            await cache.fetch(disk(), link)
        assert names(tmp_path) == []
        link.breaks_after = None
        await cache.fetch(disk(), link)
        path = cache.path(disk())
        assert path is not None
        assert path.read_bytes() == DATA

    asyncio.run(scenario())


@pytest.mark.parametrize(("status", "lasting"), [(404, True), (410, True), (401, False), (409, False), (503, False)])
def test_an_image_that_is_not_there_any_more_is_not_waited_for(tmp_path: Path, status: int, lasting: bool) -> None:
    cache, link = FileImageCache(tmp_path, refuse), Source()
    link.refusal = status
    with pytest.raises(StorageFailure if lasting else LinkRefused, match="No image found") as failure:
        asyncio.run(cache.fetch(disk(), link))
    assert getattr(failure.value, "permanent", False) == lasting
    assert names(tmp_path) == []


def _room(monkeypatch: pytest.MonkeyPatch, root: Path, free: int, total: int = 1 << 40) -> None:
    """The file system of a directory has so many bytes, less what its files take from now on."""
    before = sum(path.stat().st_size for path in root.iterdir())

    def usage(path: Path) -> shutil._ntuple_diskusage:
        taken = sum(one.stat().st_size for one in path.iterdir()) - before
        return shutil._ntuple_diskusage(total, total - free + taken, free - taken)

    monkeypatch.setattr(shutil, "disk_usage", usage)


def test_an_image_leaves_a_reserve_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_cache, "_LOOK", 4000)
    cache, link = FileImageCache(tmp_path, refuse), Source()
    _room(monkeypatch, tmp_path, (1 << 30) + 10_000)
    with pytest.raises(StorageFailure, match="less than 1 GiB free") as failure:
        asyncio.run(cache.fetch(disk(), link))
    assert not failure.value.permanent, "there may be room later"
    assert names(tmp_path) == []
    _room(monkeypatch, tmp_path, (1 << 30) + 30_000)
    asyncio.run(cache.fetch(disk(), link))
    assert len(names(tmp_path)) == 1


def test_images_that_nothing_needs_make_room_the_oldest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        cache, link = FileImageCache(tmp_path / "cache", refuse), Source()
        paths = {}
        for name in ("held", "wanted", "old", "newer", "newest"):
            await cache.fetch(disk(name), link)
            path = paths[name] = cache.path(disk(name))
            assert path is not None
            path.with_suffix(".sha512").write_text("of what was converted")
            await asyncio.sleep(0.02)
        held = paths["held"]
        assert held is not None
        os.link(held, tmp_path / "base")
        busy = asyncio.create_task(cache.fetch(disk("busy"), slow))
        await until(lambda: any(".partial" in name for name in names(cache.root)))

        def left() -> set[str]:
            return {name.partition(".")[0] for name in names(cache.root)}

        everything = left()
        _room(monkeypatch, cache.root, 11 << 30)
        await cache.make_room(lambda: [disk("wanted"), disk(None)])
        assert left() == everything, "there is room"
        # 3 GiB of 10 are the mark here, and two images less are enough.
        _room(monkeypatch, cache.root, (3 << 30) - 2 * len(DATA), total=10 << 30)
        await cache.make_room(lambda: [disk("wanted"), disk(None)])
        assert left() == {"held", "wanted", "newest", "busy"}
        _room(monkeypatch, cache.root, 0, total=10 << 30)
        await cache.make_room(lambda: [disk("wanted"), disk(None)])
        assert left() == {"held", "wanted", "busy"}
        slow.pause.set()
        await busy
        _room(monkeypatch, cache.root, 20 << 30)
        await cache.fetch(disk("old"), link)
        assert link.asked.count("/images/old/data") == 2

    slow = Source()
    slow.pause.clear()
    asyncio.run(scenario())


def test_a_download_that_is_cancelled_leaves_nothing_and_lets_the_next_begin(tmp_path: Path) -> None:
    async def scenario() -> None:
        cache, link = FileImageCache(tmp_path, refuse), Source()
        link.pause.clear()
        first = asyncio.create_task(cache.fetch(disk(), link))
        second = asyncio.create_task(cache.fetch(disk(), link))
        await until(lambda: bool(names(tmp_path)))
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        link.pause.set()
        await second
        path = cache.path(disk())
        assert path is not None
        assert names(tmp_path) == [path.name]
        assert path.read_bytes() == DATA

    asyncio.run(scenario())


def test_a_new_life_sweeps_what_the_last_left_half_done_and_keeps_the_rest(tmp_path: Path) -> None:
    async def scenario() -> None:
        cache, link = FileImageCache(tmp_path, refuse), Source()
        await cache.fetch(disk(), link)
        (kept,) = names(tmp_path)
        for name in ("a.0123.partial", "a.0123.partial.qcow2"):
            (tmp_path / name).write_bytes(b"half")
        again = FileImageCache(tmp_path, refuse)
        assert names(tmp_path) == [kept]
        await again.fetch(disk(), link)
        assert link.asked == ["/images/image/data"]

    asyncio.run(scenario())


def test_simulated_hosts_have_no_images() -> None:
    link = Source()
    asyncio.run(NoImages().fetch(disk(), link))
    assert NoImages().path(disk(None)) is None
    assert link.asked == []


def test_a_file_that_was_damaged_is_fetched_again(tmp_path: Path) -> None:
    def convert(source: Path, form: str, target: Path) -> None:
        target.write_bytes(b"converted" + source.read_bytes())

    async def scenario(form: str, root: Path) -> None:
        cache, link = FileImageCache(root, convert), Source()
        await cache.fetch(disk(form=form), link)
        path = cache.path(disk(form=form))
        assert path is not None
        whole = path.read_bytes()
        held = path.open("rb")
        # Another life of the agent takes what it finds whole.
        again = FileImageCache(root, convert)
        await again.fetch(disk(form=form), link)
        assert len(link.asked) == 1
        for cache in (again, FileImageCache(root, convert)):
            asked = len(link.asked)
            damaged = bytearray(whole)
            damaged[len(damaged) // 2] ^= 1
            path.write_bytes(damaged)
            await cache.fetch(disk(form=form), link)
            await cache.fetch(disk(form=form), link)
            assert len(link.asked) == asked + 1
            assert path.read_bytes() == whole
        assert held.read() != whole  # who had it open goes on with what it has
        held.close()

    for form in ("qcow2", "raw"):
        (tmp_path / form).mkdir()
        asyncio.run(scenario(form, tmp_path / form))


def test_the_directory_is_roots_and_the_converters(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o711)  # as an earlier release made it
    for name in ("cache", "new"):
        FileImageCache(tmp_path / name, refuse, reader=4712)
        found = (tmp_path / name).stat()
        assert found.st_mode & 0o777 == (0o710 if os.geteuid() == 0 else 0o700)
        assert found.st_gid == 4712 or os.geteuid() != 0
    FileImageCache(tmp_path / "other", refuse)
    assert (tmp_path / "other").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("qemu-img") is None, reason="needs root and qemu-img")
def test_an_image_is_converted_where_nobody_else_passes() -> None:
    place, uid = Path("/var/tmp") / f"pileus-cache-{os.getpid()}", 64732

    place.mkdir(mode=0o711)
    try:
        cache = FileImageCache(place / "cache", functools.partial(convert, uid=uid), reader=uid)
        wanted = disk(form="raw")
        asyncio.run(cache.fetch(wanted, Source()))
        path = cache.path(wanted)
        assert path is not None
        assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (0, 0o644)
        assert path.read_bytes().startswith(b"QFI")
        command = ["head", "-c1", str(path)]
        assert subprocess.run(command, user=64731, group=64731, extra_groups=[], check=False).returncode != 0
    finally:
        shutil.rmtree(place)
