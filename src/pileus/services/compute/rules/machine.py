"""What machine a guest gets, from the extra specs of its flavor and the properties of its image.

Source: Compute administrator guide, "Extra Specs", and Image administrator guide, "Useful image properties".  A flavor
is the operator's word and an image the user's: where both speak, an image may narrow what the flavor grants, must agree
with it, or may not speak at all, as those pages say of each.  What cannot be in any cloud raises MachineError; what
hosts elsewhere could do and none here can is `Machine.beyond`, by which the scheduler refuses hosts.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast, get_args

from pileus.contracts.hypervisor import DiskLimit, HypervisorFacts, MachineSpec, NicLimit
from pileus.services.compute.rules import topology
from pileus.services.compute.rules.extra_spec import truth

Bus = Literal["virtio", "sata", "scsi", "usb"]
Model = Literal["virtio", "e1000", "e1000e", "rtl8139"]

_SMALL_KIB = 4
_LARGE_KIB = 2048
"""Sizes of the processor's ordinary and its common huge pages (x86-64)."""

_UNITS = {"k": 1, "m": 2**10, "g": 2**20, "t": 2**30}
_SIZE = re.compile(r"(\d+)([kKMGT])(i?)(b|bit|B)?")

ACTIONS = ("none", "pause", "poweroff", "reset", "disabled")


class MachineError(ValueError):
    """Flavor and image ask for what cannot be; the message is for the person who asked."""


class Machine(NamedTuple):
    """A guest's machine, and what its disks and cards are like."""

    spec: MachineSpec
    disk_limit: DiskLimit
    nic_limit: NicLimit
    bus: Bus
    nic_model: Model
    beyond: str | None
    """What is asked for and no host of this cloud can give; None when there is nothing of that kind."""
    architecture: str = ""
    hypervisor: str = ""
    """What the image is made for, as `HypervisorFacts` has it (in lower case); empty for anything."""
    required: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    """Traits that the host's provider must have, and must not."""


PLAIN = Machine(MachineSpec(), DiskLimit(), NicLimit(), "virtio", "virtio", None)
"""The machine of a flavor and an image that say nothing."""


class Source:
    """The extra specs and properties that a machine comes from."""

    def __init__(self, vcpus: int, specs: Mapping[str, str], properties: Mapping[str, str | None]) -> None:
        self.vcpus = vcpus
        self.specs = specs
        self.properties = properties

    def pair(self, key: str, prefix: str = "hw") -> tuple[str | None, str | None]:
        """What the flavor and what the image say; None for nothing."""
        return self.specs.get(f"{prefix}:{key}") or None, self.properties.get(f"{prefix}_{key}") or None

    def agreed(self, key: str, prefix: str = "hw") -> str | None:
        """What one of them says, or both alike. Raises MachineError when they differ."""
        flavor, image = self.pair(key, prefix)
        if flavor is not None and image is not None and flavor != image:
            raise MachineError(
                f"The flavor's {prefix}:{key} is {flavor}, the image's {prefix}_{key} is {image}: they must be equal."
            )
        return flavor or image

    def agreed_truth(self, key: str) -> bool:
        """`agreed`, of truth values: texts that mean the same agree."""
        flavor, image = (None if text is None else self.truth(text, key) for text in self.pair(key))
        if flavor is not None and image is not None and flavor != image:
            raise MachineError(
                f"The flavor's hw:{key} is {flavor}, the image's hw_{key} is {image}: they must be equal."
            )
        return bool(flavor or image)

    def truth(self, text: str, key: str) -> bool:
        """A truth value. Raises MachineError for another text."""
        found = truth(text)
        if found is None:
            raise MachineError(f"{text!r} is not a valid boolean for {key}.")
        return found

    def number(self, text: str | None, name: str) -> int:
        """A number, 0 for None. Raises MachineError for another text."""
        try:
            return int(text or 0)
        except ValueError:
            raise MachineError(f"{name} must be an integer, and is {text!r}.") from None

    def spec_number(self, name: str) -> int:
        """A number among the extra specs, 0 when it is not there. Raises MachineError."""
        return self.number(self.specs.get(name), name)

    def choice(self, name: str, found: str | None, words: Sequence[str], default: str) -> str:
        """One of several words. Raises MachineError for another."""
        if found is None:
            return default
        if found not in words:
            raise MachineError(f"{name} is {found!r}, and may be one of: {', '.join(words)}.")
        return found


def machine(flavor: Mapping[str, Any], properties: Mapping[str, str | None]) -> Machine:
    """The machine of a guest with this flavor (`vcpus` and `extra_specs`) and an image with these properties.

    Raises MachineError.
    """
    return _machine(flavor["vcpus"], tuple((flavor.get("extra_specs") or {}).items()), tuple(properties.items()))


