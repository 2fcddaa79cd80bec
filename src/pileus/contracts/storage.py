"""The contract between the agent and a storage driver: guests' own disks, on one host."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from pileus.contracts.hypervisor import DiskSpec, GuestSpec


class StorageFailure(Exception):
    """A disk could not be made; the message is for people. `permanent`: trying again is useless."""

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class Storage(Protocol):
    """Disks of guests on one host.  Synchronous, idempotent, safe for different guests at once."""

    def ensure_disk(self, guest_id: str, disk: DiskSpec, image: Path | None) -> Path:
        """The disk's qcow2 file, made from `image` (a clean qcow2 file in the host's cache) when it is missing.

        Post-condition: the file is whole or not there; an existing disk is never rewritten, shrunk or emptied.  Other
        incarnations stay as they are: see `settle`.  One that is missing beside a newer one is not made: who asks for
        it knows less than is here.  Raises StorageFailure.
        """

    def settle(self, guest_id: str, spec: GuestSpec) -> None:
        """Delete what the spec says is no more: incarnations that are neither current nor kept, and retired disks.

        To be called when the guest runs, or rests, as the spec says.  Absent files are fine; those that a process has
        open stay.
        """

    def disk(self, guest_id: str, disk_id: str, incarnation: int | None = None) -> Path | None:
        """The file of an incarnation, or of the newest; None when it is not there."""

    def snapshot(self, snapshot_id: str) -> Path:
        """Where the file of a snapshot of this name is, or is to be written."""

    def remove_snapshot(self, snapshot_id: str) -> None:
        """Delete the file of a snapshot, finished or not. Absent is fine."""

    def snapshots(self) -> list[str]:
        """Ids of the snapshots of which this host has files."""

    def ensure_config_drive(self, guest_id: str, documents: dict[str, bytes]) -> Path:
        """An ISO 9660 file labelled `config-2` that holds the documents, mode 0600."""

    def remove_guest(self, guest_id: str) -> None:
        """Delete every disk and config drive of the guest. Absent is fine."""

    def guests(self) -> list[str]:
        """Ids of the guests for which this host has disks."""

    def free_gib(self) -> int:
        """Space left for disks, in GiB."""
