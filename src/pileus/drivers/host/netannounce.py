"""Gratuitous ARP: telling the neighbours of an interface which addresses it holds now (RFC 5227, section 3)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection


def announce(device: str, mac: str, addresses: Collection[str]) -> None:
    """Broadcast, from the calling thread's namespace, that `device` with `mac` holds these IPv4 addresses.

    Both forms are sent, since some systems heed only requests and some only replies.  Raises OSError when the device
    is absent or down.
    """
    sender = bytes.fromhex(mac.replace(":", ""))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((device, 0))
        for address in addresses:
            ours = socket.inet_aton(address)
            for operation, target in ((1, bytes(6)), (2, b"\xff" * 6)):
                body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + sender + ours + target + ours
                sock.send(b"\xff" * 6 + sender + b"\x08\x06" + body)
