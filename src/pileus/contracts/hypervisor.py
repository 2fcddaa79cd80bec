"""The contract between the agent and a hypervisor driver.

A driver owns guests on one host.  Every method is synchronous, thread-safe for different guests, and idempotent: the
agent calls `ensure` again after any crash, with the same or a newer spec, and the driver makes reality match it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from pileus.contracts.text import Digest, Identifier, Line, MacText

Power = Literal["running", "stopped", "paused", "suspended"]
"""What is wanted of a guest.  `suspended`: its memory is in a file, and no process runs."""

Observed = Literal["running", "stopped", "paused", "suspended", "shutdown", "absent", "failed"]
"""What is seen of a guest.

`stopped`: known to this host, no process.  `shutdown`: the guest turned itself off (ACPI) and waits to be folded
into `stopped`.  `absent`: this host knows nothing of it.  `failed`: the driver could not reach what is wanted;
the reason is in `GuestObserved.detail`.
"""


class DiskLimit(msgspec.Struct, frozen=True, kw_only=True):
    """What a disk may move in a second, on an average; 0 for no limit.  A total excludes limits of its parts."""

    total_bytes: int = 0
    read_bytes: int = 0
    write_bytes: int = 0
    total_iops: int = 0
    read_iops: int = 0
    write_iops: int = 0


class DiskSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One disk of a guest, as the control plane wants it.

    The first disk with `boot_index` 0 is the one the firmware starts from.
    """

    id: Identifier
    image_id: Identifier | None = None
    """Image whose content the disk starts with; None for an empty disk."""
    image_format: Identifier = "qcow2"
    """Format of the image's data: `qcow2` or `raw`."""
    image_sha512: Digest | None = None
    """What the image's data must hash to, in hexadecimal; a host refuses anything else."""
    size_gib: int
    """Virtual size in GiB; 0 means the virtual size of the image."""
    bus: Literal["virtio", "sata", "scsi", "usb"] = "virtio"
    device: Literal["disk", "cdrom"] = "disk"
    boot_index: int | None = None
    filesystem: Literal["", "swap", "ext4", "vfat"] = ""
    """What an empty disk is formatted with."""
    label: Line = ""
    """The file system's label."""
    incarnation: int = 1
    """Grows each time that the disk is to be made anew: each incarnation is a file of its own.  Those that are
    neither this one nor kept are deleted once this one is there."""
    copy_of: int | None = None
    """The incarnation that this one begins as a copy of, grown to `size_gib` if it is smaller; it was kept until
    then.  None: it begins as its image says."""
    keep: tuple[int, ...] = ()
    """Other incarnations that stay, since it may be gone back to them."""
    limit: DiskLimit = DiskLimit()


class NicLimit(msgspec.Struct, frozen=True, kw_only=True):
    """What a network card may move, in kilobytes a second on an average; 0 for no limit.  `in`: to the guest."""

    in_average: int = 0
    in_peak: int = 0
    in_burst: int = 0
    out_average: int = 0
    out_peak: int = 0
    out_burst: int = 0


class NicSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One network card: the port it is plugged into, and what the guest sees."""

    port_id: Identifier
    mac_address: MacText
    mtu: int
    model: Literal["virtio", "e1000", "e1000e", "rtl8139"] = "virtio"
    limit: NicLimit = NicLimit()


class MachineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a guest's machine is besides processors, memory, disks and cards: from flavor and image.

    Source: Compute's documentation of flavors' extra specs and Image's of `hw_` properties.  What a host cannot give
    it refuses with a permanent GuestFailure that says so.
    """

    type: Literal["", "q35", "pc", "microvm"] = ""
    """Empty for what the driver likes best."""
    firmware: Literal["bios", "uefi"] = "bios"
    secure_boot: bool = False
    tpm: Literal["", "1.2", "2.0"] = ""
    tpm_model: Literal["tpm-tis", "tpm-crb"] = "tpm-tis"
    rng: bool = True
    rng_bytes: int = 0
    """Bytes in each `rng_period` ms that the random number generator gives; 0 for no limit."""
    rng_period: int = 0
    watchdog: Literal["", "none", "pause", "poweroff", "reset"] = ""
    """What a watchdog that was not fed does; empty for no watchdog."""
    sockets: int = 0
    cores: int = 0
    threads: int = 0
    """Topology; 0 for what the driver likes best.  Their product is the number of processors where all are given."""
    pinned: bool = False
    """Whether each processor has one of the host's to itself."""
    page_kib: int = 0
    """Size of the memory's pages in KiB: 0 for the host's small ones."""
    cpu_shares: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    """Weight beside other guests, and microseconds of each period that the processors may run; 0 for no limit."""
    video: Literal["vga", "virtio", "none", "qxl", "cirrus", "bochs"] = "vga"
    video_mib: int = 0
    serial_ports: int = 1
    guest_agent: bool = False
    """Whether there is a channel for the guest's agent (`org.qemu.guest_agent.0`)."""
    kernel_id: Identifier | None = None
    ramdisk_id: Identifier | None = None
    hide_hypervisor: bool = False


class GuestSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A guest as the control plane wants it: assignment kind `guest`.

    Cards that come or go are plugged and unplugged while the guest runs.  Everything else of a running guest (disks,
    machine, processors, memory) changes when it starts anew, which is what a grown `reboot_nonce` asks for.
    """

    id: Identifier
    """The server's UUID."""
    name: str
    vcpus: int
    memory_mib: int
    disks: tuple[DiskSpec, ...]
    retired: tuple[Identifier, ...] = ()
    """Ids of disks that the guest has no more: their files are deleted once no process has them open."""
    nics: tuple[NicSpec, ...]
    power: Power
    reboot_nonce: int = 0
    """Grows by one for each reboot and each start asked for; the host keeps the last that it applied."""
    reboot_kind: Literal["SOFT", "HARD"] = "HARD"
    acts: Mapping[str, int] = {}
    """Acts that are no state, each with a nonce that grows: `nmi` (a crash dump is triggered), `password` (the guest's
    agent sets `password`).  The host keeps the last nonces applied beside the guest; one that cannot be applied counts
    as applied, and is told in `faults`."""
    password: str | None = None
    """Secret."""
    machine: MachineSpec = MachineSpec()
    config_drive: bool = False
    documents: Mapping[str, bytes] = {}
    """Metadata as paths below the metadata root, e.g. `openstack/latest/meta_data.json`, to their content.
    Secret: user data and passwords are among them."""


class SnapshotSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An image that is to be made of a guest's disk as it is now: assignment kind `snapshot`, whose id is the image's.

    The host takes it once, of a running guest or of one at rest, keeps it until the control plane has all of it, and
    observes `ready`.  Its tombstone deletes what is left of it on the host.
    """

    id: Identifier
    """The image's UUID."""
    guest_id: Identifier
    disk_id: Identifier = "root"
    format: Literal["qcow2", "raw"] = "qcow2"
    quiesce: bool = False
    """Whether the guest's agent is asked to freeze its file systems meanwhile."""


class GuestPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent hands to a driver: the spec, with host paths and attachments filled in."""

    spec: GuestSpec
    disks: Mapping[str, Path]
    """Disk id to a qcow2 file on this host that the guest may write."""
    nics: Mapping[str, NicAttachment]
    """Port id to where it is plugged in on this host."""
    config_drive: Path | None = None
    """An ISO 9660 file, read-only for the guest."""


class NicAttachment(msgspec.Struct, frozen=True, kw_only=True):
    """Where a port surfaces on this host, as the network driver named it."""

    port_id: str
    device: str
    """Name of the tap (Linux, FreeBSD) inside `namespace`."""
    namespace: str | None
    """Network namespace (or vnet jail) that holds the device; None for the host's own."""


class GuestObserved(msgspec.Struct, frozen=True, kw_only=True):
    """What a driver saw of one guest."""

    id: str
    state: Observed
    reboot_nonce: int = 0
    """The last reboot that was applied."""
    acts: Mapping[str, int] = {}
    """The last nonce of each act that was applied, or could not be."""
    faults: Mapping[str, str] = {}
    """For people: why the last of an act could not be applied.  Holds no secret."""
    nics: tuple[str, ...] = ()
    """Ports whose cards the guest has: those of its process, or of its spec where none runs."""
    detail: str = ""
    """For people: why the state is `failed`.  Holds no secret."""
    started_at: float | None = None
    """Seconds since the epoch, None when no process runs."""


ConsoleKind = Literal["vnc", "serial"]


class DiskDiagnostics(msgspec.Struct, frozen=True, kw_only=True):
    """A disk's counters since the guest's process started."""

    id: str
    read_bytes: int = 0
    read_requests: int = 0
    write_bytes: int = 0
    write_requests: int = 0
    errors_count: int = 0


