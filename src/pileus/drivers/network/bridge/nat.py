"""The packet filter of a router: NAT for the gateway and floating IPs, and what may cross.

Nothing enters from the gateway's side unless it answers something or is for a floating IP; nothing leaves there with
an inner IPv4 source address.  A floating IP that went ends its connections with the next packet, since each packet of
a translated connection is compared with the pairs as they are now.

A network may be another project's, and what comes from the router is not judged there as a guest's word.  So what comes
in at a leg must have a source to which the router would send by that leg, or by another one in the same network
(RFC 3704, section 2.2); and an address of a leg's own subnet comes from that network only, whatever routes users made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pileus.contracts.network import RouterInterfaceSpec, RouterSpec
from pileus.core.address import read_address, read_interface
from pileus.drivers.network.bridge.guard import METADATA
from pileus.drivers.network.bridge.name import GATEWAY, LEG, device

_TABLE = "pileus"
_IN, _OUT = f'iifname "{GATEWAY}*"', f'oifname "{GATEWAY}*"'


def render(spec: RouterSpec) -> str:
    """nft commands that replace the router's filter in one transaction."""
    lines = [f"add table inet {_TABLE}", f"delete table inet {_TABLE}", f"table inet {_TABLE} {{"]
    lines += _sets(spec)
    # Before connections are tracked: what is nobody's is not remembered.
    lines += _chain("claim", "type filter hook prerouting priority -300; policy accept;", _claim(spec))
    lines += _chain("prerouting", "type nat hook prerouting priority -100; policy accept;", _inbound())
    lines += _chain("postrouting", "type nat hook postrouting priority 100; policy accept;", _outbound(spec))
    lines += _chain("forward", "type filter hook forward priority 0; policy drop;", _forward(spec))
    lines += _chain("input", "type filter hook input priority 0; policy accept;", _input())
    lines += _chain("leak", "type filter hook postrouting priority 150; policy accept;", _leak())
    return "\n".join((*lines, "}", ""))


def _sets(spec: RouterSpec) -> Iterator[str]:
    pairs = [(_four(one.floating_ip_address), _four(one.fixed_ip_address)) for one in spec.floating_ips]
    by_fixed = {fixed: floating for floating, fixed in reversed(pairs)}
    outer = [read_interface(address).ip for address in (spec.gateway.addresses if spec.gateway else ())]
    inner = [read_interface(one).network for leg in spec.interfaces for one in leg.addresses]
    outside = sorted({str(one) for one in outer if one.version == 4} | {floating for floating, _ in pairs})
    # A unique local source (RFC 4193) stays inside; a global one may leave, since IPv6 is not translated.
    global_6 = [str(one) for one in inner if one.version == 6 and not one.is_private and not one.is_link_local]
    outside_6 = ["fe80::/10", *(str(one) for one in outer if one.version == 6), *sorted(set(global_6))]
    yield from _set("map floating", "ipv4_addr : ipv4_addr", (f"{floating} : {fixed}" for floating, fixed in pairs))
    yield from _set("map fixed", "ipv4_addr : ipv4_addr", (f"{fixed} : {one}" for fixed, one in by_fixed.items()))
    yield from _set("set pairs", "ipv4_addr . ipv4_addr", (f"{floating} . {fixed}" for floating, fixed in pairs))
    yield from _set("set outside", "ipv4_addr", outside)
    yield from _set("set outside6", "ipv6_addr; flags interval; auto-merge", outside_6)


def _claim(spec: RouterSpec) -> Iterator[str]:
    """What comes in may claim to be from where it comes."""
    yield 'iifname "lo" accept'
    networks: dict[str, list[RouterInterfaceSpec]] = {}
    for leg in spec.interfaces:
        networks.setdefault(leg.network_id, []).append(leg)
    meant = []
    for legs in networks.values():
        # A guest with addresses of two subnets may send from either by either leg.
        names = f"{{ {', '.join(device(LEG, leg.port_id) for leg in legs)} }}"
        prefixes = sorted({str(read_interface(one).network) for leg in legs for one in leg.addresses})
        for prefix in prefixes:
            yield f"iifname != {names} {'ip6' if ':' in prefix else 'ip'} saddr {prefix} drop"
        meant.append(f"iifname {names} fib saddr oifname {names} accept")
    yield from meant
    yield f'iifname "{LEG}*" drop'


def _inbound() -> Iterator[str]:
    yield "dnat ip to ip daddr map @floating"


def _outbound(spec: RouterSpec) -> Iterator[str]:
    yield f"{_OUT} snat ip to ip saddr map @fixed"
    # Between two ports behind this router, by a floating IP: the answer must come back here to be translated.
    hairpin = f'iifname "{LEG}*" oifname "{LEG}*" ct status dnat'
    yield f"{hairpin} snat ip to ip saddr map @fixed"
    outer = [read_interface(address).ip for address in (spec.gateway.addresses if spec.gateway else ())]
    for address in [one for one in outer if one.version == 4][:1]:
        yield f"{hairpin} snat ip to {address}"
        if spec.enable_snat:
            yield f"{_OUT} ip saddr != @outside snat ip to {address}"


def _forward(spec: RouterSpec) -> Iterator[str]:
    if not spec.admin_state_up:
        return
    yield "ct status dnat ct original ip daddr . ct reply ip saddr != @pairs drop"
    yield "ct status snat ct reply ip daddr != @outside drop"
    # Metadata answers its guest directly, so half of these connections is never seen here.
    yield f'iifname "{LEG}*" oifname "{LEG}*" ip daddr {METADATA} accept'
    yield f"{_IN} {_OUT} drop"
    yield f"{_OUT} ip daddr 169.254.0.0/16 drop"
    yield f"{_OUT} ct state invalid drop"
    yield "ct state established,related accept"
    yield f"{_IN} ct status dnat accept"
    yield f"{_IN} drop"
    yield f'iifname "{LEG}*" accept'


def _input() -> Iterator[str]:
    # DHCP is the network's own work; the daemon here is for router advertisements only.
    yield "udp dport { 67, 547 } drop"
    yield "ct state established,related accept"
    yield f"{_IN} meta l4proto {{ icmp, ipv6-icmp }} accept"
    yield f"{_IN} drop"


def _leak() -> Iterator[str]:
    yield f"{_OUT} ip saddr != @outside drop"
    yield f"{_OUT} ip6 saddr != @outside6 drop"


def _chain(name: str, hook: str, rules: Iterable[str]) -> Iterator[str]:
    yield f"chain {name} {{"
    yield hook
    yield from rules
    yield "}"


def _set(head: str, kind: str, elements: Iterable[str]) -> Iterator[str]:
    listed = ", ".join(elements)
    yield f"{head} {{"
    yield f"type {kind};"
    if listed:
        yield f"elements = {{ {listed} }};"
    yield "}"


def _four(address: str) -> str:
    return str(read_address(address))
