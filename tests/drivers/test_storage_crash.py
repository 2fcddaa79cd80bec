"""A host that dies while it makes, copies or gives up disks: files are whole or not there; the next try ends well."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from pileus.contracts.hypervisor import DiskSpec, GuestSpec
from pileus.drivers.storage.file import FileStorage
from tests.drivers.test_storage import content, make_image, qemu_img
from tests.tidy.tree import ROOT

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")

FIRST = DiskSpec(id="root", image_id="image", size_gib=1, boot_index=0)
COPY = DiskSpec(id="root", image_id="image", size_gib=2, boot_index=0, incarnation=2, copy_of=1)
SWAP = DiskSpec(id="swap", size_gib=1, filesystem="swap", label="swap0")

LIFE = """
import sys
from pathlib import Path
import msgspec
from pileus.contracts.hypervisor import DiskSpec, GuestSpec
from pileus.drivers.storage.file import FileStorage

storage = FileStorage(root=Path(sys.argv[1]))
image = Path(sys.argv[2])
for text in sys.argv[3:]:
    if text.startswith("settle "):
        storage.settle("guest", msgspec.json.decode(text.partition(" ")[2], type=GuestSpec))
    else:
        storage.ensure_disk("guest", msgspec.json.decode(text, type=DiskSpec), image)
"""


def spec(*disks: DiskSpec) -> GuestSpec:
    return GuestSpec(id="guest", name="vm", vcpus=1, memory_mib=64, disks=disks, nics=(), power="running")


def die_at(point: str, root: Path, image: Path, *steps: DiskSpec | GuestSpec) -> None:
    """Do these steps in a process of its own, which dies at a point."""
    points = root / "points"
    points.mkdir(exist_ok=True)
    (points / point).touch()
    told = [("settle " if isinstance(one, GuestSpec) else "") + msgspec.json.encode(one).decode() for one in steps]
    done = subprocess.run(
        [sys.executable, "-c", LIFE, str(root / "disks"), str(image), *told],
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PILEUS_FAILPOINTS": str(points)},
    )
    assert done.returncode == -signal.SIGKILL, done.returncode


def whole(root: Path) -> list[str]:
    """The files of the guest that have a name of their own; each disk of them can be opened."""
    names = sorted(path.name for path in (root / "disks" / "guest").iterdir() if not path.name.startswith("."))
    for name in names:
        if name.endswith(".qcow2"):
            qemu_img("check", "-q", str(root / "disks" / "guest" / name))
    return names


@pytest.mark.parametrize("point", ["storage.disk.held", "storage.disk.written"])
def test_a_disk_is_whole_or_not_there(tmp_path: Path, point: str) -> None:
    image = make_image(tmp_path / "image.qcow2")
    die_at(point, tmp_path, image, FIRST)
    assert whole(tmp_path) == ["root.base.qcow2"]
    storage = FileStorage(root=tmp_path / "disks")
    assert storage.disk("guest", "root") is None
    assert content(storage.ensure_disk("guest", FIRST, image), 6) == b"pileus"
    assert whole(tmp_path) == ["root.base.qcow2", "root.qcow2"]


@pytest.mark.parametrize("point", ["storage.disk.formatted", "storage.disk.written"])
def test_a_formatted_disk_is_whole_or_not_there(tmp_path: Path, point: str) -> None:
    image = make_image(tmp_path / "image.qcow2")
    die_at(point, tmp_path, image, SWAP)
    assert whole(tmp_path) == []
    storage = FileStorage(root=tmp_path / "disks")
    disk = storage.ensure_disk("guest", SWAP, None)
    assert b"SWAPSPACE2" in content(disk, 4096)
    assert whole(tmp_path) == ["swap.qcow2"]


@pytest.mark.parametrize("point", ["storage.copy.held", "storage.copy.written", "storage.disk.written"])
def test_a_copy_is_whole_or_not_there(tmp_path: Path, point: str) -> None:
    image = make_image(tmp_path / "image.qcow2")
    storage = FileStorage(root=tmp_path / "disks")
    first = storage.ensure_disk("guest", FIRST, image)
    subprocess.run(["qemu-io", "-c", "write -P 7 64k 64k", str(first)], check=True, capture_output=True)
    die_at(point, tmp_path, image, COPY)
    assert whole(tmp_path) == ["root.2.base.qcow2", "root.base.qcow2", "root.qcow2"]
    copy = storage.ensure_disk("guest", COPY, None)
    found = content(copy, 128 << 10)
    assert (found[:6], found[64 << 10 :]) == (b"pileus", b"\x07" * (64 << 10))
    storage.settle("guest", spec(COPY))
    assert whole(tmp_path) == ["root.2.base.qcow2", "root.2.qcow2"]
    assert content(copy, 128 << 10) == found


def test_what_is_given_up_in_part_is_given_up_in_the_end(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image.qcow2")
    storage = FileStorage(root=tmp_path / "disks")
    storage.ensure_disk("guest", FIRST, image)
    copy = storage.ensure_disk("guest", COPY, None)
    die_at("storage.settle.unlinked", tmp_path, image, spec(COPY))
    assert whole(tmp_path) == ["root.2.base.qcow2", "root.2.qcow2", "root.base.qcow2"]
    FileStorage(root=tmp_path / "disks").settle("guest", spec(COPY))
    assert whole(tmp_path) == ["root.2.base.qcow2", "root.2.qcow2"]
    assert content(copy, 6) == b"pileus"


def test_a_disk_that_names_another_file_is_not_copied(tmp_path: Path) -> None:
    """A guest that broke into its own process could have written anything into its disk's header."""
    image = make_image(tmp_path / "image.qcow2")
    storage = FileStorage(root=tmp_path / "disks")
    first = storage.ensure_disk("guest", FIRST, image)
    qemu_img("rebase", "-u", "-F", "raw", "-b", "/etc/passwd", str(first))
    with pytest.raises(Exception, match="not as it was made") as failure:
        storage.ensure_disk("guest", COPY, None)
    assert getattr(failure.value, "permanent", False)
    assert storage.disk("guest", "root", 2) is None
