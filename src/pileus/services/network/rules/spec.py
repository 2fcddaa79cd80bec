"""What hosts are told: rows to the specs of `contracts.network`. Pure functions of plain values."""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_network, summarize_address_range
from typing import Any, NamedTuple

from pileus.contracts.network import (
    AddressPair,
    DhcpOption,
    FixedIP,
    FloatingIPSpec,
    HostRoute,
    NetworkSpec,
    PortSpec,
    RouterInterfaceSpec,
    RouterSpec,
    RuleSpec,
    SecurityGroupSpec,
    SubnetSpec,
)

Row = Mapping[str, Any]


class Held(NamedTuple):
    """An address of a port: in which subnet, and which."""

    subnet_id: str
    ip_address: str


def subnet_spec(row: Row, dhcp_address: str | None, *, routed: bool) -> SubnetSpec:
    """A subnet. Where the DHCP service has no address there is no DHCP."""
    return SubnetSpec(
        id=row["id"],
        cidr=row["cidr"],
        ip_version=row["ip_version"],
        gateway_ip=row["gateway_ip"],
        enable_dhcp=row["enable_dhcp"] and dhcp_address is not None,
        dhcp_address=dhcp_address if row["enable_dhcp"] else None,
        dns_nameservers=tuple(row["dns_nameservers"]),
        host_routes=tuple(HostRoute(**one) for one in row["host_routes"]),
        ipv6_ra_mode=row["ipv6_ra_mode"],
        ipv6_address_mode=row["ipv6_address_mode"],
        routed=routed,
    )


def network_spec(
    row: Row, subnets: Sequence[Row], dhcp_mac: str, dhcp: Mapping[str, str], routed: Collection[str]
) -> NetworkSpec:
    """A network. `dhcp`: the DHCP service's address by subnet; `routed`: subnets whose gateway is a router of ours."""
    return NetworkSpec(
        id=row["id"],
        mtu=row["mtu"],
        subnets=tuple(subnet_spec(one, dhcp.get(one["id"]), routed=one["id"] in routed) for one in subnets),
        dhcp_mac=dhcp_mac,
        external=row["external"],
        dns_domain=row["dns_domain"],
    )


def metadata_mac(network_id: str) -> str:
    """The MAC address of a network's services where it has no DHCP port: always the same for a network."""
    digits = network_id.replace("-", "")[-6:].rjust(6, "0")
    return f"fa:16:3f:{digits[0:2]}:{digits[2:4]}:{digits[4:6]}"


def port_spec(row: Row, given: Sequence[Held], groups: Iterable[str]) -> PortSpec:
    """A guest's port."""
    return PortSpec(
        id=row["id"],
        network_id=row["network_id"],
        mac_address=row["mac_address"],
        fixed_ips=tuple(FixedIP(subnet_id=one.subnet_id, ip_address=one.ip_address) for one in given),
        hostname=row["dns_name"] or row["hostname"],
        port_security=row["port_security_enabled"],
        security_groups=tuple(sorted(groups)),
        allowed_address_pairs=tuple(AddressPair(**one) for one in row["allowed_address_pairs"]),
        dhcp_options=tuple(DhcpOption(**one) for one in row["extra_dhcp_opts"]),
        admin_state_up=row["admin_state_up"],
        guest_id=row["device_id"] or None,
    )


def group_spec(row: Row, rules: Iterable[Row], members: Iterable[str]) -> SecurityGroupSpec:
    """A security group. `members` are addresses and prefixes, given where a rule names the group as its remote.

    Those of a large group are told as the fewest prefixes that cover just them: each of its hosts holds them.
    """
    found = [
        RuleSpec(
            direction=one["direction"],
            ethertype=one["ethertype"],
            protocol=one["protocol_number"],
            port_range_min=one["port_range_min"],
            port_range_max=one["port_range_max"],
            remote_ip_prefix=one["normalized_cidr"],
            remote_group_id=one["remote_group_id"],
        )
        for one in rules
    ]
    return SecurityGroupSpec(id=row["id"], rules=tuple(found), members=_few(set(members)), stateful=row["stateful"])


CROWD = 256
"""Members that are told one by one."""


def _few(members: Collection[str]) -> tuple[str, ...]:
    if len(members) <= CROWD:
        return tuple(sorted(members))
    numbers: dict[type[IPv4Address | IPv6Address], list[tuple[int, int]]] = {IPv4Address: [], IPv6Address: []}
    for text in members:
        first = IPv4Address if ":" not in text else IPv6Address
        if "/" in text:
            network = ip_network(text, strict=False)
            numbers[first].append((int(network.network_address), int(network.broadcast_address)))
        else:
            family = socket.AF_INET if first is IPv4Address else socket.AF_INET6
            number = int.from_bytes(socket.inet_pton(family, text))
            numbers[first].append((number, number))
    return tuple(prefix for kind, spans in numbers.items() for prefix in _prefixes(kind, spans))


def _prefixes(kind: type[IPv4Address | IPv6Address], spans: list[tuple[int, int]]) -> Iterator[str]:
    """The fewest prefixes that cover spans of numbers, and nothing else; a single address without its length."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    for first, last in joined:
        for network in summarize_address_range(kind(first), kind(last)):
            yield str(network) if network.num_addresses > 1 else str(network.network_address)


def leg_spec(row: Row, given: Sequence[Held], subnets: Mapping[str, Row], mtu: int) -> RouterInterfaceSpec:
    """A router's leg. It advertises the IPv6 subnets that want it, and whose gateway it is."""
    addresses = [f"{one.ip_address}/{ip_network(subnets[one.subnet_id]['cidr']).prefixlen}" for one in given]
    advertise = [
        subnet_spec(subnets[one.subnet_id], None, routed=True)
        for one in given
        if subnets[one.subnet_id]["ipv6_ra_mode"] is not None and subnets[one.subnet_id]["gateway_ip"] == one.ip_address
    ]
    return RouterInterfaceSpec(
        port_id=row["id"],
        network_id=row["network_id"],
        mac_address=row["mac_address"],
        addresses=tuple(addresses),
        mtu=mtu,
        advertise=tuple(advertise),
    )


def nexthops(subnets: Iterable[Row]) -> tuple[str, ...]:
    """The default gateways beyond a router's gateway: the first of each IP version."""
    found: dict[int, str] = {}
    for row in subnets:
        if row["gateway_ip"] is not None:
            found.setdefault(row["ip_version"], row["gateway_ip"])
    return tuple(found[version] for version in sorted(found))


def router_spec(
    row: Row,
    interfaces: Iterable[RouterInterfaceSpec],
    gateway: RouterInterfaceSpec | None,
    outer: Iterable[Row],
    floating: Iterable[Row],
) -> RouterSpec:
    """A router. `outer` are the subnets in which its gateway has addresses."""
    return RouterSpec(
        id=row["id"],
        interfaces=tuple(interfaces),
        gateway=gateway,
        gateway_nexthops=nexthops(outer) if gateway is not None else (),
        enable_snat=row["enable_snat"],
        floating_ips=tuple(
            FloatingIPSpec(
                id=one["id"],
                floating_ip_address=one["floating_ip_address"],
                fixed_ip_address=one["fixed_ip_address"],
            )
            for one in floating
        ),
        routes=tuple(HostRoute(**one) for one in row["routes"]),
        admin_state_up=row["admin_state_up"],
    )
