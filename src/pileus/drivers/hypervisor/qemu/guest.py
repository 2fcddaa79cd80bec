"""One guest: its run directory, its process and its QMP connection."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pileus.contracts.hypervisor import GuestFailure, GuestObserved, Observed
from pileus.drivers.host.process import Child, Identity, spawn
from pileus.drivers.hypervisor.qemu.device import CARD
from pileus.drivers.hypervisor.qemu.directory import Applied, RunDirectory, without_secrets
from pileus.drivers.hypervisor.qemu.monitor import Loop, Monitor, MonitorFailure

_ANSWER = 5.0
"""Seconds that QEMU has to greet and to answer; it does both in milliseconds."""
_NEWS = ("SHUTDOWN", "STOP", "RESUME", "GUEST_PANICKED", "WATCHDOG", "DEVICE_DELETED", "EOF")
"""Events after which something else may be seen of a guest."""
_COMING_UP = 5.0
"""Seconds that a process has from its start to its pidfile; it takes a tenth."""
_PRESS_AGAIN = 5.0
"""Seconds between two presses of the power button: a guest that still boots does not see the first."""
_ASK_AGAIN = 0.2
"""Seconds until a guest that is being stopped is asked again, after it did not answer."""
_TERM = 5.0
"""Seconds that QEMU has to write its metadata back after SIGTERM."""

_UNKNOWN_DEVICE = "is not a valid device model name"
"""What QEMU says of a device that this build, or the packages that are installed, do not have."""

_STATES: dict[str, Observed] = {
    "running": "running",
    "paused": "paused",
    "prelaunch": "paused",
    "suspended": "paused",
    "inmigrate": "paused",
    "finish-migrate": "paused",
    "postmigrate": "paused",
    "save-vm": "paused",
    "shutdown": "shutdown",
}
"""QEMU's run states (qapi/run-state.json) as the contract names them; all others are failures."""


