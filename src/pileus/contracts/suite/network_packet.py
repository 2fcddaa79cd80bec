"""What every real network driver must do to packets: anti-spoofing, security groups, DHCP, isolation.

A test puts a frame on the wire as one guest and looks whether another gets it.
"""

from __future__ import annotations

import socket
import struct
import uuid

import pytest

from pileus.contracts.network import DhcpOption, HostRoute, RouterSpec
from pileus.contracts.suite import network_frame as frame
from pileus.contracts.suite.network import Lan, rule
from pileus.contracts.suite.network_bench import PATIENCE, SILENCE, Bench, Station, lease, towards
from pileus.contracts.suite.network_forgery import ForgeryContract

_METADATA = "169.254.169.254"
_UNTRUE = "fa:16:3e:66:66:66"


class PacketContract(ForgeryContract):
    """Subclass it and give it a fixture `harness` of kind PacketHarness."""

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

    # --- Ports

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
