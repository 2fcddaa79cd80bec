"""The hypervisor driver for QEMU on Linux: `pileus.contracts.hypervisor.Hypervisor`."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import platform
import queue
import shutil
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from pileus.contracts.hypervisor import (
    ConsoleKind,
    Diagnostics,
    GuestBusy,
    GuestFailure,
    GuestObserved,
    GuestPlan,
    HypervisorFacts,
    SnapshotSpec,
)
from pileus.core.seams import reach
from pileus.drivers.host.cgroup import Cgroups
from pileus.drivers.hypervisor.qemu import accelerator, act, backup, card, console, limit, machine, memory
from pileus.drivers.hypervisor.qemu.agent_channel import AgentFailure, thaw
from pileus.drivers.hypervisor.qemu.device import board_type, disk_slots, most_slots
from pileus.drivers.hypervisor.qemu.guest import Guest
from pileus.drivers.hypervisor.qemu.launch import Launch
from pileus.drivers.hypervisor.qemu.measure import diagnose
from pileus.drivers.hypervisor.qemu.monitor import Loop, MonitorFailure

LOG = logging.getLogger(__name__)

FIRST_UID = 1_900_000_000
"""Above every range that useradd(8), systemd and container engines hand out."""
UID_COUNT = 65_536

_LOG_CHECK = 10.0
"""Seconds between two looks at the length of the logs."""
_PATIENCE = 1.0
"""Seconds that a change of a guest waits for another one to end."""
_HALTED = ("paused", "prelaunch", "suspended", "io-error", "postmigrate", "finish-migrate")
"""QEMU's run states (qapi/run-state.json) from which the processors can be let go on."""


