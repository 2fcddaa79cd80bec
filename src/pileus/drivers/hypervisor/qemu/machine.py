"""How QEMU spells a guest's machine, and what this host has for it (qemu(1); Debian's packages `ovmf` and `swtpm`).

The machine is q35 unless the plan says otherwise: measured against `pc` it starts Linux as fast, and it has PCI
Express slots for hot-plug.  Under TCG the processor is `max` without five-level paging: within a tenth of the plainest
model's boot time, and it runs images that are compiled for x86-64-v3.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from pileus.contracts.hypervisor import GuestFailure, GuestSpec, MachineSpec
from pileus.drivers.hypervisor.qemu.device import Board

CPU = {"kvm": "host", "tcg": "max,la57=off"}
_FIRMWARE = Path("/usr/share/OVMF")
_PAGES = Path("/sys/kernel/mm/hugepages")
VIDEO = {"vga": "VGA", "virtio": "virtio-vga", "qxl": "qxl-vga", "cirrus": "cirrus-vga", "bochs": "bochs-display"}
"""Models of screens as QEMU names them."""
_VIDEO_MEMORY = {"vga": "vgamem_mb", "qxl": "vgamem_mb", "cirrus": "vgamem_mb"}
"""The models whose memory can be chosen, and by which property."""
_SWTPM = "swtpm"
_MOST_SERIAL = 4
"""Serial ports of a PC."""


class Firmware(NamedTuple):
    """A build of UEFI for virtual machines: its code, and the variables that a new guest starts with."""

    code: Path
    variables: Path


_FIRMWARES = {
    "uefi": Firmware(_FIRMWARE / "OVMF_CODE_4M.fd", _FIRMWARE / "OVMF_VARS_4M.fd"),
    # Microsoft's keys are enrolled in these variables, so that signed systems start and no others.
    "uefi-secure": Firmware(_FIRMWARE / "OVMF_CODE_4M.secboot.fd", _FIRMWARE / "OVMF_VARS_4M.ms.fd"),
}


def firmwares() -> tuple[str, ...]:
    """What guests can start with here."""
    return ("bios", *(name for name, files in _FIRMWARES.items() if all(path.exists() for path in files)))


def tpms() -> tuple[str, ...]:
    """Versions of the TPM that guests can have here."""
    return ("1.2", "2.0") if shutil.which(_SWTPM) else ()


def page_sizes() -> tuple[int, ...]:
    """Sizes in KiB of huge pages of which the host has set some aside."""
    held = (folder.name for folder in _PAGES.glob("hugepages-*kB") if _count(folder / "nr_hugepages"))
    return tuple(sorted(int(name.removeprefix("hugepages-").removesuffix("kB")) for name in held))


def firmware_name(machine: MachineSpec) -> str:
    """As `firmwares` names it."""
    if machine.firmware == "bios":
        return "bios"
    return "uefi-secure" if machine.secure_boot else "uefi"


def firmware(machine: MachineSpec) -> Firmware | None:
    """The files of the machine's firmware; None for the BIOS, which QEMU has by itself."""
    return _FIRMWARES.get(firmware_name(machine))


def check(spec: GuestSpec) -> None:
    """Raise a permanent GuestFailure when this host can never start the guest, another when it cannot now."""
    machine = spec.machine
    if (why := _refusal(spec, machine)) is not None:
        raise GuestFailure(why, permanent=True)
    topology(spec)
    if machine.page_kib:
        _check_pages(spec)


