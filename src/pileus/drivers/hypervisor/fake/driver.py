"""A hypervisor without guests: it goes through all states, takes its time and fails when told to.

Nothing here starts a process, nor a thread but for an open console, so thousands of guests on many simulated hosts
live in one process.  What happens is a function of the seed: each decision is drawn from the seed, the host, the
guest and the number of the attempt, whichever thread comes first.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from pileus.contracts.hypervisor import (
    ConsoleKind,
    Diagnostics,
    DiskDiagnostics,
    GuestFailure,
    GuestObserved,
    GuestPlan,
    GuestSpec,
    HypervisorFacts,
    NicDiagnostics,
    Observed,
    SnapshotSpec,
)
from pileus.drivers.hypervisor.fake import console
from pileus.drivers.hypervisor.fake.disk import write_empty

_LOG_LIMIT = 100 * 1024
"""Bytes of a console log that the contract gives at most."""
_LINES = 200
"""Lines of a console log that are kept."""


FACTS = HypervisorFacts(
    type="QEMU",
    version=7_002_000,
    accelerator="fake",
    vcpus=64,
    memory_mib=262_144,
    disk_gib=4096,
    cpu_model="simulated",
    firmwares=("bios", "uefi", "uefi-secure"),
    tpm=("1.2", "2.0"),
    page_kib=(2048, 1 << 20),
)
"""A host of some size."""


class FakeGuest(msgspec.Struct, kw_only=True):
    """What the driver knows of one guest; a line of the state file."""

    id: str
    state: Observed = "stopped"
    reboot_nonce: int = 0
    acts: dict[str, int] = {}
    faults: dict[str, str] = {}
    nics: dict[str, str] = {}
    """Port id to the card's MAC address."""
    disks: list[str] = []
    vcpus: int = 0
    memory_mib: int = 0
    started_at: float | None = None
    boots: int = 0
    """How often it was started."""
    attempts: int = 0
    """How many transitions were tried."""
    detail: str = ""
    log: list[str] = []


