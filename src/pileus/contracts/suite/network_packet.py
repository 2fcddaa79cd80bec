"""What every real network driver must do to packets: anti-spoofing, security groups, DHCP, isolation.

A test puts a frame on the wire as one guest and looks whether another gets it.
"""

from __future__ import annotations

import socket
import struct
import uuid
from collections.abc import Iterator

import pytest

from pileus.contracts.network import AddressPair, DhcpOption, HostRoute, RouterSpec
from pileus.contracts.suite import network_frame as frame
from pileus.contracts.suite.network import Lan, PacketHarness, rule
from pileus.contracts.suite.network_bench import (
    NOBODY,
    PATIENCE,
    SILENCE,
    Bench,
    Station,
    lease,
    link_local,
    towards,
)

_METADATA = "169.254.169.254"
_UNTRUE = "fa:16:3e:66:66:66"


class PacketContract:
    """Subclass it and give it a fixture `harness` of kind PacketHarness."""

    @pytest.fixture
    def bench(self, harness: PacketHarness) -> Iterator[Bench]:
        driver = harness.open()
        bench = Bench(driver, harness)
        yield bench
        bench.close()
        driver.teardown()
        assert harness.leftovers() == []

    @pytest.fixture
    def lan(self) -> Lan:
        """Guests a, b, c and the beacon; a and c may send what they like, nothing may come in."""
        lan = Lan()
        lan.group("out", rule("egress"), rule("egress", "IPv6"))
        lan.group("in")
        for last, name in enumerate("abc", 10):
            lan.port(name, last, "in" if name == "b" else "out")
        lan.port("beacon", 99)
        return lan

    # --- Security groups

    def test_what_no_rule_allows_is_dropped(self, bench: Bench, lan: Lan) -> None:
        a, b, beacon = bench.up(lan, "a", "b", "beacon")
        inward = [
            a.udp(b, 53),
            a.packet(b, frame.TCP, frame.tcp(40000, 22, frame.SYN)),
            a.packet(b, frame.ICMP, frame.icmp(8)),
            a.packet(b, 47, b"gre!"),
            a.udp(b, 53, source=a.ip6),
            a.packet(b, frame.ICMPV6, frame.icmp(128)),
        ]
        assert bench.passes(beacon, a, b, *inward) == [False] * len(inward)
        # Nor out of a guest whose groups have no egress rule, even where the other would let it in.
        lan.group("out", rule("egress"), rule("ingress"), rule("ingress", "IPv6"))
        bench.up(lan)
        outward = [b.udp(a, 53), b.packet(a, frame.ICMP, frame.icmp(8)), b.udp(a, 53, source=b.ip6)]
        assert bench.passes(beacon, b, a, *outward) == [False] * len(outward)

    def test_rules_allow_by_protocol_and_port(self, bench: Bench, lan: Lan) -> None:
        lan.group(
            "in",
            rule("ingress", protocol=17, ports=(1000, 1999)),
            rule("ingress", protocol=6, ports=(22, 22)),
            rule("ingress", "IPv6", protocol=17, ports=(5000, 5000)),
            rule("ingress", protocol=47),
        )
        a, b, beacon = bench.up(lan, "a", "b", "beacon")
        sent = [a.udp(b, port) for port in (999, 1000, 1999, 2000)]
        assert bench.passes(beacon, a, b, *sent) == [False, True, True, False]
        sent = [a.packet(b, frame.TCP, frame.tcp(40000, port, frame.SYN)) for port in (22, 23)]
        assert bench.passes(beacon, a, b, *sent) == [True, False]
        sent = [a.udp(b, port, source=a.ip6) for port in (5000, 1000)]
        assert bench.passes(beacon, a, b, *sent) == [True, False]
        assert bench.passes(beacon, a, b, a.packet(b, 47, b"gre!")) == [True]

    def test_rules_allow_by_icmp_type_and_code(self, bench: Bench, lan: Lan) -> None:
        lan.group(
            "in",
            rule("ingress", protocol=1, ports=(8, 0)),
            rule("ingress", "IPv6", protocol=58, ports=(128, None)),
        )
        a, b, beacon = bench.up(lan, "a", "b", "beacon")
        four = [a.packet(b, frame.ICMP, frame.icmp(kind, identifier=kind)) for kind in (8, 13)]
        assert bench.passes(beacon, a, b, *four) == [True, False]
        six = [a.packet(b, frame.ICMPV6, frame.icmp(kind)) for kind in (128, 139)]
        assert bench.passes(beacon, a, b, *six) == [True, False]
        # The answers pass although b may send nothing of its own.
        answers = [b.packet(a, frame.ICMP, frame.icmp(0, identifier=8)), b.packet(a, frame.ICMPV6, frame.icmp(129))]
        assert bench.passes(beacon, b, a, *answers) == [True, True]

    def test_rules_allow_by_prefix_and_by_group(self, bench: Bench, lan: Lan) -> None:
        a, b, c, beacon = bench.up(lan, "a", "b", "c", "beacon")
        lan.group("in", rule("ingress", prefix=f"{a.ip}/32"), rule("ingress", "IPv6", prefix=f"{a.ip6}/127"))
        bench.up(lan)
        assert bench.passes(beacon, a, b, a.udp(b, 1), a.udp(b, 1, source=a.ip6)) == [True, True]
        assert bench.passes(beacon, c, b, c.udp(b, 1), c.udp(b, 1, source=c.ip6)) == [False, False]
        lan.group("in", rule("ingress", group="friends"), rule("ingress", "IPv6", group="friends"))
        lan.group("friends", members=(c.ip, c.ip6, "192.0.2.0/24"))
        bench.up(lan)
        assert bench.passes(beacon, a, b, a.udp(b, 2), a.udp(b, 2, source=a.ip6)) == [False, False]
        assert bench.passes(beacon, c, b, c.udp(b, 2), c.udp(b, 2, source=c.ip6)) == [True, True]
        lan.group("friends", members=(a.ip,))
        bench.up(lan)
        assert bench.passes(beacon, a, b, a.udp(b, 3), a.udp(b, 3, source=a.ip6)) == [True, False]
        assert bench.passes(beacon, c, b, c.udp(b, 2)) == [False], "a member that left keeps its connections"

    def test_answers_come_back_and_only_they(self, bench: Bench, lan: Lan) -> None:
        lan.group("in", rule("ingress", protocol=17, ports=(7, 7)))
        a, b, beacon = bench.up(lan, "a", "b", "beacon")
        assert bench.passes(beacon, b, a, b.udp(a, 40000, sport=7)) == [False], "an answer to nothing"
        assert bench.passes(beacon, a, b, a.udp(b, 7)) == [True]
        assert bench.passes(beacon, b, a, b.udp(a, 40000, sport=7), b.udp(a, 40001, sport=7)) == [True, False]

    def test_tcp_connections_are_tracked(self, bench: Bench, lan: Lan) -> None:
        lan.group("in", rule("ingress", protocol=6, ports=(22, 22)))
        a, b, beacon = bench.up(lan, "a", "b", "beacon")
        self._handshake(bench, beacon, a, b)
        data = b.packet(a, frame.TCP, frame.tcp(22, 40000, frame.ACK, 501, 101, b"data"))
        stray = b.packet(a, frame.TCP, frame.tcp(22, 40001, frame.SYN | frame.ACK, 500, 101))
        assert bench.passes(beacon, b, a, data, stray) == [True, False]

    @pytest.mark.parametrize("change", ["rule", "group", "prefix"])
    def test_a_permission_that_is_withdrawn_ends_its_connections(self, bench: Bench, lan: Lan, change: str) -> None:
        lan.group("in", rule("ingress", protocol=6, ports=(22, 22)), rule("ingress", protocol=17, ports=(7, 7)))
        a, b, beacon = bench.up(lan, "a", "b", "beacon")
        self._handshake(bench, beacon, a, b)
        assert bench.passes(beacon, a, b, a.udp(b, 7)) == [True]
        assert bench.passes(beacon, b, a, b.udp(a, 40000, sport=7)) == [True]
        if change == "rule":
            lan.group("in", rule("ingress", protocol=6, ports=(23, 23)))
        elif change == "group":
            lan.alter("b", security_groups=())
        else:
            lan.group("in", rule("ingress", protocol=6, ports=(22, 22), prefix="192.0.2.0/24"))
        bench.up(lan)
        onward = a.packet(b, frame.TCP, frame.tcp(40000, 22, frame.ACK, 101, 501, b"more"))
        assert bench.passes(beacon, a, b, onward, a.udp(b, 7)) == [False, False]
        back = b.packet(a, frame.TCP, frame.tcp(22, 40000, frame.ACK, 501, 101, b"data"))
        assert bench.passes(beacon, b, a, back, b.udp(a, 40000, sport=7)) == [False, False]

    def test_connections_outlive_unrelated_changes_and_the_driver(self, bench: Bench, lan: Lan) -> None:
        lan.group("in", rule("ingress", protocol=6, ports=(22, 22)))
        a, b, beacon = bench.up(lan, "a", "b", "beacon")
        self._handshake(bench, beacon, a, b)
        lan.group("in", rule("ingress", protocol=6, ports=(22, 22)), rule("ingress", protocol=17))
        lan.port("d", 13, "out")
        bench.up(lan)
        bench.driver.close()
        bench.driver = bench.harness.open()
        bench.up(lan)
        data = b.packet(a, frame.TCP, frame.tcp(22, 40000, frame.ACK, 501, 101, b"data"))
        assert bench.passes(beacon, b, a, data) == [True]

    def test_stateless_groups_know_no_answers(self, bench: Bench, lan: Lan) -> None:
        lan.group("in", rule("ingress", protocol=17, ports=(7, 7)), stateful=False)
        a, b, beacon = bench.up(lan, "a", "b", "beacon")
        assert bench.passes(beacon, a, b, a.udp(b, 7)) == [True]
        assert bench.passes(beacon, b, a, b.udp(a, 40000, sport=7)) == [False]
        lan.group("in", rule("ingress", protocol=17, ports=(7, 7)), rule("egress", protocol=17), stateful=False)
        bench.up(lan)
        assert bench.passes(beacon, b, a, b.udp(a, 40000, sport=7)) == [True]

    # --- Anti-spoofing

    def test_a_guest_does_not_hear_what_is_for_another(self, bench: Bench, lan: Lan) -> None:
        lan.group("in", rule("ingress"), rule("egress"))
        lan.group("out", rule("ingress"), rule("egress"))
        a, b, c, beacon = bench.up(lan, "a", "b", "c", "beacon")
        # Nobody has heard from b yet, so the bridge floods what is for it.
        assert bench.passes(beacon, a, c, a.udp(b, 1)) == [False]
        assert bench.passes(beacon, a, b, a.udp(b, 2)) == [True]

    def test_a_guest_cannot_be_another(self, bench: Bench, lan: Lan) -> None:
        lan.group("in", rule("ingress"), rule("ingress", "IPv6"))
        a, b, c, beacon = bench.up(lan, "a", "b", "c", "beacon")
        link = "fe80::f816:3eff:fe66:6666"
        untrue = [
            a.udp(b, 1, mac=_UNTRUE),
            a.udp(b, 1, mac=c.mac),
            a.udp(b, 1, source=c.ip),
            a.udp(b, 1, source="10.0.0.1"),
            a.udp(b, 1, source=c.ip6),
            a.udp(b, 1, source=link),
            a.packet(b, frame.ICMPV6, frame.neighbour(135, b.ip6, a.mac), source=link),
            frame.arp(a.mac, a.mac, c.ip, b.ip),
            frame.arp(a.mac, a.mac, "10.0.0.1", b.ip, reply=True),
            frame.arp(a.mac, c.mac, a.ip, b.ip),
            frame.arp(c.mac, c.mac, c.ip, b.ip),
            a.packet(b, frame.ICMPV6, frame.neighbour(136, c.ip6, a.mac)),
            a.packet(b, frame.ICMPV6, frame.neighbour(136, "2001:db8:1::1", a.mac)),
            frame.packet("::", a.mac, "33:33:ff:00:00:0c", c.ip6, frame.ICMPV6, frame.neighbour(135, c.ip6, a.mac)),
        ]
        assert bench.passes(beacon, a, b, *untrue) == [False] * len(untrue)
        true = [
            a.udp(b, 1),
            a.udp(b, 1, source=a.ip6),
            frame.arp(a.mac, a.mac, a.ip, b.ip),
            frame.arp(a.mac, a.mac, NOBODY, a.ip),
            a.packet(b, frame.ICMPV6, frame.neighbour(136, a.ip6, a.mac)),
            a.packet(b, frame.ICMPV6, frame.neighbour(135, b.ip6, a.mac)),
            frame.packet("::", a.mac, "33:33:ff:00:00:0a", a.ip6, frame.ICMPV6, frame.neighbour(135, a.ip6, a.mac)),
        ]
        assert bench.passes(beacon, a, b, *true) == [True] * len(true)

    def test_a_guest_cannot_play_router_or_dhcp_server(self, bench: Bench, lan: Lan) -> None:
        lan.group("in", rule("ingress"), rule("ingress", "IPv6"))
        # Without connection tracking, which would not let some of this pass either.
        lan.group("out", rule("egress"), rule("egress", "IPv6"), stateful=False)
        a, b, beacon = bench.up(lan, "a", "b", "beacon")
        link, everyone = link_local(a.mac), "33:33:00:00:00:01"
        news = frame.router_advertisement("2001:db8:66::")
        offer = frame.udp(67, 68, frame.dhcp(b.mac, 2, reply=True))

        def six(protocol: int, body: bytes, source: str = link) -> bytes:
            packet = frame.ip(source, "ff02::1", protocol, body, hops=255)
            return frame.ethernet(everyone, a.mac, frame.IPV6, packet)

        whole = frame.ip(link, "ff02::1", frame.ICMPV6, news)[40:]
        untrue = [
            frame.packet(a.ip, a.mac, b.mac, b.ip, frame.UDP, offer),
            frame.packet(a.ip, a.mac, frame.BROADCAST, "255.255.255.255", frame.UDP, offer),
            six(frame.ICMPV6, news),
            six(frame.ICMPV6, news, a.ip6),
            six(60, struct.pack("!BB6x", frame.ICMPV6, 0) + whole),
            six(44, struct.pack("!BBHI", frame.ICMPV6, 0, 1, 9) + whole[:8]),
            six(44, struct.pack("!BBHI", frame.ICMPV6, 0, 8, 9) + whole[8:]),
            six(44, struct.pack("!BBHI", 60, 0, 1, 9) + struct.pack("!BB6x", frame.ICMPV6, 0)),
            six(frame.UDP, frame.udp(547, 546, b"advertise")),
            six(frame.ICMPV6, frame.icmp(137)),
        ]
        assert bench.passes(beacon, a, b, *untrue) == [False] * len(untrue)
        # Nor towards a guest whose own port judges nothing: it is the sender's port that stops it.
        lan.alter("b", port_security=False, security_groups=())
        bench.up(lan)
        came = bench.arrivals(beacon, a, b, *untrue)
        assert [one for one in came if one[6:12].hex(":") == a.mac] == []

    def test_only_ip_and_arp_pass(self, bench: Bench, lan: Lan) -> None:
        lan.group("in", rule("ingress"), rule("ingress", "IPv6"))
        a, b, beacon = bench.up(lan, "a", "b", "beacon")
        plain = a.udp(b, 1)
        tagged = [plain[:12] + struct.pack("!HH", kind, tag) + plain[12:] for kind, tag in ((0x8100, 0), (0x88A8, 5))]
        twice = plain[:12] + struct.pack("!HHHH", 0x8100, 1, 0x8100, 2) + plain[12:]
        odd = [frame.ethernet(b.mac, a.mac, kind, bytes(46)) for kind in (0x88CC, 0x8847, 46)]
        sent = [*tagged, twice, *odd]
        assert bench.passes(beacon, a, b, *sent) == [False] * len(sent)
        assert bench.passes(beacon, a, b, plain) == [True]

    def test_address_pairs_are_honoured(self, bench: Bench, lan: Lan) -> None:
        lan.group("in", rule("ingress"), rule("ingress", "IPv6"))
        pairs = (
            AddressPair(mac_address=lan.ports["a"].mac_address, ip_address="10.0.0.64/26"),
            AddressPair(mac_address=lan.ports["a"].mac_address, ip_address="10.0.0.65"),
            AddressPair(mac_address="00:00:5e:00:01:05", ip_address="10.0.0.200"),
            AddressPair(mac_address=lan.ports["a"].mac_address, ip_address="2001:db8:1:0:1::/80"),
        )
        lan.alter("a", allowed_address_pairs=pairs)
        a, b, beacon = bench.up(lan, "a", "b", "beacon")
        virtual = "00:00:5e:00:01:05"
        true = [
            a.udp(b, 1, source="10.0.0.70"),
            frame.arp(a.mac, a.mac, "10.0.0.127", b.ip),
            a.udp(b, 1, source="10.0.0.200", mac=virtual),
            frame.arp(virtual, virtual, "10.0.0.200", b.ip, reply=True),
            a.udp(b, 1, source="2001:db8:1:0:1::9"),
            a.packet(b, frame.ICMPV6, frame.neighbour(136, "2001:db8:1:0:1::9", a.mac)),
            a.udp(b, 1),
        ]
        assert bench.passes(beacon, a, b, *true) == [True] * len(true)
        untrue = [
            a.udp(b, 1, source="10.0.0.128"),
            a.udp(b, 1, source="10.0.0.200"),
            a.udp(b, 1, source="10.0.0.70", mac=virtual),
            a.udp(b, 1, source="2001:db8:1:0:2::9"),
        ]
        assert bench.passes(beacon, a, b, *untrue) == [False] * len(untrue)

    def test_without_port_security_nothing_is_judged(self, bench: Bench, lan: Lan) -> None:
        lan.alter("b", port_security=False, security_groups=())
        a, b, c, beacon = bench.up(lan, "a", "b", "c", "beacon")
        assert bench.passes(beacon, a, b, a.udp(b, 1), a.packet(b, 47, b"gre!")) == [True, True]
        lan.alter("a", port_security=False, security_groups=())
        bench.up(lan)
        odd = frame.ethernet(b.mac, _UNTRUE, 0x88CC, bytes(46))
        assert bench.passes(beacon, a, b, a.udp(b, 1, mac=_UNTRUE, source="192.0.2.9"), odd) == [True, True]
        # But a port that kept it stays closed, also to those that have none.
        news = frame.packet(link_local(a.mac), a.mac, c.mac, c.ip6, frame.ICMPV6, frame.router_advertisement("fd66::"))
        offer = a.packet(c, frame.UDP, frame.udp(67, 68, frame.dhcp(c.mac, 2, reply=True)))
        tagged = a.udp(c, 1)[:12] + struct.pack("!HH", 0x8100, 7) + a.udp(c, 1)[12:]
        assert bench.passes(beacon, a, c, a.udp(c, 1), news, offer, tagged) == [False] * 4

    def test_a_port_that_is_down_is_silent(self, bench: Bench, lan: Lan) -> None:
        lan.alter("b", port_security=False, security_groups=())
        a, b, beacon = bench.up(lan, "a", "b", "beacon")
        assert bench.passes(beacon, a, b, a.udp(b, 1)) == [True]
        lan.alter("b", admin_state_up=False)
        bench.up(lan)
        bench.drain(b)
        a.card.send(a.udp(b, 1))
        beacon.card.send(frame.arp(beacon.mac, beacon.mac, beacon.ip, b.ip))
        # The answers of DHCP are broadcast.
        assert lease(bench, beacon) is not None
        assert b.card.receive(SILENCE) is None
        lan.alter("a", port_security=False, security_groups=())
        bench.up(lan)
        assert bench.passes(beacon, b, a, b.udp(a, 1)) == [False]
        lan.alter("b", admin_state_up=True)
        bench.up(lan)
        assert bench.passes(beacon, a, b, a.udp(b, 1)) == [True]
        assert bench.passes(beacon, b, a, b.udp(a, 1)) == [True]

    def test_a_plug_that_only_an_earlier_life_knew_is_closed_and_comes_back(self, bench: Bench, lan: Lan) -> None:
        lan.group("in", rule("ingress"), rule("egress"))
        a, b, beacon = bench.up(lan, "a", "b", "beacon")
        forgotten = lan.ports.pop("b")
        bench.driver.close()
        bench.driver = bench.harness.open()
        bench.up(lan)
        bench.drain(b)
        call = frame.arp(a.mac, a.mac, a.ip, b.ip)
        for one in (a.udp(b, 1), call):
            a.card.send(one)
        assert bench.hears(beacon, lambda got: got == call) is not None
        assert b.card.receive(SILENCE) is None
        lan.group("out", rule("ingress"), rule("egress"))
        bench.up(lan)
        assert bench.passes(beacon, b, a, b.udp(a, 1)) == [False]
        lan.ports["b"] = forgotten
        bench.up(lan)
        assert bench.passes(beacon, a, b, a.udp(b, 2)) == [True]
        assert bench.passes(beacon, b, a, b.udp(a, 2)) == [True]

    # --- Services

    def test_dhcp_gives_the_port_its_address(self, bench: Bench, lan: Lan) -> None:
        lan.alter("b", dhcp_options=(DhcpOption(opt_name="tftp-server", opt_value="192.0.2.7"),))
        hostile = (("66", "192.0.2.66\nport=0"), ("66,9\ntag:x,66", "192.0.2.66"), ("no-such-option", "1"))
        lan.alter("a", dhcp_options=tuple(DhcpOption(opt_name=name, opt_value=value) for name, value in hostile))
        _, b, _, _ = bench.up(lan)
        given = lease(bench, b)
        assert given is not None
        address, options = given
        assert address == b.ip
        assert options[53] == b"\x05"
        assert options[1] == socket.inet_aton("255.255.255.0")
        assert options[3] == socket.inet_aton("10.0.0.1")
        assert options[6] == socket.inet_aton("10.0.0.2")
        assert options[15] == b"example.test"
        assert struct.unpack("!H", options[26]) == (1450,)
        assert options[66].rstrip(b"\0") == b"192.0.2.7"
        assert frame.routes_read(options[121]) == {f"{_METADATA}/32": "10.0.0.2", "0.0.0.0/0": "10.0.0.1"}

    def test_dhcp_tells_what_the_subnet_says(self, bench: Bench, lan: Lan) -> None:
        routes = (HostRoute(destination="198.51.100.0/24", nexthop="10.0.0.7"),)
        lan.resubnet(gateway_ip=None, dns_nameservers=("192.0.2.53", "192.0.2.54"), host_routes=routes)
        _, b, _, _ = bench.up(lan)
        _, options = lease(bench, b) or ("", {})
        assert 3 not in options
        assert options[6] == socket.inet_aton("192.0.2.53") + socket.inet_aton("192.0.2.54")
        assert frame.routes_read(options[121]) == {f"{_METADATA}/32": "10.0.0.2", "198.51.100.0/24": "10.0.0.7"}

    def test_dhcp_knows_only_ports(self, bench: Bench, lan: Lan) -> None:
        lan.alter("a", port_security=False, security_groups=())
        a, b, _, _ = bench.up(lan)
        a.mac = _UNTRUE
        assert lease(bench, a) is None
        assert lease(bench, b) is not None

    def test_an_address_that_changed_hands_is_leased_to_the_new_port(self, bench: Bench, lan: Lan) -> None:
        _, b, _, _ = bench.up(lan)
        assert (lease(bench, b) or ("",))[0] == b.ip
        del lan.ports["b"]
        bench.up(lan)
        lan.port("new", 11)
        new = bench.up(lan, "new")[0]
        assert new.ip == b.ip
        assert (lease(bench, new) or ("",))[0] == b.ip

    def test_only_names_of_the_network_resolve(self, bench: Bench, lan: Lan) -> None:
        a, _, _, _ = bench.up(lan)
        mac = lan.network.dhcp_mac
        answers = {}
        self._meet(bench, a, mac)
        for port, name in ((40001, "b.example.test"), (40002, "b"), (40003, "www.example.org")):
            body = frame.udp(port, 53, frame.question(name))
            a.card.send(frame.packet(a.ip, a.mac, mac, "10.0.0.2", frame.UDP, body))
            got = bench.hears(a, towards(frame.UDP, port))
            datagram = frame.read(got) if got else None
            assert datagram is not None
            answers[name] = datagram.payload
        assert answers["b.example.test"].endswith(socket.inet_aton("10.0.0.11"))
        assert answers["b"].endswith(socket.inet_aton("10.0.0.11"))
        assert answers["www.example.org"][3] & 15 == 5, "not refused"

    def test_metadata_answers_whatever_the_groups_say(self, bench: Bench, lan: Lan) -> None:
        lan.group("in", stateful=False)
        _, b, _, _ = bench.up(lan)
        mac = lan.network.dhcp_mac
        with bench.driver.listen(lan.network.id, _METADATA, 80) as listener:
            listener.settimeout(PATIENCE)
            b.card.send(frame.arp(b.mac, b.mac, b.ip, _METADATA))
            assert bench.hears(b, lambda got: got[6:12] == bytes.fromhex(mac.replace(":", ""))) is not None
            segment = frame.tcp(40000, 80, frame.SYN, 100)
            b.card.send(frame.packet(b.ip, b.mac, mac, _METADATA, frame.TCP, segment))
            got = bench.hears(b, towards(frame.TCP, 40000))
            assert got is not None
            sequence, acknowledged, flags = frame.tcp_numbers(got)
            assert (acknowledged, flags & 0x12) == (101, 0x12)
            segment = frame.tcp(40000, 80, frame.ACK, 101, sequence + 1)
            b.card.send(frame.packet(b.ip, b.mac, mac, _METADATA, frame.TCP, segment))
            connection, peer = listener.accept()
            connection.close()
        assert peer[0] == b.ip

    # --- Isolation

    def test_networks_with_the_same_cidr_do_not_meet(self, bench: Bench, lan: Lan) -> None:
        twin = Lan()
        twin.group("all", rule("ingress"), rule("egress"))
        lan.group("in", rule("ingress"), rule("egress"))
        twin.port("b", 11, "all")
        twin.port("beacon", 99)
        a, b, beacon = bench.up(lan, "a", "b", "beacon")
        other, far = bench.up(twin)
        assert (other.ip, far.ip) == (b.ip, beacon.ip)
        bench.drain(other)
        sent = [a.udp(b, 1), a.udp(other, 1), frame.arp(a.mac, a.mac, a.ip, b.ip)]
        assert bench.passes(beacon, a, b, *sent) == [True, False, True]
        # Even a forged answer to a connection of the other network's guest of that address.
        assert bench.passes(far, far, other, b.udp(a, 40000, sport=1), *sent) == [False] * 4

    def test_a_router_changes_nothing_between_neighbours(self, bench: Bench, lan: Lan) -> None:
        a, b, beacon = bench.up(lan, "a", "b", "beacon")
        bench.driver.ensure_router(RouterSpec(id=str(uuid.uuid4()), interfaces=(lan.leg(),)))
        assert bench.passes(beacon, a, b, a.udp(b, 1)) == [False]
        assert bench.passes(beacon, a, b, frame.arp(a.mac, a.mac, "10.0.0.1", b.ip, reply=True)) == [False]

    def _handshake(self, bench: Bench, beacon: Station, client: Station, server: Station) -> None:
        """TCP from port 40000 to port 22; then the client is at 101 and the server at 501."""
        first = client.packet(server, frame.TCP, frame.tcp(40000, 22, frame.SYN, 100))
        second = server.packet(client, frame.TCP, frame.tcp(22, 40000, frame.SYN | frame.ACK, 500, 101))
        third = client.packet(server, frame.TCP, frame.tcp(40000, 22, frame.ACK, 101, 501))
        assert bench.passes(beacon, client, server, first) == [True]
        assert bench.passes(beacon, server, client, second) == [True]
        assert bench.passes(beacon, client, server, third) == [True]

    def _meet(self, bench: Bench, station: Station, mac: str) -> None:
        """Ask where the network's service is; so it learns where the guest is, and need not ask."""
        station.card.send(frame.arp(station.mac, station.mac, station.ip, "10.0.0.2"))
        wanted = bytes.fromhex(mac.replace(":", ""))
        assert bench.hears(station, lambda got: got[6:12] == wanted and got[12:14] == b"\x08\x06") is not None