@functools.lru_cache(1024)  # servers by the thousand are made of a few flavors and images
def _machine(vcpus: int, specs: tuple[tuple[str, str], ...], said: tuple[tuple[str, str | None], ...]) -> Machine:
    properties = dict(said)
    source = Source(vcpus, dict(specs), properties)
    policy, thread_policy = _cpu_policy(source)
    firmware, secure = _firmware(source)
    version, model = _tpm(source)
    shape = _topology(source)
    rng = source.truth(source.specs.get("hw_rng:allowed", "true"), "hw_rng:allowed")
    spec = MachineSpec(
        type=cast(Any, _type(source)),
        firmware=firmware,
        secure_boot=secure,
        tpm=cast(Any, version),
        tpm_model=cast(Any, model),
        rng=rng,
        rng_bytes=source.spec_number("hw_rng:rate_bytes"),
        rng_period=source.spec_number("hw_rng:rate_period"),
        watchdog=cast(Any, _watchdog(source)),
        sockets=shape.sockets,
        cores=shape.cores,
        threads=shape.threads,
        pinned=policy == "dedicated",
        page_kib=_page(source),
        cpu_shares=source.spec_number("quota:cpu_shares"),
        cpu_quota=max(0, source.spec_number("quota:cpu_quota")),
        cpu_period=source.spec_number("quota:cpu_period"),
        video=cast(Any, _word(source, "hw_video_model", get_args(_VIDEO), "vga")),
        video_mib=_video_mib(source),
        serial_ports=_serial_ports(source),
        guest_agent=wants_agent(properties),
        kernel_id=properties.get("kernel_id") or None,
        ramdisk_id=properties.get("ramdisk_id") or None,
        hide_hypervisor=_hidden(source),
    )
    return Machine(
        spec,
        _disk_limit(source),
        _nic_limit(source),
        cast(Bus, _word(source, "hw_disk_bus", get_args(Bus), "virtio")),
        cast(Model, _word(source, "hw_vif_model", get_args(Model), "virtio")),
        _beyond(source, policy, thread_policy),
        architecture=(properties.get("hw_architecture") or properties.get("architecture") or "").lower(),
        hypervisor=(properties.get("img_hv_type") or properties.get("hypervisor_type") or "").lower(),
        required=_traits(source, "required"),
        forbidden=_traits(source, "forbidden"),
    )


_VIDEO = Literal["vga", "virtio", "none", "qxl", "cirrus", "bochs"]


def _word(source: Source, name: str, words: Sequence[str], default: str) -> str:
    return source.choice(f"The image's {name}", source.properties.get(name) or None, words, default)


def wants_agent(properties: Mapping[str, str | None]) -> bool:
    """Whether the image says that its guests run QEMU's guest agent."""
    return bool(truth(properties.get("hw_qemu_guest_agent") or "no"))


def _type(source: Source) -> str:
    found = source.properties.get("hw_machine_type")
    if not found:
        return ""
    known = re.fullmatch(r"(pc-)?(q35|i440fx)(-[\d.]+)?|(pc|microvm)(-[\d.]+)?", found)
    if known is None:
        raise MachineError(f"The image's hw_machine_type is {found!r}; there are q35, pc and microvm here.")
    return {"i440fx": "pc"}.get(known[2], known[2]) if known[2] else known[4]


def _firmware(source: Source) -> tuple[Literal["bios", "uefi"], bool]:
    firmware = _word(source, "hw_firmware_type", ("bios", "uefi"), "bios")
    words = ("required", "optional", "disabled")
    policy = source.choice("The secure boot policy", source.agreed("secure_boot", "os"), words, "disabled")
    if policy == "required" and firmware != "uefi":
        raise MachineError("Secure boot needs an image whose hw_firmware_type is uefi.")
    return cast(Literal["bios", "uefi"], firmware), policy == "required"


def _tpm(source: Source) -> tuple[str, str]:
    version, model = source.agreed("tpm_version"), source.agreed("tpm_model")
    if version is None:
        return "", "tpm-tis"
    source.choice("The TPM version", version, ("1.2", "2.0"), "")
    found = source.choice("The TPM model", model, ("tpm-tis", "tpm-crb"), "tpm-tis")
    if found == "tpm-crb" and version != "2.0":
        raise MachineError("The TPM model tpm-crb exists with TPM version 2.0 alone.")
    return version, found


def _watchdog(source: Source) -> str:
    flavor, image = source.pair("watchdog_action")
    found = source.choice("The watchdog action", image or flavor, ACTIONS, "disabled")
    return "" if found == "disabled" else found


