"""A guest's share of the host: its control group, its pinned processors, its cards' rates."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pileus.contracts.hypervisor import GuestFailure, GuestSpec, NicAttachment, NicSpec
from pileus.drivers.host.cgroup import Cgroups
from pileus.drivers.host.traffic import Rate, TrafficFailure, shape
from pileus.drivers.hypervisor.qemu.guest import Guest

_OVERHEAD_MIB = 512
"""Memory of a guest's process beyond the guest's own: code buffer, screen, caches; some 80 MiB are usual."""
_THREADS = 160
"""Threads of a process beyond one for each processor: QEMU's pool for disk I/O has at most 64 for each loop."""
_PERIOD = 100_000
"""Microseconds of a period when a quota comes without one: the kernel's default."""


def confine(cgroups: Cgroups, spec: GuestSpec) -> None:
    """Make the guest's control group, with nothing in it.

    A quota is of each processor, as upstream counts it; the group gets as many times as much.  Raises a permanent
    GuestFailure when a limit that the spec names cannot be had.
    """
    machine = spec.machine
    asked = machine.cpu_shares or machine.cpu_quota
    if asked and cgroups.kind == "none":
        raise GuestFailure(f"this host cannot limit processors: {cgroups.reason}", permanent=True)
    cgroups.remove(spec.id)
    refused = cgroups.create(
        spec.id,
        memory_mib=spec.memory_mib + _OVERHEAD_MIB,
        pids=spec.vcpus + _THREADS,
        cpu_shares=machine.cpu_shares,
        cpu_quota=max(0, machine.cpu_quota) * spec.vcpus,
        cpu_period=machine.cpu_period or _PERIOD,
    )
    if refused:
        raise GuestFailure(f"this host's kernel refuses the limit {', '.join(refused)}", permanent=True)


def pin(guest: Guest, processors: Sequence[int]) -> None:
    """Let each of the guest's processors run on one of the host's alone. Raises MonitorFailure and GuestFailure."""
    if not processors:
        return
    for one in guest.execute("query-cpus-fast"):
        try:
            os.sched_setaffinity(int(one["thread-id"]), {processors[int(one["cpu-index"])]})
        except OSError as error:
            raise GuestFailure(f"a processor cannot be pinned: {error.strerror}") from error


def rate(nic: NicSpec, where: NicAttachment) -> None:
    """Put a card's limits in force, instead of those before.  A peak is kept only as the burst bounds it.

    Raises a permanent GuestFailure when this host's kernel cannot.
    """
    limit = nic.limit
    try:
        shape(
            where.device,
            where.namespace,
            out=Rate(limit.in_average, limit.in_burst),
            into=Rate(limit.out_average, limit.out_burst),
        )
    except TrafficFailure as error:
        raise GuestFailure(f"the limits of port {nic.port_id} cannot be had: {error}", permanent=True) from error
