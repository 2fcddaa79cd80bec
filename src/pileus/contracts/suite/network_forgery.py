"""What every real network driver must do to what guests forge: anti-spoofing, also for those whom it does not judge.

Part of the packet suite; see there.
"""

from __future__ import annotations

import socket
import struct
import uuid
from collections.abc import Iterator

import pytest

from pileus.contracts.network import AddressPair, HostRoute, RouterSpec
from pileus.contracts.suite import network_frame as frame
from pileus.contracts.suite.network import Lan, PacketHarness, rule
from pileus.contracts.suite.network_bench import NOBODY, PATIENCE, SILENCE, Bench, lease, link_local, towards

_METADATA = "169.254.169.254"
_UNTRUE = "fa:16:3e:66:66:66"


class ForgeryContract:
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
        message = frame.dhcp(b.mac, 2, reply=True)

        def six(protocol: int, body: bytes, source: str = link) -> bytes:
            packet = frame.ip(source, "ff02::1", protocol, body, hops=255)
            return frame.ethernet(everyone, a.mac, frame.IPV6, packet)

        whole = frame.ip(link, "ff02::1", frame.ICMPV6, news)[40:]
        untrue = [
            # A client looks at the port that it hears at, not at the one that the answer is from.
            *(frame.packet(a.ip, a.mac, b.mac, b.ip, frame.UDP, frame.udp(one, 68, message)) for one in (67, 68, 9067)),
            *(
                frame.packet(a.ip, a.mac, frame.BROADCAST, "255.255.255.255", frame.UDP, frame.udp(one, 68, message))
                for one in (67, 68, 9067)
            ),
            six(frame.ICMPV6, news),
            six(frame.ICMPV6, news, a.ip6),
            six(60, struct.pack("!BB6x", frame.ICMPV6, 0) + whole),
            six(44, struct.pack("!BBHI", frame.ICMPV6, 0, 1, 9) + whole[:8]),
            six(44, struct.pack("!BBHI", frame.ICMPV6, 0, 8, 9) + whole[8:]),
            six(44, struct.pack("!BBHI", 60, 0, 1, 9) + struct.pack("!BB6x", frame.ICMPV6, 0)),
            *(
                six(frame.UDP, frame.udp(one, 546, b"advertise"), source)
                for one in (547, 546, 9547)
                for source in (link, a.ip6)
            ),
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

    def test_no_header_in_between_hides_what_a_packet_is(self, bench: Bench, lan: Lan) -> None:
        lan.group("in", rule("ingress"), rule("ingress", "IPv6"))
        lan.group("out", rule("egress"), rule("egress", "IPv6"), stateful=False)
        a, b, beacon = bench.up(lan, "a", "b", "beacon")

        def six(source: str, protocol: int, body: bytes) -> bytes:
            return frame.ethernet(b.mac, a.mac, frame.IPV6, frame.ip(source, b.ip6, protocol, body, hops=255))

        def summed(source: str, protocol: int, body: bytes) -> bytes:
            return frame.ip(source, b.ip6, protocol, body)[40:]

        pad = b"\x01\x04\0\0\0\0"
        for number, source in enumerate((link_local(a.mac), a.ip6)):
            lies = (
                (frame.ICMPV6, summed(source, frame.ICMPV6, frame.router_advertisement("2001:db8:66::"))),
                (frame.ICMPV6, summed(source, frame.ICMPV6, frame.icmp(137))),
                (frame.UDP, summed(source, frame.UDP, frame.udp(547, 546, b"\x02abc"))),
            )
            for serial, (kind, body) in enumerate(lies, 10 * number):
                sent = [
                    *(six(source, header, struct.pack("!BB", kind, 0) + pad + body) for header in (0, 60)),
                    six(source, 43, struct.pack("!BBBB4x", kind, 0, 4, 0) + body),
                    six(source, 0, struct.pack("!BB", 60, 0) + pad + struct.pack("!BB", kind, 0) + pad + body),
                    # In fragments, the first of which holds no more than a header without content.
                    six(source, 44, struct.pack("!BBHI", 60, 0, 1, serial) + struct.pack("!BB", kind, 0) + pad),
                    six(source, 44, struct.pack("!BBHI", 60, 0, 8, serial) + body),
                ]
                came = [frame.read(one) for one in bench.arrivals(beacon, a, b, *sent) if one[6:12].hex(":") == a.mac]
                assert came == [], (source, kind)
        said = frame.udp(40000, 5000, b"hello world, in parts")
        whole = summed(a.ip6, frame.UDP, said)
        parts = [
            six(a.ip6, 44, struct.pack("!BBHI", frame.UDP, 0, 1, 77) + whole[:16]),
            six(a.ip6, 44, struct.pack("!BBHI", frame.UDP, 0, 16, 77) + whole[16:]),
        ]
        assert any(b"in parts" in one for one in bench.arrivals(beacon, a, b, *parts)), "honest fragments pass"

    def test_no_header_in_between_hides_whose_neighbour_speaks(self, bench: Bench, lan: Lan) -> None:
        lan.group("in", rule("ingress", "IPv6"), stateful=False)
        # Without connection tracking, which would not let some of this pass either.
        lan.group("out", rule("egress", "IPv6"), stateful=False)
        a, b, c, beacon = bench.up(lan, "a", "b", "c", "beacon")
        pad = b"\x01\x04\0\0\0\0"

        def six(source: str, protocol: int, body: bytes) -> bytes:
            return frame.ethernet(b.mac, a.mac, frame.IPV6, frame.ip(source, b.ip6, protocol, body, hops=255))

        for serial, source in enumerate((a.ip6, link_local(a.mac), "::"), 100):
            kind = 135 if source == "::" else 136
            body = frame.ip(source, b.ip6, frame.ICMPV6, frame.neighbour(kind, c.ip6, a.mac))[40:]
            options = struct.pack("!BB", frame.ICMPV6, 0) + pad

            def part(number: int, at: int, content: bytes, first: int = frame.ICMPV6, source: str = source) -> bytes:
                return six(source, 44, struct.pack("!BBHI", first, 0, at, number) + content)

            sent = [
                six(source, frame.ICMPV6, body),
                *(six(source, header, options + body) for header in (0, 60)),
                six(source, 43, struct.pack("!BBBB4x", frame.ICMPV6, 0, 4, 0) + body),
                part(1000 + serial, 0, body),
                part(2000 + serial, 1, body[:8]),
                part(2000 + serial, 8, body[8:]),
                part(3000 + serial, 1, body[:24]),
                part(3000 + serial, 24, body[24:]),
                part(4000 + serial, 1, options, 60),
                part(4000 + serial, 8, body, 60),
                # A fragment of a fragment.
                part(5000 + serial, 0, struct.pack("!BBHI", 60, 0, 1, 6000 + serial) + options, 44),
                part(5000 + serial, 0, struct.pack("!BBHI", 60, 0, 8, 6000 + serial) + body, 44),
                part(7000 + serial, 1, struct.pack("!BBHI", 60, 0, 0, 8000 + serial), 44),
                part(7000 + serial, 8, options + body, 44),
            ]
            came = [frame.read(one) for one in bench.arrivals(beacon, a, b, *sent) if one[6:12].hex(":") == a.mac]
            assert came == [], source

    def test_a_guest_asks_for_no_groups_as_a_router_would(self, bench: Bench, lan: Lan) -> None:
        lan.group("in", rule("ingress"), rule("ingress", "IPv6"), stateful=False)
        lan.group("out", rule("egress"), rule("egress", "IPv6"), stateful=False)
        a, b, beacon = bench.up(lan, "a", "b", "beacon")
        link = link_local(a.mac)

        def igmp(kind: int, group: str) -> bytes:
            body = struct.pack("!BBH4s", kind, 10, 0, socket.inet_aton(group))
            total = sum(struct.unpack("!4H", body))
            body = body[:2] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + body[4:]
            target = "224.0.0.1" if kind == 0x11 else group
            return frame.packet(a.ip, a.mac, "01:00:5e:00:00:01", target, 2, body)

        def mld(kind: int) -> bytes:
            body = struct.pack("!BBHHH", kind, 0, 0, 1000, 0) + bytes(16)
            return frame.packet(link, a.mac, "33:33:00:00:00:01", "ff02::1", frame.ICMPV6, body)

        sent = [igmp(0x11, "0.0.0.0"), mld(130), igmp(0x16, "239.1.2.3")]  # noqa: S104 - the group of a general query
        assert bench.passes(beacon, a, b, *sent) == [False, False, True]

    def test_nobody_asks_for_the_lease_of_another(self, bench: Bench, lan: Lan) -> None:
        a, b, beacon = bench.up(lan, "a", "b", "beacon")
        assert lease(bench, a) is not None
        bench.drain(b, beacon)  # the service answers to everybody
        for kind, options in ((1, b""), (4, frame.dhcp_option(50, socket.inet_aton(b.ip))), (7, b"")):
            server = frame.dhcp_option(54, socket.inet_aton("10.0.0.2"))
            forged = frame.udp(68, 67, frame.dhcp(b.mac, kind, options=options + server))
            for source in (NOBODY, a.ip):
                to = "255.255.255.255" if source == NOBODY else "10.0.0.2"
                target = frame.BROADCAST if source == NOBODY else lan.network.dhcp_mac
                a.card.send(frame.packet(source, a.mac, target, to, frame.UDP, forged))
        # Had the service heard that b's address is in use already, it would offer it to nobody for ten minutes.
        assert bench.hears(beacon, towards(frame.UDP, 68), SILENCE) is None
        assert (lease(bench, b) or ("",))[0] == b.ip

    # --- Whose metadata

    @pytest.mark.parametrize("how", ["no port security", "address pair"])
    def test_metadata_is_told_to_the_port_that_has_the_address(self, bench: Bench, lan: Lan, how: str) -> None:
        if how == "address pair":
            mac = lan.ports["a"].mac_address
            lan.alter("a", allowed_address_pairs=(AddressPair(mac_address=mac, ip_address="10.0.0.0/24"),))
        else:
            lan.alter("a", port_security=False, security_groups=())
        a, b, _ = bench.up(lan, "a", "b", "beacon")
        with bench.driver.listen(lan.network.id, _METADATA, 80) as listener:
            listener.settimeout(PATIENCE)
            service = lan.network.dhcp_mac
            segment = frame.packet(b.ip, a.mac, service, _METADATA, frame.TCP, frame.tcp(40000, 80, frame.SYN, 100))
            b.card.send(frame.arp(b.mac, b.mac, b.ip, _METADATA))
            a.card.send(segment)
            assert bench.hears(b, towards(frame.TCP, 40000), SILENCE) is None, "it asked in the name of another"
            # The service believes that b is where a is; so may whoever can say so.
            a.card.send(frame.arp(a.mac, a.mac, b.ip, _METADATA))
            a.card.send(segment)
            assert bench.hears(a, towards(frame.TCP, 40000), SILENCE) is None
            own = frame.packet(a.ip, a.mac, service, _METADATA, frame.TCP, frame.tcp(40001, 80, frame.SYN, 100))
            a.card.send(frame.arp(a.mac, a.mac, a.ip, _METADATA))
            a.card.send(own)
            assert bench.hears(a, towards(frame.TCP, 40001)) is not None
            # What the service answers b goes to b, or nowhere; never to who says that it is there.
            bench.drain(a, b)
            b.card.send(frame.packet(b.ip, b.mac, service, _METADATA, frame.TCP, frame.tcp(40002, 80, frame.SYN, 100)))
            assert bench.hears(a, towards(frame.TCP, 40002), SILENCE) is None

    @pytest.mark.parametrize("tags", [0, 1, 2])
    def test_metadata_is_told_to_nobody_else_by_way_of_a_router(self, bench: Bench, lan: Lan, tags: int) -> None:
        lan.alter("a", port_security=False, security_groups=())
        a, b, _ = bench.up(lan, "a", "b", "beacon")
        # Routes that users may not make any more, and one that they may.
        routes = [HostRoute(destination=one, nexthop=a.ip) for one in (f"{_METADATA}/32", f"{b.ip}/32", "0.0.0.0/0")]
        leg = lan.leg()
        bench.driver.ensure_router(RouterSpec(id=str(uuid.uuid4()), interfaces=(leg,), routes=tuple(routes)))

        def ask(source: str, port: int) -> None:
            """By the router; of priority alone, which a system takes off that knows no tags."""
            segment = frame.tcp(port, 80, frame.SYN, 100)
            sent = frame.packet(source, a.mac, leg.mac_address, _METADATA, frame.TCP, segment)
            a.card.send(sent[:12] + tags * b"\x81\0\0\0" + sent[12:])

        with bench.driver.listen(lan.network.id, _METADATA, 80):
            # The router knows a, and the service takes the router for b.
            a.card.send(frame.arp(a.mac, a.mac, a.ip, "10.0.0.1"))
            a.card.send(frame.arp(a.mac, leg.mac_address, b.ip, _METADATA))
            ask(b.ip, 40000)
            assert bench.hears(a, towards(frame.TCP, 40000), SILENCE) is None, "what b may know"
            b.card.send(frame.arp(b.mac, b.mac, b.ip, _METADATA))
            ask(b.ip, 40001)
            assert bench.hears(b, towards(frame.TCP, 40001), SILENCE) is None, "it asked in the name of another"
            a.card.send(frame.arp(a.mac, a.mac, a.ip, _METADATA))
            ask(a.ip, 40002)
            assert (bench.hears(a, towards(frame.TCP, 40002), SILENCE) is not None) == (tags == 0)

    def test_nobody_else_is_the_metadata_service(self, bench: Bench, lan: Lan) -> None:
        lan.group("in", rule("ingress"))
        lan.alter("a", port_security=False, security_groups=())
        lan.alter(
            "c", allowed_address_pairs=(AddressPair(mac_address=lan.ports["c"].mac_address, ip_address="0.0.0.0/0"),)
        )
        a, b, c, beacon = bench.up(lan, "a", "b", "c", "beacon")
        for one in (a, c):
            lies = [
                frame.arp(one.mac, one.mac, _METADATA, b.ip, reply=True),
                frame.arp(one.mac, one.mac, _METADATA, _METADATA),
                one.packet(b, frame.TCP, frame.tcp(80, 40000, frame.SYN | frame.ACK), source=_METADATA),
            ]
            assert bench.passes(beacon, one, b, *lies) == [False] * len(lies)
