"""The packet filter of a network: what a guest may claim to be, and what its security groups let through.

Layer 2 is judged in the bridge family: each port has a chain for what comes from it, and ends by marking the packet
with the port's *profile*, the set of its groups.  Layer 3 is judged by that mark, where connections are tracked:

- engine `bridge`: in the bridge family too (kernels with nf_conntrack_bridge);
- engine `br_netfilter`: in the inet family, to which the kernel passes bridged IP packets.

The chains are the same text in both.  Ports with the same groups share a profile; groups have their chains once.

Security groups are judged without trust in what was allowed before: a packet in a connection's first direction must
pass the rules as they are now, and a packet in the other direction the same rules read backwards.  So a permission
that is withdrawn ends its connections with the next packet, in both directions, and so does a member's departure.

What comes from the network's own services is never a guest's word: interfaces other than taps are ours.  A router
passes on what guests said: its source is judged where the router takes it in (`nat`), the rest here as from a guest.

Three things hold for every port, also for one without port security.  Nobody but the network's own service speaks from
the address of metadata, and that service hears a fixed address from its own port alone and answers it there, also where
a router lies between.  What a
guest asks of the network's services, what it sends to everybody and the connections that it makes the kernel remember
are bounded (`limit`).
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator
from typing import Literal

from pileus.contracts.network import NetworkState, PortSpec, RuleSpec, SecurityGroupSpec
from pileus.core.address import read_address, read_prefix
from pileus.drivers.network.bridge import limit
from pileus.drivers.network.bridge.name import TAP, UPLINK, checked, device, mac_address
from pileus.drivers.network.bridge.ruleset import Elements, Ruleset

Engine = Literal["bridge", "br_netfilter"]
ENGINES: tuple[Engine, ...] = ("bridge", "br_netfilter")

METADATA = "169.254.169.254"
_UNSPECIFIED = str(ipaddress.IPv4Address(0))

_LAYER_2 = "bridge"
_OURS, _OPEN, _FREE = "0", "1", "2"
"""Marks: not a guest's; let through unjudged; the same from a port without port security. Profiles begin at 4."""

_UPKEEP_6 = "{ 131, 132, 133, 135, 136, 143 }"
"""ICMPv6 types that a guest needs to be on the link: MLD done and reports, router and neighbour solicitation,
neighbour advertisement (RFC 4890, section 4.4)."""

_PORTED = frozenset({6, 17, 33, 132, 136})
_ANSWERS = {4: {8: 0, 13: 14, 15: 16, 17: 18}, 6: {128: 129, 139: 140}}
"""ICMP queries and their answers, as the kernel tracks them (nf_conntrack_proto_icmp.c, …_icmpv6.c)."""

Family = Literal[4, 6]
FAMILIES: tuple[Family, ...] = (4, 6)


def judge_family(engine: Engine) -> str:
    """The nft family in which connections are tracked and security groups judged."""
    return "bridge" if engine == "bridge" else "inet"


