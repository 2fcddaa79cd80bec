"""Raw frames from inside a guest: what its owner, who is root there, may put on the wire, and what comes in.

Programs of the image send what the kernel makes of it.  So a guest is given a program of its own, as any tenant may:
151 bytes of x86-64 code, which copy frames from its standard input to the first card, or (with an argument) from the
card to its standard output.  In both, each frame comes after its length in two bytes, little-endian.
"""

from __future__ import annotations

import base64
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from pileus.drivers.host.process import apart
from tests.real.cloud import until

_CODE = bytes.fromhex(
    "6a29586a115f6a035eba000300000f05"  # fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL))
    "89c389c7488d35680000006a145a6a31580f05"  # bind(fd, &place, 20)
    "488dac2400f0ffff"  # frame = 4 KiB below the stack
    "833c24017526"  # if (argc != 1) goto hear
    "31ff4889ee6a025a31c00f05"  # say: n = read(0, frame, 2)
    "83f802753c"  # if (n != 2) goto end
    "31ff0fb7550031c00f05"  # n = read(0, frame, the length that came)
    "89df89c26a01580f05ebda"  # write(fd, frame, n); goto say
    "89df488d7502ba0008000031c00f05"  # hear: n = read(fd, frame + 2, 2048)
    "85c07eed66894500"  # if (n <= 0) goto hear; the length before it
    "4889ee8d50026a015f6a01580f05ebd9"  # write(1, frame, n + 2); goto hear
    "6a3c580f05"  # end: exit
    "1100000302000000" + 12 * "00"  # place: AF_PACKET, ETH_P_ALL, the second interface
)
_PLACE = 0x400000
_PROGRAM = (
    struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        *(2, 62, 1, _PLACE + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0),  # elf(5): an executable for x86-64, one segment
    )
    + struct.pack("<IIQQQQQQ", 1, 5, 0, _PLACE, _PLACE, 120 + len(_CODE), 120 + len(_CODE), 0x1000)
    + _CODE
)


class Shell(Protocol):
    """Runs a command on a guest as `cirros`, and gives what it printed."""

    def __call__(self, command: str, *, check: bool = True) -> str: ...


class Wire:
    """The first card of a guest, used past the guest's own network stack."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        shell(f"echo {_text(_PROGRAM)} | base64 -d >/tmp/wire; chmod +x /tmp/wire")

    def send(self, *frames: bytes) -> None:
        """Put frames on the wire, in order."""
        record = b"".join(struct.pack("<H", len(one)) + one for one in frames)
        self.shell(f"echo {_text(record)} | base64 -d | sudo /tmp/wire")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Keep every frame that the card gets meanwhile; those that the guest itself sends are among them."""
        self.shell("sudo sh -c '/tmp/wire hear >/tmp/heard 2>/dev/null </dev/null & echo $! >/tmp/hearing'")
        try:
            yield
        finally:
            self.shell("sudo kill $(cat /tmp/hearing)")

    def heard(self, beacon: bytes, seconds: float = 30) -> list[bytes]:
        """What was kept so far, once the beacon has come: a frame that is let through, and was sent last.

        What was sent before it has come by then, or never will.  Raises Failure.
        """
        found: list[bytes] = []

        def come() -> bool:
            found[:] = _frames(base64.b64decode(self.shell("sudo base64 /tmp/heard")))
            return beacon in found

        until(come, "the beacon is heard", seconds)
        return found


class Tap:
    """Everything that passes any interface of a network's namespace, as the host's kernel sees it."""

    def __init__(self, namespace: str) -> None:
        def listen() -> socket.socket:
            found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
            found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
            return found

        self._socket = apart(listen, namespace)

    def heard(self) -> list[bytes]:
        """What has passed since the last time."""
        found = []
        self._socket.setblocking(False)
        while True:
            try:
                found.append(self._socket.recv(4096))
            except BlockingIOError:
                return found

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _frames(content: bytes) -> list[bytes]:
    found = []
    while len(content) >= 2:
        (length,) = struct.unpack_from("<H", content)
        found.append(content[2 : 2 + length])
        content = content[2 + length :]
    return found
