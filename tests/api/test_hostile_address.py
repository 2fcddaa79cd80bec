"""Every field that takes an address or a prefix, given one that goes on with commands behind a zone.

`ipaddress` takes any text for the zone of an IPv6 address (RFC 4007, section 11), and hosts write addresses into what
root's programs read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec
import pytest
import sqlalchemy as sa

from pileus.core.store import metadata
from pileus.services.compute.resources.server.table import server as table
from tests.api.edge import Response
from tests.services.compute import cloud as compute
from tests.services.network.cloud import Cloud

ZONES = ('%x\ninclude "/etc/shadow"\n#', "%x", "%;flush ruleset", "%{}", '%"', "\nx", "\tx", "\uff05x")
"""What is put behind an address."""


class Field(NamedTuple):
    """A request with a hostile text in one place."""

    method: str
    path: str
    body: Callable[[str], Any]
    length: str = ""
    """What makes a prefix of the text."""
    before: str = "2001:db8::"


class Site:
    """One of everything that has a field of this kind."""

    def __init__(self, cloud: Cloud) -> None:
        cloud.public()
        self.net, self.subnet = cloud.net("2001:db8::/64")
        _, self.other = cloud.net("2001:db8:2::/64")
        self.port = cloud.make("port", network_id=self.net["id"])
        self.router = cloud.make("router", name="r")
        cloud.leg(self.router, self.subnet)
        self.group = cloud.make("security_group", name="g")
        self.pool = cloud.make("subnetpool", name="pool", prefixes=["2001:db8:1::/48"])
        found = cloud.ask("POST", "/metering/metering-labels", {"metering_label": {"name": "m"}}, by=cloud.admin)
        assert found.status == 201, found
        self.label = found.json["metering_label"]


def _subnets(site: Site) -> Iterator[Field]:
    def made(**values: Any) -> Any:
        return {"subnet": {"network_id": site.net["id"], "ip_version": 6, "cidr": "2001:db8:3::/64"} | values}

    yield Field("POST", "/subnets", lambda text: made(cidr=text), "/32")
    for name, length, value in _of_subnet("2001:db8:3::"):
        yield Field("POST", "/subnets", lambda text, n=name, v=value: made(**{n: v(text)}), length, "2001:db8:3::5")  # type: ignore[misc]
    one = f"/subnets/{site.other['id']}"
    for name, length, value in _of_subnet("2001:db8:2::"):
        yield Field("PUT", one, lambda text, n=name, v=value: {"subnet": {n: v(text)}}, length, "2001:db8:2::5")  # type: ignore[misc]


def _of_subnet(base: str) -> list[tuple[str, str, Callable[[str], Any]]]:
    """Fields of a subnet: the name, what makes a prefix of a text, and the value with the text in it."""
    return [
        ("gateway_ip", "", lambda text: text),
        ("dns_nameservers", "", lambda text: [text]),
        ("allocation_pools", "", lambda text: [{"start": text, "end": f"{base}9"}]),
        ("allocation_pools", "", lambda text: [{"start": f"{base}2", "end": text}]),
        ("host_routes", "/48", lambda text: [{"destination": text, "nexthop": f"{base}1"}]),
        ("host_routes", "", lambda text: [{"destination": "2001:db8:9::/48", "nexthop": text}]),
    ]


def _ports(site: Site) -> Iterator[Field]:
    def made(**values: Any) -> Any:
        return {"port": {"network_id": site.net["id"]} | values}

    one = f"/ports/{site.port['id']}"
    fixed: list[Callable[[str], Any]] = [
        lambda text: {"fixed_ips": [{"ip_address": text}]},
        lambda text: {"fixed_ips": [{"ip_address": text, "subnet_id": site.subnet["id"]}]},
    ]
    pairs: list[tuple[str, Callable[[str], Any]]] = [
        ("", lambda text: {"allowed_address_pairs": [{"ip_address": text}]}),
        ("/32", lambda text: {"allowed_address_pairs": [{"ip_address": text}]}),
    ]
    for length, value in [*(("", one) for one in fixed), *pairs]:
        yield Field("POST", "/ports", lambda text, v=value: made(**v(text)), length, "2001:db8::5")  # type: ignore[misc]
        yield Field("PUT", one, lambda text, v=value: {"port": v(text)}, length, "2001:db8::5")  # type: ignore[misc]
    for name in ("mac_address", "dns_name"):
        yield Field("POST", "/ports", lambda text, n=name: made(**{n: text}), before="fa:16:3e:00:00:01")  # type: ignore[misc]
    mac = "fa:16:3e:00:00:01"
    pair = {"ip_address": "2001:db8::7"}
    yield Field(
        "PUT", one, lambda text: {"port": {"allowed_address_pairs": [pair | {"mac_address": text}]}}, before=mac
    )


def _rest(site: Site) -> Iterator[Field]:
    for length in ("", "/32"):
        rule = {"security_group_id": site.group["id"], "direction": "ingress", "ethertype": "IPv6"}
        yield Field(
            "POST",
            "/security-group-rules",
            lambda text, rule=rule: {"security_group_rule": rule | {"remote_ip_prefix": text}},  # type: ignore[misc]
            length,
        )
    yield Field("POST", "/subnetpools", lambda text: {"subnetpool": {"name": "p", "prefixes": [text]}}, "/32")
    pool = f"/subnetpools/{site.pool['id']}"
    more = ["2001:db8:1::/48"]
    yield Field("PUT", pool, lambda text: {"subnetpool": {"prefixes": [*more, text]}}, "/32")
    yield Field("PUT", f"{pool}/add_prefixes", lambda text: {"prefixes": [text]}, "/32")
    yield Field("PUT", f"{pool}/remove_prefixes", lambda text: {"prefixes": [text]}, "/32")
    router = f"/routers/{site.router['id']}"
    for path in (router, f"{router}/add_extraroutes", f"{router}/remove_extraroutes"):
        for key, length, other in (("destination", "/48", "nexthop"), ("nexthop", "", "destination")):
            good = {"nexthop": "2001:db8::2", "destination": "2001:db8:9::/48"}[other]
            yield Field(
                "PUT",
                path,
                lambda text, k=key, o=other, g=good: {"router": {"routes": [{k: text, o: g}]}},  # type: ignore[misc]
                length,
            )
    label = {"metering_label_id": site.label["id"], "direction": "ingress"}
    for name in ("remote_ip_prefix", "source_ip_prefix", "destination_ip_prefix"):
        yield Field(
            "POST",
            "/metering/metering-label-rules",
            lambda text, n=name: {"metering_label_rule": label | {n: text}},  # type: ignore[misc]
            "/32",
        )


def _floating(cloud: Cloud) -> Iterator[Field]:
    [public] = cloud.get("/networks?name=public")["networks"]
    _, inner = cloud.net("10.0.0.0/24")
    port = cloud.make("port", network_id=inner["network_id"])
    router = cloud.make("router", external_gateway_info={"network_id": public["id"]})
    cloud.leg(router, inner)
    base = {"floating_network_id": public["id"]}
    for before in ("2001:db8::", "172.24.4.7"):
        yield Field(
            "POST", "/floatingips", lambda text: {"floatingip": base | {"floating_ip_address": text}}, before=before
        )
        yield Field(
            "POST",
            "/floatingips",
            lambda text: {"floatingip": base | {"port_id": port["id"], "fixed_ip_address": text}},
            before=before,
        )
        gateway = {"network_id": public["id"]}
        yield Field(
            "POST",
            "/routers",
            lambda text, g=gateway: {  # type: ignore[misc]
                "router": {"external_gateway_info": g | {"external_fixed_ips": [{"ip_address": text}]}}
            },
            before=before,
        )


def _written(cloud: Any, start: str) -> bytes:
    """All rows of the tables of a service."""
    tables = [table for table in metadata.sorted_tables if table.name.startswith(start)]
    rows = cloud.store.read_here(lambda tx: {one.name: sorted(map(str, tx.all(sa.select(one)))) for one in tables})
    return msgspec.json.encode(rows)


def test_network_takes_no_text_behind_an_address(database_url: str) -> None:
    with Cloud(database_url, loops=False) as cloud:
        site = Site(cloud)
        fields = [*_subnets(site), *_ports(site), *_rest(site), *_floating(cloud)]
        before = _written(cloud, "network_")
        for method, path, body, length, start in fields:
            for zone in ZONES:
                given = body(f"{start}{zone}{length}")
                found = cloud.ask(method, path, given, by=cloud.admin)
                assert found.status == 400, (method, path, given, found)
                assert set(found.json["NeutronError"]) == {"type", "message", "detail"}, found
        assert _written(cloud, "network_") == before


def test_what_hosts_are_told_of_dhcp_and_names_is_one_line(database_url: str) -> None:
    with Cloud(database_url, loops=False) as cloud:
        net, _ = cloud.net()
        before = _written(cloud, "network_")
        for sign in ("\n", "\r", "\0", "\x1b", "\x7f", "\x85", "\u2028", "\u2029"):
            option = {"opt_name": "66", "opt_value": f"x{sign}dhcp-script=/bin/sh"}
            named = {"opt_name": f"66{sign}", "opt_value": "x"}
            for values in ({"extra_dhcp_opts": [option]}, {"extra_dhcp_opts": [named]}, {"dns_name": f"a{sign}"}):
                assert cloud.ask("POST", "/ports", {"port": {"network_id": net["id"], **values}}).status == 400, values
            for body in ({"dns_domain": f"example.org{sign}"}, {"dns_domain": f"a.{sign}conf-file=/etc/shadow"}):
                assert cloud.ask("POST", "/networks", {"network": body}).status == 400, body
                assert cloud.ask("PUT", f"/networks/{net['id']}", {"network": body}).status == 400, body
        assert _written(cloud, "network_") == before


@pytest.fixture
def whole(database_url: str) -> Iterator[compute.Cloud]:
    with compute.Cloud(database_url) as found:
        found.image()
        found.flavor("1")
        yield found


def test_compute_takes_no_text_behind_an_address_or_a_name(whole: compute.Cloud) -> None:
    whole.host("h1")
    network = whole.network()
    server = whole.made(networks=[{"uuid": network}])
    whole.reach(server, "ACTIVE")
    member = whole.member

    def asked(method: str, path: str, body: Any, version: str = "2.104") -> Response:
        return member.request(method, f"/compute/v2.1{path}", json=body, headers=compute.at(version))

    group = asked("POST", "/os-security-groups", {"security_group": {"name": "g", "description": "d"}}, "2.35")
    rule = {"parent_group_id": group.json["security_group"]["id"], "ip_protocol": "tcp", "from_port": 1, "to_port": 2}
    new = {"name": "s", "flavorRef": "1", "imageRef": compute.IMAGE, "networks": [{"uuid": network}]}

    def kept() -> Any:
        columns = sa.select(table.c.id, table.c.hostname, table.c.access_ip_v4, table.c.access_ip_v6)
        servers = whole.store.read_here(lambda tx: [tuple(row) for row in tx.all(columns)])
        return servers, _written(whole, "network_security_group_rule"), _written(whole, "network_address")

    before = kept()
    for zone in ZONES:
        text = f"2001:db8::5{zone}"
        requests: list[tuple[str, str, Any, str]] = [
            ("POST", "/os-security-group-rules", {"security_group_rule": rule | {"cidr": f"{text}/64"}}, "2.35"),
            ("POST", "/servers", {"server": new | {"accessIPv6": text}}, "2.104"),
            ("POST", "/servers", {"server": new | {"accessIPv4": f"10.0.0.1{zone}"}}, "2.104"),
            ("POST", "/servers", {"server": new | {"networks": [{"uuid": network, "fixed_ip": text}]}}, "2.104"),
            ("POST", "/servers", {"server": new, "os:scheduler_hints": {"build_near_host_ip": text}}, "2.104"),
            ("POST", "/servers", {"server": new | {"hostname": f"a{zone}"}}, "2.104"),
            ("POST", "/servers", {"server": new | {"hostname": f"ab{zone}"}}, "2.90"),
            ("POST", "/servers", {"server": new | {"hostname": "ab\n"}}, "2.104"),
            ("POST", "/servers", {"server": new | {"hostname": "ab\n"}}, "2.90"),
            ("PUT", f"/servers/{server}", {"server": {"accessIPv6": text}}, "2.104"),
            ("PUT", f"/servers/{server}", {"server": {"hostname": f"a{zone}"}}, "2.104"),
            (
                "POST",
                f"/servers/{server}/action",
                {"rebuild": {"imageRef": compute.IMAGE, "accessIPv6": text}},
                "2.104",
            ),
            (
                "POST",
                f"/servers/{server}/os-interface",
                {"interfaceAttachment": {"net_id": network, "fixed_ips": [{"ip_address": text}]}},
                "2.104",
            ),
        ]
        for method, path, body, version in requests:
            found = asked(method, path, body, version)
            assert found.status == 400, (zone, path, body, found)
            [(_, fault)] = found.json.items()
            assert fault["code"] == 400
    assert kept() == before
