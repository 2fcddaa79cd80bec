"""Which accelerator works here: found by running code in a guest, never by the presence of a device.

A kernel may offer /dev/kvm and yet hang, refuse a register or lack permission for it.  So a guest whose whole program
is seven bytes of firmware is started; only the exit status that those bytes produce counts as proof.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from pathlib import Path

import msgspec

from pileus.contracts.hypervisor import GuestFailure
from pileus.drivers.host.process import ChildFailure, Identity, run, spawn

log = logging.getLogger(__name__)

_KVM = Path("/dev/kvm")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NOBODY = 65_534

_ROM_SIZE = 64 * 1024
"""Firmware comes in whole 64 KiB; the processor's first instruction is 16 bytes before its end."""
_PROGRAM = bytes.fromhex("baf400 b02a ee f4")
"""mov dx,0xf4; mov al,42; out dx,al; hlt: `isa-debug-exit` ends QEMU with status 2 * 42 + 1."""
_PROVEN = 85


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, and for which boot, program and permissions it holds."""

    boot_id: str
    program: str
    name: str
    reason: str
    version: int


_unwritten: dict[Path, Found] = {}
"""What was found while the disk took no file of it: this process does not try it again for each guest."""


def probe_accelerator(timeout: float = 2.0, *, binary: str = "qemu-system-x86_64") -> tuple[str, str]:
    """Try KVM, then software emulation, at most `timeout` seconds each; give `kvm` or `tcg`, and why.

    Raises GuestFailure when guests do not run at all: QEMU is missing or broken.
    """
    refused = _try("kvm", "host", timeout, binary) if _KVM.exists() else f"there is no {_KVM}"
    if not refused:
        return "kvm", "a probe guest ran under KVM"
    broken = _try("tcg", "max", timeout, binary)
    if broken:
        raise GuestFailure(f"{binary} cannot run a guest: {broken}")
    return "tcg", f"KVM does not work: {refused}"


def kvm_groups() -> tuple[int, ...]:
    """The group that may open /dev/kvm, which a guest's process needs when not everybody may."""
    try:
        found = _KVM.stat()
    except OSError:
        return ()
    everybody = found.st_mode & 0o006 == 0o006
    return () if everybody or not found.st_mode & stat.S_IRGRP or found.st_gid == 0 else (found.st_gid,)


def remembered(cache: Path, binary: str, timeout: float) -> Found:
    """What `probe_accelerator` finds, remembered in the file `cache` until the host or the program changes."""
    boot_id = _BOOT_ID.read_text().strip()
    program = _fingerprint(binary)
    known = _unwritten.get(cache)
    with contextlib.suppress(OSError, msgspec.DecodeError, msgspec.ValidationError):
        known = known or msgspec.json.decode(cache.read_bytes(), type=Found)
    if known is not None and (known.boot_id, known.program) == (boot_id, program):
        return known
    name, reason = probe_accelerator(timeout, binary=binary)
    found = Found(boot_id=boot_id, program=program, name=name, reason=reason, version=version(binary))
    _unwritten.pop(cache, None)
    new = cache.with_suffix(".new")
    try:
        new.write_bytes(msgspec.json.encode(found))
        new.replace(cache)
    except OSError as error:
        log.warning("what runs guests here is not remembered beyond this process: %s", error)
        _unwritten[cache] = found
    return found


def version(binary: str) -> int:
    """QEMU's version as the API reports it: 7.2.22 is 7002022.  Raises GuestFailure when QEMU does not say."""
    try:
        words = run([binary, "--version"], timeout=10).decode().split()
        major, minor, micro = (int(part) for part in words[words.index("version") + 1].split(".")[:3])
    except (OSError, ChildFailure, ValueError) as error:
        raise GuestFailure(f"{binary} does not tell its version: {error}") from error
    return major * 1_000_000 + minor * 1_000 + micro


def _fingerprint(binary: str) -> str:
    """What an administrator may change without a new boot: the program, and who may open /dev/kvm."""
    device = ""
    with contextlib.suppress(OSError):
        kvm = _KVM.stat()
        device = f"{kvm.st_mode:o}:{kvm.st_gid}"
    for folder in os.get_exec_path():
        with contextlib.suppress(OSError):
            found = (Path(folder) / binary).stat()
            return f"{binary}:{found.st_size}:{found.st_mtime_ns}:{device}"
    raise GuestFailure(f"{binary} is not installed, or not where the agent looks: `pileus prepare` brings it")


def _try(accelerator: str, cpu: str, timeout: float, binary: str) -> str:
    """Empty when guest code ran, else the reason why not."""
    rom = bytearray(_ROM_SIZE)
    rom[-16 : -16 + len(_PROGRAM)] = _PROGRAM
    with (
        os.fdopen(os.memfd_create("probe-rom"), "wb", buffering=0) as firmware,
        os.fdopen(os.memfd_create("probe-errors"), "w+b", buffering=0) as errors,
    ):
        firmware.write(rom)
        argv = [
            *(binary, "-nodefaults", "-no-user-config", "-display", "none", "-m", "16"),
            *("-machine", "q35", "-accel", accelerator, "-cpu", cpu, "-bios", f"/proc/self/fd/{firmware.fileno()}"),
            *("-device", "isa-debug-exit,iobase=0xf4,iosize=1"),
        ]
        identity = Identity(_NOBODY, _NOBODY, kvm_groups()) if os.geteuid() == 0 else None
        try:
            child = spawn(argv, identity=identity, pass_fds=[firmware.fileno()], stderr=errors.fileno())
        except OSError as error:
            return error.strerror or str(error)
        try:
            if not child.wait(timeout):
                return f"guest code did not run within {timeout:g} s"
            if child.status == _PROVEN:
                return ""
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip().splitlines()
            return said[0].removeprefix(f"{binary}: ") if said else f"QEMU ended with status {child.status}"
        finally:
            child.kill()
            # A process stuck inside a broken KVM may never end; it is not worth waiting for longer than this.
            child.wait(0.5)
