"""Reads subunit version 2, the stream in which test runners report (https://github.com/testing-cabal/subunit).

A stream is a sequence of packets; text between them is whatever a program happened to print, and is skipped.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

SIGNATURE = 0xB3
STATUSES = ("", "exists", "inprogress", "success", "uxsuccess", "skip", "fail", "xfail")
FINAL = frozenset(STATUSES[3:])

HAS_ROUTE, HAS_TIME, HAS_TEST, HAS_TAGS = 0x0400, 0x0200, 0x0800, 0x0080
HAS_MIME, HAS_FILE = 0x0020, 0x0040
STATUS = 0x0007
VERSION = 0x2000


class Malformed(ValueError):
    """These bytes are no packet."""


@dataclass(frozen=True, kw_only=True)
class Packet:
    """What one packet says of a test. `status` is empty when it only carries a part of an attachment."""

    test: str
    status: str
    seconds: float | None
    """Seconds since 1970, when the packet says."""
    name: str
    """The attachment's name, as `traceback` or `reason`; empty when there is none."""
    content: bytes


@dataclass(frozen=True, kw_only=True)
class Report:
    """How one test ended."""

    test: str
    status: str
    """One of `success`, `fail`, `skip`, `xfail`, `uxsuccess`."""
    seconds: float
    reason: str
    """Text of the first attachment that says why, decoded; empty when the test simply passed."""


class _Cursor:
    """A place in the body of a packet."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, length: int) -> bytes:
        """The next bytes. Raises Malformed when there are fewer."""
        end = self._at + length
        if end > len(self._data):
            raise Malformed("a packet ends too early")
        found = self._data[self._at : end]
        self._at = end
        return found

    def number(self) -> int:
        """A number of one to four bytes: the first two bits say how many more than one."""
        first = self.take(1)[0]
        rest = self.take(first >> 6)
        return int.from_bytes(bytes([first & 0x3F]) + rest, "big")

    def text(self) -> str:
        """A counted text."""
        return self.take(self.number()).decode("utf-8", "replace")


def decode(body: bytes, flags: int) -> Packet:
    """One packet from what lies between its length and its checksum. Raises Malformed."""
    cursor = _Cursor(body)
    seconds = None
    if flags & HAS_TIME:
        seconds = int.from_bytes(cursor.take(4), "big") + cursor.number() / 1e9
    test = cursor.text() if flags & HAS_TEST else ""
    if flags & HAS_TAGS:
        for _ in range(cursor.number()):
            cursor.text()
    if flags & HAS_MIME:
        cursor.text()
    name, content = "", b""
    if flags & HAS_FILE:
        name = cursor.text()
        content = cursor.take(cursor.number())
    return Packet(test=test, status=STATUSES[flags & STATUS], seconds=seconds, name=name, content=content)


def packets(stream: BinaryIO) -> Iterator[Packet]:
    """All packets of a stream, as they come; it ends where the stream ends, be it amid a packet.

    Raises Malformed when a packet's checksum is wrong.
    """
    while first := stream.read(1):
        if first[0] != SIGNATURE:
            continue
        head = first + stream.read(3)
        if len(head) < 4:
            return
        more = head[3] >> 6
        head += stream.read(more)
        if len(head) < 4 + more:
            return
        length = int.from_bytes(bytes([head[3] & 0x3F]) + head[4:], "big")
        rest = stream.read(length - len(head))
        if len(rest) < length - len(head):
            return
        flags = int.from_bytes(head[1:3], "big")
        if flags & 0xF000 != VERSION or zlib.crc32(head + rest[:-4]) != int.from_bytes(rest[-4:], "big"):
            raise Malformed(f"no packet of subunit version 2: {head.hex()}")
        yield decode(rest[:-4], flags)


def reports(stream: BinaryIO) -> Iterator[Report]:
    """How each test ended, in the order of their ends."""
    began: dict[str, float] = {}
    attached: dict[str, dict[str, bytes]] = {}
    for packet in packets(stream):
        if packet.status == "inprogress" and packet.seconds is not None:
            began[packet.test] = packet.seconds
        if packet.name:
            files = attached.setdefault(packet.test, {})
            files[packet.name] = files.get(packet.name, b"") + packet.content
        if packet.status in FINAL:
            files = attached.pop(packet.test, {})
            told = [files[name] for name in sorted(files) if name.startswith(("reason", "traceback"))]
            ended = packet.seconds or 0.0
            yield Report(
                test=packet.test,
                status=packet.status,
                seconds=max(0.0, ended - began.pop(packet.test, ended)),
                reason=told[0].decode("utf-8", "replace") if told else "",
            )
