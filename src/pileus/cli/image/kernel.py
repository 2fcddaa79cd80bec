"""The kernel of an image: its modules, what they need, and the archive that it unpacks as its first root."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Iterable
from pathlib import Path

from pileus.cli.image.child import BuildFailure
from pileus.cli.image.elf import module_facts
from pileus.cli.image.tree import Tree

FIRST = ("virtio_pci", "virtio_blk")
"""Modules that the first root always loads."""
OTHERS = ("virtio_scsi", "sd_mod", "ata_piix", "ahci")
"""Modules that it loads when the root file system is not on a virtio disk."""
WANTED = (
    *("virtio_net", "virtio_rng", "virtio_console", "virtio_balloon", "virtio_input", "e1000", "e1000e"),
    *("button", "evdev", "sr_mod", "loop", "isofs", "vfat", "nls_cp437", "nls_ascii", "nls_iso8859_1", "nls_utf8"),
    *("8021q", "bridge", "dummy", "macvlan", "tun", "veth", "virtiofs", "9p", "9pnet_virtio", "qemu_fw_cfg"),
)
"""Modules that the image has besides; those that a kernel has built in, or has not at all, are passed over."""
FIRST_ROOT_LINKS = (
    *("sh", "mount", "cat", "insmod", "findfs", "usleep", "readlink", "basename", "dirname", "od", "printf", "dd"),
    *("sync", "blockdev", "chroot", "switch_root", "setsid", "cttyhack"),
)


def plain_name(name: str) -> str:
    """A module's name as the kernel shows it: without suffixes, and with underscores."""
    return name.partition(".ko")[0].replace("-", "_")


class Kernel:
    """An unpacked kernel package: `root` holds `boot/vmlinuz-RELEASE` and `lib/modules/RELEASE`."""

    def __init__(self, root: Path) -> None:
        images = sorted((root / "boot").glob("vmlinuz-*"))
        if not images:
            raise BuildFailure("the kernel's package has no boot/vmlinuz")
        self.image = images[-1]
        self.release = self.image.name.removeprefix("vmlinuz-")
        places = [root / prefix / self.release for prefix in ("lib/modules", "usr/lib/modules")]
        self.directory = next((place for place in places if place.is_dir()), places[0])
        self._files = {plain_name(file.name): file for file in sorted(self.directory.rglob("*.ko*"))}
        if not self._files:
            raise BuildFailure(f"the kernel's package has no modules for {self.release}")
        self._contents: dict[str, bytes] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def content(self, name: str) -> bytes:
        """A module, uncompressed.

        Raises:
            BuildFailure: it is compressed in a way that the standard library cannot undo.
        """
        if name not in self._contents:
            file = self._files[name]
            stored = file.read_bytes()
            if file.suffix == ".xz":
                stored = lzma.decompress(stored)
            elif file.suffix == ".gz":
                stored = gzip.decompress(stored)
            elif file.suffix != ".ko":
                raise BuildFailure(f"{file.name}: this compression of kernel modules is not supported")
            self._contents[name] = stored
        return self._contents[name]

    def facts(self, name: str) -> dict[str, list[str]]:
        """What a module states of itself, see `elf.module_facts`."""
        return module_facts(self.content(name))

    def needs(self, name: str) -> list[str]:
        """The modules that must be loaded directly before a module."""
        names = ",".join(self.facts(name).get("depends", [])).split(",")
        return [plain_name(needed) for needed in names if needed]

    def load_order(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that the kernel has as modules, and all that they need, each after what it needs."""
        order: list[str] = []

        def visit(name: str) -> None:
            if name in order or name not in self._files:
                return
            for needed in self.needs(name):
                visit(needed)
            order.append(name)

        for name in names:
            visit(name)
        return order

    def install(self, tree: Tree) -> None:
        """Put the image's modules, and the indexes that modprobe reads, into a tree whose /lib is /usr/lib."""
        directory = f"/usr/lib/modules/{self.release}"
        names = self.load_order([*FIRST, *OTHERS, *WANTED])
        rows: list[str] = []
        aliases: list[str] = []
        for name in names:
            tree.file(f"{directory}/kernel/{name}.ko", self.content(name))
            before = [f"kernel/{needed}.ko" for needed in reversed(self.load_order([name])[:-1])]
            rows.append(" ".join([f"kernel/{name}.ko:", *before]))
            aliases.extend(f"alias {alias} {name}" for alias in self.facts(name).get("alias", []))
        for file, lines in (("dep", rows), ("alias", aliases), ("symbols", []), ("builtin", []), ("softdep", [])):
            tree.file(f"{directory}/modules.{file}", "".join(f"{line}\n" for line in lines).encode())

    def first_root(self, busybox: bytes, start: bytes, epoch: int) -> bytes:
        """The initial ramdisk: busybox, the modules for disks, and `start` as its first program."""
        tree = Tree()
        for name in ("proc", "sys", "dev", "run", "root"):
            tree.directory(f"/{name}")
        tree.file("/bin/busybox", busybox, 0o755)
        for name in FIRST_ROOT_LINKS:
            tree.link(f"/bin/{name}", "busybox")
        first = self.load_order(FIRST)
        others = [name for name in self.load_order([*FIRST, *OTHERS]) if name not in first]
        for list_name, names in (("first", first), ("others", others)):
            tree.file(f"/modules/{list_name}.list", "".join(f"{name}.ko\n" for name in names).encode())
            for name in names:
                tree.file(f"/modules/{name}.ko", self.content(name))
        tree.file("/init", start, 0o755)
        return gzip.compress(tree.archive(epoch), compresslevel=9, mtime=epoch)
