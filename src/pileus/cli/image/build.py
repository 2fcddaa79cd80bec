"""From packages to a disk: the images `tiny` and `debian`."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pileus.cli.image import staging
from pileus.cli.image.bootstrap import bootstrap
from pileus.cli.image.child import INSTALLER_PACKAGE, BuildFailure, missing_packages, run
from pileus.cli.image.disk import (
    MEBIBYTE,
    Layout,
    assemble,
    compress,
    edit_root,
    format_root,
    identity,
    make_boot,
    make_root,
)
from pileus.cli.image.kernel import Kernel
from pileus.cli.image.package import Package, fetch, unpack
from pileus.cli.image.system import ASSETS, KERNELS, PACKAGES, Source, root_tree

LAYOUT = Layout(boot=24 * MEBIBYTE, root=103 * MEBIBYTE)
LARGEST = 64 * MEBIBYTE
BOOT_DEBIAN = 128 * MEBIBYTE
"""Room for two kernels and their first roots: a new one is written beside the old."""
LARGEST_DEBIAN = 512 * MEBIBYTE
DEFAULT_EPOCH = 1_700_000_000


def build_tiny(output: Path, *, cache: Path, progress: Callable[[str], None]) -> Path:
    """Build the image `tiny` as a qcow2 disk at `output`, which is replaced only by a finished image.

    Packages are fetched with apt into `cache`, which a later build uses without a network. Needs no privilege, no
    loop device and about 300 MB beside `output` while it runs. `progress` is called with a line for each step.
    The environment variable SOURCE_DATE_EPOCH sets the time (seconds since 1970) that the files of the image bear.
    Returns `output`.

    Raises:
        BuildFailure: the host lacks a program, a package cannot be fetched, or a step failed.
    """
    _demand(missing_packages())
    step = _stopwatch(progress)

    def build(directory: Path) -> Path:
        packages = fetch(cache.absolute(), PACKAGES, KERNELS, step)
        return _build(directory, packages, _epoch(), step)

    return _replace(output, build, LARGEST, step)


def build_debian(output: Path, *, cache: Path, progress: Callable[[str], None]) -> Path:
    """Build the image `debian`, a whole system with cloud-init, as `build_tiny` builds its own.

    The installed system is kept in `cache` as an archive of about 600 MB, which a later build uses without a
    network. Needs about 2 GB beside `output`, and root, or a host where users may have namespaces of their own.

    Raises:
        BuildFailure: the host lacks a program, a package cannot be fetched, or a step failed.
    """
    _demand(missing_packages(INSTALLER_PACKAGE))
    step = _stopwatch(progress)

    def build(directory: Path) -> Path:
        return _install(directory, bootstrap(cache.absolute(), step), _epoch(), step)

    return _replace(output, build, LARGEST_DEBIAN, step)


def _demand(missing: list[str]) -> None:
    if missing:
        raise BuildFailure(f"these packages must be installed first: {' '.join(missing)}")


def _epoch() -> int:
    return int(os.environ.get("SOURCE_DATE_EPOCH", DEFAULT_EPOCH))


def _stopwatch(progress: Callable[[str], None]) -> Callable[[str], None]:
    started = time.monotonic()
    return lambda text: progress(f"{time.monotonic() - started:5.1f} s  {text}")


def _replace(output: Path, build: Callable[[Path], Path], largest: int, step: Callable[[str], None]) -> Path:
    """Let `build` make an image inside an empty directory, and put it at `output` when it is finished."""
    output = output.absolute()
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as directory:
        draft = build(Path(directory))
        size = draft.stat().st_size
        if size > largest:
            raise BuildFailure(f"the image has {size} bytes, and may have {largest} at most")
        with draft.open("rb") as stream:
            os.fsync(stream.fileno())
        draft.chmod(0o644)
        draft.replace(output)
    step(f"{output}: {size / 1e6:.1f} MB")
    return output


def _build(directory: Path, packages: list[Package], epoch: int, step: Callable[[str], None]) -> Path:
    """Build the image inside an empty directory and return it."""
    step(f"unpacking {len(packages)} packages")
    unpacked = directory / "unpacked"
    unpack(packages, unpacked)
    kernel = Kernel(unpacked)
    busybox = next((place for name in ("usr/bin", "bin") if (place := unpacked / name / "busybox").is_file()), None)
    if busybox is None:
        raise BuildFailure("no package brings busybox")
    step(f"kernel {kernel.release}: first root")
    start = (ASSETS / "initramfs" / "init").read_bytes()
    settings = (ASSETS / "boot" / "syslinux.cfg").read_text().replace("@ROOT_UUID@", identity("root"))
    boot_files = {
        "vmlinuz": kernel.image.read_bytes(),
        "initrd": kernel.first_root(busybox.read_bytes(), start, epoch),
        "syslinux.cfg": settings.encode(),
    }
    step("root file system")
    tree = root_tree(Source(unpacked), kernel, busybox, packages)
    make_boot(directory / "boot", LAYOUT.boot, boot_files, epoch)
    make_root(directory / "root", LAYOUT.root, tree, epoch)
    return _finish(directory, LAYOUT, step)


def _install(directory: Path, archive: Path, epoch: int, step: Callable[[str], None]) -> Path:
    """Build the image of an installed system inside an empty directory and return it."""
    step("unpacking the system")
    system = directory / "system"
    owned = staging.unpack(archive, system)
    values = {"ROOT_UUID": identity("debian root")}
    owned += staging.configure(system, values)
    release, image, first_root = staging.kernel(system)
    step(f"kernel {release}, root file system")
    files = {"vmlinuz": image, "initrd": first_root, "syslinux.cfg": staging.boot_settings(values)}
    make_boot(directory / "boot", BOOT_DEBIAN, files, epoch, "debian boot")
    layout = Layout(boot=BOOT_DEBIAN, root=(staging.space(system) * 5 // 4 // MEBIBYTE + 128) * MEBIBYTE)
    format_root(directory / "root", layout.root, system, epoch, "debian root", journal=32)
    if commands := staging.ownership(owned):
        edit_root(directory / "root", commands, epoch)
    return _finish(directory, layout, step)


def _finish(directory: Path, layout: Layout, step: Callable[[str], None]) -> Path:
    """Make the image of the file systems `boot` and `root` in a directory."""
    step("disk")
    disk = directory / "disk"
    assemble(disk, layout, directory / "boot", directory / "root")
    step("compressing")
    compress(disk, directory / "qcow2")
    run("qemu-img", "check", "-q", "-f", "qcow2", directory / "qcow2")
    return directory / "qcow2"
