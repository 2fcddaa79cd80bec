"""How QEMU spells a guest's disks and cards, and where they are plugged in (qemu(1); docs/pcie.txt of QEMU).

Each virtio disk and each card has a slot.  Disks come first, then the cards that the guest starts with, then spare
ones: so a disk's slot depends on the disks alone, and a suspended guest whose cards came and went finds its disks in
the same places again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pileus.contracts.hypervisor import DiskLimit, DiskSpec, GuestFailure, GuestPlan, MachineSpec, NicSpec

CARD = "nic-"
"""How the ids of cards begin, which go on with the port's id."""
_SERIAL = 20
"""Characters that a virtio disk's serial number holds (virtio 1.1, 5.2.6)."""
_FIRST_ROOT_PORT = 0x10
_FIRST_PC_SLOT = 0xA
_PC_SLOTS = 0x20 - _FIRST_PC_SLOT
_SATA_PORTS = 6
"""Ports of an AHCI controller (Intel's ICH9)."""
_LAST_SATA = 0x8
_LIMITS = {
    "total_bytes": "bps-total",
    "read_bytes": "bps-read",
    "write_bytes": "bps-write",
    "total_iops": "iops-total",
    "read_iops": "iops-read",
    "write_iops": "iops-write",
}
"""Limits as the contract and as QEMU name them (qapi/block-core.json, ThrottleLimits)."""
_CARDS = {"virtio": "virtio-net-pci", "e1000": "e1000", "e1000e": "e1000e", "rtl8139": "rtl8139"}


@dataclass(frozen=True)
class Board:
    """The places of a machine that devices are plugged into."""

    type: Literal["q35", "pc"]
    slots: int
    """Slots for disks and cards, of those that there are."""
    model: str = ""
    """The type with a version, when it must be that one."""

    def fixed(self, number: int) -> dict[str, object]:
        """The place of one of the devices that every guest of a kind has, from 1 on."""
        if self.type == "q35":
            return {"bus": "pcie.0", "addr": f"0x{number:x}"}
        return {"bus": "pci.0", "addr": f"0x{number + 1:x}"}

    def slot(self, number: int) -> dict[str, object]:
        """The place of a disk or a card."""
        if self.type == "q35":
            return {"bus": f"port{number}"}
        return {"bus": "pci.0", "addr": f"0x{_FIRST_PC_SLOT + number:x}"}

    def ports(self) -> list[str]:
        """Arguments that make the slots: on q35 a root port for each, so that each can be unplugged."""
        if self.type == "pc":
            return []
        # Without io-reserve=0 each port asks for 4 KiB of the 64 KiB of I/O addresses, which virtio does not use.
        ports: list[str] = []
        for index in range(self.slots):
            address = f"bus=pcie.0,multifunction=on,addr=0x{_FIRST_ROOT_PORT + index // 8:x}.0x{index % 8}"
            ports += ["-device", f"pcie-root-port,id=port{index},chassis={index + 1},io-reserve=0,{address}"]
        return ports


def board_type(machine: MachineSpec) -> Literal["q35", "pc"]:
    """The type of machine that QEMU is to be."""
    return "pc" if machine.type == "pc" else "q35"


def most_slots(machine: Literal["q35", "pc"]) -> int:
    """How many slots there can be."""
    return _PC_SLOTS if machine == "pc" else 8 * (0x1F - _FIRST_ROOT_PORT)


def disk_slots(plan: GuestPlan) -> int:
    """How many slots the disks take."""
    return sum(_bus(disk) == "virtio" for disk in plan.spec.disks) + (plan.config_drive is not None)


def node(index: int) -> str:
    """The block node of a disk, by its place in the spec."""
    return f"disk{index}"


def blocks(plan: GuestPlan, board: Board) -> list[str]:
    """Arguments of all disks, the config drive last.

    QEMU makes devices that are spelled as JSON after all others: so controllers are spelled as their disks are.
    """
    shelf = _Shelf(board)
    order = {index: rank for rank, index in enumerate(_boot_order(plan.spec.disks))}
    parts: list[str] = []
    for index, disk in enumerate(plan.spec.disks):
        parts += _image(index, disk, plan.disks[disk.id])
        device: dict[str, object] = {"drive": node(index), "id": f"device-{node(index)}"}
        device |= {"serial": disk.id[:_SERIAL]} | shelf.place(disk)
        if index in order:
            device["bootindex"] = order[index]
        shelf.devices += ["-device", json.dumps(device)]
    if plan.config_drive is not None:
        parts += _config_drive(plan.config_drive)
        device = {"driver": "virtio-blk-pci", "id": "device-config", "drive": "config", "serial": "config-2"}
        shelf.devices += ["-device", json.dumps(device | shelf.slot())]
    return parts + shelf.devices


