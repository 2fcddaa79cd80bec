"""What a running guest uses, from QEMU and from the kernel (qapi/block.json; proc(5))."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pileus.contracts.hypervisor import (
    Diagnostics,
    DiskDiagnostics,
    GuestFailure,
    GuestObserved,
    GuestPlan,
    NicDiagnostics,
)
from pileus.drivers.host.tap import counters
from pileus.drivers.hypervisor.qemu.device import node
from pileus.drivers.hypervisor.qemu.guest import Guest


def diagnose(guest: Guest, seen: GuestObserved, driver: str) -> Diagnostics:
    """Measure a guest whose process lives, and which is `seen` so. Raises GuestFailure and MonitorFailure."""
    kept, pid = guest.directory.applied(), guest.directory.holder()
    if pid is None:
        raise GuestFailure(f"guest {guest.id} does not run")
    plan = None if kept is None else kept.plan
    processors = sorted(guest.execute("query-cpus-fast"), key=lambda one: int(one["cpu-index"]))
    return Diagnostics(
        state=seen.state,
        driver=driver,
        uptime=_uptime(pid),
        cpu_time=tuple(_cpu_time(pid, int(one["thread-id"])) for one in processors),
        memory_mib=int(guest.execute("query-memory-size-summary")["base-memory"]) >> 20,
        memory_used_mib=_resident(pid) >> 20,
        disks=() if plan is None else _disks(guest, plan),
        nics=() if plan is None else _nics(plan, seen.nics),
    )


def _disks(guest: Guest, plan: GuestPlan) -> tuple[DiskDiagnostics, ...]:
    found: dict[str, dict[str, Any]] = {}
    for one in guest.execute("query-blockstats"):
        for part in str(one.get("qdev", "")).split("/"):
            found[part] = one["stats"]
    disks = []
    for index, disk in enumerate(plan.spec.disks):
        stats = found.get(f"device-{node(index)}", {})
        disks.append(
            DiskDiagnostics(
                id=disk.id,
                read_bytes=stats.get("rd_bytes", 0),
                read_requests=stats.get("rd_operations", 0),
                write_bytes=stats.get("wr_bytes", 0),
                write_requests=stats.get("wr_operations", 0),
                errors_count=stats.get("failed_rd_operations", 0) + stats.get("failed_wr_operations", 0),
            )
        )
    return tuple(disks)


def _nics(plan: GuestPlan, plugged: tuple[str, ...]) -> tuple[NicDiagnostics, ...]:
    """What the host's end of a card sends, the guest receives."""
    cards = []
    for nic in plan.spec.nics:
        where = plan.nics.get(nic.port_id)
        if nic.port_id not in plugged or where is None:
            continue
        try:
            host = counters(where.device, where.namespace)
        except FileNotFoundError:
            continue
        cards.append(
            NicDiagnostics(
                port_id=nic.port_id,
                mac_address=nic.mac_address,
                rx_octets=host.tx_octets,
                rx_packets=host.tx_packets,
                rx_errors=host.tx_errors,
                rx_drop=host.tx_drop,
                tx_octets=host.rx_octets,
                tx_packets=host.rx_packets,
                tx_errors=host.rx_errors,
                tx_drop=host.rx_drop,
            )
        )
    return tuple(cards)


def _cpu_time(pid: int, thread: int) -> int:
    """Nanoseconds that a processor's thread ran."""
    try:
        words = Path(f"/proc/{pid}/task/{thread}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    # utime and stime are fields 14 and 15, of which the first two are cut off with the name.
    return (int(words[11]) + int(words[12])) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def _uptime(pid: int) -> int:
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    since_boot = float(Path("/proc/uptime").read_text().split()[0])
    return max(0, int(since_boot - int(words[19]) / os.sysconf("SC_CLK_TCK")))


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