class Guest:
    """A guest of this host.  Its owner holds `lock` while it changes it."""

    def __init__(self, guest_id: str, path: Path, loop: Loop, changed: Callable[[str], None]) -> None:
        self.id = guest_id
        self.directory = RunDirectory(path)
        self.lock = threading.RLock()
        self.hurry = threading.Event()
        """Set while the guest is to go, or somebody waits for the lock who wants a graceful stop cut short."""
        self._loop = loop
        self._changed = changed
        self._inner = threading.RLock()
        """Guards which process and connection are the guest's; held for moments, so that observing never waits for
        a change to finish.  The event loop's thread never takes it."""
        self._pulse = threading.Event()
        self._child: Child | None = None
        self._monitor = Monitor(loop, self._heard)
        self._serial: socket.socket | None = None
        self._ended = ""
        self._young = False
        """Whether the process was started by a change that has not ended, to which its end is told anyway."""
        self._status: int | None = None
        """The exit status of the process that ended last, as far as it is known."""

    def alive(self) -> bool:
        """Whether its process runs, whoever started it; takes hold of one that was not known yet."""
        with self._inner:
            if self._child is None:
                self._adopt()
            elif not self._child.alive():
                self._bury()
            return self._child is not None

    def gone(self, timeout: float) -> bool:
        """Whether its process has ended, or does so within `timeout` seconds."""
        with self._inner:
            child = self._child
        if child is not None:
            child.wait(timeout)
        return not self.alive()

    def refusal(self, timeout: float) -> str:
        """What QEMU said when it gave up by itself, within `timeout` seconds.

        Empty when it runs, or when it was ended: by a signal that killed it, or by SIGTERM, at which it ends with 0.
        """
        return self.directory.complaint() if self.gone(timeout) and (self._status or 0) > 0 else ""

    def observe(self) -> GuestObserved:
        """What is seen of it now."""
        if not self.directory.exists():
            return GuestObserved(id=self.id, state="absent")
        kept = self.directory.applied() or Applied(reboot_nonce=0)
        planned = () if kept.plan is None else tuple(nic.port_id for nic in kept.plan.spec.nics)
        seen = GuestObserved(
            id=self.id,
            state="stopped",
            reboot_nonce=kept.reboot_nonce,
            acts=kept.acts,
            faults=kept.faults,
            nics=planned,
        )
        if self.directory.suspended():
            return msgspec.structs.replace(seen, state="suspended", nics=tuple(kept.ports))
        if not self.alive():
            return msgspec.structs.replace(seen, detail=self._ended)
        try:
            status, plugged = self.status(), self.cards()
        except MonitorFailure as error:
            if not self.alive():
                return msgspec.structs.replace(seen, detail=self._ended)
            return msgspec.structs.replace(seen, state="failed", detail=str(error), started_at=self._started())
        state = _STATES.get(status, "failed")
        nics = (*(port for port in planned if port in plugged), *sorted(plugged - set(planned)))
        detail = f"QEMU stopped the guest: {status}" if state == "failed" else ""
        return msgspec.structs.replace(seen, state=state, detail=detail, nics=nics, started_at=self._started())

    def status(self) -> str:
        """QEMU's run state. Raises MonitorFailure when it cannot be asked."""
        return str(self.execute("query-status")["status"])

    def cards(self) -> set[str]:
        """Ports whose cards the process has. Raises MonitorFailure."""
        found = self.execute("qom-list", {"path": "/machine/peripheral"})
        names = (str(one["name"]) for one in found)
        return {name.removeprefix(CARD) for name in names if name.startswith(CARD)}

    def execute(self, command: str, arguments: Mapping[str, object] | None = None, timeout: float = _ANSWER) -> Any:
        """Run a QMP command, give what it returns. Raises MonitorFailure."""
        self._reach()
        return self._monitor.execute(command, arguments, timeout)

    def hand(self, fd: int, name: str) -> None:
        """Give QEMU a copy of a descriptor under a name. Raises MonitorFailure."""
        self._reach()
        self._monitor.hand(fd, name)

    def hand_set(self, fd: int) -> int:
        """Give QEMU a copy of a descriptor as the file /dev/fdset/N, and say N. Raises MonitorFailure."""
        self._reach()
        return self._monitor.hand_set(fd)

    def open_serial(self) -> socket.socket:
        """A connection to the serial port, instead of the one before. Raises OSError."""
        with self._inner:
            self._hang_up()
            line = self.directory.connect("serial.sock")
            self._serial = line.dup()
            return line

    def open_screen(self) -> socket.socket:
        """A new connection to the screen, which QEMU is handed one end of. Raises MonitorFailure."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self.hand(theirs.fileno(), "screen")
                self.execute("add_client", {"protocol": "vnc", "fdname": "screen", "skipauth": True})
            except BaseException:
                ours.close()
                raise
        return ours

    def accompany(self, child: Child) -> None:
        """A process that ends when the guest's does: notice it, so that nothing of it stays."""

        def ended() -> None:
            child.wait(0)

        self._loop.watch(child.fd, ended)

    def rest(self, seconds: float) -> None:
        """Wait until QEMU tells something, or somebody is in a hurry, `seconds` at most."""
        self._pulse.wait(seconds)
        self._pulse.clear()

    def start(self, argv: Sequence[str], descriptors: Sequence[int], identity: Identity | None) -> int:
        """Start the process, halted, and give its pid. Raises GuestFailure when it cannot be executed."""
        errors = self.directory.open_errors()
        try:
            child = spawn(
                argv, identity=identity, cwd=self.directory.path, pass_fds=descriptors, stdout=errors, stderr=errors
            )
        except OSError as error:
            raise GuestFailure(f"{argv[0]} cannot be started: {error.strerror}") from error
        finally:
            os.close(errors)
        self._young = True
        self._hold(child)
        return child.pid

    def grown(self) -> None:
        """What started the process is over: from here on its end is news."""
        if self.alive():
            self._young = False

    def greet(self, timeout: float) -> None:
        """Wait for a process that was just started. Raises GuestFailure; nothing of the process is left then."""
        try:
            with self._inner:
                self._monitor.connect(self.directory.connect("qmp.sock"), timeout)
        except (MonitorFailure, OSError) as error:
            child = self._child
            ended = child is None or child.wait(1)
            self.end(0)
            said = self.directory.complaint()
            why = f"QEMU did not start: {said or error}" if ended else f"QEMU hangs: {error}"
            raise GuestFailure(why, permanent=_UNKNOWN_DEVICE in said) from error

    def power_off(self, grace: float) -> None:
        """Press the power button until the guest is off, `grace` seconds at most, then end the process.

        One that is slow to answer is likely to be writing its data back; it gets its time like any other.
        """
        deadline = time.monotonic() + grace
        pressed = -math.inf
        while (left := deadline - time.monotonic()) > 0 and not self.hurry.is_set():
            self._pulse.clear()
            if not self.alive():
                break
            try:
                status = self.status()
                if status in ("paused", "suspended") and pressed == -math.inf:
                    self.execute("cont")
                elif status != "running":
                    break
                if time.monotonic() - pressed >= _PRESS_AGAIN:
                    self.execute("system_powerdown")
                    pressed = time.monotonic()
                self._pulse.wait(min(left, _PRESS_AGAIN))
            except MonitorFailure:
                self._pulse.wait(min(left, _ASK_AGAIN))
        self.end(_TERM)

    def end(self, grace: float = _TERM) -> None:
        """End the process: SIGTERM, and SIGKILL after `grace` seconds.

        Raises GuestFailure when not even that ends it.
        """
        self.alive()
        child = self._child
        if child is not None and not child.end(grace):
            raise GuestFailure(f"process {child.pid} does not die")
        with self._inner:
            self._bury()
            self._ended = ""

    def haste(self, on: bool) -> None:
        """Cut short what another thread does, or let it take its time again."""
        if on:
            self.hurry.set()
            self._pulse.set()
        else:
            self.hurry.clear()

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """Hold the lock, and cut a graceful stop short that another thread holds it for."""
        self.haste(True)
        with self.lock:
            try:
                yield
            finally:
                self.haste(False)

    def note(self, **changes: Any) -> Applied:
        """Record what is applied from now on, when that is not what was; fields as those of `Applied`."""
        before = self.directory.applied()
        after = msgspec.structs.replace(before or Applied(reboot_nonce=0), **changes)
        if after.plan is not None:
            after = msgspec.structs.replace(after, plan=without_secrets(after.plan))
        if after != before:
            self.directory.write(after)
        return after

    def _hang_up(self) -> None:
        """QEMU serves one client of the serial port; that one is told to go."""
        if self._serial is not None:
            with contextlib.suppress(OSError):
                self._serial.shutdown(socket.SHUT_RDWR)
            self._serial.close()
            self._serial = None

    def release(self) -> None:
        """Let go of the process without touching it."""
        with self._inner:
            self._hang_up()
            self._monitor.close()
            if self._child is not None:
                self._loop.unwatch(self._child.fd)
                self._child = None

    def _adopt(self) -> None:
        """Take hold of the process that an earlier driver started, if it lives."""
        pid = self.directory.holder()
        deadline = time.monotonic() + _COMING_UP
        while pid is None and self.directory.claimed() and time.monotonic() < deadline:
            # An agent was killed as it started this one.
            time.sleep(0.02)
            pid = self.directory.holder()
        child = Child.adopt(pid) if pid is not None else None
        if child is None:
            return
        # Between asking for the pid and holding it the process may have ended and its number been given away.
        if self.directory.holder() != pid:
            return
        self._young = False
        self._hold(child)

    def _hold(self, child: Child) -> None:
        def died() -> None:
            child.wait(0)
            self._heard("EOF")

        with self._inner:
            self._child = child
            self._ended = ""
            self._status = None
            self._loop.watch(child.fd, died)

    def _bury(self) -> None:
        """The process has ended: let go of what was its own."""
        child = self._child
        if child is None:
            return
        self._status = child.status
        how = "" if child.status is None else f" with status {child.status}"
        said = self.directory.complaint()
        self._ended = f"QEMU ended{how}" + (f": {said}" if said else "")
        self.release()

    def _reach(self) -> None:
        """Connect QMP when it is not. Raises MonitorFailure."""
        with self._inner:
            if self._monitor.connected:
                return
            # A connection that was lost ends some milliseconds before its process does.
            if self._child is None or self._child.wait(0.2 if self._monitor.lost else 0):
                raise MonitorFailure("the process has ended")
            try:
                self._monitor.connect(self.directory.connect("qmp.sock"), _ANSWER)
            except OSError as error:
                raise MonitorFailure(f"QMP cannot be reached: {error.strerror}") from error

    def _heard(self, event: str) -> None:
        self._pulse.set()
        if event in _NEWS and not (event == "EOF" and self._young):
            self._changed(self.id)

    def _started(self) -> float | None:
        """QEMU writes its pidfile once, when it starts."""
        try:
            return self.directory.pidfile.stat().st_mtime
        except OSError:
            return None
