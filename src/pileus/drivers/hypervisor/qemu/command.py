"""QEMU's command line (qemu(1), and docs/system/invocation of QEMU 7.2), from a plan.

The machine is q35: measured against `pc` it starts Linux as fast, and it has PCI Express slots for hot-plug.  Under
TCG the processor is `max` without five-level paging: within a tenth of the plainest model's boot time, and it runs
images that are compiled for x86-64-v3.  The translation buffer is small (`tb-size=32`) because each guest pays for
it, which costs no measurable speed at boot.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pileus.contracts.hypervisor import DiskSpec, GuestPlan, NicSpec

CPU = {"kvm": "host", "tcg": "max,la57=off"}
_ACCELERATION = {"kvm": "kvm", "tcg": "tcg,tb-size=32,thread=multi"}
_SERIAL = 20
"""Characters that a virtio disk's serial number holds (virtio 1.1, 5.2.6)."""
_FIRST_ROOT_PORT = 0x10


@dataclass(frozen=True)
class Descriptors:
    """Open descriptors that QEMU inherits, by number."""

    qmp: int
    serial: int
    console: int
    taps: Mapping[str, int]
    """Port id to its tap."""

    def all(self) -> list[int]:
        """Every number, to be passed on."""
        return [self.qmp, self.serial, self.console, *self.taps.values()]


def arguments(
    binary: str, plan: GuestPlan, descriptors: Descriptors, *, accelerator: str, spare_ports: int
) -> list[str]:
    """The argument list of a process that is started in the run directory, with its processors halted (-S)."""
    spec = plan.spec
    slots = _Slots()
    devices = [
        *(part for index, nic in enumerate(spec.nics) for part in _nic(index, nic, descriptors, slots)),
        *(part for index, disk in enumerate(spec.disks) for part in _disk(index, disk, plan, slots)),
        *(_config_drive(plan, slots) if plan.config_drive is not None else ()),
    ]
    return [
        *(binary, "-name", f"guest=pileus-{spec.id},debug-threads=on", "-uuid", spec.id),
        *("-nodefaults", "-no-user-config", "-no-shutdown", "-S"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-machine", "q35,vmport=off,smm=off", "-accel", _ACCELERATION[accelerator], "-cpu", CPU[accelerator]),
        *("-smp", f"{spec.vcpus},sockets={spec.vcpus},cores=1,threads=1", "-m", f"{spec.memory_mib}M"),
        *("-global", "ICH9-LPC.disable_s3=1", "-global", "ICH9-LPC.disable_s4=1"),
        *("-rtc", "base=utc", "-boot", "strict=on", "-pidfile", "pid"),
        *_identity(spec.id),
        *("-chardev", f"socket,id=qmp,fd={descriptors.qmp},server=on,wait=off", "-mon", "chardev=qmp,mode=control"),
        *_serial(descriptors),
        *("-device", "VGA,bus=pcie.0,addr=0x1", "-vnc", "unix:vnc/vnc.sock"),
        *("-object", "rng-builtin,id=rng0", "-device", "virtio-rng-pci,rng=rng0,bus=pcie.0,addr=0x2"),
        *slots.ports(spare_ports),
        *devices,
    ]


class _Slots:
    """Root ports: one for each device, so that each can be unplugged, and spare ones."""

    def __init__(self) -> None:
        self._used = 0
        self._sata = 0

    def take(self) -> str:
        self._used += 1
        return f"port{self._used - 1}"

    def take_sata(self) -> str:
        self._sata += 1
        return f"ide.{self._sata - 1}"

    def ports(self, spare: int) -> list[str]:
        # Without io-reserve=0 each port asks for 4 KiB of the 64 KiB of I/O addresses, which virtio does not use.
        ports: list[str] = []
        for index in range(self._used + spare):
            address = f"bus=pcie.0,multifunction=on,addr=0x{_FIRST_ROOT_PORT + index // 8:x}.0x{index % 8}"
            ports += ["-device", f"pcie-root-port,id=port{index},chassis={index + 1},io-reserve=0,{address}"]
        return ports


def _identity(guest_id: str) -> list[str]:
    """What the guest reads of its maker.  cloud-init looks for OpenStack by the asset tag of the chassis."""
    return [
        *("-smbios", f"type=1,manufacturer=Pileus,product=Pileus,family=Virtual Machine,uuid={guest_id}"),
        *("-smbios", "type=3,manufacturer=Pileus,asset=OpenStack Compute"),
    ]


def _serial(descriptors: Descriptors) -> list[str]:
    """One character device serves the console to a client and writes its log."""
    return [
        *("-add-fd", f"fd={descriptors.console},set=1"),
        *("-chardev", f"socket,id=serial,fd={descriptors.serial},server=on,wait=off,logfile=/dev/fdset/1,logappend=on"),
        *("-serial", "chardev:serial"),
    ]


def _nic(index: int, nic: NicSpec, descriptors: Descriptors, slots: _Slots) -> list[str]:
    device = {
        "driver": "virtio-net-pci",
        "id": f"nic{index}",
        "netdev": f"net{index}",
        "mac": nic.mac_address,
        "host_mtu": nic.mtu,
        "bus": slots.take(),
        # No network boot: the firmware would spend seconds on it.
        "romfile": "",
    }
    fd = descriptors.taps[nic.port_id]
    return ["-netdev", f"tap,id=net{index},fd={fd},vhost=off", "-device", json.dumps(device)]


def _disk(index: int, disk: DiskSpec, plan: GuestPlan, slots: _Slots) -> list[str]:
    node = f"disk{index}"
    path = str(plan.disks[disk.id])
    file = {"driver": "file", "filename": path, "discard": "unmap"}
    blockdev = {"driver": "qcow2", "node-name": node, "discard": "unmap", "file": file}
    device: dict[str, object] = {"drive": node, "id": f"device-{node}", "serial": disk.id[:_SERIAL]}
    if disk.bus == "sata":
        device |= {"driver": "ide-hd", "bus": slots.take_sata()}
    else:
        device |= {"driver": "virtio-blk-pci", "bus": slots.take()}
    if disk.boot_index is not None:
        device["bootindex"] = disk.boot_index
    return ["-blockdev", json.dumps(blockdev), "-device", json.dumps(device)]


def _config_drive(plan: GuestPlan, slots: _Slots) -> list[str]:
    """A read-only virtio disk: a guest finds it by its label and needs no driver but the one of its root disk."""
    file = {"driver": "file", "filename": str(plan.config_drive), "read-only": True}
    blockdev = {"driver": "raw", "node-name": "config", "read-only": True, "file": file}
    device = {"driver": "virtio-blk-pci", "id": "device-config", "drive": "config", "serial": "config-2"}
    device["bus"] = slots.take()
    return ["-blockdev", json.dumps(blockdev), "-device", json.dumps(device)]
