"""The root file system of the image: programs of the distribution, the libraries that they need, and our own files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath

from pileus import __version__
from pileus.cli.image.child import BuildFailure, run
from pileus.cli.image.elf import needed
from pileus.cli.image.kernel import Kernel
from pileus.cli.image.package import Package
from pileus.cli.image.tree import Tree

KERNELS = ("linux-image-cloud-amd64", "linux-image-amd64")
PACKAGES = (
    *("busybox-static", "curl", "dosfstools", "dropbear-bin", "e2fsprogs", "libpam-modules", "openssh-client"),
    *("openssh-sftp-server", "pciutils", "sudo", "util-linux", "wide-dhcpv6-client"),
)
PROGRAMS = (
    *("blkid", "curl", "dbclient", "dhcp6c", "dropbear", "dropbearkey", "e2fsck", "findmnt", "fsck.fat", "lsblk"),
    *("lspci", "mke2fs", "mkfs", "mkfs.fat", "resize2fs", "scp", "sudo", "tune2fs", "wipefs"),
)
"""Programs that are copied from the packages into /usr/bin, in place of busybox's where it has the same."""
LINKS = {
    "mkfs.ext2": "mke2fs",
    "mkfs.ext3": "mke2fs",
    "mkfs.ext4": "mke2fs",
    "mkfs.vfat": "mkfs.fat",
    "mkdosfs": "mkfs.fat",
    "fsck.ext2": "e2fsck",
    "fsck.ext3": "e2fsck",
    "fsck.ext4": "e2fsck",
    "fsck.vfat": "fsck.fat",
    "ssh": "dbclient",
    "sudoedit": "sudo",
}
LOADED = ("usr/libexec/sudo/sudoers.so", "usr/lib/sudo/sudoers.so", "security/pam_permit.so", "security/pam_deny.so")
"""Libraries that no ELF header names, by the ends of their paths; of each name, one must be found."""
COPIED = ("etc/mke2fs.conf", "usr/lib/openssh/sftp-server")
SETUID = ("busybox", "sudo")
"""Programs that run as root whoever starts them. busybox gives the right up for all but su, ping and the like."""
ASSETS = files(__package__) / "tiny"
RELEASE = """\
NAME="tiny"
ID=tiny
ID_LIKE=debian
VERSION_ID="{version}"
VERSION="{version}"
PRETTY_NAME="tiny {version} (guest image of Pileus)"
"""


class Source:
    """What was unpacked from packages. Its files are found whether a package still says /lib or already /usr/lib."""

    def __init__(self, root: Path) -> None:
        self._files: dict[str, Path] = {}
        self._libraries: dict[str, str] = {}
        for file in sorted(root.rglob("*")):
            if file.is_dir() and not file.is_symlink():
                continue
            place = str(PurePosixPath(file.relative_to(root)))
            place = re.sub(r"^(bin|sbin|lib|lib64)/", r"usr/\1/", place)
            self._files[place] = file
            if ".so" in file.name:
                self._libraries.setdefault(file.name, place)

    def content(self, place: str) -> bytes:
        """The content of a file, through symbolic links inside the packages.

        Raises:
            BuildFailure: no package brings it.
        """
        for _ in range(8):
            if place not in self._files:
                break
            file = self._files[place]
            if not file.is_symlink():
                return file.read_bytes()
            target = PurePosixPath("/", place).parent / file.readlink()
            parts: list[str] = []
            for part in target.parts[1:]:
                parts = parts[:-1] if part == ".." else [*parts, part]
            place = re.sub(r"^(bin|sbin|lib|lib64)/", r"usr/\1/", "/".join(parts))
        raise BuildFailure(f"no package brings {place}")

    def program(self, name: str) -> bytes:
        """A program from one of the directories of programs."""
        for directory in ("usr/bin", "usr/sbin"):
            if f"{directory}/{name}" in self._files:
                return self.content(f"{directory}/{name}")
        raise BuildFailure(f"no package brings the program {name}")

    def ending(self, end: str) -> str | None:
        """The path of the file whose path ends so."""
        return next((place for place in self._files if place.endswith(end)), None)

    def library(self, name: str) -> str:
        """The path of a shared library of this file name."""
        if name not in self._libraries:
            raise BuildFailure(f"no package brings the library {name}")
        return self._libraries[name]

    def libraries(self, contents: Iterable[bytes]) -> dict[str, bytes]:
        """The shared libraries that ELF files need, and those that these need in turn, by path."""
        found: dict[str, bytes] = {}
        todo = [name for content in contents for name in needed(content)]
        while todo:
            place = self.library(todo.pop())
            if place not in found:
                found[place] = self.content(place)
                todo.extend(needed(found[place]))
        return found