class Guard:
    """Renders filters; keeps the chains of ports and groups that it has rendered, since most stay as they are."""

    def __init__(self, engine: Engine) -> None:
        self.engine: Engine = engine
        self._family = judge_family(engine)
        self._ports: dict[tuple[PortSpec, str], tuple[tuple[str, tuple[str, ...]], ...]] = {}
        self._groups: dict[SecurityGroupSpec, dict[str, tuple[str, ...]]] = {}

    def ruleset(self, state: NetworkState) -> Ruleset:
        """The whole filter of a network. Raises ValueError when a spec holds what cannot be an id or an address."""
        hooks, chains, sets = self._frame(state)
        profiles = _profiles(state)
        for profile, mark in profiles.items():
            for way in ("from", "to"):
                chains[self._family, f"{way}-{mark:x}"] = _profile_chain(way, [state.groups[one] for one in profile])
        used = [state.groups[one] for one in sorted({one for profile in profiles for one in profile})]
        for group in used:
            for name, lines in self._group(group).items():
                chains[self._family, name] = lines
        for remote in sorted({rule.remote_group_id for group in used for rule in group.rules if rule.remote_group_id}):
            for name, elements in _member_sets(remote, state.groups.get(remote)).items():
                sets[self._family, name] = elements
        origin, target, stations, residents = (dict[str, str]() for _ in range(4))
        for port in state.ports:
            tap = device(TAP, port.id)
            if not port.admin_state_up:
                origin[f'"{tap}"'] = "drop"
                continue
            label = str(profiles[_profile(port, state)]) if port.port_security else _OPEN
            residents.update((f'"{tap}" . {address}', "") for address in _addresses_4(port))
            chains.update(((_LAYER_2, name), lines) for name, lines in self._port(port, label))
            origin[f'"{tap}"'] = f"goto from-{tap}"
            target[f'"{tap}"'] = label
            if port.port_security:
                stations.update((f'"{tap}" . {mac}', "") for mac in _sources(port))
        sets[_LAYER_2, "origin"] = Elements("ifname : verdict", origin)
        sets[_LAYER_2, "target"] = Elements("ifname : mark", target)
        sets[_LAYER_2, "stations"] = Elements("ifname . ether_addr", stations)
        sets[_LAYER_2, "residents"] = Elements("ifname . ipv4_addr", residents)
        for way, name in (("from", "outgoing"), ("to", "incoming")):
            verdicts = {str(mark): f"goto {way}-{mark:x}" for mark in profiles.values()}
            sets[self._family, name] = Elements("mark : verdict", verdicts)
        self._forget(state)
        return Ruleset(hooks, chains, sets)

    def _frame(
        self, state: NetworkState
    ) -> tuple[dict[tuple[str, str], str], dict[tuple[str, str], tuple[str, ...]], dict[tuple[str, str], Elements]]:
        """What each network has, whatever its ports are. All of it drops what comes from or goes to an unknown tap."""
        family = self._family
        hooks = {
            (_LAYER_2, "prerouting"): "type filter hook prerouting priority -300; policy accept;",
            (_LAYER_2, "forward"): "type filter hook forward priority -200; policy accept;",
            (_LAYER_2, "input"): "type filter hook input priority 0; policy accept;",
            (_LAYER_2, "output"): "type filter hook output priority 0; policy accept;",
            (family, "judge-prerouting"): "type filter hook prerouting priority -150; policy accept;",
            (family, "judge-forward"): "type filter hook forward priority 0; policy accept;",
            # What was judged is counted: a packet that no rule lets through is not remembered either.
            (family, "count-prerouting"): "type filter hook prerouting priority -140; policy accept;",
            (family, "count-forward"): "type filter hook forward priority 10; policy accept;",
        }
        judged = f"meta mark {_OURS}-{_FREE} accept"
        chains: dict[tuple[str, str], tuple[str, ...]] = {
            (_LAYER_2, "prerouting"): (
                *(f"{claim} {METADATA} drop" for claim in ("arp saddr ip", "ip saddr")),
                f'iifname != "{TAP}*" accept',
                # Who asks for metadata is known by its address, so that must be of this very port, whatever else it
                # may send. A router that it is sent by asks nothing again.
                f"ip daddr {METADATA} iifname . ip saddr != @residents drop",
                *limit.crowd(),
                "iifname vmap @origin",
                "drop",
            ),
            (_LAYER_2, "forward"): _TOWARDS,
            (_LAYER_2, "input"): tuple(_asked()),
            (_LAYER_2, "output"): (_ANSWERED,),
            **{(_LAYER_2, name): lines for name, lines in _shared().items()},
            (family, "judge-prerouting"): (judged, "meta mark vmap @outgoing", "drop"),
            (family, "judge-forward"): (judged, "meta mark vmap @incoming", "drop"),
            (family, "count-prerouting"): (f"meta mark {_OURS} accept", *limit.tracked("saddr", _FREE)),
            (family, "count-forward"): (f"meta mark {_OURS} accept", *limit.tracked("daddr", None)),
        }
        served: dict[Family, dict[str, str]] = {4: {"255.255.255.255": ""}, 6: {"ff02::1:2": ""}}
        for subnet in state.network.subnets:
            if subnet.enable_dhcp and subnet.dhcp_address:
                address = read_address(subnet.dhcp_address)
                served[address.version][str(address)] = ""
        sets = {
            (_LAYER_2, f"dhcp{version}"): Elements(f"ipv{version}_addr", members) for version, members in served.items()
        }
        sets.update(((_LAYER_2, name), Elements("ifname", kept=limit.WHILE)) for name in limit.PACES)
        sets.update(((family, name), Elements("ether_addr", kept="counted")) for name in limit.COUNTS)
        return hooks, chains, sets

    def _port(self, port: PortSpec, mark: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
        chains = self._ports.get((port, mark))
        if chains is None:
            chains = self._ports[port, mark] = tuple(_origin(port, mark))
        return chains

    def _group(self, group: SecurityGroupSpec) -> dict[str, tuple[str, ...]]:
        chains = self._groups.get(group)
        if chains is None:
            chains = self._groups[group] = _group_chains(group)
        return chains

    def _forget(self, state: NetworkState) -> None:
        """Keep no more than twice what is in use."""
        if len(self._ports) > 2 * len(state.ports) + 64:
            self._ports.clear()
        if len(self._groups) > 2 * len(state.groups) + 64:
            self._groups.clear()


_ANSWERED = f"ip saddr {METADATA} ip daddr != 255.255.255.255 oifname . ip daddr != @residents drop"
"""Answers of metadata go to whom they are for, by no router; offers of DHCP, which go to all, have the same source."""

_TOWARDS = (
    f"meta mark set {_OURS}",
    # A tag of priority alone hides from a rule what it does not hide from a router.
    f'oifname != "{TAP}*" ether type != {{ arp, ip, ip6 }} drop',
    f'oifname != "{TAP}*" accept',
    "meta mark set oifname map @target",
    f"meta mark {_OURS} drop",
    f"meta mark {_OPEN} accept",
    # What the bridge floods because it has not learnt the receiver is nobody else's to read.
    "ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 oifname . ether daddr != @stations drop",
    "ether type arp accept",
    "ether type != { ip, ip6 } drop",
    f"icmpv6 type {{ 135, 136 }} ip6 hoplimit 255 meta mark set {_OPEN} accept",
    f'iifname != "{TAP}*" icmpv6 type 134 ip6 hoplimit 255 meta mark set {_OPEN} accept',
)
"""Towards a port: find its profile; what belongs to the link itself needs no rule of a group.

Frames with a VLAN tag are neither ip nor ip6 here, so they end at `drop`; the engines would not judge them.
"""


# --- What the network's own services hear


def _asked() -> Iterator[str]:
    """Towards the network's own addresses: the services that are there, at the pace of a port.

    A router has that pace for all behind it, as does the outside: a way around would be one for floods too.
    """
    yield "ether type != { arp, ip, ip6 } drop"
    # Names are asked for over UDP: one slow TCP client would hold up a service that has a single thread.
    yield "tcp dport 53 drop"
    # A lease is asked for on the link (RFC 2131, RFC 8415); there are no relays, and no way around by a router.
    yield f'iifname != "{TAP}*" udp dport {{ 67, 547 }} drop'
    yield f'iifname "{UPLINK}" ip daddr {METADATA} drop'
    yield f"ip daddr {METADATA} tcp dport 80 tcp flags & (syn | ack) == syn {limit.pace('metadata')} drop"
    yield f"ip daddr {METADATA} tcp dport 80 accept"
    for ports in ("udp sport 68 udp dport 67", "udp sport 546 udp dport 547"):
        yield f"{ports} {limit.pace('lease')} drop"
        yield f"{ports} accept"
    yield f"udp dport 53 {limit.pace('name')} drop"
    yield "udp dport 53 accept"
    # Each new neighbour is remembered, in a table that the whole host shares.
    yield f"{limit.pace('link')} drop"
    yield "ether type arp accept"
    yield "meta l4proto { icmp, ipv6-icmp } accept"
    yield "drop"


# --- What a guest may claim to be
#
# Only the shared chains use anonymous sets: the kernel names each one by looking at all others, which is quadratic.


def _shared() -> dict[str, tuple[str, ...]]:
    """What holds for every guest, once its addresses have been found to be its own."""
    open_ = f"meta mark set {_OPEN} accept"
    return {
        "layer2": ("ether type != { arp, ip, ip6 } drop",),
        "own-arp": (
            "arp htype != 1 drop",
            "arp ptype != ip drop",
            "arp hlen != 6 drop",
            "arp plen != 4 drop",
            "arp operation != { request, reply } drop",
            "accept",
        ),
        "own-ip": (
            # Clients hear at this port, whichever one the answer is from (RFC 2131, section 4.1).
            "udp dport 68 drop",
            # Who asks for groups as a router would is sent all that is for any of them (RFC 3376, RFC 4541).
            "igmp type membership-query drop",
            f"ip daddr @dhcp4 udp sport 68 udp dport 67 {open_}",
            f"ip daddr {METADATA} tcp dport 80 {open_}",
            "accept",
        ),
        "no-ip": (f"ip daddr 255.255.255.255 udp sport 68 udp dport 67 {open_}", "drop"),
        "own-ip6": (
            "icmpv6 type { 130, 134, 137 } drop",
            "udp dport 546 drop",
            # An advertisement in fragments would hide its type (RFC 7113); its source must be link-local (RFC 4861).
            "ip6 saddr fe80::/10 exthdr frag exists drop",
            "exthdr frag exists jump parts6",
            f"icmpv6 type {_UPKEEP_6} {open_}",
            f"ip6 daddr @dhcp6 udp sport 546 udp dport 547 {open_}",
            "accept",
        ),
        # A first fragment says what the packet is (RFC 7112); without a transport header, or around another one, it
        # hides that.
        "parts6": ("frag frag-off != 0 return", "@th,0,64 & 0 == 0 return", "drop"),
        "no-ip6": (f"icmpv6 type {{ 131, 132, 133, 135, 143 }} {open_}", "drop"),
    }


def _origin(port: PortSpec, mark: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The chains for what comes from a port; the first is where it begins.  What no rule knows is dropped."""
    tap = device(TAP, port.id)
    if not port.port_security:
        yield f"from-{tap}", (f"meta mark set {_FREE} accept",)
        return
    (mac, addresses), *more = _sources(port).items()
    rules = ["jump layer2"]
    rules += [f"ether saddr {other} goto from-{tap}-{number}" for number, (other, _) in enumerate(more)]
    yield from _claims(f"{tap}", mac, addresses, mark, rules)
    for number, (other, theirs) in enumerate(more):
        yield from _claims(f"{tap}-{number}", other, theirs, mark, [])


def _claims(
    name: str, mac: str, addresses: list[str], mark: str, rules: list[str]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What may come from one MAC address of a port."""
    own_4, own_6 = _version(addresses, 4), _version(addresses, 6)
    rules += [f"ether saddr != {mac} drop", f"meta mark set {mark}", f"arp saddr ether != {mac} drop"]
    # The unspecified address asks whether an address is free (RFC 5227, section 2.1).
    rules += [f"arp saddr ip {address} goto own-arp" for address in (*own_4, _UNSPECIFIED)]
    # A lease is asked for by the hardware address in the message, 28 bytes after 8 of UDP (RFC 2131, section 2).
    rules.append(f"udp sport 68 udp dport 67 jump lease-{name}")
    yield f"lease-{name}", (f"@th,288,48 0x{mac.replace(':', '')} return", "drop")
    rules += [f"ip saddr {address} goto own-ip" for address in own_4]
    rules.append(f"ip saddr {_UNSPECIFIED} goto no-ip")
    # Whose address an advertisement gives away, and which one a probe claims (RFC 4861, 7.2.4; RFC 4862, 5.4.2).
    rules += [f"icmpv6 type 136 goto target-{name}", f"ip6 saddr :: icmpv6 type 135 goto target-{name}"]
    yield f"from-{name}", (*rules, f"goto source-{name}")
    # The target is 16 bytes after 8 of ICMPv6.
    targets = tuple(f"@th,64,128 {_number(address)} goto source-{name}" for address in own_6)
    yield f"target-{name}", (*targets, "drop")
    sources = tuple(f"ip6 saddr {address} goto own-ip6" for address in own_6)
    yield f"source-{name}", (*sources, "ip6 saddr :: goto no-ip6", "drop")


def _sources(port: PortSpec) -> dict[str, list[str]]:
    """MAC address to the addresses and CIDRs that may be used with it, its link-local one among them."""
    found: dict[str, list[str]] = {}
    pairs = [(port.mac_address, fixed.ip_address) for fixed in port.fixed_ips]
    pairs += [(pair.mac_address or port.mac_address, pair.ip_address) for pair in port.allowed_address_pairs]
    found[mac_address(port.mac_address)] = []
    for mac, address in pairs:
        found.setdefault(mac_address(mac), []).append(address)
    return {mac: [str(link_local(mac)), *addresses] for mac, addresses in found.items()}


def _addresses_4(port: PortSpec) -> list[str]:
    addresses = (read_address(fixed.ip_address) for fixed in port.fixed_ips)
    return [str(address) for address in addresses if address.version == 4]


def link_local(mac: str) -> ipaddress.IPv6Address:
    """The link-local address made from a MAC address (RFC 4291, appendix A)."""
    octets = bytearray.fromhex(mac.replace(":", ""))
    octets[0] ^= 2
    return ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + octets[:3] + b"\xff\xfe" + octets[3:])


def _version(addresses: Iterable[str], version: Family) -> list[str]:
    """Those of one IP version, as the fewest prefixes that cover them; a single address without its length."""
    networks = [read_prefix(address, strict=False) for address in addresses]
    if version == 4:
        prefixes: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network] = ipaddress.collapse_addresses(
            network for network in networks if isinstance(network, ipaddress.IPv4Network)
        )
    else:
        prefixes = ipaddress.collapse_addresses(
            network for network in networks if isinstance(network, ipaddress.IPv6Network)
        )
    return [
        str(prefix.network_address) if prefix.prefixlen == prefix.max_prefixlen else str(prefix) for prefix in prefixes
    ]


