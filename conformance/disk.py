"""Disks in the formats of the field, and the manifest by which Tempest finds them.

The manifest's shape is what Tempest's option `[image] images_manifest_file` asks for: `images`, each with `name`,
`filename`, `format` and `usable`. What is not usable is what a cloud must not be tricked into reading.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

SIZE = 1 << 20
"""Bytes of each disk. Nothing is on it: it must be accepted, not boot."""


@dataclass(frozen=True, kw_only=True)
class Disk:
    """One entry of the manifest."""

    name: str
    filename: str
    format: str
    usable: bool


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    """How qemu-img makes a disk."""

    name: str
    format: str
    driver: str
    options: str = ""
    usable: bool = True


RECIPES = (
    _Recipe(name="raw", format="raw", driver="raw"),
    _Recipe(name="qcow2", format="qcow2", driver="qcow2"),
    _Recipe(name="qcow2-v2", format="qcow2", driver="qcow2", options="compat=0.10"),
    _Recipe(name="vdi", format="vdi", driver="vdi"),
    _Recipe(name="vhd", format="vhd", driver="vpc", options="subformat=dynamic"),
    _Recipe(name="vhdx", format="vhdx", driver="vhdx"),
    _Recipe(name="vmdk-sparse", format="vmdk", driver="vmdk", options="subformat=monolithicSparse"),
    _Recipe(name="vmdk-stream", format="vmdk", driver="vmdk", options="subformat=streamOptimized"),
    _Recipe(name="qcow2-data-file", format="qcow2", driver="qcow2", options="data_file=beside.raw", usable=False),
    _Recipe(name="vmdk-flat", format="vmdk", driver="vmdk", options="subformat=monolithicFlat", usable=False),
)


def manifest(folder: Path) -> Path:
    """Make all disks in a folder, anew; the manifest's file."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    disks = [_create(recipe, folder) for recipe in RECIPES]
    disks += [_backed(folder), _optical(folder)]
    file = folder / "manifest.yaml"
    file.write_text(yaml.safe_dump({"images": [asdict(disk) for disk in disks]}), encoding="utf-8")
    return file


def _create(recipe: _Recipe, folder: Path) -> Disk:
    options = ["-o", recipe.options] if recipe.options else []
    filename = f"{recipe.name}.{recipe.driver}"
    _qemu_img(folder, "create", "-f", recipe.driver, *options, filename, str(SIZE))
    return Disk(name=recipe.name, filename=filename, format=recipe.format, usable=recipe.usable)


def _backed(folder: Path) -> Disk:
    """A disk that wants the host's user list as what lies below it."""
    filename = "qcow2-backed.qcow2"
    _qemu_img(folder, "create", "-f", "qcow2", "-u", "-F", "raw", "-b", "/etc/passwd", filename, str(SIZE))
    return Disk(name="qcow2-backed", filename=filename, format="qcow2", usable=False)


def _optical(folder: Path) -> Disk:
    import pycdlib  # noqa: PLC0415 - slow, and needed for a real run only

    iso = pycdlib.PyCdlib()
    iso.new(vol_ident="conformance")
    iso.write(str(folder / "optical.iso"))
    iso.close()
    return Disk(name="iso", filename="optical.iso", format="iso", usable=True)


def _qemu_img(folder: Path, *arguments: str) -> None:
    subprocess.run(["qemu-img", *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)
