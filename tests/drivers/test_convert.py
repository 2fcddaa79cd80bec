"""Images in each of the formats that Image takes become qcow2."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pileus.contracts.images import ConversionFailure
from pileus.contracts.storage import StorageFailure
from pileus.drivers.host.confinement import version
from pileus.drivers.storage.convert import convert, convert_image

NOBODY = 64731


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that the child may pass through: none of pytest's, which it closes when another run begins."""
    with tempfile.TemporaryDirectory(prefix="convert-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


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


def test_what_becomes_too_large_leaves_nothing(place: Path) -> None:
    plain, source, target = place / "plain", place / "source", place / "target.qcow2"
    plain.write_bytes(b"a" * (32 << 20))
    subprocess.run(["qemu-img", "convert", "-c", "-O", "qcow2", str(plain), str(source)], check=True)
    assert source.stat().st_size < 2 << 20
    with pytest.raises(StorageFailure) as failure:
        convert(source, "qcow2", target, uid=NOBODY, most=4 << 20)
    assert failure.value.permanent
    assert not target.exists()
    convert(source, "qcow2", target, uid=NOBODY, most=64 << 20)
    assert target.stat().st_size > 32 << 20


@pytest.mark.parametrize("output", ["raw", "qcow2"])
def test_an_imported_image_of_another_format(place: Path, output: str) -> None:
    plain, source, target = place / "plain", place / "source", place / "target"
    plain.write_bytes(os.urandom(1 << 20))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "vmdk", str(plain), str(source)], check=True)
    convert_image(source, "vmdk", target, output)
    back = place / "back"
    subprocess.run(["qemu-img", "convert", "-f", output, "-O", "raw", str(target), str(back)], check=True)
    assert back.read_bytes()[: 1 << 20] == plain.read_bytes()
    source.write_bytes(b"x" * 4096)
    with pytest.raises(ConversionFailure):
        convert_image(source, "vmdk", target, output)
    assert not target.exists()


@pytest.mark.skipif(version() == 0, reason="needs Landlock")
def test_an_image_that_names_another_file_does_not_get_it(place: Path) -> None:
    """A backing file that the converter itself might read: with its own uid, or with that of the control plane."""
    secret, source, target = place / "secret", place / "source", place / "target.qcow2"
    secret.write_bytes(b"of another".ljust(1 << 20))
    secret.chmod(0o644)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(secret), str(source)], check=True)
    with pytest.raises(StorageFailure, match="Permission denied"):
        convert(source, "qcow2", target, uid=NOBODY)
    with pytest.raises(ConversionFailure, match="Permission denied"):
        convert_image(source, "qcow2", target, "raw")
    assert not target.exists()
