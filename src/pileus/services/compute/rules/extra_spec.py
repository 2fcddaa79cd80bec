"""Which extra specs of flavors there are, and what each may hold.

The names and their values are upstream's (Compute administrator guide, "Extra Specs"); so is it that a name without a
namespace, or in a namespace that nobody knows, may hold anything.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping

import os_resource_classes
import os_traits

from pileus.core.errors import BadRequest

Check = Callable[[str], str | None]
"""Says what is wrong with a value, or None."""

_TRUE = frozenset({"1", "t", "true", "on", "y", "yes"})
_FALSE = frozenset({"0", "f", "false", "off", "n", "no"})


def truth(text: str) -> bool | None:
    """What a text means as a truth value; None where it is none."""
    word = text.strip().lower()
    return True if word in _TRUE else False if word in _FALSE else None


def _text(value: str) -> str | None:
    return None


def _boolean(value: str) -> str | None:
    return None if truth(value) is not None else f"'{value}' is not a valid boolean-like value"


def _number(least: int | None = None, most: int | None = None) -> Check:
    def check(value: str) -> str | None:
        try:
            number = int(value)
        except ValueError:
            return f"'{value}' is not a valid integer value"
        if least is not None and number < least:
            return f"'{value}' is less than the min value of '{least}'"
        if most is not None and number > most:
            return f"'{value}' is greater than the max value of '{most}'"
        return None

    return check


def _choice(*words: str) -> Check:
    return lambda value: None if value in words else f"'{value}' is not one of: {', '.join(words)}"


def _shape(pattern: str) -> Check:
    compiled = re.compile(pattern)
    return lambda value: None if compiled.fullmatch(value) else f"'{value}' is not of the format '{pattern}'"


# A processor set such as `0-3,^2`; upstream's takes three parts at most between commas of one repetition, ours any.
_CPUS = _shape(r"\^?\d+(-\d+)?(,\^?\d+(-\d+)?)*")
_NATURAL, _POSITIVE = _number(0), _number(1)

_HW: Mapping[str, Check] = {
    **dict.fromkeys(
        ("cpu_realtime", "hide_hypervisor_id", "locked_memory", "boot_menu", "vif_multiqueue_enabled", "mem_encryption",
         "pmu", "virtio_packed_ring", "ephemeral_encryption"),
        _boolean,
    ),
    **dict.fromkeys(
        ("numa_nodes", "cpu_sockets", "cpu_cores", "cpu_threads", "cpu_max_sockets", "cpu_max_cores",
         "cpu_max_threads"),
        _POSITIVE,
    ),
    "cpu_realtime_mask": _CPUS,
    "cpu_dedicated_mask": _CPUS,
    "cpu_policy": _choice("dedicated", "shared", "mixed"),
    "cpu_thread_policy": _choice("prefer", "isolate", "require"),
    "emulator_threads_policy": _choice("isolate", "share"),
    "mem_page_size": _shape(r"(large|small|any|\d+([kKMGT]i?)?(b|bit|B)?)"),
    "pci_numa_affinity_policy": _choice("required", "preferred", "legacy", "socket"),
    "mem_encryption_model": _choice("amd-sev", "amd-sev-es", "amd-sev-snp", "intel-tdx"),
    "pmem": _shape(r"([a-zA-Z0-9_]+(,)?)+"),
    "serial_port_count": _NATURAL,
    "tpm_model": _choice("tpm-tis", "tpm-crb"),
    "tpm_version": _choice("1.2", "2.0"),
    "tpm_secret_security": _choice("user", "host", "deployment"),
    "watchdog_action": _choice("none", "pause", "poweroff", "reset", "disabled"),
    "viommu_model": _choice("intel", "smmuv3", "virtio", "auto"),
    "sound_model": _choice("sb16", "es1370", "pcspk", "ac97", "ich6", "ich9", "usb", "virtio"),
    "usb_model": _choice("none", "nec-xhci", "qemu-xhci"),
    "redirected_usb_ports": _number(0, 15),
    "ephemeral_encryption_format": _choice("plain", "luks", "luksv2"),
}  # fmt: skip

_CAPABILITIES = (
    "id", "uuid", "service_id", "host", "vcpus", "memory_mb", "local_gb", "vcpus_used", "memory_mb_used",
    "local_gb_used", "hypervisor_type", "hypervisor_version", "hypervisor_hostname", "free_ram_mb", "free_disk_gb",
    "current_workload", "running_vms", "disk_available_least", "host_ip", "mapped", "cpu_allocation_ratio",
    "ram_allocation_ratio", "disk_allocation_ratio", "total_usable_ram_mb", "total_usable_disk_gb", "disk_mb_used",
    "free_disk_mb", "vcpus_total", "num_instances", "num_io_ops", "failed_builds", "aggregates", "cell_uuid", "updated",
)  # fmt: skip
_DEEP_CAPABILITIES = (
    "cpu_info", "metrics", "stats", "numa_topology", "supported_hv_specs", "pci_device_pools", "nodename", "pci_stats",
    "supported_instances", "limits", "instances",
)  # fmt: skip


def _quotas() -> Iterator[tuple[str, Check]]:
    for what in ("cpu", "memory", "disk_io", "vif"):
        yield f"quota:{what}_limit", _NATURAL
        yield f"quota:{what}_reservation", _number()
        yield f"quota:{what}_shares_level", _choice("custom", "high", "normal", "low")
        yield f"quota:{what}_shares_share", _NATURAL
    yield "quota:cpu_shares", _NATURAL
    yield "quota:cpu_period", _NATURAL
    yield "quota:cpu_quota", _number()
    for way in ("read", "write", "total"):
        for unit in ("bytes", "iops"):
            yield f"quota:disk_{way}_{unit}_sec", _NATURAL
    for way in ("inbound", "outbound"):
        for unit in ("average", "peak", "burst"):
            yield f"quota:vif_{way}_{unit}", _NATURAL


_KNOWN: Mapping[str, Check] = {
    **{f"hw:{name}": check for name, check in _HW.items()},
    **dict(_quotas()),
    **{f"capabilities:{name}": _text for name in _CAPABILITIES},
    "hw_rng:allowed": _boolean,
    "hw_rng:rate_bytes": _NATURAL,
    "hw_rng:rate_period": _NATURAL,
    "hw_video:ram_max_mb": _NATURAL,
    "os:secure_boot": _choice("disabled", "required"),
    "accel:device_profile": _text,
    "pci_passthrough:alias": _shape(r"[^:]+:\d+(?:\s*,\s*[^:]+:\d+)*"),
    "vmware:hw_version": _text,
    "vmware:storage_policy": _text,
    "hide_hypervisor_id": _boolean,
    "group_policy": _choice("isolate", "none"),
}

_DEMAND = _choice("required", "forbidden")
_PATTERNS: tuple[tuple[re.Pattern[str], Check], ...] = (
    (re.compile(r"hw:numa_cpus\.\d+"), _CPUS),
    (re.compile(r"hw:numa_mem\.\d+"), _POSITIVE),
    (re.compile(rf"capabilities:({'|'.join(_DEEP_CAPABILITIES)})(:\w+)*"), _text),
    (re.compile(r"aggregate_instance_extra_specs:.+"), _text),
)
_GROUPED = re.compile(r"(resources|trait)[a-zA-Z0-9_-]{0,64}:(.+)")
_CUSTOM = re.compile(r"CUSTOM_[A-Z0-9_]+")
_NAMESPACES = frozenset(
    {"hw", "quota", "capabilities", "hw_rng", "hw_video", "os", "accel", "pci_passthrough", "vmware",
     "aggregate_instance_extra_specs"}
)  # fmt: skip


@functools.cache
def _named() -> Mapping[str, frozenset[str]]:
    return {"resources": frozenset(os_resource_classes.STANDARDS), "trait": frozenset(os_traits.get_traits())}


def _check_of(name: str) -> Check | None:
    """What holds for the value of an extra spec; None when there is no such extra spec."""
    found = _KNOWN.get(name)
    if found is not None:
        return found
    for pattern, check in _PATTERNS:
        if pattern.fullmatch(name):
            return check
    grouped = _GROUPED.fullmatch(name)
    if grouped is not None:
        kind, what = grouped.groups()
        if what not in _named()[kind] and not _CUSTOM.fullmatch(what):
            return None
        return _number() if kind == "resources" else _DEMAND
    return None if name.partition(":")[0] in _NAMESPACES and ":" in name else _text


def check(name: str, value: str) -> None:
    """Raise BadRequest unless there is such an extra spec and it may hold the value."""
    found = _check_of(name)
    if found is None:
        raise BadRequest(f"Validation failed; extra spec '{name}' does not appear to be a valid extra spec.")
    flaw = found(value)
    if flaw is not None:
        raise BadRequest(f"Validation failed; {flaw}.")
