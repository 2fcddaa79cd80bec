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

from pileus.drivers.hypervisor.qemu.directory import RunDirectory

SOCKET = "agent.sock"
_LINE = 64 * 1024
"""Bytes of an answer."""
_WORDS = 200
"""Characters of an error's words that are passed on."""


class AgentFailure(Exception):
    """The guest's agent did not answer, or refused. Holds no secret."""


@contextlib.contextmanager
def converse(directory: RunDirectory, timeout: float = 5.0) -> Iterator[AgentChannel]:
    """A conversation with the agent of a running guest; `timeout` is in seconds, for each answer.

    Raises AgentFailure, also when the block ends: what is asked for in it does.
    """
    try:
        line = directory.connect(SOCKET)
    except OSError as error:
        raise AgentFailure("the guest has no channel for its agent") from error
    with line:
        channel = AgentChannel(line, timeout)
        channel.synchronize()
        yield channel


class AgentChannel:
    """What can be asked of a guest's agent; each raises AgentFailure."""

    def __init__(self, line: socket.socket, timeout: float) -> None:
        self._line = line
        self._timeout = timeout
        self._heard = b""

    def synchronize(self) -> None:
        """Throw away what is left of earlier conversations (guest-sync-delimited)."""
        number = secrets.randbits(31)
        request = {"execute": "guest-sync-delimited", "arguments": {"id": number}}
        self._send(b"\xff" + json.dumps(request).encode() + b"\n")
        deadline = time.monotonic() + self._timeout
        while time.monotonic() < deadline:
            _, _, line = self._read(deadline).rpartition(b"\xff")
            try:
                if json.loads(line).get("return") == number:
                    return
            except (ValueError, AttributeError):
                continue
        raise AgentFailure("the guest's agent does not answer")

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
        self._demand("guest-fsfreeze-thaw")

    def _demand(self, command: str) -> None:
        answer = self._ask({"execute": command})
        if "error" in answer:
            told = answer["error"]
            words = str(told.get("desc", "")) if isinstance(told, dict) else ""
            raise AgentFailure(f"{command}: {words[:_WORDS]}")

    def _ask(self, request: dict[str, object]) -> dict[str, object]:
        self._send(json.dumps(request).encode() + b"\n")
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
            raise AgentFailure("the guest's agent does not answer") from error

    def _read(self, deadline: float) -> bytes:
        while b"\n" not in self._heard:
            self._line.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                part = self._line.recv(4096)
            except OSError as error:
                raise AgentFailure("the guest's agent does not answer") from error
            self._heard += part
            if not part or len(self._heard) > _LINE:
                raise AgentFailure("the guest's agent does not answer")
        line, _, self._heard = self._heard.partition(b"\n")
        return line
