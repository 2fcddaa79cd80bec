"""Guests as QEMU processes, driven over QMP.

`driver` keeps the contract; `guest` is one guest and its process; `directory` is what a guest leaves on disk;
`command` spells QEMU's arguments; `monitor` speaks QMP; `console` reads and bounds the serial log; `accelerator`
finds out whether KVM works.
"""

from pileus.drivers.hypervisor.qemu.accelerator import probe_accelerator
from pileus.drivers.hypervisor.qemu.driver import QemuHypervisor

__all__ = ["QemuHypervisor", "probe_accelerator"]
