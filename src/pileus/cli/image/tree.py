"""A tree of files with the owners and modes that it shall have, whoever builds it, and its two forms.

The tree is kept in memory; `stage` writes it to a directory for mke2fs, `archive` makes of it the cpio archive that
the kernel unpacks as its first root (Documentation/driver-api/early-userspace/buffer-format.rst).
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class Entry:
    """One file: its whole `st_mode`, its owner and group, and its content (a link's target, for a link)."""

    mode: int
    content: bytes = b""
    uid: int = 0
    gid: int = 0


class Tree:
    """Files by absolute path. Parents are made as root's, mode 0755, when they are not there."""

    def __init__(self) -> None:
        self._entries: dict[PurePosixPath, Entry] = {}

    def __contains__(self, path: str) -> bool:
        return PurePosixPath(path) in self._entries

    def __iter__(self) -> Iterator[tuple[PurePosixPath, Entry]]:
        """Entries so ordered that a parent comes before its children; the root itself is not among them."""
        return iter(sorted(self._entries.items()))

    def _add(self, path: str, entry: Entry) -> None:
        place = PurePosixPath(path)
        if not place.is_absolute() or ".." in place.parts:
            raise ValueError(f"not an absolute path: {path}")
        for parent in reversed(place.parents[:-1]):
            known = self._entries.setdefault(parent, Entry(stat.S_IFDIR | 0o755))
            if not stat.S_ISDIR(known.mode):
                raise ValueError(f"{parent} is no directory, so {path} cannot be below it")
        self._entries[place] = entry

    def directory(self, path: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
        """Put a directory, or give the one that is there this owner and mode."""
        self._add(path, Entry(stat.S_IFDIR | mode, b"", uid, gid))

    def file(self, path: str, content: bytes, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
        """Put a regular file, in place of what is there."""
        self._add(path, Entry(stat.S_IFREG | mode, content, uid, gid))

    def link(self, path: str, target: str) -> None:
        """Put a symbolic link."""
        self._add(path, Entry(stat.S_IFLNK | 0o777, target.encode()))

    def stage(self, directory: Path) -> None:
        """Write the tree below `directory`. Owners and special mode bits are left to `ownership`."""
        for path, entry in self:
            place = directory / path.relative_to("/")
            if stat.S_ISDIR(entry.mode):
                place.mkdir()
            elif stat.S_ISLNK(entry.mode):
                place.symlink_to(entry.content.decode())
            else:
                place.write_bytes(entry.content)
                place.chmod(0o644)

    def ownership(self, epoch: int) -> str:
        """Commands for debugfs(8) that give each file of a staged copy its owner, its mode and the time `epoch`."""
        lines: list[str] = []
        for path, entry in self:
            values = {"mode": f"0{entry.mode:o}", "uid": str(entry.uid), "gid": str(entry.gid)}
            values |= dict.fromkeys(("atime", "ctime", "mtime", "crtime"), f"@{epoch}")
            lines.extend(f'set_inode_field "{path}" {field} {value}' for field, value in values.items())
        return "\n".join(lines) + "\n"

    def archive(self, epoch: int) -> bytes:
        """The tree as a cpio archive of the format `newc`, uncompressed."""
        parts: list[bytes] = []
        for number, (path, entry) in enumerate(self, start=1):
            parts.append(_record(str(path.relative_to("/")), entry, number, epoch))
        parts.append(_record("TRAILER!!!", Entry(0), 0, 0))
        return b"".join(parts)


def _record(name: str, entry: Entry, number: int, epoch: int) -> bytes:
    encoded = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (number, entry.mode, entry.uid, entry.gid, links, epoch, len(entry.content), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    return head + b"\0" * (-len(head) % 4) + entry.content + b"\0" * (-len(entry.content) % 4)
