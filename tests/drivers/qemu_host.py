"""A host with the QEMU driver, and guests of 512 bytes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from pileus.contracts.hypervisor import DiskSpec, GuestPlan, GuestSpec, NicAttachment, NicSpec, Power
from pileus.contracts.suite.hypervisor import eventually
from pileus.drivers.host.process import lock_holder
from pileus.drivers.hypervisor.qemu import QemuHypervisor

needs_qemu = pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives guests an id, a control group or a tap")

GREETING = b"guest is up\r\n"

_PROGRAM = bytes.fromhex(
    "31c0 8ed8"  # start: xor ax,ax; mov ds,ax
    "ba0206 b80001 ef"  # mov dx,0x602; mov ax,0x0100; out dx,ax: the power button is reported
    "be757c"  # mov si,greeting
    "ac 84c0 7405 e83800 ebf6"  # print: lodsb; test al,al; jz wait; call put; jmp print
    "fb f4 e83600"  # wait: sti; hlt; call eject
    "ba0006 ed f6c401 7519"  # mov dx,0x600; in ax,dx; test ah,1; jnz off: the power button was pressed
    "bafd03 ec a801 74ea"  # mov dx,0x3fd; in al,dx; test al,1; jz wait: nothing was typed
    "baf803 ec"  # mov dx,0x3f8; in al,dx
    "3c70 7409 3c72 740e"  # cmp al,'p'; je off; cmp al,'r'; je reset
    "e81100 ebd9"  # call put; jmp wait
    "ba0406 b80020 ef ebd0"  # off: mov dx,0x604; mov ax,0x2000; out dx,ax; jmp wait
    "b0fe e664 ebca"  # reset: mov al,0xfe; out 0x64,al; jmp wait
    "baf803 ee c3"  # put: mov dx,0x3f8; out dx,al; ret
    "66b93f000000"  # eject: mov ecx,63
    "bad00c 6689c8 66ef"  # next: mov dx,0xcd0; mov eax,ecx; out dx,eax: a bus is selected
    "bac40c 66ed 6685c0 7405"  # mov dx,0xcc4; in eax,dx; test eax,eax; jz none: no card of it is to go
    "bac80c 66ef"  # mov dx,0xcc8; out dx,eax: let go of it
    "6649 79e5 c3"  # none: dec ecx; jns next; ret
)
BOOT_SECTOR = (_PROGRAM + GREETING).ljust(510, b"\0") + b"\x55\xaa"
"""Greets on the serial line, lets go of cards that are to be unplugged (docs/specs/acpi_pci_hotplug of QEMU), and obeys
the ACPI power button and two keys: p turns it off, r resets it.  Other keys it gives back."""

GUEST = GuestSpec(
    id="",
    name="test",
    vcpus=1,
    memory_mib=32,
    disks=(DiskSpec(id="root-disk-with-a-long-name", size_gib=0, boot_index=0),),
    nics=(),
    power="running",
    documents={"openstack/latest/user_data": b"top secret"},
)


class QemuHarness:
    patience = 15.0

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "state"
        self.namespace = ""
        (root / "disks").mkdir(mode=0o711)

    def open(self, grace: float = 15.0) -> QemuHypervisor:
        return QemuHypervisor(state=self.state, accelerator="tcg", grace=grace)

    def disk(self, guest_id: str, content: bytes = BOOT_SECTOR) -> Path:
        path = self.root / "disks" / f"{guest_id}.qcow2"
        if not path.exists():
            raw = path.with_suffix(".raw")
            raw.write_bytes(content.ljust(1 << 20, b"\0"))
            subprocess.run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(path)], check=True)
            raw.unlink()
        return path

    def plan(self, guest_id: str, power: Power, nonce: int = 0, kind: Literal["SOFT", "HARD"] = "HARD") -> GuestPlan:
        spec = msgspec.structs.replace(GUEST, id=guest_id, power=power, reboot_nonce=nonce, reboot_kind=kind)
        return GuestPlan(spec=spec, disks={spec.disks[0].id: self.disk(guest_id)}, nics={})

    def with_cards(self, plan: GuestPlan, count: int) -> GuestPlan:
        if count:
            self._network()
        nics = tuple(
            NicSpec(port_id=f"port{number}", mac_address=f"02:00:00:00:00:0{number}", mtu=1400)
            for number in range(count)
        )
        attached = {
            nic.port_id: NicAttachment(port_id=nic.port_id, device=f"tap{number}", namespace=self.namespace)
            for number, nic in enumerate(nics)
        }
        spec = msgspec.structs.replace(plan.spec, nics=nics)
        return msgspec.structs.replace(plan, spec=spec, nics=attached)

    def _network(self) -> None:
        """A network namespace with persistent taps named `tap0` and so on."""
        if self.namespace:
            return
        name = f"pileus-qemu-{uuid.uuid4().hex[:8]}"
        if subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True).returncode:
            pytest.skip("network namespaces cannot be made here")
        self.namespace = name
        for number in range(3):
            tap = f"tap{number}"
            subprocess.run(["ip", "-n", name, "tuntap", "add", "dev", tap, "mode", "tap", "vnet_hdr"], check=True)
            subprocess.run(["ip", "-n", name, "link", "set", tap, "up"], check=True)

    def end(self) -> None:
        if self.namespace:
            subprocess.run(["ip", "netns", "del", self.namespace], check=True)

    def directory(self, guest_id: str) -> Path:
        return self.state / "guests" / guest_id

    def pid(self, guest_id: str) -> int:
        pid = lock_holder(self.directory(guest_id) / "pid")
        assert pid is not None
        return pid

    def boots(self, guest_id: str) -> int:
        try:
            return (self.directory(guest_id) / "console.log").read_bytes().count(GREETING)
        except FileNotFoundError:
            return 0

    def type(self, guest_id: str, keys: bytes) -> None:
        """Type on the guest's serial line."""
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(self.directory(guest_id) / "serial.sock"))
            line.sendall(keys)
            time.sleep(0.5)

    def power_off(self, guest_id: str) -> None:
        self.type(guest_id, b"p")

    def kill(self, guest_id: str) -> None:
        pidfile = self.directory(guest_id) / "pid"
        os.kill(self.pid(guest_id), signal.SIGKILL)
        assert eventually(lambda: lock_holder(pidfile) is None, 5)

    def leftovers(self, guest_id: str) -> list[str]:
        files = [str(path) for path in self.state.rglob("*") if guest_id in str(path)]
        groups = [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{guest_id}")]
        return files + groups + [f"process {pid}" for pid in processes(guest_id)]


def processes(guest_id: str) -> list[int]:
    """Live processes that have the guest's id among their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if f"guest=pileus-{guest_id}".encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


def status(pid: int) -> dict[str, str]:
    """What /proc says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


@pytest.fixture
def harness() -> Iterator[QemuHarness]:
    # Guests have ids of their own, and pytest's directories let only their owner pass.
    root = Path(tempfile.mkdtemp(prefix="pileus-qemu-"))
    root.chmod(0o711)
    harness = QemuHarness(root)
    yield harness
    harness.end()
    shutil.rmtree(root)


@pytest.fixture
def driver(harness: QemuHarness) -> Iterator[QemuHypervisor]:
    driver = harness.open()
    yield driver
    for guest in driver.guests():
        driver.remove(guest)
    driver.close()


@pytest.fixture
def guest() -> str:
    return str(uuid.uuid4())