def card(nic: NicSpec, place: Mapping[str, object]) -> dict[str, object]:
    """The device of a card; its network backend is to be there."""
    device: dict[str, object] = {
        "driver": _CARDS[nic.model],
        "id": f"{CARD}{nic.port_id}",
        "netdev": backend(nic.port_id),
        "mac": nic.mac_address,
        # No network boot: the firmware would spend seconds on it.
        "romfile": "",
    }
    if nic.model == "virtio":
        device["host_mtu"] = nic.mtu
    return device | dict(place)


def backend(port_id: str) -> str:
    """The id of a card's network backend."""
    return f"net-{port_id}"


@dataclass
class _Shelf:
    """Gives each disk its place, and makes the controllers that disks need."""

    board: Board
    devices: list[str] = field(default_factory=list)
    _slots: int = 0
    _sata: int = 0
    _usb: int = 0
    _scsi: bool = False

    def slot(self) -> dict[str, object]:
        self._slots += 1
        return self.board.slot(self._slots - 1)

    def place(self, disk: DiskSpec) -> dict[str, object]:
        bus, kind = _bus(disk), "cd" if disk.device == "cdrom" else "hd"
        if bus == "virtio":
            return {"driver": "virtio-blk-pci"} | self.slot()
        if bus == "sata":
            return {"driver": f"ide-{kind}", "bus": self._sata_port()}
        return {"driver": f"scsi-{kind}", "bus": self._usb_port() if bus == "usb" else self._scsi_bus()}

    def _sata_port(self) -> str:
        number, port = divmod(self._sata, _SATA_PORTS)
        self._sata += 1
        if number == 0 and self.board.type == "q35":
            return f"ide.{port}"
        place = number + (0x6 if self.board.type == "q35" else 0x7)
        if place > _LAST_SATA:
            raise GuestFailure("a guest of this host has no place for so many disks on SATA", permanent=True)
        if port == 0:
            self._controller({"driver": "ich9-ahci", "id": f"sata{number}"}, place)
        return f"sata{number}.{port}"

    def _scsi_bus(self) -> str:
        if not self._scsi:
            self._scsi = True
            self._controller({"driver": "virtio-scsi-pci", "id": "scsi0"}, 0x5)
        return "scsi0.0"

    def _usb_port(self) -> str:
        if not self._usb:
            self._controller({"driver": "qemu-xhci", "id": "usb0", "p2": 15, "p3": 15}, 0x6)
        self._usb += 1
        self.devices += ["-device", json.dumps({"driver": "usb-bot", "id": f"usb-disk{self._usb}", "bus": "usb0.0"})]
        return f"usb-disk{self._usb}.0"

    def _controller(self, device: dict[str, object], number: int) -> None:
        self.devices += ["-device", json.dumps(device | self.board.fixed(number))]


def _bus(disk: DiskSpec) -> str:
    """A virtio disk is never a CD-ROM: such a one is on SATA."""
    return "sata" if disk.device == "cdrom" and disk.bus == "virtio" else disk.bus


def _boot_order(disks: tuple[DiskSpec, ...]) -> list[int]:
    """The places of the disks that the firmware may start from.  QEMU wants no number twice."""
    ranks = [(disk.boot_index, index) for index, disk in enumerate(disks) if disk.boot_index is not None]
    return [index for _, index in sorted(ranks)]


def _image(index: int, disk: DiskSpec, path: Path) -> list[str]:
    fixed: dict[str, object] = {"read-only": True} if disk.device == "cdrom" else {"discard": "unmap"}
    file: dict[str, object] = {"driver": "file", "filename": str(path)} | fixed
    image: dict[str, object] = {"driver": "qcow2", "node-name": node(index), "file": file} | fixed
    if disk.limit == DiskLimit():
        return ["-blockdev", json.dumps(image)]
    limits = {name: value for key, name in _LIMITS.items() if (value := getattr(disk.limit, key))}
    group = {"qom-type": "throttle-group", "id": f"limit{index}", "limits": limits}
    image["node-name"] = f"image{index}"
    throttle: dict[str, object] = {"driver": "throttle", "node-name": node(index), "throttle-group": f"limit{index}"}
    throttle |= {"file": image} | fixed
    return ["-object", json.dumps(group), "-blockdev", json.dumps(throttle)]


def _config_drive(path: Path) -> list[str]:
    """A read-only virtio disk: a guest finds it by its label and needs no driver but the one of its root disk."""
    file = {"driver": "file", "filename": str(path), "read-only": True}
    return ["-blockdev", json.dumps({"driver": "raw", "node-name": "config", "read-only": True, "file": file})]
