"""The hypervisor driver for QEMU on Linux: `pileus.contracts.hypervisor.Hypervisor`."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import platform
import queue
import shutil
import stat
import threading
import uuid
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pileus.contracts.hypervisor import GuestFailure, GuestObserved, GuestPlan, HypervisorFacts
from pileus.drivers.host.cgroup import Cgroups
from pileus.drivers.host.process import Identity
from pileus.drivers.host.tap import open_tap
from pileus.drivers.hypervisor.qemu import accelerator, console
from pileus.drivers.hypervisor.qemu.command import Descriptors, arguments
from pileus.drivers.hypervisor.qemu.guest import Guest
from pileus.drivers.hypervisor.qemu.monitor import Loop, MonitorFailure

LOG = logging.getLogger(__name__)

FIRST_UID = 1_900_000_000
"""Above every range that useradd(8), systemd and container engines hand out."""
UID_COUNT = 65_536

_LOG_CHECK = 10.0
"""Seconds between two looks at the length of the logs."""
_OVERHEAD_MIB = 512
"""Memory of a guest's process beyond the guest's own: code buffer, screen, caches; some 80 MiB are usual."""
_THREADS = 160
"""Threads of a process beyond one for each processor: QEMU's pool for disk I/O has at most 64 for each loop."""


class QemuHypervisor:
    """Guests as QEMU processes that outlive the agent.

    `state` is a directory of this driver's own; one driver at a time may have it, and the next one adopts the guests.
    It and the directories above it must let others pass (mode 0711), since each guest runs under an id of its own:
    one of `uid_count` from `first_uid` on, used as user and group, if the agent is root; else under the agent's.
    `grace` is how many seconds a guest has to power off when it is asked to, `start_timeout` how many QEMU has to
    come up.  `accelerator` is `kvm` or `tcg`; empty means to find out by trying.  `spare_ports` is the number of
    slots for devices that are plugged in later.

    A guest's processor, memory, disks and ports are those of the plan with which its process was started; another
    plan takes effect at its next start.
    """

    def __init__(
        self,
        *,
        state: Path,
        binary: str = "qemu-system-x86_64",
        accelerator: str = "",
        first_uid: int = FIRST_UID,
        uid_count: int = UID_COUNT,
        grace: float = 60.0,
        start_timeout: float = 60.0,
        spare_ports: int = 8,
    ) -> None:
        self._state = state
        self._binary = binary
        self._wanted_accelerator = accelerator
        self._uids = range(first_uid, first_uid + uid_count) if os.geteuid() == 0 else None
        self._grace = grace
        self._start_timeout = start_timeout
        self._spare_ports = spare_ports
        self._folder = state / "guests"
        for folder in (state, self._folder):
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
            folder.chmod(0o711)
        self._claim = _claim(state / "lock")
        self._lock = threading.Lock()
        self._guests: dict[str, Guest] = {}
        self._watchers: list[Callable[[str], None]] = []
        self._news: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.cgroups = Cgroups(f"pileus-{hashlib.sha256(str(state.resolve()).encode()).hexdigest()[:12]}")
        self._loop = Loop()
        self._herald = threading.Thread(target=self._tell, name="qemu-watch", daemon=True)
        self._herald.start()
        self._adopt()
        self._loop.every(_LOG_CHECK, self._bound_logs)

    def facts(self) -> HypervisorFacts:
        """Measure the host; what was found by trying is remembered until the next boot."""
        found = accelerator.remembered(self._state / "accelerator.json", self._binary, 2.0)
        name = self._wanted_accelerator or found.name
        return HypervisorFacts(
            type="KVM" if name == "kvm" else "QEMU",
            version=found.version,
            accelerator=name,
            vcpus=len(os.sched_getaffinity(0)),
            memory_mib=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
            disk_gib=shutil.disk_usage(self._state).total >> 30,
            architecture=platform.machine(),
            cpu_model=_cpu_model(),
        )

    def ensure(self, plan: GuestPlan) -> GuestObserved:
        """Make the guest what the plan says; see the contract.

        Blocks for up to `grace` seconds while a guest powers off; `remove` cuts that short.  A failure leaves no
        process, but the run directory, so that the guest is still known.
        """
        with self._holding(plan.spec.id) as guest:
            guest.directory.create()
            try:
                self._converge(guest, plan)
            except MonitorFailure as error:
                raise GuestFailure(f"QEMU does not obey: {error}") from error
            except OSError as error:
                raise GuestFailure(f"the guest cannot be brought about: {error}") from error
            return guest.observe()

    def observe(self, guest_id: str) -> GuestObserved:
        """Say what is seen of one guest. Does not wait for an `ensure` that is under way."""
        guest = self._known(guest_id)
        return GuestObserved(id=guest_id, state="absent") if guest is None else guest.observe()

    def guests(self) -> list[str]:
        """Ids of all guests with a run directory, or with a process in a control group of this driver's."""
        found = {entry.name for entry in self._folder.iterdir()} | set(self.cgroups.names())
        return sorted(name for name in found if _is_uuid(name))

    def remove(self, guest_id: str) -> None:
        """End the process at once, and delete its control group and run directory; the id is free again."""
        if guest_id not in self.guests():
            return
        guest = self._guest(guest_id)
        with guest.interrupting():
            guest.end()
            try:
                self.cgroups.remove(guest_id)
            except TimeoutError as error:
                raise GuestFailure(str(error)) from error
            guest.directory.delete()
            guest.release()
            with self._lock:
                self._guests.pop(guest_id, None)

    def console_log(self, guest_id: str, lines: int | None) -> str:
        """The end of the serial console's log, which is kept while the guest is known."""
        guest = self._known(guest_id)
        return "" if guest is None else console.read_console(guest.directory.console, lines)

    def watch(self, changed: Callable[[str], None]) -> None:
        """Call `changed` from a thread of the driver's, some milliseconds after a guest changed."""
        self._watchers.append(changed)

    def close(self) -> None:
        """Let go of all guests without touching them."""
        with self._lock:
            guests, self._guests = list(self._guests.values()), {}
        for guest in guests:
            guest.release()
        self._loop.close()
        self._news.put(None)
        self._herald.join()
        os.close(self._claim)

    def _guest(self, guest_id: str) -> Guest:
        if not _is_uuid(guest_id):
            raise GuestFailure(f"not the id of a server: {guest_id!r}", permanent=True)
        with self._lock:
            if guest_id not in self._guests:
                self._guests[guest_id] = Guest(guest_id, self._folder / guest_id, self._loop, self._news.put)
            return self._guests[guest_id]

    def _known(self, guest_id: str) -> Guest | None:
        """The guest if it has a run directory."""
        return self._guest(guest_id) if _is_uuid(guest_id) and (self._folder / guest_id).is_dir() else None

    @contextmanager
    def _holding(self, guest_id: str) -> Iterator[Guest]:
        """Hold a guest's lock. One that was removed while we waited is begun afresh."""
        while True:
            guest = self._guest(guest_id)
            with guest.lock:
                if self._guests.get(guest_id) is guest:
                    yield guest
                    return

    def _adopt(self) -> None:
        """Take hold of every process that an earlier driver left, and listen to it.

        One whose QMP does not answer is held all the same: its death will be noticed, and it can be ended.
        """
        found = [self._guest(name) for name in self.guests()]
        if found:
            with ThreadPoolExecutor(max_workers=16) as pool:
                list(pool.map(Guest.observe, found))

    def _converge(self, guest: Guest, plan: GuestPlan) -> None:
        spec = plan.spec
        applied = guest.directory.reboot_nonce()
        nonce = max(applied or 0, spec.reboot_nonce)
        pending = applied is not None and nonce > applied
        live = guest.alive()
        if spec.power == "stopped":
            if live:
                guest.power_off(self._grace)
            if applied is None or pending:
                guest.write(plan, nonce)
            return
        if live and applied is None:
            # Of the two ways to be wrong, a reboot that has to be asked for again is the better one.
            LOG.warning("guest %s: what was applied to it cannot be read; it is taken as it runs", spec.id)
            guest.write(plan, nonce)
        if live and pending:
            if spec.reboot_kind == "SOFT":
                guest.power_off(self._grace)
            else:
                guest.end()
            live = False
        if not live:
            # The nonce is recorded while no process runs.  A crash before this line finds none, and starting one is
            # the rest of the reboot; a crash after it finds the reboot applied.  It never happens twice.
            guest.write(plan, nonce)
            self._start(guest, plan)
        status = guest.status()
        if spec.power == "running" and status in ("paused", "prelaunch", "suspended", "io-error"):
            guest.execute("cont")
        elif spec.power == "paused" and status == "running":
            guest.execute("stop")

    def _start(self, guest: Guest, plan: GuestPlan) -> None:
        """Start the guest's process, its processors still halted."""
        spec, directory = plan.spec, guest.directory
        name = self._wanted_accelerator or self.facts().accelerator
        uid = self._identify(guest)
        identity = None
        if uid is not None:
            identity = Identity(uid, uid, accelerator.kvm_groups() if name == "kvm" else ())
        self._hand_over(plan, uid)
        self.cgroups.remove(spec.id)
        self.cgroups.create(spec.id, memory_mib=spec.memory_mib + _OVERHEAD_MIB, pids=spec.vcpus + _THREADS)
        directory.prepare(uid)
        console.restart(directory.console)
        with ExitStack() as held:
            taps = {}
            for nic in spec.nics:
                taps[nic.port_id] = tap = _open_tap(plan, nic.port_id)
                held.callback(os.close, tap)
            log = directory.open_console()
            held.callback(os.close, log)
            qmp = held.enter_context(directory.listen("qmp.sock"))
            serial = held.enter_context(directory.listen("serial.sock"))
            descriptors = Descriptors(qmp=qmp.fileno(), serial=serial.fileno(), console=log, taps=taps)
            argv = arguments(self._binary, plan, descriptors, accelerator=name, spare_ports=self._spare_ports)
            pid = guest.start(argv, descriptors.all(), identity)
        self.cgroups.add(spec.id, pid)
        guest.greet(self._start_timeout)

    def _identify(self, guest: Guest) -> int | None:
        """The guest's own id.  It is looked for from a place that its UUID gives, so that the id of a guest that was
        removed is not soon another's, and files of the one are not the other's."""
        if self._uids is None:
            return None
        with self._lock:
            owned = guest.directory.owner()
            if owned in self._uids:
                return owned
            taken = {entry.stat().st_gid for entry in self._folder.iterdir()}
            first = zlib.crc32(guest.id.encode())
            for step in range(len(self._uids)):
                uid = self._uids[(first + step) % len(self._uids)]
                if uid not in taken:
                    guest.directory.give(uid)
                    return uid
        raise GuestFailure("all ids for guests on this host are in use")

    def _hand_over(self, plan: GuestPlan, uid: int | None) -> None:
        """Let the guest's id read and write its disks, and nobody else.

        Raises GuestFailure when a disk is missing or the guest cannot pass through a directory above it.
        """
        drives = [] if plan.config_drive is None else [plan.config_drive]
        for disk in plan.spec.disks:
            if disk.id not in plan.disks:
                raise GuestFailure(f"the plan has no file for disk {disk.id}")
            drives.append(plan.disks[disk.id])
        for path in drives:
            try:
                if not stat.S_ISREG(path.lstat().st_mode):
                    raise GuestFailure(f"{path} is not a file")
                if uid is not None:
                    _passable(path, uid)
                    os.chown(path, uid, uid, follow_symlinks=False)
                    path.chmod(0o600)
            except FileNotFoundError:
                raise GuestFailure(f"{path} is missing") from None
        if uid is not None:
            _passable(self._folder, uid)

    def _tell(self) -> None:
        """Pass news on outside the event loop's thread, so that a watcher may call the driver."""
        while (guest_id := self._news.get()) is not None:
            for changed in self._watchers:
                try:
                    changed(guest_id)
                except Exception:
                    LOG.exception("a watcher of guest %s failed", guest_id)

    def _bound_logs(self) -> None:
        for guest in list(self._guests.values()):
            console.bound(guest.directory.console)
            console.bound(guest.directory.errors)


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _claim(path: Path) -> int:
    """Hold the state directory for this driver alone, until it is closed or dies."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise GuestFailure(f"another agent drives the guests in {path.parent}") from None
    return fd


def _open_tap(plan: GuestPlan, port_id: str) -> int:
    attachment = plan.nics.get(port_id)
    if attachment is None:
        raise GuestFailure(f"port {port_id} is not plugged in on this host")
    try:
        return open_tap(attachment.device, attachment.namespace)
    except OSError as error:
        raise GuestFailure(f"tap {attachment.device} of port {port_id} cannot be opened: {error.strerror}") from error


def _passable(path: Path, uid: int) -> None:
    """Whether an id without further groups may pass through every directory above; GuestFailure names the first."""
    for folder in path.resolve().parents:
        found = folder.stat()
        bit = stat.S_IXUSR if found.st_uid == uid else stat.S_IXGRP if found.st_gid == uid else stat.S_IXOTH
        if not found.st_mode & bit:
            raise GuestFailure(f"guests cannot pass through {folder}: chmod o+x {folder}")


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return ""
