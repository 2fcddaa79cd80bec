"""A guest's run directory: what outlives the agent.

    applied.json   the plan that the process was started with, without its secrets, and what was done to it since
    process        empty; locked by the guest's process from its first moment on
    pid            QEMU's own pidfile, which it locks once it has come up
    qmp.sock       QMP; takes one client
    serial.sock    the serial console; takes one client
    console.log    what the guest wrote to it
    stderr.log     what QEMU complained of at its last start
    agent.sock     the channel to the guest's agent, if it has one; takes one client
    frozen         empty; there while the guest's file systems may be held
    memory         the memory of a suspended guest: where it is, the guest is what it says, and no process is
    nvram-*.fd     the variables of UEFI firmware, kept over restarts
    tpm            the state of the TPM, kept over restarts

The directory belongs to the agent and the guest's group may only pass through it (0710): QEMU is handed its sockets,
logs and memory as open descriptors, so that a guest that breaks out of QEMU cannot put a link in place of a file that
the agent will open.  It may write in `tpm` alone, where the agent opens nothing.  The directory's group is the guest's
user and group id: it is the record of which id the guest has.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pileus.contracts.hypervisor import GuestPlan
from pileus.drivers.host.process import lock_holder
from pileus.drivers.hypervisor.qemu.machine import Firmware


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What the driver keeps of a guest."""

    plan: GuestPlan | None = None
    """What its process was started with, and the cards that it has now; None when that cannot be read any more."""
    reboot_nonce: int
    acts: dict[str, int] = {}
    faults: dict[str, str] = {}
    cards: dict[str, int] = {}
    """Port id to the slot that its card is in."""
    slots: int = 0
    """How many slots for devices the process was started with."""
    shaped: list[str] = []
    """Ports whose cards have limits in force."""
    board: str = ""
    """The machine that a suspended guest ran on, with QEMU's version: its memory fits no other."""
    ports: list[str] = []
    """Ports of the cards that a suspended guest is to have when it wakes up."""
    pins: list[int] = []
    """The host's processors that the guest's own are pinned to, in their order."""


class _Unplanned(msgspec.Struct, kw_only=True):
    """The part of it that is read again, whatever form plans have had meanwhile."""

    reboot_nonce: int
    acts: dict[str, int] = {}
    faults: dict[str, str] = {}


class RunDirectory:
    """The files of one guest."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pidfile = path / "pid"
        self.console = path / "console.log"
        self.errors = path / "stderr.log"
        self.memory = path / "memory"
        self._applied = path / "applied.json"
        self._frozen = path / "frozen"
        self._process = path / "process"

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

    def applied(self) -> Applied | None:
        """What was applied; None when nothing was yet, or when it cannot be read."""
        try:
            content = self._applied.read_bytes()
            try:
                return msgspec.json.decode(content, type=Applied, dec_hook=_from_text)
            except msgspec.ValidationError:
                kept = msgspec.json.decode(content, type=_Unplanned)
                return Applied(reboot_nonce=kept.reboot_nonce, acts=kept.acts, faults=kept.faults)
        except (OSError, msgspec.DecodeError):
            return None

    def write(self, applied: Applied) -> None:
        """Keep it durably and whole; documents and passwords, which are secret and not needed again, are left out.

        Raises OSError, and then what was kept before is still there.
        """
        if applied.plan is not None:
            applied = msgspec.structs.replace(applied, plan=without_secrets(applied.plan))
        content = msgspec.json.encode(applied, enc_hook=_to_text)
        new = self._applied.with_suffix(".new")
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(content)  # all of it or an error: on a disk that gets full write(2) takes a part
            file.flush()
            os.fsync(fd)
        new.replace(self._applied)
        self.sync()

    def sync(self) -> None:
        """Make names that came and went durable."""
        folder = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def suspended(self) -> bool:
        """Whether the guest is in its memory's file."""
        return self.memory.exists()

    def drop_memory(self) -> None:
        """The guest is not in its memory's file any more, whatever happens next. Absent is fine."""
        if self.suspended():
            self.memory.unlink()
            self.sync()

    def frozen(self) -> bool:
        """Whether the guest's file systems may be held by somebody who did not let them go."""
        return self._frozen.exists()

    def note_frozen(self, frozen: bool) -> None:
        """They may be held from now on, or are let go of."""
        if frozen:
            self._frozen.touch(mode=0o600)
        else:
            self._frozen.unlink(missing_ok=True)

    def drop_torn(self) -> None:
        """What an agent that was killed had written of the memory counts as nothing."""
        self.memory.with_suffix(".new").unlink(missing_ok=True)

    def furnish(self, name: str, firmware: Firmware | None, uid: int | None) -> None:
        """Give the guest the variables of its firmware, where it has none yet: a copy of those that it comes with."""
        target = self.path / name
        if firmware is None or target.exists():
            return
        new = target.with_suffix(".new")
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(firmware.variables.read_bytes())
            file.flush()
            os.fsync(fd)
            if uid is not None:
                os.fchown(fd, uid, uid)
        new.replace(target)

    def holder(self) -> int | None:
        """The pid of the guest's live process."""
        return lock_holder(self.pidfile)

    def claim(self) -> int:
        """A descriptor with which a process holds the guest for as long as it lives, whoever else has a copy.

        Raises BlockingIOError while another process does.
        """
        fd = os.open(self._process, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise
        return fd

    def claimed(self) -> bool:
        """Whether a process holds the guest, be it that it has hardly started."""
        if not self._process.exists():
            return False
        try:
            os.close(self.claim())
        except BlockingIOError:
            return True
        return False

    def prepare(self, uid: int | None) -> None:
        """Make what QEMU writes itself: the pidfile."""
        os.close(os.open(self.pidfile, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        if uid is not None:
            os.chown(self.pidfile, uid, uid)

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
            with self.errors.open("rb") as file:
                # A guest can have QEMU say a lot: what was given back to the host's disk is a hole of any length.
                file.seek(max(0, os.fstat(file.fileno()).st_size - 2000))
                lines = file.read(2000).replace(b"\0", b"").decode(errors="replace").strip().splitlines()
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


def free_bytes(folder: Path) -> int:
    """Room on the file system of a directory."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def without_secrets(plan: GuestPlan) -> GuestPlan:
    """A plan as it is kept."""
    return msgspec.structs.replace(plan, spec=msgspec.structs.replace(plan.spec, documents={}, password=None))


def _to_text(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(type(value))


def _from_text(form: type, value: object) -> object:
    if form is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(form)