class FakeHypervisor:
    """Simulated guests on one simulated host.

    Each start and stop takes `delay` seconds of `sleep`; a share `failures` (0 to 1) of them fails, as `seed` has it.
    `clock` gives seconds since the epoch.  With `state`, a file, guests outlive the driver: the next one adopts them.
    `facts` are what the host says of itself.
    """

    def __init__(
        self,
        *,
        host: str = "fake",
        state: Path | None = None,
        delay: float = 0.0,
        failures: float = 0.0,
        seed: int = 0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
        facts: HypervisorFacts = FACTS,
    ) -> None:
        self._host = host
        self._delay = delay
        self._failures = failures
        self._seed = seed
        self._sleep = sleep
        self._clock = clock
        self._facts = facts
        self._lock = threading.Lock()
        self._busy: dict[str, threading.Lock] = {}
        self._guests: dict[str, FakeGuest] = {}
        self._watchers: list[Callable[[str], None]] = []
        self._lines: dict[str, list[socket.socket]] = {}
        """The guests' ends of open consoles."""
        self._journal = state
        """Opened for each line: a file for each of thousands of hosts is more than a process may have open."""
        self._written: dict[str, bytes] = {}
        self._closed = False
        if state is not None:
            self._guests = _replay(state)

    def facts(self) -> HypervisorFacts:
        """What the constructor was told."""
        return self._facts

    def ensure(self, plan: GuestPlan) -> GuestObserved:
        """Make the guest what the plan says.

        A start or a stop that fails leaves the guest stopped; a suspension or resumption that fails changes nothing.
        """
        spec = plan.spec
        with self._alone(spec.id):
            guest = self._guests.get(spec.id)
            if guest is None:
                guest = FakeGuest(id=spec.id, reboot_nonce=spec.reboot_nonce, acts=dict(spec.acts))
            self._keep(guest)
            self._converge(guest, spec)
            guest.reboot_nonce = max(guest.reboot_nonce, spec.reboot_nonce)
            nics = {nic.port_id: nic.mac_address for nic in spec.nics}
            if guest.nics != nics:
                guest.nics = nics
                self._tell(guest.id)
            self._act(guest, spec)
            self._keep(guest)
            return _observed(guest)

    def _converge(self, guest: FakeGuest, spec: GuestSpec) -> None:
        pending = spec.reboot_nonce > guest.reboot_nonce
        if spec.power == "stopped":
            self._stop(guest)
        elif guest.state == "stopped" or pending:
            self._stop(guest)
            guest.reboot_nonce = max(guest.reboot_nonce, spec.reboot_nonce)
            self._keep(guest)
            self._start(guest, spec)
        elif guest.state not in (spec.power, "shutdown"):
            if "suspended" in (guest.state, spec.power):
                self._attempt(guest, "suspend" if spec.power == "suspended" else "resume")
                guest.started_at = None if spec.power == "suspended" else self._clock()
            guest.state = spec.power
            self._keep(guest)
            if spec.power == "suspended":
                self._hang_up(guest.id)
            self._tell(guest.id)

    def _act(self, guest: FakeGuest, spec: GuestSpec) -> None:
        for name, nonce in spec.acts.items():
            if nonce <= guest.acts.get(name, 0):
                continue
            guest.acts = {**guest.acts, name: nonce}
            guest.faults = {key: why for key, why in guest.faults.items() if key != name}
            if guest.state != "running":
                guest.faults[name] = "the guest does not run"
            elif name == "nmi":
                _log(guest, "Uhhuh. NMI received for unknown reason 30 on CPU 0.")
            elif name != "password":
                guest.faults[name] = f"this host knows no act {name}"
            elif not spec.machine.guest_agent:
                guest.faults[name] = "the guest has no channel for its agent"
            else:
                _log(guest, "the password was changed")

    def observe(self, guest_id: str) -> GuestObserved:
        """What is known of the guest."""
        guest = self._guests.get(guest_id)
        return GuestObserved(id=guest_id, state="absent") if guest is None else _observed(guest)

    def guests(self) -> list[str]:
        """Ids of all guests."""
        with self._lock:
            return sorted(self._guests)

    def hurry(self, guest_id: str, *, on: bool) -> None:
        """Nothing here takes long."""

    def remove(self, guest_id: str) -> None:
        """Forget the guest. Absent is fine."""
        with self._alone(guest_id), self._lock:
            if self._guests.pop(guest_id, None) is not None:
                self._write(FakeGuest(id=guest_id, state="absent"))
                self._written.pop(guest_id, None)
            self._busy.pop(guest_id, None)
        self._hang_up(guest_id)

    def console_log(self, guest_id: str, lines: int | None) -> str:
        """One line for each thing that the guest went through."""
        guest = self._guests.get(guest_id)
        if guest is None:
            return ""
        log = guest.log if lines is None else guest.log[max(0, len(guest.log) - lines) :]
        return "".join(f"{line}\n" for line in log)[-_LOG_LIMIT:]

    def diagnostics(self, guest_id: str) -> Diagnostics:
        """Counters that grow with the guest's uptime, a hundredth of a processor for each."""
        guest = self._running(guest_id)
        uptime = int(max(0.0, self._clock() - (guest.started_at or 0.0)))
        return Diagnostics(
            state=guest.state,
            driver=self._facts.type.lower(),
            uptime=uptime,
            cpu_time=(uptime * 10_000_000,) * guest.vcpus,
            memory_mib=guest.memory_mib,
            memory_used_mib=guest.memory_mib // 4,
            disks=tuple(
                DiskDiagnostics(id=name, read_bytes=512 * uptime, read_requests=uptime) for name in guest.disks
            ),
            nics=tuple(
                NicDiagnostics(port_id=port, mac_address=mac, rx_octets=64 * uptime, rx_packets=uptime)
                for port, mac in guest.nics.items()
            ),
        )

    def open_console(self, guest_id: str, kind: ConsoleKind) -> socket.socket:
        """A screen that speaks RFB, or a serial port that echoes; each is a thread for as long as it is open."""
        self._running(guest_id)
        if kind == "serial":
            client, server = console.serve(console.echo, "fake-serial")
        else:
            client, server = console.serve(lambda line: console.show(line, guest_id), "fake-screen")
        with self._lock:
            lines = self._lines.setdefault(guest_id, [])
            lines[:] = [line for line in lines if line.fileno() >= 0]
            lines.append(server)
        return client

    def snapshot(self, spec: SnapshotSpec, disk: Path, target: Path) -> None:
        """Write an empty disk in the format that is asked for, as long as the guest's disk is there."""
        with self._alone(spec.guest_id):
            guest = self._guests.get(spec.guest_id)
            if guest is None:
                raise GuestFailure(f"guest {spec.guest_id} is not on this host")
            self._attempt(guest, "snapshot")
            self._keep(guest)
            try:
                disk.stat()
                write_empty(target, spec.format)
            except OSError as error:
                raise GuestFailure(f"the snapshot cannot be written: {error.strerror}") from error

    def watch(self, changed: Callable[[str], None]) -> None:
        """Call `changed` from the thread in which a guest changes."""
        self._watchers.append(changed)

    def close(self) -> None:
        """Let go of the state file; the guests in it are the next driver's."""
        self._closed = True
        for guest_id in list(self._lines):
            self._hang_up(guest_id)
        self._journal = None

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def power_off(self, guest_id: str) -> None:
        """The guest turns itself off, as people inside real guests do."""
        self._happen(guest_id, "shutdown", "reboot: Power down")

    def crash(self, guest_id: str) -> None:
        """The guest's process dies."""
        self._happen(guest_id, "stopped", "")

    def boots(self, guest_id: str) -> int:
        """How often the guest was started; 0 for one that is absent."""
        guest = self._guests.get(guest_id)
        return 0 if guest is None else guest.boots

    def _happen(self, guest_id: str, state: Observed, line: str) -> None:
        with self._alone(guest_id):
            guest = self._guests.get(guest_id)
            if guest is None or guest.state not in ("running", "paused"):
                return
            guest.state = state
            if state == "stopped":
                guest.started_at = None
                guest.detail = "the simulated process died"
            if line:
                _log(guest, line)
            self._keep(guest)
        if state == "stopped":
            self._hang_up(guest_id)
        self._tell(guest_id)

    def _running(self, guest_id: str) -> FakeGuest:
        guest = self._guests.get(guest_id)
        if guest is None or guest.state not in ("running", "paused"):
            raise GuestFailure(f"guest {guest_id} does not run")
        return guest

    def _start(self, guest: FakeGuest, spec: GuestSpec) -> None:
        if (why := _refusal(spec, self._facts)) is not None:
            raise GuestFailure(why, permanent=True)
        self._transition(guest, "start")
        guest.boots += 1
        guest.state = spec.power
        guest.started_at = None if spec.power == "suspended" else self._clock()
        guest.detail = ""
        guest.vcpus, guest.memory_mib = spec.vcpus, spec.memory_mib
        guest.disks = [disk.id for disk in spec.disks]
        _log(guest, f"boot {guest.boots} of {spec.name}: {spec.vcpus} vcpus, {spec.memory_mib} MiB")
        self._keep(guest)
        self._tell(guest.id)

    def _stop(self, guest: FakeGuest) -> None:
        if guest.state == "stopped":
            return
        self._transition(guest, "stop")
        guest.state, guest.started_at, guest.detail = "stopped", None, ""
        self._keep(guest)
        self._hang_up(guest.id)
        self._tell(guest.id)

    def _transition(self, guest: FakeGuest, verb: str) -> None:
        try:
            self._attempt(guest, verb)
        except GuestFailure:
            guest.state, guest.started_at = "stopped", None
            self._keep(guest)
            self._hang_up(guest.id)
            raise

    def _attempt(self, guest: FakeGuest, verb: str) -> None:
        """Take the time that things take, and fail now and then."""
        guest.attempts += 1
        self._keep(guest)
        if self._delay:
            self._sleep(self._delay)
        if _dice(f"{self._seed}/{self._host}/{guest.id}/{guest.attempts}") < self._failures:
            raise GuestFailure(f"simulated failure of {verb} number {guest.attempts}")

    def _hang_up(self, guest_id: str) -> None:
        """The guest's process is gone, and its consoles with it."""
        with self._lock:
            lines = self._lines.pop(guest_id, [])
        for line in lines:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def _alone(self, guest_id: str) -> Iterator[None]:
        with self._lock:
            lock = self._busy.setdefault(guest_id, threading.Lock())
        with lock:
            yield

    def _keep(self, guest: FakeGuest) -> None:
        with self._lock:
            self._guests[guest.id] = guest
            self._write(guest)

    def _write(self, guest: FakeGuest) -> None:
        line = msgspec.json.encode(guest) + b"\n"
        if self._journal is not None and self._written.get(guest.id) != line:
            with self._journal.open("ab", buffering=0) as journal:
                journal.write(line)
            self._written[guest.id] = line

    def _tell(self, guest_id: str) -> None:
        for changed in self._watchers:
            changed(guest_id)


