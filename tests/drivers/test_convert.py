"""Images in each of the formats that Image takes become qcow2."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pileus.contracts.storage import StorageFailure
from pileus.drivers.storage.convert import convert

NOBODY = 64731


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory that the child may pass through."""
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o011)
    return tmp_path


@pytest.mark.parametrize(
    ("form", "written"),
    [
        ("raw", "raw"),
        ("iso", "raw"),
        ("ami", "raw"),
        ("vhd", "vpc"),
        ("vhdx", "vhdx"),
        ("vmdk", "vmdk"),
        ("vdi", "vdi"),
    ],
)
def test_a_format_by_the_name_that_image_has_for_it(place: Path, form: str, written: str) -> None:
    plain, source, target = place / "plain", place / "source", place / "target.qcow2"
    plain.write_bytes(os.urandom(1 << 20))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", written, str(plain), str(source)], check=True)
    convert(source, form, target, uid=NOBODY)
    back = place / "back"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(target), str(back)], check=True)
    assert back.read_bytes()[: 1 << 20] == plain.read_bytes()
    if os.geteuid() == 0:
        assert target.stat().st_uid == 0


def test_what_is_not_of_the_format_leaves_nothing(place: Path) -> None:
    source, target = place / "source", place / "target.qcow2"
    source.write_bytes(b"x" * 4096)
    with pytest.raises(StorageFailure):
        convert(source, "vmdk", target, uid=NOBODY)
    assert not target.exists()