def _number(address: str) -> str:
    """An IPv6 address or prefix as nft writes raw payload."""
    network = ipaddress.IPv6Network(address)
    first, last = (f"0x{int(end):032x}" for end in (network.network_address, network.broadcast_address))
    return first if first == last else f"{first}-{last}"


# --- Security groups


def _profile(port: PortSpec, state: NetworkState) -> tuple[str, ...]:
    """The groups of a port; one that is not in the state allows nothing, as if it were empty."""
    return tuple(sorted({group for group in port.security_groups if group in state.groups}))


def _profiles(state: NetworkState) -> dict[tuple[str, ...], int]:
    """Each set of groups in use to its mark, the same after a restart so that no packet in flight is misjudged."""
    marks: dict[tuple[str, ...], int] = {}
    for profile in sorted({_profile(port, state) for port in state.ports if port.port_security}):
        digest = hashlib.blake2b("\n".join(profile).encode(), digest_size=4).digest()
        mark = int.from_bytes(digest) | 4
        while mark in marks.values():
            mark = (mark + 1) % 0xFFFFFFFF | 4
        marks[profile] = mark
    return marks


def _profile_chain(way: str, groups: list[SecurityGroupSpec]) -> tuple[str, ...]:
    """What a port's groups let through, seen from the port: `from` it or `to` it."""
    ahead, behind = ("egress", "ingress") if way == "from" else ("ingress", "egress")
    lines = []
    tracked = [checked(group.id) for group in groups if group.stateful]
    if tracked:
        lines.append("ct state related accept")
        lines += [f"ct direction original jump {ahead}-{group}" for group in tracked]
        lines += [f"ct state established ct direction reply jump {behind}-{group}-reply" for group in tracked]
    lines += [f"jump {ahead}-{checked(group.id)}" for group in groups if not group.stateful]
    return (*lines, "drop")


