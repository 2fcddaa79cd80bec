"""A guest's run directory: what outlives the agent.

    applied.json   the plan that the process was started with, without its documents, and the last reboot applied
    pid            QEMU's own pidfile, which it locks while it lives
    qmp.sock       QMP; takes one client
    serial.sock    the serial console; takes one client
    console.log    what the guest wrote to it
    stderr.log     what QEMU complained of at its last start
    vnc/vnc.sock   the screen

The directory belongs to the agent and the guest's group may only pass through it (0710): QEMU is handed its sockets
and logs as open descriptors, so that a guest that breaks out of QEMU cannot put a link in place of a file that the
agent will open.  It may write in `vnc` alone.  The directory's group is the guest's user and group id: it is the
record of which id the guest has.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pileus.contracts.hypervisor import GuestPlan
from pileus.drivers.host.process import lock_holder


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What the driver keeps of a guest."""

    plan: GuestPlan
    reboot_nonce: int


class _Nonce(msgspec.Struct):
    """The part of it that is read again, whatever form plans have had meanwhile."""

    reboot_nonce: int


class RunDirectory:
    """The files of one guest."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pidfile = path / "pid"
        self.console = path / "console.log"
        self.errors = path / "stderr.log"
        self._applied = path / "applied.json"

    def exists(self) -> bool:
        """Whether the guest is known here."""
        return self.path.is_dir()

    def create(self) -> None:
        """Make the directory, for the agent alone as yet."""
        self.path.mkdir(mode=0o700, exist_ok=True)

    def owner(self) -> int | None:
        """The guest's user and group id, None while it has none."""
        try:
            found = self.path.stat().st_gid
        except FileNotFoundError:
            return None
        return found if found not in (0, os.getegid()) else None

    def give(self, uid: int) -> None:
        """Let the guest's id pass through the directory."""
        os.chown(self.path, -1, uid)
        self.path.chmod(0o710)

    def delete(self) -> None:
        """Delete everything. Absent is fine."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.path)

    def reboot_nonce(self) -> int | None:
        """The last reboot that was applied; None when nothing was applied yet, or when what was cannot be read."""
        try:
            return msgspec.json.decode(self._applied.read_bytes(), type=_Nonce).reboot_nonce
        except (OSError, msgspec.DecodeError):
            return None

    def write(self, applied: Applied) -> None:
        """Keep it durably and whole; the documents, which are secret and not needed again, are left out.

        Raises OSError, and then what was kept before is still there.
        """
        spec = msgspec.structs.replace(applied.plan.spec, documents={})
        plan = msgspec.structs.replace(applied.plan, spec=spec)
        content = msgspec.json.encode(msgspec.structs.replace(applied, plan=plan), enc_hook=_to_text)
        new = self._applied.with_suffix(".new")
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(content)  # all of it or an error: on a disk that gets full write(2) takes a part
            file.flush()
            os.fsync(fd)
        new.replace(self._applied)
        folder = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def holder(self) -> int | None:
        """The pid of the guest's live process."""
        return lock_holder(self.pidfile)

    def prepare(self, uid: int | None) -> None:
        """Make what QEMU writes itself: the pidfile and the directory of the screen's socket."""
        screen = self.path / "vnc"
        screen.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            (screen / "vnc.sock").unlink()
        os.close(os.open(self.pidfile, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        if uid is not None:
            for path in (screen, self.pidfile):
                os.chown(path, uid, uid)

    def open_console(self) -> int:
        """The console's log, for appending.  QEMU wants write access and nothing else."""
        return os.open(self.console, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def open_errors(self) -> int:
        """An empty file for QEMU's standard error."""
        return os.open(
            self.errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )

    def complaint(self) -> str:
        """The last line that QEMU wrote to its standard error."""
        try:
            lines = self.errors.read_bytes()[-2000:].decode(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1].strip() if lines else ""

    def listen(self, name: str) -> socket.socket:
        """A new listening socket in the directory."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / name).unlink()
        found = socket.socket(socket.AF_UNIX)
        with self._short(name) as address:
            found.bind(address)
        found.listen(1)
        return found

    def connect(self, name: str) -> socket.socket:
        """A connection to a socket in the directory. Raises OSError when nobody listens."""
        found = socket.socket(socket.AF_UNIX)
        found.settimeout(1)
        try:
            with self._short(name) as address:
                found.connect(address)
        except OSError:
            found.close()
            raise
        found.settimeout(None)
        return found

    @contextlib.contextmanager
    def _short(self, name: str) -> Iterator[str]:
        """An address that fits the 107 bytes of sun_path (unix(7)), however deep the directory is."""
        folder = os.open(self.path, os.O_PATH | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{folder}/{name}"
        finally:
            os.close(folder)


def _to_text(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(type(value))
