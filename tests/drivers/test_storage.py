"""The storage drivers: both keep the contract, and files of tenants and of crashes do no harm."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import os
import shutil
import stat
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pycdlib
import pytest

from pileus.contracts.hypervisor import DiskSpec, GuestSpec
from pileus.contracts.storage import StorageFailure
from pileus.contracts.suite.storage import StorageContract, StorageHarness
from pileus.drivers.host.process import ENVIRONMENT
from pileus.drivers.storage.fake import FakeConfigDrive, FakeDisk, FakeStorage
from pileus.drivers.storage.file import FileStorage
from pileus.drivers.storage.file.format import patience
from pileus.drivers.storage.file.use import in_use

MIB = 1 << 20
ROOT = DiskSpec(id="root", image_id="image", size_gib=1, boot_index=0)
COPY = msgspec.structs.replace(ROOT, incarnation=2, copy_of=1)
WANTED = GuestSpec(id="guest", name="g", vcpus=1, memory_mib=64, disks=(ROOT,), nics=(), power="running")

needs_qemu_img = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")


def qemu_img(*arguments: str) -> str:
    return subprocess.run(["qemu-img", *arguments], check=True, capture_output=True, text=True).stdout


def make_image(path: Path, content: bytes = b"pileus", *options: str) -> Path:
    """A qcow2 image of 16 MiB that begins with some bytes."""
    raw = path.with_suffix(".raw")
    raw.write_bytes(content)
    os.truncate(raw, 16 * MIB)
    qemu_img("convert", "-O", "qcow2", *options, str(raw), str(path))
    raw.unlink()
    return path


def content(disk: Path, size: int) -> bytes:
    """The first bytes of a disk as its guest reads them."""
    raw = disk.with_suffix(".read")
    qemu_img("convert", "-O", "raw", str(disk), str(raw))
    with raw.open("rb") as file:
        found = file.read(size)
    raw.unlink()
    return found


@contextlib.contextmanager
def opened(disk: Path) -> Iterator[None]:
    """A process has a disk open, as QEMU has it."""
    command = ["qemu-io", "-c", "sleep 60000", str(disk)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as reader:
        try:
            deadline = time.monotonic() + 10
            while not in_use(disk):
                assert time.monotonic() < deadline, "the disk was not opened"
                time.sleep(0.01)
            yield
        finally:
            reader.kill()


class FileHarness:
    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "cache").mkdir()
        self._image = make_image(root / "cache" / "image.qcow2")

    def open(self) -> FileStorage:
        return FileStorage(root=self.root / "disks")

    def image(self) -> Path:
        return self._image

    def size_gib(self, disk: Path) -> int:
        return int(json.loads(qemu_img("info", "--output=json", str(disk)))["virtual-size"]) >> 30

    def documents(self, drive: Path) -> dict[str, bytes]:
        assert drive.read_bytes()[16 * 2048 + 40 : 16 * 2048 + 72].rstrip() == b"config-2"
        found = [read_iso(drive, kind) for kind in ("rr_path", "joliet_path")]
        assert found[0] == found[1]
        return found[0]

    def use(self, disk: Path) -> bytes:
        subprocess.run(["qemu-io", "-c", "write -P 7 0 64k", str(disk)], check=True, capture_output=True)
        return disk.read_bytes()

    def used(self, disk: Path) -> bool:
        return content(disk, 1) == b"\x07"

    def file_system(self, disk: Path) -> tuple[str, str]:
        raw = disk.with_suffix(".read")
        qemu_img("convert", "-O", "raw", str(disk), str(raw))
        found = subprocess.run(["blkid", "-p", "-o", "export", str(raw)], check=False, capture_output=True, text=True)
        raw.unlink()
        tags = dict(line.split("=", 1) for line in found.stdout.splitlines())
        return tags.get("TYPE", ""), tags.get("LABEL", "")

    def leftovers(self, guest_id: str) -> list[str]:
        return [str(path) for path in self.root.rglob("*") if guest_id in str(path)]


def read_iso(drive: Path, kind: str) -> dict[str, bytes]:
    """Every file of an ISO image, by Rock Ridge (`rr_path`) or Joliet (`joliet_path`) names."""
    iso = pycdlib.PyCdlib()
    iso.open(str(drive))
    found: dict[str, bytes] = {}
    for folder, _, files in iso.walk(**{kind: "/"}):
        for name in files:
            path = f"{folder.rstrip('/')}/{name}"
            into = io.BytesIO()
            iso.get_file_from_iso_fp(into, **{kind: path})
            found[path.lstrip("/")] = into.getvalue()
    iso.close()
    return found


class FakeHarness:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._used: set[int] = set()

    def open(self) -> FakeStorage:
        return FakeStorage(root=self._root)

    def image(self) -> Path:
        return Path("/no/such/image.qcow2")

    def size_gib(self, disk: Path) -> int:
        return msgspec.json.decode(disk.read_bytes(), type=FakeDisk).size_gib

    def documents(self, drive: Path) -> dict[str, bytes]:
        return msgspec.json.decode(drive.read_bytes(), type=FakeConfigDrive).documents

    def use(self, disk: Path) -> bytes:
        self._used.add(msgspec.json.decode(disk.read_bytes(), type=FakeDisk).lineage[-1])
        return disk.read_bytes()

    def used(self, disk: Path) -> bool:
        return bool(self._used & set(msgspec.json.decode(disk.read_bytes(), type=FakeDisk).lineage))

    def file_system(self, disk: Path) -> tuple[str, str]:
        found = msgspec.json.decode(disk.read_bytes(), type=FakeDisk)
        return found.filesystem, found.label

    def leftovers(self, guest_id: str) -> list[str]:
        return [str(path) for path in self._root.rglob("*") if guest_id in str(path)]


class TestFakeStorage(StorageContract):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> StorageHarness:
        return FakeHarness(tmp_path / "disks")


def test_a_fake_host_fills_up(tmp_path: Path) -> None:
    storage = FakeStorage(root=tmp_path, capacity_gib=10)
    storage.ensure_disk("a", DiskSpec(id="root", size_gib=6), None)
    with pytest.raises(StorageFailure):
        storage.ensure_disk("b", DiskSpec(id="root", size_gib=6), None)
    assert storage.free_gib() == FakeStorage(root=tmp_path, capacity_gib=10).free_gib() == 4
    storage.remove_guest("a")
    assert storage.free_gib() == 10


@needs_qemu_img
class TestFileStorage(StorageContract):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> StorageHarness:
        return FileHarness(tmp_path)


@pytest.fixture
def host(tmp_path: Path) -> FileHarness:
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is not installed")
    return FileHarness(tmp_path)


def test_a_disk_shows_its_image(host: FileHarness) -> None:
    disk = host.open().ensure_disk("guest", ROOT, host.image())
    assert content(disk, 7) == b"pileus\0"
    assert qemu_img("check", str(disk)).startswith("No errors")
    assert disk.stat().st_blocks * 512 < MIB


def test_size_zero_means_the_size_of_the_image(host: FileHarness) -> None:
    disk = host.open().ensure_disk("guest", msgspec.structs.replace(ROOT, size_gib=0), host.image())
    assert json.loads(qemu_img("info", "--output=json", str(disk)))["virtual-size"] == 16 * MIB


def test_a_disk_smaller_than_its_image_is_refused(host: FileHarness, tmp_path: Path) -> None:
    big = tmp_path / "big.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", str(big), "2G")
    with pytest.raises(StorageFailure, match="smaller") as failure:
        host.open().ensure_disk("guest", ROOT, big)
    assert failure.value.permanent
    assert host.open().guests() == []


def test_a_disk_outlives_its_image_in_the_cache(host: FileHarness) -> None:
    disk = host.open().ensure_disk("guest", ROOT, host.image())
    host.image().unlink()
    assert content(disk, 6) == b"pileus"


def test_the_directory_may_be_moved(host: FileHarness) -> None:
    disk = host.open().ensure_disk("guest", ROOT, host.image())
    moved = host.root / "elsewhere"
    (host.root / "disks").rename(moved)
    host.image().unlink()
    assert content(moved / "guest" / disk.name, 6) == b"pileus"


def test_disks_share_one_copy_of_their_image(host: FileHarness) -> None:
    storage = host.open()
    for guest in ("a", "b"):
        storage.ensure_disk(guest, ROOT, host.image())
    assert host.image().stat().st_nlink == 3
    storage.remove_guest("a")
    assert host.image().stat().st_nlink == 2


def test_an_image_on_another_file_system_is_copied(host: FileHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    disk = host.open().ensure_disk("guest", ROOT, host.image())
    assert host.image().stat().st_nlink == 1
    host.image().unlink()
    assert content(disk, 6) == b"pileus"


def test_an_image_is_readable_for_guests(host: FileHarness) -> None:
    host.image().chmod(0o600)
    disk = host.open().ensure_disk("guest", ROOT, host.image())
    base = disk.with_suffix(".base.qcow2")
    assert stat.S_IMODE(base.stat().st_mode) == 0o644
    assert stat.S_IMODE(disk.parent.stat().st_mode) == (0o710 if os.geteuid() == 0 else 0o700)
    assert stat.S_IMODE(disk.parent.parent.stat().st_mode) == 0o711


@pytest.mark.parametrize("hostile", ["backing", "data file", "not qcow2", "short"])
def test_an_image_that_needs_another_file_is_refused(host: FileHarness, tmp_path: Path, hostile: str) -> None:
    image = tmp_path / "hostile.qcow2"
    match hostile:
        case "backing":
            qemu_img("create", "-q", "-f", "qcow2", "-u", "-b", "/etc/passwd", "-F", "raw", str(image), "1M")
        case "data file":
            data = f"data_file={tmp_path / 'data.raw'}"
            qemu_img("create", "-q", "-f", "qcow2", "-o", data, str(image), "1M")
        case "not qcow2":
            image.write_bytes(b"\0" * MIB)
        case _:
            image.write_bytes(b"QFI\xfb")
    with pytest.raises(StorageFailure) as failure:
        host.open().ensure_disk("guest", ROOT, image)
    assert failure.value.permanent


def test_a_version_2_image_is_fine(host: FileHarness, tmp_path: Path) -> None:
    image = make_image(tmp_path / "old.qcow2", b"old", "-o", "compat=0.10")
    assert content(host.open().ensure_disk("guest", ROOT, image), 3) == b"old"


def test_what_a_crash_left_is_replaced(host: FileHarness) -> None:
    folder = host.root / "disks" / "guest"
    folder.mkdir(parents=True)
    for name in (".root.qcow2.new", ".root.base.qcow2.new", "root.base.qcow2", ".config-2.iso.new"):
        (folder / name).write_bytes(b"half")
    storage = host.open()
    disk = storage.ensure_disk("guest", ROOT, host.image())
    drive = storage.ensure_config_drive("guest", {"a": b"b"})
    assert content(disk, 6) == b"pileus"
    assert sorted(path.name for path in folder.iterdir()) == ["config-2.iso", "root.base.qcow2", "root.qcow2"]
    assert host.documents(drive) == {"a": b"b"}


def test_a_failure_leaves_no_disk(host: FileHarness) -> None:
    storage = FileStorage(root=host.root / "disks", binary="/bin/false")
    with pytest.raises(StorageFailure, match="status 1"):
        storage.ensure_disk("guest", ROOT, host.image())
    assert not (host.root / "disks" / "guest" / "root.qcow2").exists()
    assert host.open().ensure_disk("guest", ROOT, host.image()).exists()


def test_a_removal_that_was_cut_short_is_finished(host: FileHarness) -> None:
    gone = host.root / "disks" / ".gone-guest"
    gone.mkdir(parents=True)
    (gone / "root.qcow2").write_bytes(b"x")
    assert host.open().guests() == []
    assert not gone.exists()


def test_a_config_drive_cannot_write_outside(host: FileHarness) -> None:
    with pytest.raises(StorageFailure) as failure:
        host.open().ensure_config_drive("guest", {"../../etc/passwd": b""})
    assert failure.value.permanent


def test_long_and_many_documents(host: FileHarness) -> None:
    documents = {f"openstack/content/{number:04}": b"x" * number for number in range(200)}
    documents["openstack/latest/" + "n" * 60] = b"long"
    assert host.documents(host.open().ensure_config_drive("guest", documents)) == documents


def test_disks_and_drives_are_quick(host: FileHarness) -> None:
    storage = host.open()
    begin = time.monotonic()
    for number in range(5):
        storage.ensure_disk(f"guest{number}", ROOT, host.image())
        storage.ensure_config_drive(f"guest{number}", {"openstack/latest/meta_data.json": b"{}"})
    assert (time.monotonic() - begin) / 5 < 1.0


def test_linux_finds_the_label(host: FileHarness) -> None:
    if shutil.which("blkid") is None:
        pytest.skip("blkid is not installed")
    drive = host.open().ensure_config_drive("guest", {"openstack/latest/meta_data.json": b"{}"})
    found = subprocess.run(["blkid", "-p", "-o", "export", str(drive)], check=True, capture_output=True, text=True)
    assert "LABEL=config-2\n" in found.stdout
    assert "TYPE=iso9660\n" in found.stdout


@needs_qemu_img
def test_what_a_process_has_open_stays(tmp_path: Path) -> None:
    """A store that was restored may want an older disk than the guest runs on."""
    harness = FileHarness(tmp_path)
    storage = harness.open()
    first = storage.ensure_disk("guest", ROOT, harness.image())
    second = storage.ensure_disk("guest", msgspec.structs.replace(ROOT, incarnation=2), harness.image())
    with opened(second):
        storage.settle("guest", WANTED)
        assert second.exists()
    storage.settle("guest", WANTED)
    assert first.exists()
    assert not second.exists()


@needs_qemu_img
def test_a_disk_that_a_process_has_open_is_not_copied(tmp_path: Path) -> None:
    harness = FileHarness(tmp_path)
    storage = harness.open()
    first = storage.ensure_disk("guest", ROOT, harness.image())
    with opened(first), pytest.raises(StorageFailure, match="in use") as failure:
        storage.ensure_disk("guest", COPY, None)
    assert not failure.value.permanent
    assert sorted(one.name for one in first.parent.iterdir()) == ["root.base.qcow2", "root.qcow2"]
    assert content(storage.ensure_disk("guest", COPY, None), 6) == b"pileus"


@needs_qemu_img
def test_a_copy_that_there_is_no_room_for_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = FileHarness(tmp_path)
    storage = harness.open()
    first = storage.ensure_disk("guest", ROOT, harness.image())
    monkeypatch.setattr("pileus.drivers.storage.file.driver._clone", lambda source, new: False)
    monkeypatch.setattr("pileus.drivers.storage.file.driver._KEPT_FREE", shutil.disk_usage(tmp_path).total)
    with pytest.raises(StorageFailure, match="no room") as failure:
        storage.ensure_disk("guest", COPY, None)
    assert failure.value.permanent
    storage.settle("guest", WANTED)
    assert sorted(one.name for one in first.parent.iterdir()) == ["root.base.qcow2", "root.qcow2"]


@needs_qemu_img
def test_a_copy_ends_when_the_host_runs_out_of_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = FileHarness(tmp_path)
    storage = harness.open()
    first = storage.ensure_disk("guest", ROOT, harness.image())
    slow = tmp_path / "bin"
    slow.mkdir()
    (slow / "cp").write_text('#!/bin/sh\necho begun >"$4"\nexec sleep 60\n')
    (slow / "cp").chmod(0o755)
    monkeypatch.setitem(ENVIRONMENT, "PATH", f"{slow}:{ENVIRONMENT['PATH']}")
    monkeypatch.setattr("pileus.drivers.storage.file.driver._clone", lambda source, new: False)
    new = first.with_name(".root.2.qcow2.new")
    monkeypatch.setattr(FileStorage, "_free", lambda self: 0 if new.exists() else 1 << 40)
    begin = time.monotonic()
    with pytest.raises(StorageFailure, match="no room") as failure:
        storage.ensure_disk("guest", COPY, None)
    assert failure.value.permanent
    assert time.monotonic() - begin < 10
    assert not new.exists()


def test_what_a_crash_left_unfinished_goes_when_nothing_comes_of_it(tmp_path: Path) -> None:
    """A resize that was given up is not begun again under the same name."""
    harness = FileHarness(tmp_path)
    storage = harness.open()
    first = storage.ensure_disk("guest", ROOT, harness.image())
    for name in (".root.2.qcow2.new", ".root.2.base.qcow2.new", ".swap.raw.new"):
        first.with_name(name).touch()
    storage.settle("guest", WANTED)
    assert sorted(one.name for one in first.parent.iterdir()) == ["root.base.qcow2", "root.qcow2"]


def test_a_large_disk_has_more_time() -> None:
    assert patience(1 << 40) > 10 * patience(1 << 30) > 600


def test_the_base_of_an_old_incarnation_goes_whoever_uses_the_same_image(tmp_path: Path) -> None:
    """Bases are links to one file: a lock that any guest holds on its own is one on all of them."""
    harness = FileHarness(tmp_path)
    storage, image = harness.open(), harness.image()
    second = msgspec.structs.replace(ROOT, incarnation=2)
    first = storage.ensure_disk("guest", ROOT, image)
    storage.ensure_disk("guest", second, image)
    other = storage.ensure_disk("other", ROOT, image)
    spec = GuestSpec(id="guest", name="g", vcpus=1, memory_mib=64, disks=(second,), nics=(), power="running")
    with other.with_suffix(".base.qcow2").open("rb") as held:
        lock = struct.pack("hhlli4x", fcntl.F_RDLCK, os.SEEK_SET, 100, 1, 0)
        fcntl.fcntl(held, fcntl.F_OFD_SETLK, lock)
        assert in_use(first.with_suffix(".base.qcow2"))
        storage.settle("guest", spec)
    assert sorted(one.name for one in first.parent.iterdir()) == ["root.2.base.qcow2", "root.2.qcow2"]


def test_a_base_that_a_crash_left_is_taken_again_and_nothing_stays_beside_it(tmp_path: Path) -> None:
    harness = FileHarness(tmp_path)
    storage, image = harness.open(), harness.image()
    disk = storage.ensure_disk("guest", ROOT, image)
    disk.unlink()  # killed when the base had its name, and the disk had none
    assert storage.ensure_disk("guest", ROOT, image) == disk
    assert sorted(one.name for one in disk.parent.iterdir()) == ["root.base.qcow2", "root.qcow2"]
