"""The packet filter of one namespace: rules by nft(8), and what netlink(7) tells of rules and connections.

Connections are read and deleted over ctnetlink (linux/netfilter/nfnetlink_conntrack.h), because the tool for it is
not everywhere.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import struct
from collections.abc import Collection, Iterator

from pileus.drivers.host.process import ChildFailure, apart, run

_NETLINK_NETFILTER = 12
_HEADER = struct.Struct("=IHHII")
_FAMILY = struct.Struct("=BBH")
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_DONE, _ERROR = 3, 2
_GET_GENERATION = (10 << 8) | 16
_CONNECTION_GET, _CONNECTION_DELETE = (1 << 8) | 1, (1 << 8) | 2
_TUPLE_ORIGINAL, _TUPLE_REPLY, _ZONE = 1, 2, 18


class FilterFailure(Exception):
    """nft refused the rules; the message is nft's own."""


def load(text: str, namespace: str | None = None) -> None:
    """Apply nft commands as one transaction: all of it or nothing. Raises FilterFailure when nft refuses."""
    try:
        run(["nft", "-f", "-"], namespace=namespace, content=text.encode())
    except ChildFailure as failure:
        raise FilterFailure(str(failure)) from None


def tables(namespace: str | None = None) -> list[tuple[str, str]]:
    """Family and name of each table."""
    text = run(["nft", "list", "tables"], namespace=namespace).decode()
    found = re.findall(r"^table (\S+) (\S+)$", text, re.MULTILINE)
    return [(str(family), str(name)) for family, name in found]


def chains(family: str, table: str, namespace: str | None = None) -> list[str]:
    """The names of the chains of a table; none when there is no such table."""
    try:
        text = run(["nft", "list", "table", family, table], namespace=namespace).decode()
    except ChildFailure:
        return []
    return [str(name) for name in re.findall(r"^\tchain (\S+) ", text, re.MULTILINE)]


def generation() -> int:
    """A number that grows with each change of the rules in the calling thread's namespace (NFT_MSG_GETGEN).

    By it a change that somebody else made shows, without reading the rules.
    """
    with _open() as sock:
        _send(sock, _GET_GENERATION, _REQUEST, 0, b"")
        for _, body in _answers(sock):
            for kind, value in _attributes(body[_FAMILY.size :]):
                if kind == 1:
                    return int(struct.unpack(">I", value)[0])
            break
    return 0


def connections(namespace: str | None = None) -> list[tuple[str, str]]:
    """Source and destination address of each tracked connection, as its first packet had them."""
    return apart(lambda: [found.ends for found in _connections()], namespace)


def forget(addresses: Collection[str], namespace: str | None = None) -> int:
    """Delete the tracked connections that any of `addresses` takes part in, before or after NAT; how many."""
    wanted = {ipaddress.ip_address(address).packed for address in addresses}
    return apart(lambda: _forget(wanted), namespace) if wanted else 0


class _Connection:
    def __init__(self, family: int, body: bytes) -> None:
        self.family = family
        parts = dict(_attributes(body))
        self.original = parts.get(_TUPLE_ORIGINAL, b"")
        self.zone = parts.get(_ZONE)
        self.addresses = _ends(self.original) + _ends(parts.get(_TUPLE_REPLY, b""))

    @property
    def ends(self) -> tuple[str, str]:
        source, destination, *_ = (str(ipaddress.ip_address(address)) for address in self.addresses)
        return source, destination


def _connections() -> list[_Connection]:
    with _open() as sock:
        _send(sock, _CONNECTION_GET, _REQUEST | _DUMP, 0, b"")
        return [_Connection(body[0], body[_FAMILY.size :]) for _, body in _answers(sock)]


def _forget(wanted: set[bytes]) -> int:
    found = [connection for connection in _connections() if not wanted.isdisjoint(connection.addresses)]
    with _open() as sock:
        for connection in found:
            body = _attribute(_TUPLE_ORIGINAL | 0x8000, connection.original)
            if connection.zone is not None:
                body += _attribute(_ZONE, connection.zone)
            _send(sock, _CONNECTION_DELETE, _REQUEST | _ACK, connection.family, body)
            list(_answers(sock))
    return len(found)


def _ends(attribute: bytes) -> tuple[bytes, ...]:
    for kind, value in _attributes(attribute):
        if kind == 1:
            return tuple(address for _, address in _attributes(value))
    return ()


def _open() -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    sock.bind((0, 0))
    sock.settimeout(5)
    return sock


def _send(sock: socket.socket, kind: int, flags: int, family: int, body: bytes) -> None:
    body = _FAMILY.pack(family, 0, 0) + body
    sock.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body)


def _answers(sock: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Kind and body of each message, until a dump's end or an acknowledgement; ENOENT (gone meanwhile) is fine."""
    while True:
        data = sock.recv(1 << 18)
        while data:
            length, kind, flags, _, _ = _HEADER.unpack_from(data)
            body, data = data[_HEADER.size : length], data[(length + 3) & ~3 :]
            if kind == _DONE:
                return
            if kind == _ERROR:
                number = -int(struct.unpack_from("=i", body)[0])
                if number not in {0, 2}:
                    raise OSError(number, os.strerror(number))
                return
            yield kind, body
            if not flags & 2:
                return


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            return
        yield kind & 0x3FFF, data[4:length]
        data = data[(length + 3) & ~3 :]


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)
