"""DHCP, local names and router advertisements by dnsmasq(8), one daemon for a network and one for a router.

The daemon runs as a user of its own with two capabilities at most, which reach no further than its namespace.
Addresses are handed out by MAC address only (`static` ranges and a hosts file); leases live in its memory, so no file
grows.  It asks nobody: names outside the network are refused, and the namespace has no way out.

All that users choose (host names, options) is checked here before it is written: a line break in an option would
otherwise be a line of configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pileus.contracts.network import NetworkState, PortSpec, RouterSpec, SubnetSpec
from pileus.core.address import read_address, read_prefix
from pileus.drivers.network.bridge.guard import METADATA
from pileus.drivers.network.bridge.name import BRIDGE, LEG, checked, device, mac_address

LEASE_SECONDS = 86_400

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_DOMAIN = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,253}[A-Za-z0-9])?")
_OPTION_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_OPTION_VALUE = re.compile(r"[\x20-\x7e]{0,255}")


@dataclass(frozen=True)
class Config:
    """What a daemon is told: `main` when it starts, the other files also while it runs."""

    main: str
    files: tuple[tuple[str, str], ...] = ()
    """Name and content of each file that is read again on SIGHUP."""
    leases: tuple[tuple[str, str], ...] = ()
    """(address, MAC address) of everything it may hand out."""
    raw: bool = False
    """Speaks ICMPv6 itself."""
    tagged: bool = False
    """A host in the files sets a tag. With a lease of such a one dnsmasq 2.90 dies on SIGHUP: start anew."""


def serve(state: NetworkState, directory: str) -> Config | None:
    """What the network's daemon is told; None when no subnet wants DHCP. `directory` is where its files are."""
    subnets = [subnet for subnet in state.network.subnets if _range(subnet)]
    if not subnets:
        return None
    domain = state.network.dns_domain.rstrip(".")
    domain = domain if _DOMAIN.fullmatch(domain) else ""
    names = any(not subnet.dns_nameservers for subnet in subnets)
    main = [
        *_always(),
        f"interface={BRIDGE}",
        "dhcp-authoritative",
        "no-ping",
        # To a guest without an address yet an answer could only be sent after a change of the ARP table.
        "dhcp-broadcast",
        # The hosts file bounds the leases; this only lifts the default of a thousand.
        "dhcp-lease-max=100000",
        f"dhcp-hostsfile={directory}/hosts",
        f"dhcp-optsfile={directory}/options",
    ]
    if names:
        main += [f"addn-hosts={directory}/names", "cache-size=0"]
        main += [f"domain={domain}", f"local=/{domain}/", "expand-hosts"] if domain else []
    else:
        main.append("port=0")
    # The comment has the daemon start anew when it must listen elsewhere.
    main.append("# at " + " ".join(_own(subnet) for subnet in subnets))
    main += [_range(subnet) for subnet in subnets]
    leases = sorted(_leases(state.ports, {subnet.id for subnet in subnets}))
    options = [line for subnet in subnets for line in _subnet_options(subnet, state, domain)]
    options += [line for port in state.ports for line in _port_options(port)]
    files = [
        ("hosts", _text(line for port in state.ports for line in _hosts(port, subnets))),
        ("options", _text(options)),
        ("names", _text(line for port in state.ports for line in _names(port))),
    ]
    raw = any(subnet.ip_version == 6 for subnet in subnets)
    return Config(_text(main), tuple(files), tuple(leases), raw, tagged=any(port.dhcp_options for port in state.ports))


def advertise(router: RouterSpec) -> Config | None:
    """What the router's daemon is told; None when no leg advertises (RFC 4861, RFC 4862)."""
    legs = [leg for leg in router.interfaces if leg.advertise]
    if not legs or not router.admin_state_up:
        return None
    main = [*_always(), "port=0", "enable-ra"]
    for leg in legs:
        name = device(LEG, leg.port_id)
        main += [f"interface={name}", f"ra-param={name},mtu:{leg.mtu},60,1800"]
        for subnet in leg.advertise:
            main += _advertisement(subnet)
    return Config(_text(main), raw=True)


def _advertisement(subnet: SubnetSpec) -> Iterator[str]:
    """The mode by the flags of RFC 4861: A for slaac, A and O for stateless, M and O for stateful DHCPv6."""
    network = read_prefix(subnet.cidr)
    modes = {"slaac": "ra-only", "dhcpv6-stateless": "ra-stateless", "dhcpv6-stateful": "static"}
    mode = modes.get(subnet.ipv6_ra_mode or "")
    if mode is None or network.version != 6 or network.prefixlen < 64:
        return
    yield f"dhcp-range=set:{_tag(subnet)},{network.network_address},{mode},{network.prefixlen},{LEASE_SECONDS}"
    servers = _servers(subnet)
    if not servers and subnet.enable_dhcp and subnet.dhcp_address and not subnet.dns_nameservers:
        servers = [_own(subnet)] if subnet.ipv6_address_mode != "slaac" else []
    yield f"dhcp-option=tag:{_tag(subnet)},option6:dns-server" + "".join(f",[{server}]" for server in servers)


