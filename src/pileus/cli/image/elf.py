"""What a build must know of ELF files: the libraries that a program needs, and what a kernel module says of itself.

The layout is that of elf(5), 64 bits and little-endian only: the image is built for x86-64.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

DT_NEEDED = 1
SHT_DYNAMIC = 6


@dataclass(frozen=True)
class Section:
    """A section of an ELF file: its name, type, content, and the index of the section that it is linked to."""

    name: str
    kind: int
    link: int
    content: bytes


def _text(table: bytes, start: int) -> str:
    return table[start : table.index(b"\0", start)].decode()


def sections(content: bytes) -> list[Section]:
    """The sections of an ELF file.

    Raises:
        ValueError: it is not an ELF file of this kind.
    """
    if content[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    (table,) = struct.unpack_from("<Q", content, 40)
    size, count, names_index = struct.unpack_from("<HHH", content, 58)
    headers = [struct.unpack_from("<IIQQQQII", content, table + size * index) for index in range(count)]
    if not headers:
        return []
    names = content[headers[names_index][4] :][: headers[names_index][5]]
    return [
        Section(_text(names, name), kind, link, content[offset : offset + length])
        for name, kind, _, _, offset, length, link, _ in headers
    ]


def needed(content: bytes) -> list[str]:
    """File names of the shared libraries that a program or library asks for; empty when it is static."""
    all_sections = sections(content)
    names: list[str] = []
    for section in all_sections:
        if section.kind == SHT_DYNAMIC:
            strings = all_sections[section.link].content
            pairs = struct.iter_unpack("<QQ", section.content[: len(section.content) // 16 * 16])
            names.extend(_text(strings, value) for tag, value in pairs if tag == DT_NEEDED)
    return names


def module_facts(content: bytes) -> dict[str, list[str]]:
    """What a kernel module states in its `.modinfo` section: `depends`, `alias`, `softdep` and others, by key."""
    facts: dict[str, list[str]] = {}
    for section in sections(content):
        if section.name == ".modinfo":
            for item in section.content.split(b"\0"):
                key, equals, value = item.partition(b"=")
                if equals:
                    facts.setdefault(key.decode(), []).append(value.decode(errors="replace"))
    return facts