def _group_chains(group: SecurityGroupSpec) -> dict[str, tuple[str, ...]]:
    """The chains of a group: its rules by direction and, when it is stateful, the same read backwards."""
    chains: dict[str, tuple[str, ...]] = {}
    identifier = checked(group.id)
    for direction in ("ingress", "egress"):
        rules = [rule for rule in group.rules if rule.direction == direction]
        chains[f"{direction}-{identifier}"] = tuple(line for rule in rules for line in _lines(rule, reply=False))
        if group.stateful:
            lines = tuple(line for rule in rules for line in _lines(rule, reply=True))
            chains[f"{direction}-{identifier}-reply"] = lines
    return chains


def _lines(rule: RuleSpec, *, reply: bool) -> Iterator[str]:
    """nft rules for one rule; with `reply`, for the answers to what it lets through."""
    version: Family = 4 if rule.ethertype == "IPv4" else 6
    inward = (rule.direction == "ingress") != reply
    remote = "saddr" if inward else "daddr"
    port = "sport" if reply else "dport"
    protocol = _protocol(rule, version, port, reply=reply)
    if protocol is None:
        return
    ip = "ip" if version == 4 else "ip6"
    if rule.remote_group_id is not None:
        for kind in ("members", "ranges"):
            name = f"{kind}{version}-{checked(rule.remote_group_id)}"
            yield " ".join(part for part in (f"{ip} {remote} @{name}", protocol, "accept") if part)
        return
    if rule.remote_ip_prefix is not None:
        prefix = read_prefix(rule.remote_ip_prefix, strict=False)
        if prefix.version != version:
            return
        where = f"meta protocol {ip}" if prefix.prefixlen == 0 else f"{ip} {remote} {prefix}"
    else:
        where = f"meta protocol {ip}"
    yield " ".join(part for part in (where, protocol, "accept") if part)