def _always() -> Iterator[str]:
    yield from ("bind-interfaces", "except-interface=lo", "no-resolv", "no-hosts", "no-poll", "leasefile-ro")
    yield from ("keep-in-foreground", "pid-file=", "quiet-dhcp", "quiet-dhcp6", "quiet-ra", "log-facility=/dev/null")


def _range(subnet: SubnetSpec) -> str:
    """The dhcp-range of a subnet, empty when its addresses are not dnsmasq's to hand out."""
    network = read_prefix(subnet.cidr)
    if not subnet.enable_dhcp or not subnet.dhcp_address:
        return ""
    if network.version == 4:
        if network.prefixlen > 30:
            return ""
        return f"dhcp-range=set:{_tag(subnet)},{network.network_address},static,{network.netmask},{LEASE_SECONDS}"
    # dnsmasq knows no IPv6 range that is wider than /64.
    if network.prefixlen < 64 or subnet.ipv6_address_mode not in {"dhcpv6-stateful", "dhcpv6-stateless"}:
        return ""
    return f"dhcp-range=set:{_tag(subnet)},{network.network_address},static,{network.prefixlen},{LEASE_SECONDS}"


def _subnet_options(subnet: SubnetSpec, state: NetworkState, domain: str) -> Iterator[str]:
    tag = f"tag:{_tag(subnet)}"
    own = _own(subnet)
    servers = _servers(subnet) or ([] if subnet.dns_nameservers else [own])
    if subnet.ip_version == 6:
        yield f"{tag},option6:dns-server" + "".join(f",[{server}]" for server in servers)
        if domain:
            yield f"{tag},option6:domain-search,{domain}"
        return
    # An option without a value keeps dnsmasq from naming itself.
    gateway = [str(read_address(subnet.gateway_ip))] if subnet.gateway_ip else []
    yield ",".join((tag, "option:router", *gateway))
    yield ",".join((tag, "option:dns-server", *servers))
    yield f"{tag},option:mtu,{state.network.mtu}"
    if domain:
        yield f"{tag},option:domain-name,{domain}"
    routes = [(f"{METADATA}/32", own)]
    routes += [(str(read_prefix(one.destination, strict=False)), one.nexthop) for one in subnet.host_routes]
    routes += [
        (str(read_prefix(other.cidr)), "0.0.0.0")  # noqa: S104 - on-link, RFC 3442
        for other in state.network.subnets
        if other.ip_version == 4 and other.id != subnet.id
    ]
    if subnet.gateway_ip:
        # A client that takes option 121 ignores the router option (RFC 3442).
        routes.append(("0.0.0.0/0", subnet.gateway_ip))
    listed = ",".join(f"{target},{read_address(via)}" for target, via in routes)
    yield f"{tag},option:classless-static-route,{listed}"
    yield f"{tag},249,{listed}"


def _port_options(port: PortSpec) -> Iterator[str]:
    for option in port.dhcp_options:
        name, value = option.opt_name, option.opt_value
        if not _OPTION_NAME.fullmatch(name) or not _OPTION_VALUE.fullmatch(value):
            continue
        word = "option6" if option.ip_version == 6 else "option"
        kind = name if name.isdigit() and option.ip_version == 4 else f"{word}:{name}"
        yield f"tag:{_port_tag(port)},{kind},{value}"


def _hosts(port: PortSpec, subnets: list[SubnetSpec]) -> Iterator[str]:
    served = {subnet.id for subnet in subnets}
    parts = [mac_address(port.mac_address)]
    name = [port.hostname] if _HOST.fullmatch(port.hostname) else []
    # Only who has options of its own: see `Config.tagged`.
    tag = [f"set:{_port_tag(port)}"] if port.dhcp_options else []
    for fixed in port.fixed_ips:
        if fixed.subnet_id not in served:
            continue
        address = read_address(fixed.ip_address)
        if address.version == 4:
            # `id:*`: the MAC address alone says who it is; a rebuilt guest comes with another client id.
            yield ",".join((*parts, "id:*", *tag, str(address), *name))
        else:
            yield ",".join((*parts, *tag, f"[{address}]", *name))


def _names(port: PortSpec) -> Iterator[str]:
    if _HOST.fullmatch(port.hostname):
        for fixed in port.fixed_ips:
            yield f"{read_address(fixed.ip_address)} {port.hostname}"


def _leases(ports: tuple[PortSpec, ...], served: set[str]) -> Iterator[tuple[str, str]]:
    for port in ports:
        for fixed in port.fixed_ips:
            if fixed.subnet_id in served:
                yield str(read_address(fixed.ip_address)), mac_address(port.mac_address)


def _own(subnet: SubnetSpec) -> str:
    """The address of the subnet's own service; empty when it has none."""
    return str(read_address(subnet.dhcp_address)) if subnet.dhcp_address else ""


def _servers(subnet: SubnetSpec) -> list[str]:
    """The subnet's resolvers of its own IP version; the unspecified address means none (Network API, subnets)."""
    addresses = [read_address(server) for server in subnet.dns_nameservers]
    return [str(one) for one in addresses if one.version == subnet.ip_version and not one.is_unspecified]


def _tag(subnet: SubnetSpec) -> str:
    return f"subnet-{checked(subnet.id)}"


def _port_tag(port: PortSpec) -> str:
    return f"port-{checked(port.id)}"


def _text(lines: Iterator[str] | list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
