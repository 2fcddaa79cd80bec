"""The disk of an image: an MBR, a FAT partition that syslinux boots from, and an ext4 root that comes last, to grow.

No step mounts anything or needs a privilege: each file system is made in a file of its own and copied to its place.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pileus.cli.image.child import FILE_PACKAGE, BuildFailure, run
from pileus.cli.image.tree import Tree

MEBIBYTE = 1 << 20
SECTOR = 512
BOOT_START = 1 * MEBIBYTE
ROOT_LIMIT = "2T"
"""To this size the root file system can grow without a move of its tables; an MBR cannot name more."""
NAMESPACE = uuid.UUID("5ee1bd01-4fc6-5f5e-9b43-0e1c65d6a2a5")
(MASTER_BOOT_RECORD,) = FILE_PACKAGE
MASTER_BOOT_CODE = 440
LABELS = {"boot": "TINYBOOT", "root": "tiny-root", "debian boot": "LOADER", "debian root": "debian-root"}
"""What file systems are called, by what their identities come from."""


@dataclass(frozen=True)
class Layout:
    """Sizes in bytes: of the boot partition, and of the root file system."""

    boot: int
    root: int

    @property
    def root_start(self) -> int:
        """Where the root's partition begins."""
        return BOOT_START + self.boot

    @property
    def size(self) -> int:
        """The size of the whole disk."""
        return self.root_start + self.root


def identity(name: str) -> str:
    """A UUID that is the same in each build."""
    return str(uuid.uuid5(NAMESPACE, name))


def copy_sparse(source: Path, target: Path, start: int) -> None:
    """Copy a file into another at `start`, leaving holes where it is zero."""
    empty = bytes(MEBIBYTE)
    with source.open("rb") as reader, target.open("r+b") as writer:
        position = start
        while piece := reader.read(MEBIBYTE):
            if piece != empty[: len(piece)]:
                writer.seek(position)
                writer.write(piece)
            position += len(piece)


def make_boot(file: Path, size: int, contents: Mapping[str, bytes], epoch: int, name: str = "boot") -> None:
    """Make a FAT file system that syslinux boots from, with `contents` by file name in its root.

    `name` gives its label, see `LABELS`; its serial number is what --invariant makes it, in each image the same.
    """
    file.touch()
    with file.open("r+b") as stream:
        stream.truncate(size)
    hidden = str(BOOT_START // SECTOR)
    environment = {"SOURCE_DATE_EPOCH": str(epoch), "MTOOLS_SKIP_CHECK": "1"}
    label = LABELS[name]
    run("mkfs.vfat", "-F", "16", "-h", hidden, "-n", label, "--invariant", file)
    for place, content in contents.items():
        draft = file.with_name(f"boot.{place}")
        draft.write_bytes(content)
        run("mcopy", "-i", file, draft, f"::{place}", environment=environment)
    run("syslinux", "--install", file, environment=environment)


def make_root(file: Path, size: int, tree: Tree, epoch: int) -> None:
    """Make an ext4 file system with a tree in it, owners and modes as the tree says, whoever runs this."""
    staging = file.with_name("staging")
    staging.mkdir()
    tree.stage(staging)
    format_root(file, size, staging, epoch)
    commands = "set_inode_field / mode 040755\n" + tree.ownership(epoch)
    commands += "".join(f"set_inode_field / {field} @{epoch}\n" for field in ("atime", "ctime", "mtime", "crtime"))
    edit_root(file, commands, epoch)


def format_root(file: Path, size: int, staging: Path, epoch: int, name: str = "root", journal: int = 4) -> None:
    """Make an ext4 file system of the files below `staging`, with a journal of so many MiB.

    `name` gives its UUID, see `identity`.
    """
    file.touch()
    with file.open("r+b") as stream:
        stream.truncate(size)
    extended = f"resize={ROOT_LIMIT},hash_seed={identity('hash')},root_owner=0:0,lazy_itable_init=1"
    run(
        *("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "1", "-J", f"size={journal}"),
        *("-O", "^metadata_csum,^64bit", "-L", LABELS[name], "-U", identity(name), "-E", extended),
        *("-d", staging, file),
        environment={"E2FSPROGS_FAKE_TIME": str(epoch)},
    )


def edit_root(file: Path, commands: str, epoch: int) -> None:
    """Let debugfs(8) change a file system.

    Raises:
        BuildFailure: it could not do one of the commands.
    """
    environment = {"E2FSPROGS_FAKE_TIME": str(epoch), "DEBUGFS_PAGER": "cat"}
    said = run("debugfs", "-w", "-f", "-", file, stdin=commands.encode(), environment=environment, complaints=True)
    # It names its version and each command, and its status is 0 whatever the commands did.
    if problems := [line for line in said.splitlines() if line and not line.startswith(("debugfs:", "debugfs "))]:
        raise BuildFailure(f"debugfs: {problems[0]}")


def assemble(disk: Path, layout: Layout, boot: Path, root: Path) -> None:
    """Make the raw disk of its partition table, its boot code and its two file systems."""
    disk.touch()
    with disk.open("r+b") as stream:
        stream.truncate(layout.size)
    table = (
        f"label: dos\nlabel-id: 0x{identity('disk')[:8]}\nunit: sectors\n"
        f"start={BOOT_START // SECTOR}, size={layout.boot // SECTOR}, type=6, bootable\n"
        f"start={layout.root_start // SECTOR}, size={layout.root // SECTOR}, type=83\n"
    )
    run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", disk, stdin=table.encode())
    with disk.open("r+b") as stream:
        stream.write(Path(MASTER_BOOT_RECORD).read_bytes()[:MASTER_BOOT_CODE])
    copy_sparse(boot, disk, BOOT_START)
    copy_sparse(root, disk, layout.root_start)


def compress(disk: Path, output: Path) -> None:
    """Make a compressed qcow2 of a raw disk."""
    run("qemu-img", "convert", "-c", "-m", "4", "-f", "raw", "-O", "qcow2", disk, output)
