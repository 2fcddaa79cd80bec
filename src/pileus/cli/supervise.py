"""`pileus supervise`: keeps the two processes of a cloud running.

It imports little, for it is there as long as the cloud is.  A process that ends is started again, after a pause that
grows while it keeps ending.  Guests are no children of its and outlive all three.  Logs that are large are put aside,
copied and then emptied: the processes hold them open, one of them without the right to make another.
"""

from __future__ import annotations

import argparse
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pileus.cli import systemd
from pileus.cli.main import CommandFailure
from pileus.cli.place import add_state, settings
from pileus.core import notify

if TYPE_CHECKING:
    from pileus.cli.main import Roles, Subparsers
    from pileus.core.config import Config

PROCESSES = ("control", "agent")
LOOK = 5.0
"""Seconds between two looks at the logs' sizes."""

STEADY = 30.0
"""Seconds after which a process counts as well."""

RESTORING = ("restore", "replacement")
"""Whoever brings a cloud back to a backup: the command, and its child that replaces the store and may outlive it."""


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser("supervise", help="keep control plane and agent running (`up` starts it)")
    add_state(parser)
    parser.set_defaults(run=run)


def lock_file(state: Path, name: str) -> Path:
    """The file that a process of a cloud holds a lock on as long as it lives, and that names its pid."""
    return state / "run" / f"{name}.pid"


def hold(state: Path, name: str) -> int | None:
    """Take the lock of a process of this name; its descriptor, to be kept open. None when another lives.

    The lock is the process's own: no child inherits it, and it goes with the process however that ends.
    """
    file = lock_file(state, name)
    file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.lockf(lock, os.F_TLOCK, 0)
    except OSError:
        os.close(lock)
        return None
    os.truncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock


def holder(state: Path, name: str) -> int | None:
    """The pid of the process of this name that runs on a state directory (0 while it begins), or None."""
    try:
        descriptor = os.open(lock_file(state, name), os.O_RDONLY)
    except OSError:
        return None
    try:
        os.lockf(descriptor, os.F_TEST, 0)
    except OSError:
        return int(os.read(descriptor, 20) or b"0")
    finally:
        os.close(descriptor)
    return None


def undisturbed(state: Path) -> None:
    """Raise CommandFailure while the store of a cloud is being replaced: nothing may be begun or ended then."""
    for name in RESTORING:
        if (pid := holder(state, name)) is not None:
            raise _under_way(pid)


def claim(state: Path, name: Literal["restore", "replacement"]) -> int:
    """Take the lock of who restores, or of its child; its descriptor. Raises CommandFailure when another has it."""
    lock = hold(state, name)
    if lock is None:
        raise _under_way(holder(state, name))
    return lock


def _under_way(pid: int | None) -> CommandFailure:
    return CommandFailure(f"a restore is under way (process {pid}): wait until it has ended, then try again")


def runs(state: Path) -> bool:
    """Whether anything of the cloud runs."""
    return any(holder(state, name) is not None for name in ("supervisor", *PROCESSES))


def end(state: Path, name: str, grace: float = 10.0) -> None:
    """End the process of this name, if there is one; by force when it takes longer than `grace` seconds."""
    deadline = time.monotonic() + grace
    told = 0
    while (pid := holder(state, name)) is not None:
        late = time.monotonic() > deadline
        if pid and (late or pid != told):
            with suppress(ProcessLookupError):  # it ended by itself
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
            told = pid
        time.sleep(0.02)


def log_file(state: Path, process: str) -> Path:
    """Where a process of the cloud logs."""
    return state / "log" / f"{process}.log"


def supervisor(state: Path) -> int | None:
    """The pid of the supervisor that runs on a state directory, or None."""
    return holder(state, "supervisor")


def kept(state: Path) -> bool:
    """Whether somebody keeps the processes of the cloud running: its supervisor, or systemd."""
    return supervisor(state) is not None or (systemd.keeps(state) and runs(state))


