"""Extra specs `capabilities:NAME`: what a flavor demands of a host's measures.

Source: Compute administrator guide, "Extra Specs", `capabilities` namespace, with its operators; a value without one
must be equal as text.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping

from pileus.contracts.hypervisor import HypervisorFacts

_NUMBERS: Mapping[str, Callable[[float, float], bool]] = {
    "=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
}
_TEXTS: Mapping[str, Callable[[str, str], bool]] = {
    "s==": operator.eq,
    "s!=": operator.ne,
    "s<": operator.lt,
    "s<=": operator.le,
    "s>": operator.gt,
    "s>=": operator.ge,
    "<in>": operator.contains,
}


def meets(value: str, demand: str) -> bool:
    """Whether a measure meets a demand such as `>= 5`, `s== 2.1.0`, `<in> gcc` or `<or> fpu <or> gpu`."""
    word, *words = demand.split() or [""]
    if word in _NUMBERS and words:
        try:
            return _NUMBERS[word](float(value), float(words[0]))
        except ValueError:
            return False
    if word in _TEXTS and words:
        return _TEXTS[word](value, words[0])
    if word == "<all-in>" and words:
        return all(one in value for one in words)
    if word == "<or>" and words:
        return value in (one for one in words if one != "<or>")
    return value == demand


def measures(name: str, facts: HypervisorFacts) -> dict[str, str]:
    """What a host measured of itself, by the names of capabilities."""
    return {
        "host": name,
        "hypervisor_hostname": name,
        "hypervisor_type": facts.type,
        "hypervisor_version": str(facts.version),
        "vcpus": str(facts.vcpus),
        "vcpus_total": str(facts.vcpus),
        "memory_mb": str(facts.memory_mib),
        "total_usable_ram_mb": str(facts.memory_mib),
        "local_gb": str(facts.disk_gib),
        "total_usable_disk_gb": str(facts.disk_gib),
        "cpu_info:arch": facts.architecture,
        "cpu_info:model": facts.cpu_model,
    }


def objection(demands: Mapping[str, str], name: str, facts: HypervisorFacts) -> str | None:
    """Why a host does not meet what is demanded, by capability; None when it does."""
    known = measures(name, facts) if demands else {}
    for capability, demand in demands.items():
        if capability not in known:
            return f"the host does not say its {capability}"
        if not meets(known[capability], demand):
            return f"the host's {capability} is {known[capability]}, asked for is {demand}"
    return None
