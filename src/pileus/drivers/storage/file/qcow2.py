"""The header of a qcow2 file, read without trusting it (QEMU's docs/interop/qcow2)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

_HEADER = struct.Struct(">4sIQIIQ")
"""Magic, version, backing file offset and length, cluster bits, virtual size."""
_FEATURES = struct.Struct(">72xQ")
_EXTERNAL_DATA = 1 << 2
_LONGEST = 1023
"""Bytes that the name of a backing file has at most."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a qcow2 file says of itself."""

    size: int
    """Bytes that a guest sees."""
    backing: bytes
    """The name of the file that it overlays; empty for none."""
    external: bool
    """Whether its data is in another file."""


def header(path: Path) -> Header | None:
    """The header of a file; None when it is no qcow2 file. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(_FEATURES.size)
        if len(head) < _FEATURES.size or not head.startswith(b"QFI\xfb"):
            return None
        _, version, offset, length, _, size = _HEADER.unpack_from(head)
        backing = b""
        if offset:
            file.seek(min(offset, 1 << 62))
            backing = file.read(min(length, _LONGEST)) or b"?"
    features = _FEATURES.unpack(head)[0] if version >= 3 else 0
    return Header(size, backing, bool(features & _EXTERNAL_DATA))