class _Child:
    """One process, and when it may be started again."""

    def __init__(self, name: str, state: Path, grace: float) -> None:
        self.grace = grace
        self.name = name
        self.state = state
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0
        self.pause = 0.1
        self.due = 0.0

    def look(self) -> None:
        """Start the process when it is due and does not run."""
        now = time.monotonic()
        if self.process is not None and (status := self.process.poll()) is not None:
            self.process = None
            self.pause = 0.1 if now - self.started > STEADY else min(10.0, self.pause * 2)
            self.due = now + self.pause
            _say(f"{self.name} {ending(status)}; it is started again")
        if self.process is None and now >= self.due:
            try:
                self.start()
            except OSError as error:  # no room for a log, or no memory: there may be some later
                self.pause = min(10.0, self.pause * 2)
                self.due = now + self.pause
                _say(f"{self.name} cannot be started: {error}")

    def start(self) -> None:
        """Start the process with its log appended to. Raises OSError."""
        file = log_file(self.state, self.name)
        argv = [sys.executable, "-m", "pileus", self.name, "--state", str(self.state)]
        with file.open("ab") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.started = time.monotonic()

    def renew(self) -> None:
        """End the process; it is started again."""
        if self.process is not None:
            self.process.terminate()

    def stop(self) -> None:
        """End the process, by force when it takes longer than its grace."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(self.grace)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _say(text: str) -> None:
    with suppress(OSError):  # a full disk takes no line, and ends nobody
        print(time.strftime("%Y-%m-%dT%H:%M:%SZ ", time.gmtime()) + text, file=sys.stderr, flush=True)


def ending(status: int) -> str:
    """How a process ended, for people: its status, and the name of the signal that ended it."""
    try:
        return f"ended with status {status}" + (f" ({signal.Signals(-status).name})" if status < 0 else "")
    except ValueError:
        return f"ended with status {status} (signal {-status})"


def grace(config: Config) -> float:
    """Seconds that the control plane may take to end: what it leaves to its requests, and to itself."""
    return max(config.drain_seconds, config.drain_transfer_seconds) + 10


def put_aside(file: Path, limit: float, count: int) -> None:
    """Move what a log holds to `FILE.1`, that to `FILE.2` and so on, `count` of them, when it is larger than `limit`.

    Who writes to the file, appending, goes on writing to it.  What is written in the microseconds between the end of
    the copy and the emptying is lost.  Raises OSError, as of a disk that is full: then the file holds all that it held.
    """
    if not file.exists() or file.stat().st_size <= limit:
        return
    aside = [file.with_name(f"{file.name}.{number}") for number in range(1, count + 1)]
    partial = file.with_name(f"{file.name}.new")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with file.open("rb") as source, os.fdopen(descriptor, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
        target.flush()
        for older, newer in zip(reversed(aside), [*reversed(aside[:-1]), partial], strict=True):
            if newer.exists():
                newer.replace(older)
        while rest := source.read():  # what was written meanwhile
            target.write(rest)
            target.flush()
        os.truncate(file, 0)


def run(arguments: argparse.Namespace, roles: Roles) -> int:
    """Supervise until SIGTERM; SIGHUP starts the agent anew; exit status."""
    state: Path = arguments.state
    config = settings(state)
    (state / "log").mkdir(mode=0o755, parents=True, exist_ok=True)
    undisturbed(state)
    lock = hold(state, "supervisor")
    if lock is None:
        print(f"another supervisor runs on {state}", file=sys.stderr)
        return 1
    for name in PROCESSES:
        end(state, name)  # a supervisor that was killed has left them behind
    stopping: list[int] = []
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
    os.set_blocking(writer, False)
    os.set_blocking(reader, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, frame: stopping.append(received))
    signal.signal(signal.SIGCHLD, lambda received, frame: None)
    children = [_Child("control", state, grace(config)), _Child("agent", state, 10.0)]
    signal.signal(signal.SIGHUP, lambda received, frame: children[-1].renew())
    _watch(children, config, stopping, reader)
    notify.notify("STOPPING=1")
    # Requests that have begun may need the host: it goes last.
    for child in children:
        child.stop()
    os.truncate(lock, 0)
    return 0


def _watch(children: list[_Child], config: Config, stopping: list[int], reader: int) -> None:
    """Keep the processes running and their logs small, until told to stop."""
    pause = min(LOOK, notify.watchdog_seconds() or LOOK)
    notify.notify("READY=1", "STATUS=keeps control plane and agent running")
    while not stopping:
        for child in children:
            child.look()
        for name in ("supervisor", *PROCESSES):
            with suppress(OSError):  # tried again when there is room
                put_aside(log_file(config.state, name), config.log_mib * 2**20, config.log_files)
        notify.notify("WATCHDOG=1")
        due = [child.due for child in children if child.process is None]
        select.select([reader], [], [], min(pause, max(0.05, min(due) - time.monotonic())) if due else pause)
        if select.select([reader], [], [], 0)[0]:
            os.read(reader, 4096)