def assets(directory: str) -> Iterator[tuple[str, bytes]]:
    """Our own files for the guest below a directory of the package data: path from there, content."""

    def walk(place: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
        for child in sorted(place.iterdir(), key=lambda item: item.name):
            if child.is_dir():
                yield from walk(child, f"{prefix}{child.name}/")
            else:
                yield prefix + child.name, child.read_bytes()

    yield from walk(ASSETS / directory, "")


def skeleton(tree: Tree) -> None:
    """Directories and links that every program expects; all directories of programs are one, so PATH never matters."""
    for name in ("dev", "mnt", "proc", "run", "sys", "usr/bin", "usr/lib/x86_64-linux-gnu", "usr/lib64"):
        tree.directory(f"/{name}")
    for name in ("etc/dropbear", "media", "opt", "var/lib/cloud", "var/lib/dhcpv6", "var/log", "usr/local/bin"):
        tree.directory(f"/{name}")
    for name, target in (("bin", "usr/bin"), ("sbin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")):
        tree.link(f"/{name}", target)
    tree.link("/usr/sbin", "bin")
    tree.link("/var/run", "/run")
    tree.link("/var/lock", "/run")
    tree.directory("/root", 0o700)
    for name in ("tmp", "var/tmp"):
        tree.directory(f"/{name}", 0o1777)
    tree.directory("/home/cirros", 0o755, 1000, 1000)


def install_programs(tree: Tree, source: Source, busybox: Path) -> None:
    """Put programs, the links of busybox, and the libraries that the programs need."""
    tree.file("/usr/bin/busybox", busybox.read_bytes(), 0o4755)
    for applet in run(busybox, "--list").split():
        tree.link(f"/usr/bin/{applet}", "busybox")
    tree.file("/usr/bin/busybox", busybox.read_bytes(), 0o4755)
    contents: list[bytes] = []
    for name in PROGRAMS:
        contents.append(source.program(name))
        tree.file(f"/usr/bin/{name}", contents[-1], 0o4755 if name in SETUID else 0o755)
    for name, target in LINKS.items():
        tree.link(f"/usr/bin/{name}", target)
    for place in COPIED:
        content = source.content(place)
        executable = content.startswith(b"\x7fELF")
        tree.file(f"/{place}", content, 0o755 if executable else 0o644)
        if executable:
            contents.append(content)
    tree.link("/usr/lib/sftp-server", "openssh/sftp-server")
    places = [found for end in LOADED if (found := source.ending(end)) is not None]
    if {PurePosixPath(place).name for place in places} != {PurePosixPath(end).name for end in LOADED}:
        raise BuildFailure("the packages of sudo or PAM lack a plugin")
    for place in places:
        contents.append(source.content(place))
        tree.file(f"/{place}", contents[-1])
    for place, content in source.libraries(contents).items():
        tree.file(f"/{place}", content, 0o755)
    tree.file("/usr/lib64/ld-linux-x86-64.so.2", source.content(source.library("ld-linux-x86-64.so.2")), 0o755)


def install_files(tree: Tree, packages: Iterable[Package]) -> None:
    """Put our own files, and what says which image this is."""
    private = {"etc/shadow": 0o640, "etc/sudoers": 0o440}
    for place, content in assets("root"):
        mode = 0o755 if content.startswith(b"#!") else 0o644
        tree.file(f"/{place}", content, private.get(place, mode))
    tree.file("/etc/os-release", RELEASE.format(version=__version__).encode())
    listing = "".join(f"{package.name} {package.version}\n" for package in packages)
    tree.file("/usr/share/tiny/packages", listing.encode())


def root_tree(source: Source, kernel: Kernel, busybox: Path, packages: Iterable[Package]) -> Tree:
    """The whole root file system of the image."""
    tree = Tree()
    skeleton(tree)
    install_programs(tree, source, busybox)
    kernel.install(tree)
    install_files(tree, packages)
    return tree