def topology(spec: GuestSpec) -> tuple[int, int, int]:
    """Sockets, cores and threads.  Raises a permanent GuestFailure when they do not make up the processors."""
    machine = spec.machine
    threads = machine.threads or 1
    cores = machine.cores or (spec.vcpus // (machine.sockets * threads) if machine.sockets else 1)
    sockets = machine.sockets or spec.vcpus // max(1, cores * threads)
    if sockets * cores * threads != spec.vcpus:
        shape = f"{sockets} sockets of {cores} cores of {threads} threads"
        raise GuestFailure(f"{shape} are not {spec.vcpus} processors", permanent=True)
    return sockets, cores, threads


def arguments(spec: GuestSpec, board: Board, accelerator: str) -> list[str]:
    """Processors, memory, firmware and the devices of which a guest has one at most."""
    machine = spec.machine
    secure = firmware_name(machine) == "uefi-secure"
    kind = f"{board.model or board.type},vmport=off,smm={'on' if secure else 'off'}"
    files, parts = firmware(machine), []
    if files is not None:
        kind += ",pflash0=pflash0,pflash1=pflash1"
        parts += _flash(0, str(files.code), read_only=True)
        parts += _flash(1, nvram(machine), read_only=False)
        if secure:
            parts += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
    if machine.page_kib:
        kind += ",memory-backend=ram0"
        size = f"size={spec.memory_mib}M,hugetlb=on,hugetlbsize={machine.page_kib}K,prealloc=on"
        parts += ["-object", f"memory-backend-memfd,id=ram0,{size}"]
    bridge = "ICH9-LPC" if board.type == "q35" else "PIIX4_PM"
    sockets, cores, threads = topology(spec)
    hidden = ",hypervisor=off,kvm=off" if machine.hide_hypervisor else ""
    return [
        *("-machine", kind, "-cpu", CPU[accelerator] + hidden),
        *("-smp", f"{spec.vcpus},sockets={sockets},cores={cores},threads={threads}", "-m", f"{spec.memory_mib}M"),
        *("-global", f"{bridge}.disable_s3=1", "-global", f"{bridge}.disable_s4=1"),
        *parts,
        *_video(machine, board),
        *_rng(machine, board),
        *_watchdog(machine, board),
    ]


def tpm(machine: MachineSpec, fd: int) -> list[str]:
    """The TPM, which the process at the other end of a socket plays."""
    return [
        *("-chardev", f"socket,id=tpm,fd={fd}", "-tpmdev", "emulator,id=tpm0,chardev=tpm"),
        *("-device", f"{machine.tpm_model},tpmdev=tpm0"),
    ]


def nvram(machine: MachineSpec) -> str:
    """The file of the firmware's variables, in the run directory."""
    return f"nvram-{firmware_name(machine)}.fd"


def _refusal(spec: GuestSpec, machine: MachineSpec) -> str | None:
    wanted = firmware_name(machine)
    why: list[tuple[bool, str]] = [
        (machine.type == "microvm", "this host has no machines of type microvm"),
        (machine.secure_boot and machine.firmware == "bios", "secure boot needs UEFI firmware"),
        (wanted not in firmwares(), f"this host has no {wanted} firmware: the package ovmf is not installed"),
        (wanted == "uefi-secure" and machine.type == "pc", "secure boot needs a machine of type q35"),
        (bool(machine.tpm) and machine.tpm not in tpms(), "this host has no TPM: the package swtpm is not installed"),
        (machine.tpm == "1.2" and machine.tpm_model == "tpm-crb", "a TPM of version 1.2 is a tpm-tis, never a tpm-crb"),
        (
            machine.kernel_id is not None or machine.ramdisk_id is not None,
            "this host starts guests from their disks, not from a kernel image",
        ),
        (machine.serial_ports > _MOST_SERIAL, f"a guest of this host has at most {_MOST_SERIAL} serial ports"),
        (
            machine.pinned and spec.vcpus > len(os.sched_getaffinity(0)),
            f"{spec.vcpus} processors cannot be pinned: this host has {len(os.sched_getaffinity(0))}",
        ),
        (
            bool(machine.page_kib) and machine.page_kib not in page_sizes(),
            f"this host has set aside no pages of {machine.page_kib} KiB",
        ),
    ]
    return next((text for holds, text in why if holds), None)


def _check_pages(spec: GuestSpec) -> None:
    size, memory = spec.machine.page_kib, spec.memory_mib * 1024
    if memory % size:
        raise GuestFailure(f"{spec.memory_mib} MiB are no whole number of pages of {size} KiB", permanent=True)
    folder = _PAGES / f"hugepages-{size}kB"
    free = _count(folder / "free_hugepages")
    if free * size < memory:
        raise GuestFailure(f"{memory // size} pages of {size} KiB are needed, and this host has {free} free")


def _flash(number: int, path: str, *, read_only: bool) -> list[str]:
    file = {"driver": "file", "filename": path, "read-only": read_only}
    blockdev = {"driver": "raw", "node-name": f"pflash{number}", "read-only": read_only, "file": file}
    return ["-blockdev", json.dumps(blockdev)]


def _video(machine: MachineSpec, board: Board) -> list[str]:
    if machine.video == "none":
        return ["-display", "none"]
    device: dict[str, object] = {"driver": VIDEO[machine.video]} | board.fixed(1)
    if machine.video_mib and machine.video in _VIDEO_MEMORY:
        device[_VIDEO_MEMORY[machine.video]] = machine.video_mib
    return ["-device", json.dumps(device), "-vnc", "none"]


def _rng(machine: MachineSpec, board: Board) -> list[str]:
    if not machine.rng:
        return []
    device: dict[str, object] = {"driver": "virtio-rng-pci", "rng": "rng0"} | board.fixed(2)
    if machine.rng_bytes:
        device |= {"max-bytes": machine.rng_bytes, "period": machine.rng_period or 1000}
    return ["-object", "rng-builtin,id=rng0", "-device", json.dumps(device)]


def _watchdog(machine: MachineSpec, board: Board) -> list[str]:
    if not machine.watchdog:
        return []
    device = {"driver": "i6300esb", "id": "watchdog0"} | board.fixed(4)
    return ["-device", json.dumps(device), "-action", f"watchdog={machine.watchdog}"]


def _count(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
