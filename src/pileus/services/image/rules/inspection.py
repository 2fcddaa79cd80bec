"""What an image file is, whatever its uploader says, and whether opening it would reach beyond the file.

The parser reads a bounded number of bytes from the start and the end of the file, collected as they pass by, and
trusts none of them: every read is checked against what there is, nothing is allocated by a size that the file names,
and nothing is raised but `Refused`.

Sources: QEMU `docs/interop/qcow2.rst`; Virtual Hard Disk Image Format Specification 1.0; VHDX Format Specification 1.0;
VMware Virtual Disk Format 5.0; VirtualBox `VDICore.h`; ECMA-119 (ISO 9660); LUKS On-Disk Format Specification 1.2.3.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable
from uuid import UUID

from pileus.contracts.images import ImageFacts
from pileus.core.errors import UnsupportedMediaType

REACH = 4 << 20
"""The most bytes that are kept from the start, for formats whose tables lie further in."""

SHORT_REACH = 64 << 10
"""Bytes that are kept from the start of everything else: enough for the descriptors of an ISO 9660 file system."""

TAIL = 2048
"""Bytes that are kept from the end: footers of VHD and VMDK."""

LARGEST = 1 << 50
"""The largest virtual size that is believed: 1 PiB."""

UNINSPECTED = frozenset({"compressed", "docker", "ova"})
"""Container formats whose data is not a disk, and gets no virtual size."""

_OPAQUE = frozenset({"ami", "ari", "aki"})
_SECTOR = 512


class Refused(UnsupportedMediaType):
    """The data is not what it is said to be, or would not stay within its file."""


class _Beyond(Exception):
    """A structure lies outside of the bytes at hand."""


class _Bytes:
    """Bytes from one place of a file, with reads that cannot leave them."""

    __slots__ = ("_data", "size")

    def __init__(self, data: bytes, size: int) -> None:
        self._data = data
        self.size = size
        """Size of the whole file."""

    def part(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0 or offset + length > len(self._data):
            raise _Beyond
        return self._data[offset : offset + length]

    def number(self, form: str, offset: int) -> int:
        found: int = struct.unpack(form, self.part(offset, struct.calcsize(form)))[0]
        return found

    def some(self, offset: int, length: int) -> bytes:
        """What there is of a part."""
        return self._data[offset : offset + length]

    def last(self, length: int) -> bytes:
        """The last bytes, or what there is of them."""
        return self._data[-length:]

    def starts(self, magic: bytes, offset: int = 0) -> bool:
        return self._data[offset : offset + len(magic)] == magic


class Inspector:
    """Looks at a stream as it passes by."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = b""
        self._reach = SHORT_REACH
        self.size = 0

    def feed(self, chunk: bytes) -> None:
        """Take notice of the next bytes of the file."""
        if len(self._head) < self._reach:
            self._head += chunk[: self._reach - len(self._head)]
            if self._reach == SHORT_REACH and bytes(self._head[:4]) in _DEEP:
                self._reach = REACH
                self._head += chunk[len(self._head) - self.size : self._reach - self.size]
        self._tail = (self._tail + chunk[-TAIL:])[-TAIL:]
        self.size += len(chunk)

    @property
    def head(self) -> bytes:
        """The first bytes of the file."""
        return bytes(self._head)

    def facts(self) -> ImageFacts:
        """What the file is. Call it when all of the file has passed."""
        return inspect(bytes(self._head), self._tail, self.size)


def inspect(head: bytes, tail: bytes, size: int) -> ImageFacts:
    """What a file of a size, with these bytes at its start and its end, is. Raises nothing."""
    first, last = _Bytes(head, size), _Bytes(tail, size)
    found = [facts for parser in _PARSERS if (facts := _run(parser, first, last)) is not None]
    if not found:
        return ImageFacts(format="raw", virtual_size=size)
    unsafe = found[0].unsafe
    if len(found) > 1:
        unsafe = (*unsafe, f"several formats at once: {', '.join(facts.format for facts in found)}")
    if not 0 <= found[0].virtual_size <= LARGEST:
        unsafe = (*unsafe, "virtual size")
    return ImageFacts(format=found[0].format, virtual_size=found[0].virtual_size, unsafe=unsafe)


def judge(facts: ImageFacts, disk_format: str) -> None:
    """Raise Refused unless the data is what it is said to be and is safe to open."""
    expected = "raw" if disk_format in _OPAQUE else disk_format
    # The bytes of a disc are a disk as they are: no program takes them for anything else.
    if facts.format != expected and not (expected == "raw" and facts.format == "iso"):
        raise Refused(f"Image disk_format {disk_format} does not match stream data {facts.format}")
    if facts.unsafe:
        raise Refused(f"Image failed safety checks: {', '.join(facts.unsafe)}")


