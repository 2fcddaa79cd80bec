"""Guests as QEMU processes, driven over QMP.

`driver` keeps the contract; `launch` starts a guest's process; `guest` is one guest and its process; `directory` is
what a guest leaves on disk; `confinement` and `limit` keep it in its place.

`command` spells QEMU's arguments, with `machine` and `device`; `accelerator` finds out whether KVM works; `monitor`
speaks QMP, and `agent_channel` to the agent inside a guest.

`memory` suspends and resumes; `card` plugs and unplugs; `act` does what is no state; `backup` takes snapshots;
`measure` counts; `console` reads and bounds the serial log; `tpm` is the process beside a guest that plays its TPM.
"""

from pileus.drivers.hypervisor.qemu.accelerator import probe_accelerator
from pileus.drivers.hypervisor.qemu.driver import QemuHypervisor

__all__ = ["QemuHypervisor", "probe_accelerator"]
