"""The image `tiny`: from packages to a disk."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pileus.cli.image.child import BuildFailure, missing_packages, run
from pileus.cli.image.disk import MEBIBYTE, Layout, assemble, compress, identity, make_boot, make_root
from pileus.cli.image.kernel import Kernel
from pileus.cli.image.package import Package, fetch, unpack
from pileus.cli.image.system import ASSETS, KERNELS, PACKAGES, Source, root_tree

LAYOUT = Layout(boot=24 * MEBIBYTE, root=103 * MEBIBYTE)
LARGEST = 64 * MEBIBYTE
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
    if missing := missing_packages():
        raise BuildFailure(f"these packages must be installed first: {' '.join(missing)}")
    started = time.monotonic()
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", DEFAULT_EPOCH))

    def step(text: str) -> None:
        progress(f"{time.monotonic() - started:5.1f} s  {text}")

    output = output.absolute()
    output.parent.mkdir(parents=True, exist_ok=True)
    packages = fetch(cache.absolute(), PACKAGES, KERNELS, step)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as directory:
        draft = _build(Path(directory), packages, epoch, step)
        size = draft.stat().st_size
        if size > LARGEST:
            raise BuildFailure(f"the image has {size} bytes, and may have {LARGEST} at most")
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
    step("disk")
    disk = directory / "disk"
    assemble(disk, LAYOUT, directory / "boot", directory / "root")
    step("compressing")
    compress(disk, directory / "qcow2")
    run("qemu-img", "check", "-q", "-f", "qcow2", directory / "qcow2")
    return directory / "qcow2"
