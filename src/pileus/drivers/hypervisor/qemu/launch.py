"""Starting a guest's process: what it may do, what it is handed, what it is told."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from pileus.contracts.hypervisor import GuestFailure, GuestPlan, GuestSpec, NicLimit, NicSpec
from pileus.core.seams import reach
from pileus.drivers.host.cgroup import Cgroups
from pileus.drivers.host.process import Identity
from pileus.drivers.host.tap import open_blind_tap, open_tap
from pileus.drivers.hypervisor.qemu import accelerator, console, limit, machine, tpm
from pileus.drivers.hypervisor.qemu.agent_channel import SOCKET
from pileus.drivers.hypervisor.qemu.command import Descriptors, arguments
from pileus.drivers.hypervisor.qemu.confinement import choose_processors, choose_uid, hand_over, passable
from pileus.drivers.hypervisor.qemu.device import Board, board_type
from pileus.drivers.hypervisor.qemu.directory import RunDirectory
from pileus.drivers.hypervisor.qemu.guest import Guest
from pileus.drivers.hypervisor.qemu.monitor import MonitorFailure


@dataclass(frozen=True)
class Launch:
    """How guests of one driver are started.

    `folder` holds their run directories, `uids` are the ids that they get (None: the agent's own), `accelerator` says
    which one to use, and `timeout` is how many seconds QEMU has to come up.
    """

    binary: str
    folder: Path
    uids: range | None
    cgroups: Cgroups
    accelerator: Callable[[], str]
    timeout: float
    _lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while something is chosen that no other guest may have."""

    def start(
        self, guest: Guest, plan: GuestPlan, *, attached: GuestPlan | None = None, incoming: bool = False
    ) -> None:
        """Start the guest's process, its processors still halted.

        `attached` says where ports are now, when the plan is that of a suspended guest; one that it does not name is
        gone, and its card is left without.
        """
        spec, directory = plan.spec, guest.directory
        kept = guest.note()
        name = self.accelerator()
        uid = self.identify(guest)
        identity = None
        if uid is not None:
            identity = Identity(uid, uid, accelerator.kvm_groups() if name == "kvm" else ())
        hand_over(plan, uid)
        if uid is not None:
            passable(self.folder, uid)
        limit.confine(self.cgroups, spec)
        processors = self._claim_processors(guest, spec)
        directory.prepare(uid)
        directory.furnish(machine.nvram(spec.machine), machine.firmware(spec.machine), uid)
        console.restart(directory.console)
        with ExitStack() as held:
            taps = {}
            for nic in spec.nics:
                gone = attached is not None and nic.port_id not in attached.nics
                taps[nic.port_id] = tap = open_blind_tap() if gone else self.open_tap(guest, attached or plan, nic)
                held.callback(os.close, tap)
            log = directory.open_console()
            held.callback(os.close, log)
            claim = directory.claim()
            held.callback(os.close, claim)
            descriptors = Descriptors(
                process=claim,
                qmp=held.enter_context(directory.listen("qmp.sock")).fileno(),
                serial=held.enter_context(directory.listen("serial.sock")).fileno(),
                agent=held.enter_context(directory.listen(SOCKET)).fileno() if spec.machine.guest_agent else None,
                console=log,
                taps=taps,
                tpm=self._start_tpm(guest, spec, identity, held),
            )
            board = Board(board_type(spec.machine), kept.slots, kept.board if incoming else "")
            argv = arguments(
                *(self.binary, plan, descriptors),
                accelerator=name,
                board=board,
                cards=kept.cards,
                incoming=incoming,
            )
            pid = guest.start(argv, descriptors.all(), identity)
        reach("qemu.guest.spawned")
        self.cgroups.add(spec.id, pid)
        guest.greet(self.timeout)
        reach("qemu.guest.greeted")
        try:
            limit.pin(guest, processors)
        except (GuestFailure, MonitorFailure):
            guest.end(0)
            raise

    def open_tap(self, guest: Guest, plan: GuestPlan, nic: NicSpec) -> int:
        """The tap of a port, with its limits in force. Raises GuestFailure."""
        attachment = plan.nics.get(nic.port_id)
        if attachment is None:
            raise GuestFailure(f"port {nic.port_id} is not plugged in on this host")
        try:
            tap = open_tap(attachment.device, attachment.namespace)
        except OSError as error:
            why = f"tap {attachment.device} of port {nic.port_id} cannot be opened: {error.strerror}"
            raise GuestFailure(why) from error
        try:
            shaped = set(guest.note().shaped)
            if nic.limit != NicLimit() or nic.port_id in shaped:
                guest.note(shaped=sorted(shaped | {nic.port_id}))
                limit.rate(nic, attachment)
        except BaseException:
            os.close(tap)
            raise
        return tap

    def _start_tpm(self, guest: Guest, spec: GuestSpec, identity: Identity | None, held: ExitStack) -> int | None:
        if not spec.machine.tpm:
            return None
        child, line = tpm.start(guest.directory, spec.machine, identity)
        held.enter_context(line)
        guest.accompany(child)
        self.cgroups.add(spec.id, child.pid)
        return line.fileno()

    def _claim_processors(self, guest: Guest, spec: GuestSpec) -> list[int]:
        """Processors of the host that are the guest's alone, recorded so that no other guest gets them.

        A guest that starts anew keeps those that it has.
        """
        wanted = spec.vcpus if spec.machine.pinned else 0
        with self._lock:
            held = guest.note().pins
            if len(held) == wanted:
                return held
            taken: set[int] = set()
            for entry in self.folder.iterdir():
                other = RunDirectory(entry).applied() if entry.name != guest.id else None
                taken |= set() if other is None else set(other.pins)
            processors = choose_processors(wanted, taken)
            guest.note(pins=processors)
        return processors

    def identify(self, guest: Guest) -> int | None:
        """The guest's own id, from now on if it had none; None where guests have the agent's."""
        if self.uids is None:
            return None
        with self._lock:
            owned = guest.directory.owner()
            if owned in self.uids:
                return owned
            uid = choose_uid(guest.id, self.uids, self.folder)
            guest.directory.give(uid)
            return uid