class NicDiagnostics(msgspec.Struct, frozen=True, kw_only=True):
    """A card's counters, from the guest's point of view, since it was plugged in."""

    port_id: str
    mac_address: str
    rx_octets: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_drop: int = 0
    tx_octets: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_drop: int = 0


class Diagnostics(msgspec.Struct, frozen=True, kw_only=True):
    """What a host measures of a running guest (Compute API reference, "Servers diagnostics")."""

    state: str
    """`running` or `paused`."""
    driver: str
    """As `HypervisorFacts.type`, in lower case."""
    uptime: int
    """Seconds."""
    cpu_time: tuple[int, ...]
    """Nanoseconds of each processor."""
    memory_mib: int
    memory_used_mib: int
    disks: tuple[DiskDiagnostics, ...] = ()
    nics: tuple[NicDiagnostics, ...] = ()


class HypervisorFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a host can run."""

    type: str
    """`QEMU` for software emulation, `KVM` when accelerated: the API's hypervisor_type."""
    version: int
    """major * 1,000,000 + minor * 1,000 + micro, as the API reports it."""
    accelerator: str
    """`kvm` or `tcg`; `fake`."""
    vcpus: int
    memory_mib: int
    disk_gib: int
    architecture: str = "x86_64"
    cpu_model: str = ""
    firmwares: tuple[str, ...] = ("bios",)
    """Of `bios`, `uefi` and `uefi-secure`, those that guests can have."""
    tpm: tuple[str, ...] = ()
    """Versions of the TPM that guests can have."""
    page_kib: tuple[int, ...] = ()
    """Sizes of huge pages in KiB."""
    booted_at: int | None = None
    """When the host itself was started, in seconds since 1970; None where it cannot tell."""


class GuestFailure(Exception):
    """A driver could not do what was asked; the message is for people and holds no secret.

    `permanent` says that trying again without a new spec is useless (for example, the disk is larger than the host).
    """

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class GuestBusy(GuestFailure):
    """Something else is under way for the guest, and may take long; nothing was done."""


class Hypervisor(Protocol):
    """Guests on one host."""

    def facts(self) -> HypervisorFacts:
        """Measure the host. The accelerator is found by trying it, under a time limit."""

    def ensure(self, plan: GuestPlan) -> GuestObserved:
        """Bring the guest to the plan's power state, apply a pending reboot, and say what is seen.

        Post-condition: the guest is in the wanted state, or a process that was started for it is gone again and
        `GuestFailure` is raised.  A guest that turned itself off is left alone and reported as `shutdown` until the
        spec says `stopped`.  A guest whose process died while `running` is wanted is started again.  Raises
        `GuestBusy` soon where its disk is being copied meanwhile.
        """

    def hurry(self, guest_id: str, *, on: bool) -> None:
        """Whether the guest is to go: what is under way for it is then cut short.  Returns at once."""

    def observe(self, guest_id: str) -> GuestObserved:
        """Say what is seen of one guest, without changing it."""

    def guests(self) -> list[str]:
        """Ids of all guests that this host knows, running or not, including unknown ones found at start."""

    def remove(self, guest_id: str) -> None:
        """End the guest's process and delete its runtime files, not its disks. Absent guests are fine."""

    def console_log(self, guest_id: str, lines: int | None) -> str:
        """The last `lines` lines that the guest wrote to its serial console (all when None), at most 100 KiB."""

    def diagnostics(self, guest_id: str) -> Diagnostics:
        """Measure a guest that runs. Raises GuestFailure when it does not."""

    def open_console(self, guest_id: str, kind: ConsoleKind) -> socket.socket:
        """A connected stream socket to the guest's screen (RFB 3.8, no authentication) or serial port.

        Raises GuestFailure when the guest does not run or has none.
        """

    def snapshot(self, spec: SnapshotSpec, disk: Path, target: Path) -> None:
        """Write a disk, as it is at one moment, to a new file that stands alone (no backing file).

        `disk` is the file of the disk, as in the guest's plan.  Of a running guest it is taken while it runs on.
        Post-condition: `target` is whole and durable, or not there, and GuestFailure is raised.
        """

    def watch(self, changed: Callable[[str], None]) -> None:
        """Call `changed(guest_id)`, from any thread, whenever a guest's observed state may have changed."""

    def close(self) -> None:
        """Let go of all guests without touching them; a later driver adopts them."""
