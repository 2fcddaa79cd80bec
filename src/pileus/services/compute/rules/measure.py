"""What a host measures of a guest, in the two forms that Compute's API has for it.

Source: Compute API reference, "Servers diagnostics": one form for all hypervisors from 2.48 on, before it that of
upstream's libvirt driver.
"""

from __future__ import annotations

import string
from typing import Any

from pileus.contracts.hypervisor import Diagnostics

DRIVER = "libvirt"
"""Of the drivers that clients know by name, the one whose guests are QEMU's too."""


def standard(found: Diagnostics, *, config_drive: bool) -> dict[str, Any]:
    """The form for all hypervisors; memory in MiB, times of processors in nanoseconds."""
    return {
        "state": found.state,
        "driver": DRIVER,
        "hypervisor": found.driver,
        "hypervisor_os": "linux",
        "uptime": found.uptime,
        "config_drive": config_drive,
        "num_cpus": len(found.cpu_time),
        "num_nics": len(found.nics),
        "num_disks": len(found.disks),
        "memory_details": {"maximum": found.memory_mib, "used": found.memory_used_mib},
        "cpu_details": [
            {"id": number, "time": time, "utilisation": None} for number, time in enumerate(found.cpu_time)
        ],
        "nic_details": [
            {
                "mac_address": one.mac_address,
                "rx_octets": one.rx_octets,
                "rx_errors": one.rx_errors,
                "rx_drop": one.rx_drop,
                "rx_packets": one.rx_packets,
                "rx_rate": None,
                "tx_octets": one.tx_octets,
                "tx_errors": one.tx_errors,
                "tx_drop": one.tx_drop,
                "tx_packets": one.tx_packets,
                "tx_rate": None,
            }
            for one in found.nics
        ],
        "disk_details": [
            {
                "read_bytes": one.read_bytes,
                "read_requests": one.read_requests,
                "write_bytes": one.write_bytes,
                "write_requests": one.write_requests,
                "errors_count": one.errors_count,
            }
            for one in found.disks
        ],
    }


def plain(found: Diagnostics) -> dict[str, Any]:
    """The older form: a flat object whose keys name processors, disks and cards; memory in KiB."""
    values: dict[str, Any] = {f"cpu{number}_time": time for number, time in enumerate(found.cpu_time)}
    values["memory"] = found.memory_mib * 1024
    values["memory-actual"] = found.memory_mib * 1024
    values["memory-rss"] = found.memory_used_mib * 1024
    for letter, disk in zip(string.ascii_lowercase, found.disks, strict=False):
        values |= {
            f"vd{letter}_read": disk.read_bytes,
            f"vd{letter}_read_req": disk.read_requests,
            f"vd{letter}_write": disk.write_bytes,
            f"vd{letter}_write_req": disk.write_requests,
            f"vd{letter}_errors": disk.errors_count,
        }
    for nic in found.nics:
        name = f"tap{nic.port_id[:11]}"
        values |= {
            f"{name}_rx": nic.rx_octets,
            f"{name}_rx_drop": nic.rx_drop,
            f"{name}_rx_errors": nic.rx_errors,
            f"{name}_rx_packets": nic.rx_packets,
            f"{name}_tx": nic.tx_octets,
            f"{name}_tx_drop": nic.tx_drop,
            f"{name}_tx_errors": nic.tx_errors,
            f"{name}_tx_packets": nic.tx_packets,
        }
    return values