def judge_package(head: bytes, container_format: str) -> None:
    """Raise Refused for a package (`ova`) that does not begin with the description of what it holds.

    Source: DSP0243, Open Virtualization Format Specification, "OVF package"; POSIX.1-2017, pax, "ustar Interchange
    Format".
    """
    if container_format != "ova":
        return
    name = head[:100].split(b"\0", 1)[0]
    plain = head[156:157] in (b"0", b"\0") and not name.startswith(b"/") and b".." not in name.split(b"/")
    if head[257:262] != b"ustar" or not name.endswith(b".ovf") or not plain:
        raise Refused("Image container_format ova does not match stream data: it is no package with a description")


_Parser = tuple[str, Callable[[_Bytes, _Bytes], bool], Callable[[_Bytes, _Bytes], tuple[int, Iterable[str]]]]


def _run(parser: _Parser, head: _Bytes, tail: _Bytes) -> ImageFacts | None:
    name, matches, parse = parser
    if not matches(head, tail):
        return None
    try:
        virtual_size, unsafe = parse(head, tail)
    except _Beyond:
        return ImageFacts(format=name, virtual_size=0, unsafe=("truncated or misplaced header",))
    return ImageFacts(format=name, virtual_size=virtual_size, unsafe=tuple(unsafe))


# qcow2 ----------------------------------------------------------------------------------------------------------------

_QCOW_MAGIC = b"QFI\xfb"
_CORRUPT, _DATA_FILE, _COMPRESSION = 1 << 1, 1 << 2, 1 << 3
_KNOWN_INCOMPATIBLE = 0b11111  # dirty, corrupt, data file, compression type, extended L2
_EXTENSION_END, _EXTENSION_DATA_FILE, _EXTENSION_CRYPTO = 0, 0x44415441, 0x0537BE77


def _is_qcow2(head: _Bytes, tail: _Bytes) -> bool:
    return head.starts(_QCOW_MAGIC)


def _qcow2(head: _Bytes, tail: _Bytes) -> tuple[int, list[str]]:
    version = head.number(">I", 4)
    if version not in (2, 3):
        return 0, ["unknown version"]
    virtual_size = head.number(">Q", 24)
    cluster_bits = head.number(">I", 20)
    if not 9 <= cluster_bits <= 21:
        return virtual_size, ["cluster size"]
    unsafe = []
    if head.number(">Q", 8) != 0:
        unsafe.append("backing file")
    if head.number(">I", 32) != 0:
        unsafe.append("encrypted")
    features, length, order = 0, 72, 4
    if version == 3:
        features, order, length = head.number(">Q", 72), head.number(">I", 96), head.number(">I", 100)
        if length < 104 or length % 8 or length > 1 << cluster_bits:
            return virtual_size, [*unsafe, "header length"]
        compression = head.number(">B", 104) if length > 104 else 0
        unsafe += _qcow2_features(features, compression)
    unsafe += _qcow2_tables(head, virtual_size, cluster_bits, order, extended=bool(features & 1 << 4))
    unsafe += _qcow2_extensions(head, length, 1 << cluster_bits)
    return virtual_size, list(dict.fromkeys(unsafe))


def _qcow2_features(features: int, compression: int) -> Iterable[str]:
    if features & ~_KNOWN_INCOMPATIBLE:
        yield "unknown feature"
    if features & _DATA_FILE:
        yield "data file"
    if features & _CORRUPT:
        yield "marked as corrupt"
    if compression > 1 or bool(compression) != bool(features & _COMPRESSION):
        yield "compression type"


