"""A guest's machine, as flavor and image say."""

from __future__ import annotations

from typing import Any

import pytest

from pileus.contracts.hypervisor import DiskLimit, HypervisorFacts, MachineSpec, NicLimit
from pileus.core.errors import BadRequest
from pileus.services.compute.rules import extra_spec, topology
from pileus.services.compute.rules.machine import Machine, MachineError, machine, objection
from pileus.services.compute.rules.topology import NOTHING, Topology

FACTS = HypervisorFacts(type="QEMU", version=7002000, accelerator="tcg", vcpus=4, memory_mib=4096, disk_gib=10)


def made(specs: dict[str, str] | None = None, **properties: str) -> Machine:
    return machine({"vcpus": 4, "extra_specs": specs or {}}, properties)


def test_a_flavor_and_an_image_that_say_nothing_leave_everything_to_the_driver() -> None:
    assert made() == Machine(MachineSpec(), DiskLimit(), NicLimit(), "virtio", "virtio", None)


@pytest.mark.parametrize(
    ("specs", "properties", "found"),
    [
        ({}, {"hw_machine_type": "pc-q35-7.2"}, {"type": "q35"}),
        ({}, {"hw_machine_type": "pc-i440fx-7.2"}, {"type": "pc"}),
        ({}, {"hw_machine_type": "microvm"}, {"type": "microvm"}),
        ({}, {"hw_firmware_type": "uefi"}, {"firmware": "uefi"}),
        (
            {"os:secure_boot": "required"},
            {"hw_firmware_type": "uefi"},
            {"firmware": "uefi", "secure_boot": True},
        ),
        ({"os:secure_boot": "disabled"}, {}, {}),
        ({"hw:tpm_version": "2.0", "hw:tpm_model": "tpm-crb"}, {}, {"tpm": "2.0", "tpm_model": "tpm-crb"}),
        ({}, {"hw_tpm_version": "1.2"}, {"tpm": "1.2"}),
        ({"hw_rng:allowed": "false"}, {}, {"rng": False}),
        ({"hw_rng:rate_bytes": "64", "hw_rng:rate_period": "500"}, {}, {"rng_bytes": 64, "rng_period": 500}),
        ({"hw:watchdog_action": "reset"}, {}, {"watchdog": "reset"}),
        ({"hw:watchdog_action": "reset"}, {"hw_watchdog_action": "disabled"}, {}),
        ({"hw:cpu_policy": "dedicated"}, {}, {"pinned": True}),
        ({"hw:cpu_policy": "dedicated"}, {"hw_cpu_policy": "shared"}, {"pinned": True}),
        ({"hw:mem_page_size": "large"}, {}, {"page_kib": 2048}),
        ({"hw:mem_page_size": "large"}, {"hw_mem_page_size": "1GB"}, {"page_kib": 2**20}),
        ({"hw:mem_page_size": "any"}, {}, {}),
        ({"hw:mem_page_size": "4"}, {}, {}),
        ({"quota:cpu_shares": "2048", "quota:cpu_quota": "10000", "quota:cpu_period": "20000"}, {},
         {"cpu_shares": 2048, "cpu_quota": 10000, "cpu_period": 20000}),
        ({"quota:cpu_quota": "-1"}, {}, {}),
        ({"hw_video:ram_max_mb": "64"}, {"hw_video_model": "virtio", "hw_video_ram": "32"},
         {"video": "virtio", "video_mib": 32}),
        ({"hw:serial_port_count": "4"}, {"hw_serial_port_count": "2"}, {"serial_ports": 2}),
        ({}, {"hw_qemu_guest_agent": "yes"}, {"guest_agent": True}),
        ({}, {"kernel_id": "k", "ramdisk_id": "r"}, {"kernel_id": "k", "ramdisk_id": "r"}),
        ({"hw:hide_hypervisor_id": "true"}, {}, {"hide_hypervisor": True}),
        ({"hw:cpu_max_sockets": "1"}, {}, {"sockets": 1, "cores": 4, "threads": 1}),
        ({"hw:cpu_threads": "2"}, {"hw_cpu_sockets": "1"}, {"sockets": 1, "cores": 4, "threads": 1}),
        ({"hw:cpu_threads": "2"}, {}, {"sockets": 2, "cores": 1, "threads": 2}),
    ],
)  # fmt: skip
def test_what_a_machine_is_made_of(specs: dict[str, str], properties: dict[str, str], found: dict[str, Any]) -> None:
    assert made(specs, **properties).spec == MachineSpec(**found)