class QemuHypervisor:
    """Guests as QEMU processes that outlive the agent.

    `state` is a directory of this driver's own; one driver at a time may have it, and the next one adopts the guests.
    It and the directories above it must let others pass (mode 0711), since each guest runs under an id of its own:
    one of `uid_count` from `first_uid` on, used as user and group, if the agent is root; else under the agent's.
    `grace` is how many seconds a guest has to power off when it is asked to, `start_timeout` how many QEMU has to
    come up.  `accelerator` is `kvm` or `tcg`; empty means to find out by trying.  `spare_ports` is the number of
    slots for devices that are plugged in later.

    A guest's machine, processors, memory and disks are those of the plan with which its process was started; another
    plan takes effect at its next start, but for its cards.
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
        self._launch = Launch(
            binary=binary,
            folder=self._folder,
            uids=self._uids,
            cgroups=self.cgroups,
            accelerator=lambda: self._wanted_accelerator or self.facts().accelerator,
            timeout=start_timeout,
        )
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
            firmwares=machine.firmwares(),
            tpm=machine.tpms(),
            page_kib=machine.page_sizes(),
        )

    def ensure(self, plan: GuestPlan) -> GuestObserved:
        """Make the guest what the plan says; see the contract.

        Blocks for up to `grace` seconds while a guest powers off; `remove` cuts that short.  A failure leaves no
        process, but the run directory, so that the guest is still known.  Raises GuestBusy after a second while
        something else goes on, as the copy of a resting disk does.
        """
        with self._holding(plan.spec.id) as guest:
            guest.directory.create()
            try:
                self._converge(guest, plan)
            except MonitorFailure as error:
                raise GuestFailure(f"QEMU does not obey: {error}") from error
            except OSError as error:
                raise GuestFailure(f"the guest cannot be brought about: {error}") from error
            finally:
                guest.grown()
            return guest.observe()

    def observe(self, guest_id: str) -> GuestObserved:
        """Say what is seen of one guest. Does not wait for an `ensure` that is under way."""
        guest = self._known(guest_id)
        return GuestObserved(id=guest_id, state="absent") if guest is None else guest.observe()

    def guests(self) -> list[str]:
        """Ids of all guests with a run directory, or with a process in a control group of this driver's."""
        found = {entry.name for entry in self._folder.iterdir()} | set(self.cgroups.names())
        return sorted(name for name in found if _is_uuid(name))

    def hurry(self, guest_id: str, *, on: bool) -> None:
        """Cut a graceful stop, a suspension or the copy of a disk short that is under way; see the contract."""
        with self._lock:
            guest = self._guests.get(guest_id)
        if guest is not None:
            guest.haste(on)

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

    def diagnostics(self, guest_id: str) -> Diagnostics:
        """Measure a guest that runs."""
        guest = self._live(guest_id)
        try:
            return diagnose(guest, guest.observe(), self.facts().type.lower())
        except (MonitorFailure, OSError) as error:
            raise GuestFailure(f"guest {guest_id} cannot be measured: {error}") from error

    def open_console(self, guest_id: str, kind: ConsoleKind) -> socket.socket:
        """A connection to the screen, as many as are asked for, or to the serial port, where the last one wins."""
        guest = self._live(guest_id)
        kept = guest.directory.applied()
        spec = None if kept is None or kept.plan is None else kept.plan.spec.machine
        try:
            if kind == "serial":
                if spec is not None and not spec.serial_ports:
                    raise GuestFailure(f"guest {guest_id} has no serial port")
                return guest.open_serial()
            if spec is not None and spec.video == "none":
                raise GuestFailure(f"guest {guest_id} has no screen")
            return guest.open_screen()
        except (MonitorFailure, OSError) as error:
            raise GuestFailure(f"the console of guest {guest_id} cannot be reached: {error}") from error

    def snapshot(self, spec: SnapshotSpec, disk: Path, target: Path) -> None:
        """Copy the disk: of a guest whose process lives through QEMU, else by a child; `remove` cuts either short.

        A guest at rest does not start meanwhile.
        """
        guest = self._known(spec.guest_id)
        if guest is None:
            raise GuestFailure(f"guest {spec.guest_id} is not on this host", permanent=True)
        with guest.lock:
            try:
                if guest.directory.suspended() or not guest.alive():
                    backup.take_resting(guest, spec, disk, target, self._launch.identify(guest))
                    return
            except OSError as error:
                raise GuestFailure(f"the disk cannot be copied: {error.strerror}") from error
        backup.take_live(guest, spec, target)

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
            if not guest.lock.acquire(timeout=_PATIENCE):
                raise GuestBusy(f"something else is under way for guest {guest_id}")
            try:
                if self._guests.get(guest_id) is guest:
                    yield guest
                    return
            finally:
                guest.lock.release()

    def _adopt(self) -> None:
        """Take hold of every process that an earlier driver left, and listen to it.

        One whose QMP does not answer is held all the same: its death will be noticed, and it can be ended.
        """
        found = [self._guest(name) for name in self.guests()]
        if found:
            with ThreadPoolExecutor(max_workers=16) as pool:
                list(pool.map(Guest.observe, found))
        for guest in found:
            # One that was started as the agent died is in no group yet.
            if (pid := guest.directory.holder()) is not None:
                self.cgroups.add(guest.id, pid)
        held = [guest for guest in found if guest.directory.frozen()]
        if held:
            threading.Thread(target=_thaw, args=(held,), name="qemu-thaw", daemon=True).start()

    def _live(self, guest_id: str) -> Guest:
        """A guest whose processors exist. Raises GuestFailure."""
        guest = self._known(guest_id)
        if guest is None or guest.directory.suspended() or not guest.alive():
            raise GuestFailure(f"guest {guest_id} does not run")
        return guest

    def _converge(self, guest: Guest, plan: GuestPlan) -> None:
        spec, directory = plan.spec, guest.directory
        directory.drop_torn()
        live = guest.alive()
        if live and directory.suspended():
            # Its processors have not run since the file was whole.
            guest.end(0)
            live = False
        pending = self._acknowledge(guest, plan, live)
        if spec.power == "stopped":
            if live:
                guest.power_off(self._grace)
            directory.drop_memory()
            guest.note(plan=plan, reboot_nonce=pending, pins=[])
        else:
            kept = directory.applied()
            if kept is not None and pending > kept.reboot_nonce:
                if live and spec.reboot_kind == "SOFT":
                    guest.power_off(self._grace)
                elif live:
                    guest.end()
                live = False
                reach("qemu.guest.ended")
                directory.drop_memory()
            self._bring_about(guest, plan, pending, live)
        act.apply(guest, spec)

    def _acknowledge(self, guest: Guest, plan: GuestPlan, live: bool) -> int:
        """Record a guest that is new here, and give the reboot that is to have been applied in the end."""
        spec = plan.spec
        kept = guest.directory.applied()
        if kept is None or (live and kept.plan is None):
            if live:
                # Of the two ways to be wrong, a reboot that has to be asked for again is the better one.
                LOG.warning("guest %s: what was applied to it cannot be read; it is taken as it runs", spec.id)
            first = {} if kept is not None else {"reboot_nonce": spec.reboot_nonce, "acts": dict(spec.acts)}
            if live or spec.power == "stopped":
                guest.note(plan=plan, cards=card.first_slots(plan), slots=self._slots(plan), **first)
            else:
                guest.note(**first)
            kept = guest.directory.applied()
        return max(spec.reboot_nonce, 0 if kept is None else kept.reboot_nonce)

    def _bring_about(self, guest: Guest, plan: GuestPlan, nonce: int, live: bool) -> None:
        """Bring a guest to a state other than `stopped`."""
        power, directory = plan.spec.power, guest.directory
        ports = [nic.port_id for nic in plan.spec.nics]
        if directory.suspended():
            if power == "suspended":
                guest.note(ports=ports)
                return
            self._resume(guest, plan)
        elif not live:
            machine.check(plan.spec)
            # The nonce is recorded while no process runs.  A crash before this line finds none, and starting one is
            # the rest of the reboot; a crash after it finds the reboot applied.  It never happens twice.
            guest.note(plan=plan, reboot_nonce=nonce, cards=card.first_slots(plan), slots=self._slots(plan))
            reach("qemu.guest.recorded")
            self._launch.start(guest, plan)
        if live:
            limit.pin(guest, guest.note().pins)
        if power == "running":
            if guest.status() in _HALTED:
                guest.execute("cont")
            # A guest whose processors stand still does not let go of a card.
            card.match(guest, plan, self._launch.open_tap)
            return
        card.match(guest, plan, self._launch.open_tap)
        status = guest.status()
        if power == "paused" and status == "running":
            guest.execute("stop")
        elif power == "suspended" and status != "shutdown":
            guest.note(ports=ports)
            memory.suspend(guest)
            guest.note(pins=[])

    def _resume(self, guest: Guest, plan: GuestPlan) -> None:
        """Start a process that is what the suspended one was, and give it the memory."""
        kept = guest.directory.applied()
        if kept is None or kept.plan is None:
            raise GuestFailure("what the guest was cannot be read: its memory fits nothing", permanent=True)
        self._launch.start(guest, kept.plan, attached=plan, incoming=True)
        memory.take_in(guest)

    def _slots(self, plan: GuestPlan) -> int:
        """How many slots a guest is started with."""
        needed = disk_slots(plan) + len(plan.spec.nics)
        most = most_slots(board_type(plan.spec.machine))
        if needed > most:
            raise GuestFailure(
                f"{needed} disks and cards are more than the {most} that a guest can have", permanent=True
            )
        return min(needed + self._spare_ports, most)

    def _tell(self) -> None:
        """Pass news on outside the event loop's thread, so that a watcher may call the driver."""
        while (guest_id := self._news.get()) is not None:
            for changed in self._watchers:
                try:
                    changed(guest_id)
                except Exception:
                    LOG.exception("a watcher of guest %s failed", guest_id)

    def _bound_logs(self) -> None:
        with self._lock:
            guests = list(self._guests.values())
        failed: list[tuple[Path, OSError]] = []
        for file in [file for one in guests for file in (one.directory.console, one.directory.errors)]:
            try:
                console.bound(file)
            except OSError as error:  # one that cannot be bounded now is no reason to leave the others
                failed.append((file, error))
        if failed:
            LOG.warning("%d logs cannot be bounded, among them %s: %s", len(failed), *failed[0])


def _thaw(guests: list[Guest]) -> None:
    """Let go of what an earlier driver has held; where nobody answers it is left to the next."""
    for guest in guests:
        try:
            thaw(guest.directory)
        except AgentFailure as error:
            LOG.warning("guest %s: its file systems may be held: %s", guest.id, error)


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


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return ""