def _qcow2_tables(head: _Bytes, virtual_size: int, bits: int, order: int, *, extended: bool) -> Iterable[str]:
    """Whether the first levels of both trees lie within the file and are large enough for the virtual size."""
    cluster = 1 << bits

    def lies(place: int, length: int, most: int) -> bool:
        return place % cluster == 0 and cluster <= place <= head.size - length and length <= most

    entries, place = head.number(">I", 36), head.number(">Q", 40)
    reach = cluster * (cluster // (16 if extended else 8))
    if entries * reach < virtual_size or (entries and not lies(place, entries * 8, 32 << 20)):
        yield "L1 table"
    clusters, place = head.number(">I", 56), head.number(">Q", 48)
    if order > 6 or not clusters or not lies(place, clusters * cluster, 8 << 20):
        yield "refcount table"
    count, place = head.number(">I", 60), head.number(">Q", 64)
    if count > 65_536 or (count and (place % 8 or not cluster <= place < head.size)):
        yield "snapshot table"


def _qcow2_extensions(head: _Bytes, place: int, end: int) -> Iterable[str]:
    while place + 8 <= end:
        kind, length = head.number(">I", place), head.number(">I", place + 4)
        if kind == _EXTENSION_END:
            return
        if length > end - place - 8:
            yield "header extension"
            return
        if kind == _EXTENSION_DATA_FILE:
            yield "data file"
        if kind == _EXTENSION_CRYPTO:
            yield "encrypted"
        place += 8 + (length + 7) // 8 * 8


# VHD ------------------------------------------------------------------------------------------------------------------

_VHD_COOKIE = b"conectix"


def _is_vhd(head: _Bytes, tail: _Bytes) -> bool:
    return head.starts(_VHD_COOKIE) or tail.last(_SECTOR).startswith(_VHD_COOKIE)


def _vhd(head: _Bytes, tail: _Bytes) -> tuple[int, list[str]]:
    """A fixed disk has a footer at its end; a dynamic one has it at its start too."""
    dynamic = head.starts(_VHD_COOKIE)
    footer = _Bytes(tail.last(_SECTOR), _SECTOR)
    virtual_size, kind = footer.number(">Q", 48), footer.number(">I", 60)
    unsafe = []
    if kind == 4:
        unsafe.append("backing file")
    elif kind != (3 if dynamic else 2):
        unsafe.append("unknown kind of disk")
    if dynamic and head.part(0, _SECTOR) != footer.part(0, _SECTOR):
        unsafe.append("header and footer differ")
    return virtual_size, unsafe


# VHDX -----------------------------------------------------------------------------------------------------------------

_VHDX_METADATA = UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
_VHDX_PARAMETERS = UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
_VHDX_SIZE = UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8").bytes_le
_VHDX_REGIONS = (192 << 10, 256 << 10)


def _is_vhdx(head: _Bytes, tail: _Bytes) -> bool:
    return head.starts(b"vhdxfile")


def _vhdx(head: _Bytes, tail: _Bytes) -> tuple[int, list[str]]:
    """The region table is there twice, and a reader may use either: both must name the same place."""
    places = {_vhdx_metadata(head, table) for table in _VHDX_REGIONS}
    if len(places) != 1:
        return 0, ["region tables differ"]
    place = places.pop()
    if head.part(place, 8) != b"metadata":
        raise _Beyond
    items: dict[bytes, int] = {}
    for number in range(head.number("<H", place + 10)):
        entry = place + 32 * (number + 1)
        items.setdefault(head.part(entry, 16), place + head.number("<I", entry + 16))
    if not {_VHDX_PARAMETERS, _VHDX_SIZE} <= items.keys():
        raise _Beyond
    has_parent = head.number("<I", items[_VHDX_PARAMETERS] + 4) & 2
    return head.number("<Q", items[_VHDX_SIZE]), ["backing file"] if has_parent else []


def _vhdx_metadata(head: _Bytes, table: int) -> int:
    """Where a region table says that the metadata is."""
    if head.part(table, 4) != b"regi":
        raise _Beyond
    for number in range(min(head.number("<I", table + 8), 2047)):
        entry = table + 16 + 32 * number
        if head.part(entry, 16) == _VHDX_METADATA:
            return head.number("<Q", entry + 16)
    raise _Beyond


# VMDK -----------------------------------------------------------------------------------------------------------------

_VMDK_KINDS = ('="monolithicsparse"', '="streamoptimized"')
_VMDK_AT_END = 2**64 - 1
_VMDK_MAGICS = (b"KDMV", b"COWD")
_VMDK_TEXT = re.compile(rb"(?:[ \t]*(?:#[^\n]*)?\r?\n)*version=[123]\s")
_VMDK_DESCRIPTOR = 20 * _SECTOR


def _is_vmdk(head: _Bytes, tail: _Bytes) -> bool:
    if any(head.starts(magic) for magic in _VMDK_MAGICS):
        return True
    start = head.some(0, SHORT_REACH)
    if start.startswith(b"#") and b"# disk descriptorfile" in start.lower():
        return True
    return _VMDK_TEXT.match(start) is not None


def _vmdk(head: _Bytes, tail: _Bytes) -> tuple[int, list[str]]:
    if not head.starts(b"KDMV"):
        return 0, ["names other files"]
    capacity, place, length = head.number("<Q", 12), head.number("<Q", 28), head.number("<Q", 36)
    unsafe = [] if head.number("<I", 4) in (1, 2, 3) else ["unknown version"]
    if capacity == 0 or length * _SECTOR > SHORT_REACH:
        unsafe.append("names other files")
    if head.number("<Q", 56) == _VMDK_AT_END and not _vmdk_footer_agrees(head, tail):
        unsafe.append("header and footer differ")
    # QEMU looks for a parent in the twenty sectors behind the header, whichever place and length the header names.
    if b"parentfilenamehint" in head.some(_SECTOR, _VMDK_DESCRIPTOR).lower():
        unsafe.append("backing file")
    if place != 1:
        unsafe.append("misplaced descriptor")
    reach = min(max(length * _SECTOR, _VMDK_DESCRIPTOR), SHORT_REACH)
    text = head.some(place * _SECTOR, reach).split(b"\0", 1)[0].decode("latin-1").lower()
    if place == 0 or not text:
        return capacity * _SECTOR, [*unsafe, "no descriptor"]
    return capacity * _SECTOR, list(dict.fromkeys([*unsafe, *_vmdk_descriptor(text)]))


def _vmdk_descriptor(text: str) -> Iterable[str]:
    kinds = text.split("createtype")[1:]
    words = [line.split(None, 3) for line in text.splitlines()]
    extents = [line[2] for line in words if len(line) > 2 and line[0] in ("rw", "rdonly", "noaccess")]
    if not kinds or not all(kind.startswith(_VMDK_KINDS) for kind in kinds) or extents != ["sparse"]:
        yield "names other files"
    parents = text.split("parentcid")[1:]
    if "parentfilenamehint" in text or not all(parent.startswith("=ffffffff") for parent in parents):
        yield "backing file"


def _vmdk_footer_agrees(head: _Bytes, tail: _Bytes) -> bool:
    """Whether the second header, which counts when the first says so, names the same descriptor and size.

    It is looked for in whole sectors, of which a file that ends within one has another number for each reader.
    """
    if head.size % _SECTOR:
        return False
    footer = _Bytes(tail.last(2 * _SECTOR), 2 * _SECTOR)
    return footer.starts(b"KDMV") and footer.part(12, 32) == head.part(12, 32)


# The rest -------------------------------------------------------------------------------------------------------------


def _is_vdi(head: _Bytes, tail: _Bytes) -> bool:
    return head.starts(b"\x7f\x10\xda\xbe", 64)


def _vdi(head: _Bytes, tail: _Bytes) -> tuple[int, list[str]]:
    unsafe = [] if head.number("<I", 68) == 0x00010001 else ["unknown version"]
    kind = head.number("<I", 76)
    parents = head.part(424, 32)  # what it links to, and its parent
    if kind not in (1, 2) or any(parents):
        unsafe.append("backing file")
    return head.number("<Q", 368), unsafe


def _is_luks(head: _Bytes, tail: _Bytes) -> bool:
    return head.starts(b"LUKS\xba\xbe")


def _luks(head: _Bytes, tail: _Bytes) -> tuple[int, list[str]]:
    payload = head.number(">I", 104) * _SECTOR if head.number(">H", 6) == 1 else 0
    return max(0, head.size - payload), ["encrypted"]


def _is_iso(head: _Bytes, tail: _Bytes) -> bool:
    return any(head.starts(b"CD001", place) for place in (0x8001, 0x8801, 0x9001))


def _is_qed(head: _Bytes, tail: _Bytes) -> bool:
    return head.starts(b"QED\0")


def _is_ploop(head: _Bytes, tail: _Bytes) -> bool:
    return head.starts(b"WithoutFreeSpace") or head.starts(b"WithouFreSpacExt")


def _is_bochs(head: _Bytes, tail: _Bytes) -> bool:
    return head.starts(b"Bochs Virtual HD Image\0")


def _is_cloop(head: _Bytes, tail: _Bytes) -> bool:
    return head.starts(b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop ")


def _whole(head: _Bytes, tail: _Bytes) -> tuple[int, list[str]]:
    return head.size, []


def _unknown(head: _Bytes, tail: _Bytes) -> tuple[int, list[str]]:
    return 0, ["not supported"]


_PARSERS: tuple[_Parser, ...] = (
    ("qcow2", _is_qcow2, _qcow2),
    ("vmdk", _is_vmdk, _vmdk),
    ("vhdx", _is_vhdx, _vhdx),
    ("vhd", _is_vhd, _vhd),
    ("vdi", _is_vdi, _vdi),
    ("luks", _is_luks, _luks),
    ("qed", _is_qed, _unknown),
    ("ploop", _is_ploop, _unknown),
    ("bochs", _is_bochs, _unknown),
    ("cloop", _is_cloop, _unknown),
    ("iso", _is_iso, _whole),
)
_DEEP = frozenset({_QCOW_MAGIC, b"vhdx", *_VMDK_MAGICS})