def test_limits_and_models_of_disks_and_cards() -> None:
    specs = {"quota:disk_total_bytes_sec": "1000", "quota:disk_read_iops_sec": "7", "quota:vif_inbound_average": "125"}
    found = made(specs, hw_disk_bus="sata", hw_vif_model="e1000")
    assert found.disk_limit == DiskLimit(total_bytes=1000, read_iops=7)
    assert found.nic_limit == NicLimit(in_average=125)
    assert (found.bus, found.nic_model) == ("sata", "e1000")


@pytest.mark.parametrize(
    ("specs", "properties", "words"),
    [
        ({"os:secure_boot": "required"}, {}, "hw_firmware_type is uefi"),
        ({"os:secure_boot": "required"}, {"os_secure_boot": "disabled"}, "they must be equal"),
        ({"hw:tpm_version": "1.2", "hw:tpm_model": "tpm-crb"}, {}, "tpm-crb"),
        ({"hw:tpm_version": "2.0"}, {"hw_tpm_version": "1.2"}, "they must be equal"),
        ({"hw:tpm_version": "3"}, {}, "may be one of"),
        ({}, {"hw_watchdog_action": "explode"}, "may be one of"),
        ({"hw:cpu_policy": "shared"}, {"hw_cpu_policy": "dedicated"}, "not permitted to override"),
        ({"hw:cpu_policy": "mixed"}, {"hw_cpu_policy": "dedicated"}, "not permitted to override"),
        ({"hw:cpu_policy": "mixed"}, {}, "dedicated CPU mask"),
        ({"hw:cpu_dedicated_mask": "1"}, {}, "needs the CPU policy mixed"),
        ({"hw:cpu_thread_policy": "require"}, {}, "non dedicated"),
        (
            {"hw:cpu_policy": "dedicated", "hw:cpu_thread_policy": "require"},
            {"hw_cpu_thread_policy": "isolate"},
            "thread pinning policy",
        ),
        ({"hw:emulator_threads_policy": "isolate"}, {}, "dedicated CPU policy"),
        ({"hw:cpu_realtime": "yes"}, {}, "Realtime"),
        ({"hw:cpu_policy": "dedicated", "resources:PCPU": "4"}, {}, "exclude each other"),
        ({}, {"hw_mem_page_size": "large"}, "forbidden against"),
        ({"hw:mem_page_size": "small"}, {"hw_mem_page_size": "large"}, "forbidden against"),
        ({"hw:mem_page_size": "huge"}, {}, "Invalid memory page size"),
        ({"hw:locked_memory": "true"}, {}, "hw:mem_page_size"),
        ({}, {"hw_video_ram": "64"}, "video memory"),
        ({}, {"hw_video_model": "xen"}, "hw_video_model"),
        ({"hw:serial_port_count": "1"}, {"hw_serial_port_count": "2"}, "serial_port_count"),
        ({"quota:disk_total_iops_sec": "1", "quota:disk_read_iops_sec": "1"}, {}, "excludes"),
        ({"quota:vif_inbound_peak": "1"}, {}, "quota:vif_inbound_average"),
        ({}, {"hw_disk_bus": "xen"}, "hw_disk_bus"),
        ({}, {"hw_vif_model": "ne2k_pci"}, "hw_vif_model"),
        ({}, {"hw_machine_type": "virt"}, "hw_machine_type"),
        ({}, {"hw_cpu_sockets": "many"}, "must be an integer"),
        ({"hw:cpu_max_sockets": "1"}, {"hw_cpu_max_sockets": "2"}, "exceeds the limits of the flavor"),
        ({"hw:cpu_max_sockets": "1"}, {"hw_cpu_sockets": "2"}, "exceeds the limits"),
        ({"hw:cpu_max_sockets": "1", "hw:cpu_max_cores": "1", "hw:cpu_max_threads": "3"}, {}, "impossible to satisfy"),
        ({"hw:pmu": "true", "hw:mem_encryption": "1"}, {"hw_mem_encryption": "0"}, "they must be equal"),
    ],
)
def test_what_cannot_be(specs: dict[str, str], properties: dict[str, str], words: str) -> None:
    with pytest.raises(MachineError, match=words):
        made(specs, **properties)


