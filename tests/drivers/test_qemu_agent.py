"""The agent inside a guest, as it is asked to hold file systems: they are let go of, whatever fails."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pileus.contracts.suite.hypervisor import eventually
from pileus.drivers.hypervisor.qemu import QemuHypervisor
from pileus.drivers.hypervisor.qemu.agent_channel import SOCKET, AgentFailure, AgentSilent, frozen
from pileus.drivers.hypervisor.qemu.directory import RunDirectory


class GuestAgent:
    """Serves one client at a time, as QEMU does, and obeys one command after another, whoever still waits for it."""

    def __init__(self, directory: RunDirectory) -> None:
        self.frozen = False
        self.slow = 0.0
        """Seconds that a freeze takes."""
        self.refuses = False
        self.told: list[str] = []
        self._listener = directory.listen(SOCKET)
        self._queue: list[tuple[socket.socket, bytes]] = []
        self._more = threading.Condition()
        for body in (self._listen, self._work):
            threading.Thread(target=body, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                line = self._listener.accept()[0]
                with line.makefile("rb") as heard:
                    for text in heard:
                        with self._more:
                            self._queue.append((line, text))
                            self._more.notify()

    def _work(self) -> None:
        while True:
            with self._more:
                self._more.wait_for(lambda: self._queue)
                line, text = self._queue.pop(0)
            answer = self._obey(json.loads(text.lstrip(b"\xff")))
            with contextlib.suppress(OSError):
                line.sendall(answer + b"\n")

    def _obey(self, asked: dict[str, dict[str, int]]) -> bytes:
        command = str(asked["execute"])
        if command == "guest-sync-delimited":
            return b"\xff" + json.dumps({"return": asked["arguments"]["id"]}).encode()
        self.told.append(command.removeprefix("guest-fsfreeze-"))
        if command == "guest-fsfreeze-status":
            return json.dumps({"return": "frozen" if self.frozen else "thawed"}).encode()
        if command == "guest-fsfreeze-freeze" and (self.frozen or self.refuses):
            return b'{"error": {"desc": "the command is not allowed"}}'
        if command == "guest-fsfreeze-freeze":
            time.sleep(self.slow)
        self.frozen = command == "guest-fsfreeze-freeze"
        return b'{"return": 1}'


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path)


@pytest.fixture
def agent(directory: RunDirectory) -> Iterator[GuestAgent]:
    agent = GuestAgent(directory)
    yield agent
    agent.close()


def test_file_systems_are_held_and_let_go(directory: RunDirectory, agent: GuestAgent) -> None:
    with frozen(directory, 5):
        assert agent.frozen
    assert agent.told == ["status", "freeze", "thaw"]
    assert not directory.frozen()


def test_a_freeze_that_takes_too_long_is_undone_when_it_is_done(directory: RunDirectory, agent: GuestAgent) -> None:
    agent.slow = 1.5
    with pytest.raises(AgentSilent), frozen(directory, 0.3):
        pytest.fail("nothing was held yet")
    assert eventually(lambda: agent.told == ["status", "freeze", "thaw"], 5)
    assert eventually(lambda: not agent.frozen, 1)
    assert directory.frozen(), "nobody was told that it is done"


def test_what_fails_meanwhile_holds_nothing_for_good(directory: RunDirectory, agent: GuestAgent) -> None:
    with pytest.raises(ZeroDivisionError), frozen(directory, 5):
        raise ZeroDivisionError
    assert not agent.frozen


def test_what_an_attempt_that_was_killed_has_held_is_let_go_first(directory: RunDirectory, agent: GuestAgent) -> None:
    agent.frozen = True
    with frozen(directory, 5):
        assert agent.frozen
    assert agent.told == ["status", "thaw", "freeze", "thaw"]


def test_a_refusal_is_told_apart_from_silence(directory: RunDirectory, agent: GuestAgent) -> None:
    agent.refuses = True
    with pytest.raises(AgentFailure, match="not allowed") as failure, frozen(directory, 5):
        pytest.fail("nothing was held")
    assert not isinstance(failure.value, AgentSilent)


def test_what_a_driver_that_was_killed_has_held_the_next_one_lets_go(tmp_path: Path) -> None:
    """Whether or not the image that it was for is still wanted."""
    directory = RunDirectory(tmp_path / "guests" / str(uuid.uuid4()))
    directory.path.mkdir(parents=True)
    agent = GuestAgent(directory)
    agent.frozen = True
    directory.note_frozen(True)
    driver = QemuHypervisor(state=tmp_path, accelerator="tcg")
    try:
        assert eventually(lambda: not directory.frozen(), 5)
        assert agent.told == ["thaw"]
    finally:
        driver.close()
        agent.close()
