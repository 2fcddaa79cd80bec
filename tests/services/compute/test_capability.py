"""What flavors demand of hosts' measures."""

from __future__ import annotations

import pytest

from pileus.contracts.hypervisor import HypervisorFacts
from pileus.services.compute.rules.capability import meets, objection

FACTS = HypervisorFacts(type="QEMU", version=7002000, accelerator="tcg", vcpus=8, memory_mib=16384, disk_gib=100)


@pytest.mark.parametrize(
    ("value", "demand", "met"),
    [
        ("8", "= 8", True), ("8", "= 9", False), ("9", "= 8", True), ("8", "== 8.0", True), ("8", "!= 8", False),
        ("8", ">= 9", False), ("8", "<= 9", True), ("many", ">= 1", False), ("8", ">= many", False),
        ("QEMU", "s== QEMU", True), ("QEMU", "s!= QEMU", False), ("b", "s> a", True), ("b", "s>= b", True),
        ("b", "s< a", False), ("b", "s<= b", True), ("x86_64", "<in> 86", True), ("x86_64", "<in> arm", False),
        ("aes mmx", "<all-in> aes mmx", True), ("aes", "<all-in> aes mmx", False),
        ("gpu", "<or> fpu <or> gpu", True), ("tpu", "<or> fpu <or> gpu", False),
        ("QEMU", "QEMU", True), ("QEMU", "KVM", False), ("8", ">=", False), ("", "", True),
    ],
)  # fmt: skip
def test_operators(value: str, demand: str, met: bool) -> None:
    assert meets(value, demand) is met


def test_a_host_is_judged_by_all_demands() -> None:
    assert objection({}, "h1", FACTS) is None
    assert objection({"hypervisor_type": "QEMU", "vcpus": ">= 8", "cpu_info:arch": "x86_64"}, "h1", FACTS) is None
    assert objection({"vcpus": ">= 9"}, "h1", FACTS) == "the host's vcpus is 8, asked for is >= 9"
    assert objection({"metrics": "1"}, "h1", FACTS) == "the host does not say its metrics"
