"""What a guest is told about itself, and the spec by which its host makes it.

The documents are those of upstream's metadata service and config drive (Compute user guide, "Metadata"; Compute
administrator guide, "Metadata service"), as paths below the metadata root.
"""

from __future__ import annotations

import base64
import ipaddress
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pileus.contracts.hypervisor import DiskSpec, GuestSpec, NicSpec, Power
from pileus.services.compute.rules import disk
from pileus.services.compute.rules.disk import Disks
from pileus.services.compute.rules.machine import PLAIN, Machine, MachineError, machine

DATED = ("2012-08-10", "2018-08-27", "latest")
"""Versions of the OpenStack tree: the first, the newest that guests know by its date, and the moving one."""

EC2 = ("2009-04-04", "latest")
"""Versions of the EC2 tree."""

DOMAIN = "novalocal"
"""What upstream's default puts behind the host name."""


class Address(NamedTuple):
    """An address of a guest, with what its subnet says."""

    ip_address: str
    floating_ip_address: str | None
    cidr: str
    gateway_ip: str | None
    enable_dhcp: bool
    ipv6_address_mode: str | None
    dns_nameservers: Sequence[str]
    host_routes: Sequence[tuple[str, str]]
    """Destination and next hop."""


class Nic(NamedTuple):
    """A network card of a guest."""

    port_id: str
    mac_address: str
    mtu: int
    network_id: str
    addresses: Sequence[Address]


class Server(NamedTuple):
    """A server, as much of it as its guest is made of and told."""

    id: str
    name: str
    hostname: str
    project_id: str
    flavor: Mapping[str, Any]
    image_id: str | None
    image: Mapping[str, Any]
    key: Mapping[str, str] | None
    user_data: str | None
    admin_pass: str | None
    config_drive: bool
    metadata: Mapping[str, str]
    reservation_id: str
    launch_index: int
    zone: str
    groups: Sequence[str]
    power: Power
    reboot_nonce: int
    reboot_kind: str
    disks: Disks
    acts: Mapping[str, int]
    rescue: Mapping[str, Any] | None
    """The disk that a rescued server starts from: `image_id`, `format`, `sha512`, `bus`, `device`, and whether the
    others keep their places (`stable`)."""
    nic_tags: Mapping[str, str] = {}
    """Tags of cards, by the port's id."""
    sealed_pass: str | None = None
    """The password that the guest made for itself, as it told it."""
    files: Sequence[Mapping[str, str]] = ()
    """What the guest shall put in place: `path` and `contents`, in base 64."""


def made(server: Server) -> Machine:
    """A server's machine."""
    try:
        return machine(server.flavor, server.image.get("properties") or {})
    except MachineError:
        return PLAIN  # who asks for what contradicts itself is refused: this server is older than that


def _json(found: Any) -> bytes:
    return json.dumps(found, sort_keys=True).encode()


def _device(mac_address: str, tag: str) -> dict[str, Any]:
    """A card that its user tagged; where the guest finds it on its buses is the host's choice."""
    return {"type": "nic", "mac": mac_address, "bus": "none", "address": "none", "tags": [tag]}


def meta_data(server: Server, nics: Sequence[Nic] = ()) -> dict[str, Any]:
    """`meta_data.json`."""
    tagged = [(nic.mac_address, server.nic_tags[nic.port_id]) for nic in nics if nic.port_id in server.nic_tags]
    found: dict[str, Any] = {
        "uuid": server.id,
        "name": server.name,
        "hostname": server.hostname if "." in server.hostname else f"{server.hostname}.{DOMAIN}",
        "launch_index": server.launch_index,
        "availability_zone": server.zone,
        "project_id": server.project_id,
        "devices": [_device(*one) for one in tagged],
        "dedicated_cpus": list(range(server.flavor["vcpus"])) if made(server).spec.pinned else [],
    }
    if server.metadata:
        found["meta"] = dict(server.metadata)
    if server.admin_pass is not None:
        found["admin_pass"] = server.admin_pass
    if server.files:
        found["files"] = [
            {"path": one["path"], "content_path": f"/content/{number:04}"} for number, one in enumerate(server.files)
        ]
    if server.key is not None:
        found["public_keys"] = {server.key["name"]: server.key["public_key"]}
        found["keys"] = [{"name": server.key["name"], "type": server.key["type"], "data": server.key["public_key"]}]
    return found


def _netmask(cidr: str) -> str:
    return str(ipaddress.ip_network(cidr).netmask)


def _network(nic: Nic, one: Address, number: int) -> dict[str, Any]:
    version = 6 if ":" in one.ip_address else 4
    found: dict[str, Any] = {
        "id": f"network{number}",
        "link": f"tap{nic.port_id[:11]}",
        "network_id": nic.network_id,
        "type": f"ipv{version}",
    }
    if version == 4 and one.enable_dhcp:
        return {**found, "type": "ipv4_dhcp"}
    if version == 6 and one.ipv6_address_mode is not None:
        return {**found, "type": "ipv6_slaac" if one.ipv6_address_mode == "slaac" else f"ipv6_{one.ipv6_address_mode}"}
    routes = [
        {"network": net.partition("/")[0], "netmask": _netmask(net), "gateway": hop} for net, hop in one.host_routes
    ]
    if one.gateway_ip is not None:
        nothing = str(ipaddress.IPv6Address(0) if version == 6 else ipaddress.IPv4Address(0))
        routes.append({"network": nothing, "netmask": nothing, "gateway": one.gateway_ip})
    services = [{"type": "dns", "address": address} for address in one.dns_nameservers]
    return {
        **found,
        "ip_address": one.ip_address,
        "netmask": _netmask(one.cidr),
        "routes": routes,
        "services": services,
    }