@pytest.mark.parametrize(
    ("specs", "properties", "words"),
    [
        ({"hw:numa_nodes": "2"}, {}, "2 NUMA nodes"),
        ({}, {"hw_architecture": "aarch64"}, "the image is for aarch64"),
        ({}, {"img_hv_type": "hyperv"}, "the hypervisor hyperv"),
        ({}, {"hw_vm_mode": "xen"}, "of another kind than hvm"),
        ({"hw:mem_encryption": "yes"}, {}, "encrypted memory"),
        ({"pci_passthrough:alias": "gpu:1"}, {}, "passed-through devices"),
        ({}, {"hw_firmware_type": "uefi"}, "firmware of type uefi"),
        ({"hw:tpm_version": "2.0"}, {}, "TPM of version 2.0"),
        ({"hw:mem_page_size": "2MB"}, {}, "pages of 2048 KiB"),
    ],
)
def test_what_a_host_cannot_give(specs: dict[str, str], properties: dict[str, str], words: str) -> None:
    found = objection(made(specs, **properties), 4, FACTS)
    assert words in (found or "")


def test_a_host_that_can_give_it_has_no_objection() -> None:
    able = HypervisorFacts(
        type="KVM", version=7002000, accelerator="kvm", vcpus=4, memory_mib=4096, disk_gib=10,
        firmwares=("bios", "uefi", "uefi-secure"), tpm=("2.0",), page_kib=(2048,),
    )  # fmt: skip
    specs = {"os:secure_boot": "required", "hw:tpm_version": "2.0", "hw:mem_page_size": "large"}
    wanted = made({**specs, "hw:cpu_policy": "dedicated", "trait:X": "forbidden"}, hw_firmware_type="uefi")
    assert objection(wanted, 4, able) is None
    assert "5 are to be pinned" in (objection(wanted, 5, able) or "")
    assert "secure boot" in (objection(made(specs, hw_firmware_type="uefi"), 4, FACTS_UEFI) or "")


FACTS_UEFI = HypervisorFacts(
    type="QEMU", version=7002000, accelerator="tcg", vcpus=4, memory_mib=4096, disk_gib=10, firmwares=("bios", "uefi")
)


def test_traits_are_demanded_by_flavor_and_image() -> None:
    specs = {"trait:HW_CPU_X86_AVX": "required", "trait1:CUSTOM_SLOW": "forbidden"}
    found = machine({"vcpus": 1, "extra_specs": specs}, {"trait:CUSTOM_GOLD": "required"})
    assert (found.required, found.forbidden) == (("CUSTOM_GOLD", "HW_CPU_X86_AVX"), ("CUSTOM_SLOW",))


def test_every_topology_within_limits_is_found_and_has_as_many_processors() -> None:
    for vcpus in range(1, 17):
        for most in (Topology(0, 0, 0), Topology(1, 0, 0), Topology(2, 0, 2), Topology(0, 1, 0)):
            for wish in (Topology(0, 2, 0), Topology(1, 0, 0), Topology(0, 0, 2)):
                found = topology.best(vcpus, wish, most)
                assert found.sockets * found.cores * found.threads == vcpus
                assert found.within(most)
    assert topology.best(3, NOTHING, NOTHING) == NOTHING


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hw:cpu_policy", "dedicated"), ("hw:mem_page_size", "2MB"), ("hw:numa_cpus.0", "0-3,^2"),
        ("hw:numa_mem.1", "512"), ("quota:cpu_quota", "-1"), ("trait:HW_CPU_X86_AVX", "required"),
        ("trait1:CUSTOM_GOLD", "forbidden"), ("resources:CUSTOM_FPGA", "1"), ("resources_a:VCPU", "1"),
        ("capabilities:cpu_info:arch", "x86_64"), ("aggregate_instance_extra_specs:ssd", "true"),
        ("hw_rng:allowed", "True"), ("os:secure_boot", "required"), ("hide_hypervisor_id", "yes"),
        ("anything", "goes"), ("of_mine:here", "too"),
    ],
)  # fmt: skip
def test_extra_specs_that_are_good(name: str, value: str) -> None:
    extra_spec.check(name, value)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("hw:cpu_policy", "sharrred", "is not one of: dedicated, shared, mixed"),
        ("hw:cpu_policyyyyyyy", "foo", "does not appear to be a valid extra spec"),
        ("hw:foo", "bar", "does not appear to be a valid extra spec"),
        ("trait:STORAGE_DISK_SSD", "needed", "is not one of"),
        ("trait:NO_SUCH", "required", "valid extra spec"),
        ("hw:cpu_sockets", "0", "less than the min value"),
        ("hw:redirected_usb_ports", "16", "greater than the max value"),
        ("hw:cpu_cores", "two", "not a valid integer"),
        ("hw:pmu", "maybe", "not a valid boolean-like"),
        ("hw:mem_page_size", "huge", "not of the format"),
        ("hide_hypervisor_id", "maybe", "not a valid boolean-like"),
        ("group_policy", "both", "is not one of"),
    ],
)
def test_extra_specs_that_are_wrong(name: str, value: str, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        extra_spec.check(name, value)