def _refusal(spec: GuestSpec, facts: HypervisorFacts) -> str | None:
    """Why a host of these facts can never start the guest."""
    machine = spec.machine
    firmware = "bios" if machine.firmware == "bios" else "uefi-secure" if machine.secure_boot else "uefi"
    if firmware not in facts.firmwares:
        return f"this host has no {firmware} firmware"
    if machine.tpm and machine.tpm not in facts.tpm:
        return f"this host has no TPM of version {machine.tpm}"
    if machine.page_kib and machine.page_kib not in facts.page_kib:
        return f"this host has set aside no pages of {machine.page_kib} KiB"
    if machine.pinned and spec.vcpus > facts.vcpus:
        return f"{spec.vcpus} processors cannot be pinned: this host has {facts.vcpus}"
    if machine.type == "microvm":
        return "this host has no machines of type microvm"
    return None


def _dice(name: str) -> float:
    """A number from 0 to below 1 that depends on nothing but the name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) / (1 << 48)


def _observed(guest: FakeGuest) -> GuestObserved:
    return GuestObserved(
        id=guest.id,
        state=guest.state,
        reboot_nonce=guest.reboot_nonce,
        acts=guest.acts,
        faults=guest.faults,
        nics=tuple(guest.nics),
        detail=guest.detail,
        started_at=guest.started_at,
    )


def _log(guest: FakeGuest, line: str) -> None:
    guest.log = [*guest.log, line][-_LINES:]


def _replay(state: Path) -> dict[str, FakeGuest]:
    """The guests in a state file, whose last line for each guest holds; the file is then written afresh."""
    guests: dict[str, FakeGuest] = {}
    if state.exists():
        for line in state.read_bytes().splitlines():
            try:
                guest = msgspec.json.decode(line, type=FakeGuest)
            except (msgspec.DecodeError, msgspec.ValidationError):
                # The last line of a driver that was killed while it wrote.
                continue
            guests[guest.id] = guest
    guests = {guest.id: guest for guest in guests.values() if guest.state != "absent"}
    new = state.with_suffix(".new")
    new.write_bytes(b"".join(msgspec.json.encode(guest) + b"\n" for guest in guests.values()))
    new.replace(state)
    return guests
