"""An installed system on its way from a tar archive to a file system: its files in a directory, their owners beside."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath

from pileus.cli.image.child import BuildFailure, run

ASSETS = files(__package__) / "debian"
SECRETS = ("./etc/ssh/ssh_host_*", "./var/lib/systemd/random-seed", "./var/lib/systemd/credential.secret")
"""What the installation made, and no two servers may share."""
LEFT_OUT = ("./dev/*", "./var/cache/apt/*.bin", "./var/log/*.log", "./var/log/apt/*", *SECRETS)
MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "e2scrub_reap.service")
"""Units that work on every server at the same hour, or at each boot, for what its owner did not ask for."""
RESOLVER = "../run/systemd/resolve/stub-resolv.conf"


@dataclass(frozen=True)
class Owned:
    """A file whose staged copy has another owner than it shall have."""

    path: str
    uid: int
    gid: int


def unpack(archive: Path, directory: Path) -> list[Owned]:
    """Unpack a system below `directory`, which is made; what must be told to the file system that is made of it.

    With root's privilege that is nothing; without it, the owners of nearly all files.
    """
    directory.mkdir()
    root = os.geteuid() == 0
    rights = ["--same-owner", "--xattrs", "--xattrs-include=*"] if root else ["--no-same-owner"]
    run(
        *("tar", "--extract", "--file", archive, "--directory", directory, "--preserve-permissions"),
        *("--numeric-owner", "--wildcards", *rights, *(f"--exclude={pattern}" for pattern in LEFT_OUT)),
    )
    for name in ("dev", "proc", "run", "sys"):
        (directory / name).mkdir(exist_ok=True)
    return list(_owned(archive, directory))


def _owned(archive: Path, directory: Path) -> Iterator[Owned]:
    with tarfile.open(archive) as stream:
        for member in stream:
            path = PurePosixPath("/", member.name)
            place = directory / path.relative_to("/")
            if member.islnk() or not os.path.lexists(place):
                continue
            found = place.lstat()
            if (found.st_uid, found.st_gid) != (member.uid, member.gid):
                yield Owned(str(path), member.uid, member.gid)


def ownership(owned: list[Owned]) -> str:
    """Commands for debugfs(8) that give files their owners."""
    return "".join(
        f'set_inode_field "{one.path}" {field} {value}\n'
        for one in owned
        for field, value in (("uid", one.uid), ("gid", one.gid))
    )


def configure(directory: Path, values: Mapping[str, str]) -> list[Owned]:
    """Put our own files over a system, with `values` where they say `@NAME@`; the owner of each is root."""
    for place, content in _assets(ASSETS / "root", ""):
        for name, value in values.items():
            content = content.replace(f"@{name}@", value)
        _put(directory / place, content, 0o755 if content.startswith("#!") else 0o644)
    _put(directory / "etc" / "hostname", "debian\n", 0o644)
    _put(directory / "etc" / "machine-id", "", 0o444)  # systemd writes a new one: no two servers share it
    _link(directory / "etc" / "resolv.conf", RESOLVER)
    for name in MASKED:
        _link(directory / "etc" / "systemd" / "system" / name, "/dev/null")
    (directory / "boot" / "loader").mkdir()
    made = ["etc/hostname", "etc/machine-id", "etc/resolv.conf", "boot/loader"]
    made += [f"etc/systemd/system/{name}" for name in MASKED]
    made += [place for place, _ in _assets(ASSETS / "root", "")]
    return [] if os.geteuid() == 0 else [Owned(f"/{place}", 0, 0) for place in made]


def boot_settings(values: Mapping[str, str]) -> bytes:
    """The boot loader's `syslinux.cfg`, with `values` where it says `@NAME@`."""
    text = (ASSETS / "boot" / "syslinux.cfg").read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text.encode()


def kernel(directory: Path) -> tuple[str, bytes, bytes]:
    """The newest kernel of a system: its release, its image and its first root.

    Raises:
        BuildFailure: there is none, or it has no first root.
    """
    images = sorted((directory / "boot").glob("vmlinuz-*"))
    if not images:
        raise BuildFailure("the system has no kernel")
    release = images[-1].name.removeprefix("vmlinuz-")
    first_root = directory / "boot" / f"initrd.img-{release}"
    if not first_root.is_file():
        raise BuildFailure(f"the kernel {release} has no first root")
    return release, images[-1].read_bytes(), first_root.read_bytes()


def space(directory: Path) -> int:
    """Bytes that the files below a directory take in a file system of blocks of 4 KiB, with their inodes."""
    total = 0
    for place, folders, names in os.walk(directory):
        for name in (*folders, *names):
            total += -(-(Path(place) / name).lstat().st_size // 4096) * 4096 + 512
    return total


def _assets(place: Traversable, prefix: str) -> Iterator[tuple[str, str]]:
    for child in sorted(place.iterdir(), key=lambda item: item.name):
        if child.is_dir():
            yield from _assets(child, f"{prefix}{child.name}/")
        else:
            yield prefix + child.name, child.read_text()


def _put(place: Path, content: str, mode: int) -> None:
    place.unlink(missing_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(content)
    place.chmod(mode)


def _link(place: Path, target: str) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.symlink_to(target)