def _topology(source: Source) -> topology.Topology:
    parts = ("sockets", "cores", "threads")

    def of(kind: str) -> tuple[topology.Topology, topology.Topology]:
        pairs = [source.pair(f"cpu_{kind}{part}") for part in parts]
        numbers = [
            (source.number(flavor, f"hw:cpu_{kind}{part}"), source.number(image, f"hw_cpu_{kind}{part}"))
            for part, (flavor, image) in zip(parts, pairs, strict=True)
        ]
        return topology.Topology(*(one for one, _ in numbers)), topology.Topology(*(one for _, one in numbers))

    try:
        return topology.best(source.vcpus, *topology.constraints(of(""), of("max_")))
    except ValueError as error:
        raise MachineError(str(error)) from None


def _cpu_policy(source: Source) -> tuple[str, str]:
    flavor, image = source.pair("cpu_policy")
    words = ("dedicated", "shared", "mixed")
    source.choice("The flavor's hw:cpu_policy", flavor, words, "")
    source.choice("The image's hw_cpu_policy", image, words, "")
    if (flavor == "mixed" and image == "dedicated") or (flavor == "shared" and image in ("mixed", "dedicated")):
        raise MachineError(
            "Image property 'hw_cpu_policy' is not permitted to override CPU pinning policy set against the flavor"
        )
    policy = flavor or image or "shared"
    flavor_threads, image_threads = source.pair("cpu_thread_policy")
    threads = ("prefer", "isolate", "require")
    source.choice("The flavor's hw:cpu_thread_policy", flavor_threads, threads, "")
    source.choice("The image's hw_cpu_thread_policy", image_threads, threads, "")
    if flavor_threads not in (None, "prefer") and image_threads not in (None, flavor_threads):
        raise MachineError(
            "Image property 'hw_cpu_thread_policy' is not permitted to override CPU thread pinning policy set against "
            "the flavor"
        )
    chosen = image_threads or flavor_threads or ""
    if flavor_threads not in (None, "prefer"):
        chosen = flavor_threads
    _check_policies(source, policy, chosen)
    return policy, chosen


def _check_policies(source: Source, policy: str, thread_policy: str) -> None:
    emulator = source.choice(
        "hw:emulator_threads_policy", source.specs.get("hw:emulator_threads_policy"), ("isolate", "share"), ""
    )
    realtime = truth(source.specs.get("hw:cpu_realtime", "no"))
    dedicated = source.specs.get("hw:cpu_dedicated_mask")
    if policy == "shared":
        if thread_policy:
            raise MachineError("Cannot set cpu thread pinning policy in a non dedicated cpu pinning policy")
        if emulator == "isolate":
            raise MachineError("An isolated CPU emulator threads option requires a dedicated CPU policy option.")
        if realtime:
            raise MachineError("Realtime policy needs a CPU policy that is dedicated or mixed.")
    if dedicated and policy != "mixed":
        raise MachineError("A dedicated CPU mask needs the CPU policy mixed.")
    if policy == "mixed" and bool(dedicated) == bool(realtime):
        raise MachineError("The CPU policy mixed needs either a dedicated CPU mask or a realtime one.")
    for name in ("VCPU", "PCPU"):
        if f"resources:{name}" in source.specs and source.pair("cpu_policy") != (None, None):
            raise MachineError(f"resources:{name} and a CPU policy exclude each other.")


def _size(text: str) -> int:
    """Pages' size in KiB; 0 for ordinary ones. Raises MachineError."""
    if text in ("small", "any"):
        return 0
    if text == "large":
        return _LARGE_KIB
    known = _SIZE.fullmatch(text)
    if text.isdecimal():
        found = int(text)
    elif known is None:
        raise MachineError(f"Invalid memory page size '{text}'")
    else:
        bits = 8 if known[4] in ("b", "bit") else 1
        found = int(known[1]) * _UNITS[known[2].lower()] // bits
    if found <= 0:
        raise MachineError(f"Invalid memory page size '{text}'")
    return 0 if found == _SMALL_KIB else found


def _page(source: Source) -> int:
    flavor, image = source.pair("mem_page_size")
    if image is not None and flavor not in ("any", "large"):
        raise MachineError(f"Page size {image} forbidden against '{flavor or '<empty>'}'")
    wanted = image or flavor
    locked = source.agreed_truth("locked_memory")
    if locked and wanted is None:
        raise MachineError("Memory can be locked where hw:mem_page_size is given, and only there.")
    return 0 if wanted is None else _size(wanted)


def _video_mib(source: Source) -> int:
    asked = source.number(source.properties.get("hw_video_ram"), "hw_video_ram")
    most = source.spec_number("hw_video:ram_max_mb")
    if asked > most:
        raise MachineError(
            f"The requested amount of video memory {asked} is higher than the maximum allowed by flavor {most}."
        )
    return asked


