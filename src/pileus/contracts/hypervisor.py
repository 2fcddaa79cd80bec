"""The contract between the agent and a hypervisor driver.

A driver owns guests on one host.  Every method is synchronous, thread-safe for different guests, and idempotent: the
agent calls `ensure` again after any crash, with the same or a newer spec, and the driver makes reality match it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, Protocol

import msgspec

Power = Literal["running", "stopped", "paused"]
"""What is wanted of a guest."""

Observed = Literal["running", "stopped", "paused", "shutdown", "absent", "failed"]
"""What is seen of a guest.

`stopped`: known to this host, no process.  `shutdown`: the guest turned itself off (ACPI) and waits to be folded
into `stopped`.  `absent`: this host knows nothing of it.  `failed`: the driver could not reach what is wanted;
the reason is in `GuestObserved.detail`.
"""


class DiskSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One disk of a guest, as the control plane wants it.

    The first disk with `boot_index` 0 is the one the firmware starts from.
    """

    id: str
    image_id: str | None = None
    """Image whose content the disk starts with; None for an empty disk."""
    image_format: str = "qcow2"
    """Format of the image's data: `qcow2` or `raw`."""
    image_sha512: str | None = None
    """What the image's data must hash to, in hexadecimal; a host refuses anything else."""
    size_gib: int
    """Virtual size in GiB; 0 means the virtual size of the image."""
    bus: Literal["virtio", "sata"] = "virtio"
    boot_index: int | None = None


class NicSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One network card: the port it is plugged into, and what the guest sees."""

    port_id: str
    mac_address: str
    mtu: int


class GuestSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A guest as the control plane wants it: assignment kind `guest`."""

    id: str
    """The server's UUID."""
    name: str
    vcpus: int
    memory_mib: int
    disks: tuple[DiskSpec, ...]
    nics: tuple[NicSpec, ...]
    power: Power
    reboot_nonce: int = 0
    """Grows by one for each reboot asked for; the host keeps the last one it applied beside the guest."""
    reboot_kind: Literal["SOFT", "HARD"] = "HARD"
    config_drive: bool = False
    documents: Mapping[str, bytes] = {}
    """Metadata as paths below the metadata root, e.g. `openstack/latest/meta_data.json`, to their content.
    Secret: user data and passwords are among them."""


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
    detail: str = ""
    """For people: why the state is `failed`.  Holds no secret."""
    started_at: float | None = None
    """Seconds since the epoch, None when no process runs."""


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


class GuestFailure(Exception):
    """A driver could not do what was asked; the message is for people and holds no secret.

    `permanent` says that trying again without a new spec is useless (for example, the disk is larger than the host).
    """

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class Hypervisor(Protocol):
    """Guests on one host."""

    def facts(self) -> HypervisorFacts:
        """Measure the host. The accelerator is found by trying it, under a time limit."""

    def ensure(self, plan: GuestPlan) -> GuestObserved:
        """Bring the guest to the plan's power state, apply a pending reboot, and say what is seen.

        Post-condition: the guest is in the wanted state, or a process that was started for it is gone again and
        `GuestFailure` is raised.  A guest that turned itself off is left alone and reported as `shutdown` until the
        spec says `stopped`.  A guest whose process died while `running` is wanted is started again.
        """

    def observe(self, guest_id: str) -> GuestObserved:
        """Say what is seen of one guest, without changing it."""

    def guests(self) -> list[str]:
        """Ids of all guests that this host knows, running or not, including unknown ones found at start."""

    def remove(self, guest_id: str) -> None:
        """End the guest's process and delete its runtime files, not its disks. Absent guests are fine."""

    def console_log(self, guest_id: str, lines: int | None) -> str:
        """The last `lines` lines that the guest wrote to its serial console (all when None), at most 100 KiB."""

    def watch(self, changed: Callable[[str], None]) -> None:
        """Call `changed(guest_id)`, from any thread, whenever a guest's observed state may have changed."""

    def close(self) -> None:
        """Let go of all guests without touching them; a later driver adopts them."""
