"""The agent inside a guest (docs/interop/qemu-ga-ref of QEMU): JSON in lines over a virtio channel.

What comes back is the guest's: it is bounded in length and time, and nothing of it but an error's words is shown.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import socket
import time
from collections.abc import Iterator

from pileus.core.seams import reach
from pileus.drivers.hypervisor.qemu.directory import RunDirectory

SOCKET = "agent.sock"
_THAW = "guest-fsfreeze-thaw"
_LINE = 64 * 1024
"""Bytes of an answer."""
_WORDS = 200
"""Characters of an error's words that are passed on."""


class AgentFailure(Exception):
    """The guest's agent did not answer, or refused. Holds no secret."""


class AgentSilent(AgentFailure):
    """The guest's agent did not answer in time; it may later."""


@contextlib.contextmanager
def converse(directory: RunDirectory, timeout: float = 5.0) -> Iterator[AgentChannel]:
    """A conversation with the agent of a running guest; `timeout` is in seconds, for each answer.

    Raises AgentFailure, also when the block ends: what is asked for in it does.
    """
    with _line(directory) as line:
        channel = AgentChannel(line, timeout)
        channel.synchronize()
        yield channel


@contextlib.contextmanager
def frozen(directory: RunDirectory, timeout: float = 30.0) -> Iterator[None]:
    """Hold the guest's file systems for as long as the block takes.

    Once the agent was asked to hold them it is asked to let them go on, whatever it answered: one that takes too long
    over the first has the second before it when it is done.  What an earlier attempt that broke off has left held is
    let go first.  Raises AgentFailure.
    """
    asked = False
    try:
        with converse(directory, timeout) as agent:
            if agent.frozen():
                agent.thaw()
            asked = True
            directory.note_frozen(True)
            agent.freeze()
            reach("qemu.agent.frozen")
            yield
            agent.thaw()
            directory.note_frozen(False)
            asked = False
    finally:
        if asked:
            thaw(directory, timeout)


def thaw(directory: RunDirectory, timeout: float = 30.0) -> None:
    """Let go of file systems that somebody has held, or may have. Raises AgentFailure."""
    with _line(directory) as line:
        AgentChannel(line, timeout).thaw_at_last()
    directory.note_frozen(False)


@contextlib.contextmanager
def _line(directory: RunDirectory) -> Iterator[socket.socket]:
    try:
        line = directory.connect(SOCKET)
    except OSError as error:
        raise AgentFailure("the guest has no channel for its agent") from error
    with line:
        yield line


class AgentChannel:
    """What can be asked of a guest's agent; each raises AgentFailure."""

    def __init__(self, line: socket.socket, timeout: float) -> None:
        self._line = line
        self._timeout = timeout
        self._heard = b""

    def synchronize(self) -> None:
        """Throw away what is left of earlier conversations (guest-sync-delimited)."""
        self._hear(self._greet())

    def _greet(self) -> int:
        number = secrets.randbits(31)
        request = {"execute": "guest-sync-delimited", "arguments": {"id": number}}
        self._send(b"\xff" + json.dumps(request).encode() + b"\n")
        return number

    def _hear(self, number: int) -> None:
        """Skip what is before the answer to a greeting."""
        deadline = time.monotonic() + self._timeout
        while time.monotonic() < deadline:
            _, _, line = self._read(deadline).rpartition(b"\xff")
            try:
                if json.loads(line).get("return") == number:
                    return
            except (ValueError, AttributeError):
                continue
        raise AgentSilent("the guest's agent does not answer")

    def set_password(self, user: str, password: str) -> None:
        """Set a user's password."""
        encoded = base64.b64encode(password.encode()).decode()
        arguments = {"username": user, "password": encoded, "crypted": False}
        answer = self._ask({"execute": "guest-set-user-password", "arguments": arguments})
        if "error" in answer:
            # What a guest says of it may hold the password.
            raise AgentFailure("the guest's agent could not set the password")

    def freeze(self) -> None:
        """Write the guest's file systems back, and hold them."""
        self._demand("guest-fsfreeze-freeze")

    def thaw(self) -> None:
        """Let the guest's file systems go on."""
        self._demand(_THAW)

    def frozen(self) -> bool:
        """Whether they are held; an agent that cannot tell is not asked twice."""
        return self._ask({"execute": "guest-fsfreeze-status"}).get("return") == "frozen"

    def thaw_at_last(self) -> None:
        """Let them go on, on a new connection; it is sent before anything is awaited."""
        number = self._greet()
        self._send(json.dumps({"execute": _THAW}).encode() + b"\n")
        self._hear(number)
        self._must(_THAW, self._answer())

    def _demand(self, command: str) -> None:
        self._must(command, self._ask({"execute": command}))

    def _must(self, command: str, answer: dict[str, object]) -> None:
        if "error" in answer:
            told = answer["error"]
            words = str(told.get("desc", "")) if isinstance(told, dict) else ""
            raise AgentFailure(f"{command}: {words[:_WORDS]}")

    def _ask(self, request: dict[str, object]) -> dict[str, object]:
        self._send(json.dumps(request).encode() + b"\n")
        return self._answer()

    def _answer(self) -> dict[str, object]:
        try:
            answer = json.loads(self._read(time.monotonic() + self._timeout))
        except ValueError:
            raise AgentFailure("the guest's agent answers what is no answer") from None
        if not isinstance(answer, dict) or not answer.keys() & {"return", "error"}:
            raise AgentFailure("the guest's agent answers what is no answer")
        return answer

    def _send(self, line: bytes) -> None:
        self._line.settimeout(self._timeout)
        try:
            self._line.sendall(line)
        except OSError as error:
            raise AgentSilent("the guest's agent does not answer") from error

    def _read(self, deadline: float) -> bytes:
        while b"\n" not in self._heard:
            self._line.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                part = self._line.recv(4096)
            except OSError as error:
                raise AgentSilent("the guest's agent does not answer") from error
            self._heard += part
            if not part or len(self._heard) > _LINE:
                raise AgentSilent("the guest's agent does not answer")
        line, _, self._heard = self._heard.partition(b"\n")
        return line
