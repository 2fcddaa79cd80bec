"""Metadata at 169.254.169.254: the agent's side.

Listening sockets are made inside each network and handed to one child without privilege (`metadata_server`), which
knows each guest by the network that a request comes in on and by its address.  Documents are secret: they travel over
a socket pair, never through files or arguments.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable

import msgspec

from pileus.contracts.hypervisor import GuestSpec
from pileus.contracts.network import Network, NetworkState

log = logging.getLogger(__name__)

ADDRESS = "169.254.169.254"
PORT = 80

PATIENCE = 5.0
"""Seconds that the child has to read a message; one that takes longer is left, and a new one started."""

LONGEST = 1 << 14
"""The longest line of the child, in bytes."""

_Places = dict[str, str]


Tell = Callable[[str, str], int]
"""Passes on the password that a guest told, given its id and the password: the HTTP status of the answer."""


class Message(msgspec.Struct, kw_only=True):
    """What the agent tells the child, and what the child asks: one JSON object a line.

    `listen` comes with the socket beside it.  The child asks with `password`, and is answered with `answer`.
    """

    verb: str
    """`listen`, `close`, `places`, `guest`, `forget` or `answer`; of the child, `password`."""
    id: str
    """Of the network, or of the guest."""
    places: _Places = {}
    """For `places`: guest id by address."""
    documents: dict[str, bytes] = {}
    """For `guest`."""
    password: str = ""
    """For `password`: what a guest told."""
    status: int = 0
    """For `answer`: the HTTP status."""


class Metadata:
    """The child, and what it was told; told again when it had to be started anew.

    `start` runs the child with the given socket as its only channel, and gives a function that says whether it lives.
    """

    def __init__(self, start: Callable[[socket.socket], Callable[[], bool]]) -> None:
        self._start = start
        self._lock = threading.Lock()
        self._channel: socket.socket | None = None
        self._alive: Callable[[], bool] = lambda: False
        self._sockets: dict[str, socket.socket] = {}
        self._places: dict[str, _Places] = {}
        self._documents: dict[str, dict[str, bytes]] = {}
        self.tell: Tell = lambda guest_id, password: 503
        """Set by whoever can pass on what guests tell."""

    def open_network(self, state: NetworkState, network: Network) -> None:
        """Answer on a network, for the guests that have addresses there."""
        network_id = state.network.id
        places = {
            fixed.ip_address: port.guest_id
            for port in state.ports
            if port.guest_id is not None
            for fixed in port.fixed_ips
        }
        with self._lock:
            self._revive()
            if network_id not in self._sockets and any(subnet.ip_version == 4 for subnet in state.network.subnets):
                listener = network.listen(network_id, ADDRESS, PORT)
                self._sockets[network_id] = listener
                self._send(Message(verb="listen", id=network_id), listener)
            if self._places.get(network_id) != places:
                self._places[network_id] = places
                self._send(Message(verb="places", id=network_id, places=places))

    def close_network(self, network_id: str) -> None:
        """Answer on a network no more."""
        with self._lock:
            self._places.pop(network_id, None)
            listener = self._sockets.pop(network_id, None)
            if listener is not None:
                listener.close()
            self._send(Message(verb="close", id=network_id))

    def set_guest(self, spec: GuestSpec) -> None:
        """What a guest may read."""
        documents = dict(spec.documents)
        with self._lock:
            self._revive()
            if self._documents.get(spec.id) != documents:
                self._documents[spec.id] = documents
                self._send(Message(verb="guest", id=spec.id, documents=documents))

    def forget_guest(self, guest_id: str) -> None:
        """A guest is gone."""
        with self._lock:
            if self._documents.pop(guest_id, None) is not None:
                self._send(Message(verb="forget", id=guest_id))

    def close(self) -> None:
        """Let the child end."""
        with self._lock:
            for listener in self._sockets.values():
                listener.close()
            self._sockets.clear()
            if self._channel is not None:
                _end(self._channel)
                self._channel = None

    def _revive(self) -> None:
        if self._channel is not None and self._alive():
            return
        self._hang_up()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            self._alive = self._start(theirs)
        ours.settimeout(PATIENCE)
        self._channel = ours
        threading.Thread(target=self._hear, args=(ours,), name="metadata", daemon=True).start()
        for guest_id, documents in self._documents.items():
            self._send(Message(verb="guest", id=guest_id, documents=documents))
        for network_id, places in self._places.items():
            self._send(Message(verb="places", id=network_id, places=places))
        for network_id, listener in self._sockets.items():
            self._send(Message(verb="listen", id=network_id), listener)

    def _hear(self, channel: socket.socket) -> None:
        """Answer what the child asks, one question after the other, until the channel ends."""
        rest = b""
        while True:
            try:
                data = channel.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError:
                return
            if not data or len(rest) > LONGEST:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                try:
                    asked = msgspec.json.decode(line, type=Message)
                except msgspec.DecodeError:
                    return  # a child that guests have got hold of is heard no more
                status = self.tell(asked.id, asked.password) if asked.id in self._documents else 404
                with self._lock:
                    if self._channel is channel:
                        self._send(Message(verb="answer", id=asked.id, status=status))

    def _hang_up(self) -> None:
        if self._channel is not None:
            log.warning("the metadata server ended; it is started again")
            _end(self._channel)
            self._channel = None

    def _send(self, message: Message, listener: socket.socket | None = None) -> None:
        if self._channel is None:
            return
        line = msgspec.json.encode(message) + b"\n"
        try:
            if listener is not None:
                socket.send_fds(self._channel, [line[:1]], [listener.fileno()])
                line = line[1:]
            self._channel.sendall(line)
        except OSError:
            self._hang_up()  # the next look starts a child anew, and tells it everything


def _end(channel: socket.socket) -> None:
    """Close a channel, and let whoever reads from it know."""
    with contextlib.suppress(OSError):
        channel.shutdown(socket.SHUT_RDWR)
    channel.close()
