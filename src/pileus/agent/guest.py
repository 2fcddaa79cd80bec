"""A guest on its host: the drivers' calls that make it as it is wanted, in their order.

Blocks: for threads.  Any call may be the last before this host's power fails; the next life calls the same again.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from pileus.agent.image_cache import ImageCache
from pileus.agent.metadata import Metadata
from pileus.contracts.hypervisor import DiskSpec, GuestObserved, GuestPlan, GuestSpec, Hypervisor, NicAttachment
from pileus.contracts.link import Observation
from pileus.contracts.network import Network
from pileus.contracts.storage import Storage
from pileus.core.seams import reach


class Guests:
    """The guests of one host. `metadata` is None where nobody asks for it."""

    def __init__(
        self, hypervisor: Hypervisor, network: Network, storage: Storage, images: ImageCache, metadata: Metadata | None
    ) -> None:
        self._hypervisor = hypervisor
        self._network = network
        self._storage = storage
        self._images = images
        self._metadata = metadata

    def missing(self, spec: GuestSpec) -> list[DiskSpec]:
        """The disks of a guest that are still to be made."""
        return [disk for disk in spec.disks if self._storage.disk(spec.id, disk.id, disk.incarnation) is None]

    def observe(self, guest_id: str) -> GuestObserved:
        """What is seen of a guest."""
        return self._hypervisor.observe(guest_id)

    def ensure(self, spec: GuestSpec) -> GuestObserved | None:
        """Make a guest as wanted, from images that are here.

        None when it is to be tried again soon, and nothing was seen that may be told.  Raises GuestFailure,
        NetworkFailure and StorageFailure.
        """
        storage = self._storage
        if self._metadata is not None:
            self._metadata.set_guest(spec)
        nics = {nic.port_id: self._network.plug(nic.port_id) for nic in spec.nics}
        if any(disk.copy_of is not None for disk in self.missing(spec)) and not self._rest(spec, nics):
            return None
        disks = {disk.id: storage.ensure_disk(spec.id, disk, self._images.path(disk)) for disk in spec.disks}
        drive = storage.ensure_config_drive(spec.id, dict(spec.documents)) if spec.config_drive else None
        reach("agent.disk.made")
        seen = self._hypervisor.ensure(GuestPlan(spec=spec, disks=disks, nics=nics, config_drive=drive))
        reach("agent.guest.ensured")
        if seen.state == spec.power and seen.reboot_nonce >= spec.reboot_nonce:
            storage.settle(spec.id, spec)
            reach("agent.disk.settled")
        return seen

    def _rest(self, spec: GuestSpec, nics: Mapping[str, NicAttachment]) -> bool:
        """Let a guest rest, as it is, before its disks are copied; whether it does."""
        # Any other has a process that may write, one that is seen as failed too: it did not answer in time, no more.
        if self.observe(spec.id).state in ("stopped", "absent"):
            return True
        there = {disk.id: path for disk in spec.disks if (path := self._storage.disk(spec.id, disk.id)) is not None}
        disks = tuple(disk for disk in spec.disks if disk.id in there)
        # Acts and reboots are for the guest as it is to be; what it has had of them stays with the host.
        resting = msgspec.structs.replace(
            spec, power="stopped", disks=disks, reboot_nonce=0, acts={}, config_drive=False
        )
        seen = self._hypervisor.ensure(GuestPlan(spec=resting, disks=there, nics=nics))
        reach("agent.guest.rests")
        return seen.state == "stopped"

    def remove(self, guest_id: str) -> None:
        """End a guest, and delete its disks."""
        if self._metadata is not None:
            self._metadata.forget_guest(guest_id)
        self._hypervisor.remove(guest_id)
        reach("agent.guest.removed")
        self._storage.remove_guest(guest_id)
        reach("agent.disk.removed")


def observation(generation: int, seen: GuestObserved) -> Observation:
    """What is told of a guest."""
    return Observation(
        kind="guest",
        id=seen.id,
        generation=generation,
        state=seen.state,
        detail=seen.detail,
        reboot_nonce=seen.reboot_nonce,
        acts=dict(seen.acts),
        faults=dict(seen.faults),
        nics=list(seen.nics),
        started_at=seen.started_at,
    )


def settled(spec: GuestSpec, seen: GuestObserved) -> bool:
    """Whether nothing more is to be done until a signal: the guest is as wanted, or ended itself and awaits word."""
    reached = seen.state == spec.power or seen.state in ("shutdown", "failed")
    applied = all(seen.acts.get(name, 0) >= nonce for name, nonce in spec.acts.items())
    return reached and applied and seen.reboot_nonce >= spec.reboot_nonce