def _serial_ports(source: Source) -> int:
    flavor, image = source.pair("serial_port_count")
    most, asked = source.number(flavor, "hw:serial_port_count"), source.number(image, "hw_serial_port_count")
    if most and asked > most:
        raise MachineError("The image's hw_serial_port_count exceeds the flavor's hw:serial_port_count.")
    return asked or most or 1


def _hidden(source: Source) -> bool:
    names = ("hw:hide_hypervisor_id", "hide_hypervisor_id")
    found = [source.truth(source.specs[name], name) for name in names if source.specs.get(name)]
    image = source.properties.get("img_hide_hypervisor_id")
    return any(found) or (bool(image) and source.truth(image or "", "img_hide_hypervisor_id"))


def _disk_limit(source: Source) -> DiskLimit:
    found = {
        f"{way}_{unit}": source.spec_number(f"quota:disk_{way}_{unit}_sec")
        for way in ("total", "read", "write")
        for unit in ("bytes", "iops")
    }
    for unit in ("bytes", "iops"):
        if found[f"total_{unit}"] and (found[f"read_{unit}"] or found[f"write_{unit}"]):
            raise MachineError(f"quota:disk_total_{unit}_sec excludes limits of reading and of writing.")
    return DiskLimit(**found)


def _nic_limit(source: Source) -> NicLimit:
    found = {
        f"{short}_{what}": source.spec_number(f"quota:vif_{way}_{what}")
        for short, way in (("in", "inbound"), ("out", "outbound"))
        for what in ("average", "peak", "burst")
    }
    for short, way in (("in", "inbound"), ("out", "outbound")):
        if (found[f"{short}_peak"] or found[f"{short}_burst"]) and not found[f"{short}_average"]:
            raise MachineError(f"quota:vif_{way}_peak and quota:vif_{way}_burst need quota:vif_{way}_average.")
    return NicLimit(**found)


def _traits(source: Source, demand: str) -> tuple[str, ...]:
    """Traits that flavor and image demand; groups of them are all of the host, which is one provider."""
    said = [*source.specs.items(), *source.properties.items()]
    found = {name.partition(":")[2] for name, value in said if name.startswith("trait") and value == demand}
    return tuple(sorted(found - {""}))


def _beyond(source: Source, policy: str, thread_policy: str) -> str | None:
    """What no host of this cloud can give."""
    specs = source.specs
    nodes = source.number(source.agreed("numa_nodes"), "numa_nodes")
    asked = {
        "processors of which some are pinned": policy == "mixed",
        "realtime processors": bool(truth(specs.get("hw:cpu_realtime", "no"))),
        f"the thread policy {thread_policy}": thread_policy in ("isolate", "require"),
        f"{nodes} NUMA nodes": nodes > 1,
        "encrypted memory": source.agreed_truth("mem_encryption"),
        "encrypted ephemeral disks": source.agreed_truth("ephemeral_encryption"),
        "persistent memory": bool(specs.get("hw:pmem")),
        "accelerators": bool(specs.get("accel:device_profile")),
        "passed-through devices": bool(specs.get("pci_passthrough:alias")),
        "guests of another kind than hvm": (source.properties.get("hw_vm_mode") or "hvm") != "hvm",
    }
    found = [what for what, wanted in asked.items() if wanted]
    return f"no host here has {found[0]}" if found else None


def objection(wanted: Machine, vcpus: int, facts: HypervisorFacts) -> str | None:
    """Why a host cannot be home to the machine; None when it can."""
    spec = wanted.spec
    if wanted.beyond is not None:
        return wanted.beyond
    if wanted.architecture not in ("", facts.architecture):
        return f"the image is for {wanted.architecture}, the host is of {facts.architecture}"
    if wanted.hypervisor not in ("", facts.type.lower(), "qemu"):
        return f"the image is for the hypervisor {wanted.hypervisor}, the host has {facts.type}"
    if spec.firmware not in facts.firmwares:
        return f"the host has no firmware of type {spec.firmware} for guests"
    if spec.secure_boot and "uefi-secure" not in facts.firmwares:
        return "the host has no firmware with secure boot"
    if spec.tpm and spec.tpm not in facts.tpm:
        return f"the host can emulate no TPM of version {spec.tpm}"
    if spec.page_kib and spec.page_kib not in facts.page_kib:
        return f"the host has no pages of {spec.page_kib} KiB"
    if spec.pinned and vcpus > facts.vcpus:
        return f"the host has {facts.vcpus} processors, {vcpus} are to be pinned"
    return None