def network_data(nics: Sequence[Nic]) -> dict[str, Any]:
    """`network_data.json`."""
    links = [
        {
            "id": f"tap{nic.port_id[:11]}",
            "vif_id": nic.port_id,
            "type": "bridge",
            "mtu": nic.mtu,
            "ethernet_mac_address": nic.mac_address,
        }
        for nic in nics
    ]
    places = [(nic, one) for nic in nics for one in nic.addresses]
    networks = [_network(nic, one, number) for number, (nic, one) in enumerate(places)]
    servers = dict.fromkeys(address for _, one in places for address in one.dns_nameservers)
    return {
        "links": links,
        "networks": networks,
        "services": [{"type": "dns", "address": address} for address in servers],
    }


def ec2(server: Server, nics: Sequence[Nic]) -> dict[str, str]:
    """The EC2 tree below `meta-data/`."""
    number = server.id.replace("-", "")[:8]
    fixed = [one for nic in nics for one in nic.addresses if ":" not in one.ip_address]
    floating = [one.floating_ip_address for one in fixed if one.floating_ip_address is not None]
    found = {
        "ami-id": f"ami-{(server.image_id or '').replace('-', '')[:8]}",
        "ami-launch-index": str(server.launch_index),
        "block-device-mapping/ami": "vda",
        "block-device-mapping/root": "/dev/vda",
        "hostname": server.hostname,
        "instance-action": "none",
        "instance-id": f"i-{number}",
        "instance-type": str(server.flavor["name"]),
        "local-hostname": server.hostname,
        "local-ipv4": fixed[0].ip_address if fixed else "",
        "placement/availability-zone": server.zone,
        "public-hostname": server.hostname,
        "public-ipv4": floating[0] if floating else "",
        "reservation-id": server.reservation_id,
        "security-groups": "\n".join(server.groups),
    }
    if server.key is not None:
        found["public-keys/0/openssh-key"] = server.key["public_key"]
    return found


def documents(server: Server, nics: Sequence[Nic]) -> dict[str, bytes]:
    """Everything that a guest may read, by path."""
    user_data = base64.b64decode(server.user_data) if server.user_data else None
    tree = {
        "meta_data.json": _json(meta_data(server, nics)),
        "network_data.json": _json(network_data(nics)),
        "vendor_data.json": b"{}",
        "vendor_data2.json": b"{}",
    }
    if user_data is not None:
        tree["user_data"] = user_data
    if server.sealed_pass is not None:
        tree["password"] = server.sealed_pass.encode()
    found = {f"openstack/{version}/{name}": content for version in DATED for name, content in tree.items()}
    for number, one in enumerate(server.files):
        found[f"openstack/content/{number:04}"] = base64.b64decode(one["contents"])
    for version in EC2:
        for name, text in ec2(server, nics).items():
            found[f"{version}/meta-data/{name}"] = text.encode()
        if user_data is not None:
            found[f"{version}/user-data"] = user_data
    return found


def disk_names(flavor: Mapping[str, Any]) -> tuple[str, ...]:
    """Ids of the disks that a flavor has."""
    return (disk.ROOT, *((disk.EPHEMERAL,) if flavor["ephemeral"] else ()), *((disk.SWAP,) if flavor["swap"] else ()))


def disks(server: Server) -> tuple[DiskSpec, ...]:
    """The guest's disks: its root from the image, then what its flavor has besides.

    A rescued server has one more, which it starts from.  It comes first, unless it is a stable device rescue: then it
    is behind the others, which keep their places.
    """
    rescue, like = server.rescue, made(server)
    common: dict[str, Any] = {"bus": like.bus, "limit": like.disk_limit}
    found = [
        DiskSpec(
            id=disk.ROOT,
            image_id=server.image_id,
            image_format=server.image.get("format") or "raw",
            image_sha512=server.image.get("sha512"),
            size_gib=server.flavor["disk"],
            boot_index=0 if rescue is None else 1,
            **common,
        )
    ]
    if server.flavor["ephemeral"]:
        found.append(
            DiskSpec(
                id=disk.EPHEMERAL,
                size_gib=server.flavor["ephemeral"],
                filesystem="ext4",
                label="ephemeral0",
                **common,
            )
        )
    if server.flavor["swap"]:
        size = -(-server.flavor["swap"] // 1024)
        found.append(DiskSpec(id=disk.SWAP, size_gib=size, filesystem="swap", **common))
    if rescue is not None:
        extra = DiskSpec(
            id=disk.RESCUE,
            image_id=rescue["image_id"],
            image_format=rescue["format"],
            image_sha512=rescue["sha512"],
            size_gib=0,
            bus=rescue["bus"],
            device=rescue["device"],
            boot_index=0,
            limit=like.disk_limit,
        )
        found.insert(len(found) if rescue["stable"] else 0, extra)
    return tuple(disk.spec(server.disks, one) for one in found)


def spec(server: Server, nics: Sequence[Nic]) -> GuestSpec:
    """The guest as its host shall hold it."""
    like = made(server)
    return GuestSpec(
        id=server.id,
        name=server.name,
        vcpus=server.flavor["vcpus"],
        memory_mib=server.flavor["ram"],
        disks=disks(server),
        retired=disk.gone(server.disks),
        nics=tuple(
            NicSpec(
                port_id=nic.port_id,
                mac_address=nic.mac_address,
                mtu=nic.mtu,
                model=like.nic_model,
                limit=like.nic_limit,
            )
            for nic in nics
        ),
        machine=like.spec,
        power=server.power,
        reboot_nonce=server.reboot_nonce,
        reboot_kind="SOFT" if server.reboot_kind == "SOFT" else "HARD",
        acts=server.acts,
        password=server.admin_pass if server.acts.get("password") else None,
        config_drive=server.config_drive,
        documents=documents(server, nics),
    )