def _protocol(rule: RuleSpec, version: Family, port: str, *, reply: bool) -> str | None:
    """The match on protocol and ports or type and code; None when such a rule has no answers to let through."""
    if rule.protocol is None:
        return ""
    icmp = 1 if version == 4 else 58
    number = icmp if rule.protocol in {1, 58} else rule.protocol
    low, high = rule.port_range_min, rule.port_range_max
    if not 0 <= number <= 255 or any(end is not None and not 0 <= end <= 65535 for end in (low, high)):
        raise ValueError(f"not a rule: {rule}")
    if number == icmp and low is not None:
        kind = "icmp" if version == 4 else "icmpv6"
        if reply:
            answer = _ANSWERS[version].get(low)
            return None if answer is None else f"{kind} type {answer}"
        return f"{kind} type {low}" + ("" if high is None else f" {kind} code {high}")
    if number in _PORTED and low is not None and (low, high) != (0, 65535):
        ports = str(low) if high in {None, low} else f"{low}-{high}"
        return f"meta l4proto {number} th {port} {ports}"
    return f"meta l4proto {number}"


def _member_sets(identifier: str, group: SecurityGroupSpec | None) -> dict[str, Elements]:
    """The addresses of a group's ports, and apart from them the prefixes that some may also use.

    A set of single addresses takes one more at no cost, however large it is; a set of intervals does not.
    """
    members = () if group is None else group.members
    sets = {}
    for version in FAMILIES:
        prefixes = _version((member for member in members if "/" in member), version)
        single = {str(read_address(member)): "" for member in members if "/" not in member}
        mine = {address: "" for address in single if (":" in address) == (version == 6)}
        sets[f"members{version}-{checked(identifier)}"] = Elements(f"ipv{version}_addr", mine)
        sets[f"ranges{version}-{identifier}"] = Elements(
            f"ipv{version}_addr", dict.fromkeys(prefixes, ""), interval=True
        )
    return sets
