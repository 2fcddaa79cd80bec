"""Specs of what hosts hold, as small as they can be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from pileus.contracts.hypervisor import DiskSpec, GuestSpec, NicSpec, Power, SnapshotSpec
from pileus.contracts.link import Kind
from pileus.contracts.network import (
    FixedIP,
    NetworkSpec,
    PortSpec,
    RouterInterfaceSpec,
    RouterSpec,
    RuleSpec,
    SecurityGroupSpec,
)


def network(network_id: str, **more: Any) -> NetworkSpec:
    """A network without subnets."""
    spec = NetworkSpec(id=network_id, mtu=1450, subnets=(), dhcp_mac="fa:16:3e:00:00:01")
    return msgspec.structs.replace(spec, **more)


def port(port_id: str, network_id: str, *groups: str, **more: Any) -> PortSpec:
    """A port with an address and security groups."""
    spec = PortSpec(
        id=port_id,
        network_id=network_id,
        mac_address="fa:16:3e:00:00:02",
        fixed_ips=(FixedIP(subnet_id="s", ip_address="10.0.0.2"),),
        security_groups=groups,
    )
    return msgspec.structs.replace(spec, **more)


def group(group_id: str, *prefixes: str) -> SecurityGroupSpec:
    """A security group that lets these prefixes in."""
    rules = tuple(RuleSpec(direction="ingress", ethertype="IPv4", remote_ip_prefix=one) for one in prefixes)
    return SecurityGroupSpec(id=group_id, rules=rules)


def router(router_id: str, *networks: str) -> RouterSpec:
    """A router with a leg in each network."""
    legs = tuple(
        RouterInterfaceSpec(
            port_id=f"{router_id}-{one}", network_id=one, mac_address="fa:16:3e:00:00:03", addresses=("10.0.0.1/24",)
        )
        for one in networks
    )
    return RouterSpec(id=router_id, interfaces=legs)


def guest(guest_id: str, *ports: str, power: Power = "running", **more: Any) -> GuestSpec:
    """A guest with a disk and a card in each port."""
    spec = GuestSpec(
        id=guest_id,
        name=f"name-{guest_id}",
        vcpus=1,
        memory_mib=64,
        disks=(DiskSpec(id="root", size_gib=1),),
        nics=tuple(NicSpec(port_id=one, mac_address="fa:16:3e:00:00:02", mtu=1450) for one in ports),
        power=power,
    )
    return msgspec.structs.replace(spec, **more)


def snapshot(image_id: str, guest_id: str, **more: Any) -> SnapshotSpec:
    """A snapshot of a guest's root disk."""
    return msgspec.structs.replace(SnapshotSpec(id=image_id, guest_id=guest_id), **more)


KIND: Mapping[type[Any], Kind] = {
    NetworkSpec: "network",
    PortSpec: "port",
    SecurityGroupSpec: "security_group",
    RouterSpec: "router",
    GuestSpec: "guest",
    SnapshotSpec: "snapshot",
}
