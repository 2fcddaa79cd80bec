"""QEMU's command line (qemu(1), and docs/system/invocation of QEMU 7.2), from a plan.

The translation buffer is small (`tb-size=32`) because each guest pays for it, which costs no measurable speed at boot.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pileus.contracts.hypervisor import GuestPlan, GuestSpec
from pileus.drivers.hypervisor.qemu import machine
from pileus.drivers.hypervisor.qemu.device import Board, backend, blocks, card

_ACCELERATION = {"kvm": "kvm", "tcg": "tcg,tb-size=32,thread=multi"}
AGENT = "org.qemu.guest_agent.0"
"""Name of the channel that guests' agents look for (QEMU's guest agent, "Options")."""


@dataclass(frozen=True)
class Descriptors:
    """Open descriptors that QEMU inherits, by number."""

    process: int
    """Nothing to QEMU, but what it holds the guest with."""
    qmp: int
    serial: int
    console: int
    taps: Mapping[str, int]
    """Port id to its tap."""
    agent: int | None = None
    tpm: int | None = None

    def all(self) -> list[int]:
        """Every number, to be passed on."""
        more = [fd for fd in (self.agent, self.tpm) if fd is not None]
        return [self.process, self.qmp, self.serial, self.console, *more, *self.taps.values()]


def arguments(
    binary: str,
    plan: GuestPlan,
    descriptors: Descriptors,
    *,
    accelerator: str,
    board: Board,
    cards: Mapping[str, int],
    incoming: bool = False,
) -> list[str]:
    """The argument list of a process that is started in the run directory, with its processors halted (-S).

    `cards` is the slot of each port's card.  `incoming`: it waits to be given the memory of a suspended guest.
    """
    spec = plan.spec
    return [
        *(binary, "-name", f"guest=pileus-{spec.id},debug-threads=on", "-uuid", spec.id),
        *("-nodefaults", "-no-user-config", "-no-shutdown", "-S"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-accel", _ACCELERATION[accelerator]),
        *machine.arguments(spec, board, accelerator),
        *("-rtc", "base=utc", "-boot", "strict=on", "-pidfile", "pid"),
        *_identity(spec.id),
        *("-chardev", f"socket,id=qmp,fd={descriptors.qmp},server=on,wait=off", "-mon", "chardev=qmp,mode=control"),
        *_serial(spec, descriptors),
        *_agent(descriptors, board),
        *(machine.tpm(spec.machine, descriptors.tpm) if descriptors.tpm is not None else ()),
        *board.ports(),
        *(part for nic in spec.nics for part in _nic(nic.port_id, descriptors)),
        *(part for nic in spec.nics for part in ("-device", json.dumps(card(nic, board.slot(cards[nic.port_id]))))),
        *blocks(plan, board),
        *(("-incoming", "defer") if incoming else ()),
    ]


def _identity(guest_id: str) -> list[str]:
    """What the guest reads of its maker.  cloud-init looks for OpenStack by the asset tag of the chassis."""
    return [
        *("-smbios", f"type=1,manufacturer=Pileus,product=Pileus,family=Virtual Machine,uuid={guest_id}"),
        *("-smbios", "type=3,manufacturer=Pileus,asset=OpenStack Compute"),
    ]


def _serial(spec: GuestSpec, descriptors: Descriptors) -> list[str]:
    """One character device serves the console to a client and writes its log.  Further ports lead nowhere."""
    if not spec.machine.serial_ports:
        return ["-serial", "none"]
    parts = [
        *("-add-fd", f"fd={descriptors.console},set=1"),
        *("-chardev", f"socket,id=serial,fd={descriptors.serial},server=on,wait=off,logfile=/dev/fdset/1,logappend=on"),
        *("-serial", "chardev:serial"),
    ]
    return parts + ["-serial", "null"] * (spec.machine.serial_ports - 1)


def _agent(descriptors: Descriptors, board: Board) -> list[str]:
    if descriptors.agent is None:
        return []
    bus = {"driver": "virtio-serial-pci", "id": "channels"} | board.fixed(3)
    port = {"driver": "virtserialport", "bus": "channels.0", "chardev": "agent", "name": AGENT}
    return [
        *("-chardev", f"socket,id=agent,fd={descriptors.agent},server=on,wait=off"),
        *("-device", json.dumps(bus), "-device", json.dumps(port)),
    ]


def _nic(port_id: str, descriptors: Descriptors) -> list[str]:
    return ["-netdev", f"tap,id={backend(port_id)},fd={descriptors.taps[port_id]},vhost=off"]
