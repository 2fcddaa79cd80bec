"""Ports through the real edge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from tests.services.network.cloud import Cloud


@pytest.fixture
def cloud(database_url: str) -> Iterator[Cloud]:
    with Cloud(database_url, loops=False) as cloud:
        yield cloud


SLAAC: dict[str, Any] = {"ipv6_address_mode": "slaac", "ipv6_ra_mode": "slaac"}
STATEFUL: dict[str, Any] = {"ipv6_address_mode": "dhcpv6-stateful", "ipv6_ra_mode": "dhcpv6-stateful"}


def addresses(port: Any) -> list[str]:
    return [one["ip_address"] for one in port["fixed_ips"]]


def test_a_port_has_what_upstreams_has(cloud: Cloud) -> None:
    net, subnet = cloud.net()
    port = cloud.make("port", network_id=net["id"], name="p", description="d", device_id="x", dns_name="web")
    default = cloud.get("/security-groups")["security_groups"][0]["id"]
    assert port["mac_address"].startswith("fa:16:3e:")
    assert port["fixed_ips"] == [{"subnet_id": subnet["id"], "ip_address": "10.0.0.3"}]
    assert port["security_groups"] == [default]
    assert (port["status"], port["admin_state_up"], port["port_security_enabled"]) == ("DOWN", True, True)
    assert port["project_id"] == port["tenant_id"] == "p1"
    assert port["binding:vnic_type"] == "normal"
    assert port["dns_assignment"] == [{"ip_address": "10.0.0.3", "hostname": "web", "fqdn": "web."}]
    assert not {"binding:host_id", "binding:profile", "binding:vif_type", "binding:vif_details"} & port.keys()
    shown = cloud.get(f"/ports/{port['id']}", by=cloud.admin)["port"]
    assert (shown["binding:vif_type"], shown["binding:host_id"], shown["binding:profile"]) == ("unbound", "", {})


@pytest.mark.parametrize("query", ["binding:host_id=h", "binding:host_id=", "binding:vif_type=unbound"])
def test_where_a_port_is_bound_is_not_asked_about_by_its_owner(cloud: Cloud, query: str) -> None:
    net, _ = cloud.net()
    port = cloud.make("port", network_id=net["id"])
    cloud.refused(403, "Forbidden", "GET", f"/ports?{query}")
    found = cloud.get(f"/ports?{query}", by=cloud.admin)["ports"]
    assert (port["id"] in [one["id"] for one in found]) == (query != "binding:host_id=h")


@pytest.mark.parametrize("query", ["provider:network_type=flat", "provider:physical_network=x"])
def test_how_a_network_is_made_is_not_asked_about_by_its_owner(cloud: Cloud, query: str) -> None:
    cloud.net()
    cloud.refused(403, "Forbidden", "GET", f"/networks?{query}")
    assert cloud.get(f"/networks?{query}", by=cloud.admin)["networks"] == []


def test_addresses_are_given_in_turn(cloud: Cloud) -> None:
    net, _ = cloud.net("10.0.0.0/29")
    ports = [cloud.make("port", network_id=net["id"]) for _ in range(4)]
    assert [addresses(one) for one in ports] == [["10.0.0.3"], ["10.0.0.4"], ["10.0.0.5"], ["10.0.0.6"]]
    cloud.refused(409, "IpAddressGenerationFailure", "POST", "/ports", {"port": {"network_id": net["id"]}})
    assert cloud.ask("DELETE", f"/ports/{ports[1]['id']}").status == 204
    assert addresses(cloud.make("port", network_id=net["id"])) == ["10.0.0.4"]
    assert cloud.get("/quotas/p1/details")["quota"]["port"]["used"] == 4


def test_a_port_has_an_address_of_each_version(cloud: Cloud) -> None:
    net, four = cloud.net()
    stateful = cloud.make(
        "subnet",
        network_id=net["id"],
        cidr="fd00:1::/64",
        ipv6_address_mode="dhcpv6-stateful",
        ipv6_ra_mode="dhcpv6-stateful",
    )
    slaac = cloud.make("subnet", network_id=net["id"], cidr="fd00:2::/64", **SLAAC)
    port = cloud.make("port", network_id=net["id"], mac_address="fa:16:3e:01:02:03")
    assert port["fixed_ips"] == [
        {"subnet_id": four["id"], "ip_address": "10.0.0.3"},
        {"subnet_id": stateful["id"], "ip_address": "fd00:1::3"},
        {"subnet_id": slaac["id"], "ip_address": "fd00:2::f816:3eff:fe01:203"},
    ]
    body = {"port": {"network_id": net["id"], "fixed_ips": [{"subnet_id": slaac["id"], "ip_address": "fd00:2::9"}]}}
    cloud.refused(400, "InvalidInput", "POST", "/ports", body)


def test_ports_that_are_there_address_themselves_on_a_new_slaac_subnet(cloud: Cloud) -> None:
    net, _ = cloud.net()
    port = cloud.make("port", network_id=net["id"], mac_address="fa:16:3e:01:02:03")
    slaac = cloud.make("subnet", network_id=net["id"], cidr="fd00::/64", **SLAAC)
    assert addresses(cloud.get(f"/ports/{port['id']}")["port"]) == ["10.0.0.3", "fd00::f816:3eff:fe01:203"]
    assert cloud.ask("DELETE", f"/subnets/{slaac['id']}").status == 204
    assert addresses(cloud.get(f"/ports/{port['id']}")["port"]) == ["10.0.0.3"]


def test_addresses_on_request(cloud: Cloud) -> None:
    net, subnet = cloud.net()
    second = cloud.make("subnet", network_id=net["id"], cidr="10.1.0.0/24")

    def port(*fixed_ips: dict[str, str]) -> list[str]:
        return addresses(cloud.make("port", network_id=net["id"], fixed_ips=list(fixed_ips)))

    assert port({"ip_address": "10.1.0.77"}) == ["10.1.0.77"]
    assert port({"subnet_id": second["id"]}, {"subnet_id": subnet["id"], "ip_address": "10.0.0.77"}) == [
        "10.1.0.3",
        "10.0.0.77",
    ]
    assert port({"subnet_id": subnet["id"]}, {"subnet_id": subnet["id"]}) == ["10.0.0.3", "10.0.0.4"]
    assert port() == []


@pytest.mark.parametrize(
    ("fixed_ips", "status", "kind"),
    [
        ([{"ip_address": "10.0.0.2"}], 409, "IpAddressInUse"),
        ([{"ip_address": "10.0.0.255"}], 400, "InvalidIpForSubnet"),
        ([{"ip_address": "10.9.0.1"}], 400, "InvalidIpForNetwork"),
        ([{"ip_address": "nonsense"}], 400, "InvalidInput"),
        ([{"subnet_id": "00000000-0000-0000-0000-000000000000"}], 400, "InvalidInput"),
        ([{"ip_address": "10.0.0.9"}, {"ip_address": "10.0.0.9"}], 409, "IpAddressInUse"),
        ([{}], 400, "InvalidInput"),
        ([{"nonsense": 1}], 400, "BadRequest"),
        ("10.0.0.9", 400, "BadRequest"),
    ],
)
def test_addresses_that_cannot_be(cloud: Cloud, fixed_ips: Any, status: int, kind: str) -> None:
    net, _ = cloud.net()
    cloud.refused(status, kind, "POST", "/ports", {"port": {"network_id": net["id"], "fixed_ips": fixed_ips}})
    assert cloud.get("/quotas/p1/details")["quota"]["port"]["used"] == 0


def test_mac_addresses_are_unique_in_a_network(cloud: Cloud) -> None:
    net, _ = cloud.net()
    other, _ = cloud.net()
    port = cloud.make("port", network_id=net["id"], mac_address="FA-16-3E-00-00-01")
    assert port["mac_address"] == "fa:16:3e:00:00:01"
    again = {"port": {"network_id": net["id"], "mac_address": "fa:16:3e:00:00:01"}}
    cloud.refused(409, "MacAddressInUse", "POST", "/ports", again)
    cloud.make("port", network_id=other["id"], mac_address="fa:16:3e:00:00:01")
    cloud.refused(
        400, "InvalidInput", "POST", "/ports", {"port": {"network_id": net["id"], "mac_address": "01:00:5e:00:00:01"}}
    )
    assert cloud.get("/ports?mac_address=FA:16:3E:00:00:01&network_id=" + net["id"])["ports"][0]["id"] == port["id"]


def test_bulk_creation_is_all_or_nothing(cloud: Cloud) -> None:
    net, _ = cloud.net()
    entries = [{"network_id": net["id"], "name": name, "tags": ["t", name]} for name in "ab"]
    found = cloud.ask("POST", "/ports", {"ports": entries})
    assert found.status == 201
    assert [(one["name"], one["tags"], addresses(one)) for one in found.json["ports"]] == [
        ("a", ["a", "t"], ["10.0.0.3"]),
        ("b", ["b", "t"], ["10.0.0.4"]),
    ]
    worse = [{"network_id": net["id"]}, {"network_id": net["id"], "fixed_ips": [{"ip_address": "10.0.0.3"}]}]
    cloud.refused(409, "IpAddressInUse", "POST", "/ports", {"ports": worse})
    assert len(cloud.get("/ports?device_owner=")["ports"]) == 2


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/ports", {"ports": [{"network_id": "x"}] * 1001}),
        ("/networks", {"networks": [{}] * 1001}),
        ("/subnets", {"subnets": [{"network_id": "x"}] * 1001}),
        ("/routers", {"routers": [{}] * 1001}),
        ("/floatingips", {"floatingips": [{"floating_network_id": "x"}] * 1001}),
        ("/security-groups", {"security_groups": [{"name": "x"}] * 1001}),
        (
            "/security-group-rules",
            {"security_group_rules": [{"security_group_id": "x", "direction": "ingress"}] * 1001},
        ),
        ("/ports", {"port": {"network_id": "x", "fixed_ips": [{}] * 257}}),
        ("/ports", {"port": {"network_id": "x", "security_groups": ["x"] * 257}}),
        ("/ports", {"port": {"network_id": "x", "allowed_address_pairs": [{"ip_address": "10.0.0.1"}] * 257}}),
        ("/ports", {"port": {"network_id": "x", "extra_dhcp_opts": [{"opt_name": "a", "opt_value": "b"}] * 257}}),
        ("/subnets", {"subnet": {"network_id": "x", "allocation_pools": [{"start": "a", "end": "b"}] * 257}}),
        ("/subnets", {"subnet": {"network_id": "x", "dns_nameservers": ["x"] * 257}}),
        ("/subnets", {"subnet": {"network_id": "x", "host_routes": [{"destination": "a", "nexthop": "b"}] * 257}}),
        ("/subnetpools", {"subnetpool": {"name": "x", "prefixes": ["x"] * 257}}),
        ("/routers", {"router": {"external_gateway_info": {"network_id": "x", "external_fixed_ips": [{}] * 257}}}),
    ],
)
def test_lists_have_an_end(cloud: Cloud, path: str, body: Any) -> None:
    found = cloud.ask("POST", path, body, by=cloud.admin)
    assert found.status == 400, found
    assert "length <= " in found.json["NeutronError"]["message"], found


def test_filters(cloud: Cloud) -> None:
    net, subnet = cloud.net()
    one = cloud.make("port", network_id=net["id"], name="one", device_id="d", device_owner="compute:nova")
    two = cloud.make(
        "port", network_id=net["id"], name="two", fixed_ips=[{"ip_address": "10.0.0.99"}], security_groups=[]
    )
    default = one["security_groups"][0]

    def found(query: str) -> list[str]:
        return sorted(port["name"] for port in cloud.get(f"/ports?{query}")["ports"])

    assert found("device_id=d") == ["one"]
    assert found("device_owner=compute:nova") == ["one"]
    assert found("fixed_ips=ip_address%3D10.0.0.99") == ["two"]
    assert found(f"fixed_ips=subnet_id%3D{subnet['id']}&name=one&name=two") == ["one", "two"]
    assert found("fixed_ips=ip_address_substr%3D0.9") == ["two"]
    parts = "&".join(f"fixed_ips=ip_address_substr%3D{number}" for number in range(65))
    assert cloud.ask("GET", f"/ports?{parts}").status == 400
    assert found(f"fixed_ips=ip_address%3D10.0.0.99&fixed_ips=subnet_id%3D{subnet['id']}") == ["two"]
    assert found(f"security_groups={default}") == ["one"]
    assert found(f"id={one['id']}&id={two['id']}") == ["one", "two"]
    assert found("status=ACTIVE") == []
    assert found("admin_state_up=true&device_id=d") == ["one"]
    unbound = cloud.get("/ports?binding:vif_type=unbound&device_owner=", by=cloud.admin)["ports"]
    assert [port["name"] for port in unbound] == ["two"]


def test_security_groups_of_a_port(cloud: Cloud) -> None:
    net, _ = cloud.net()
    group = cloud.make("security_group", name="g")
    port = cloud.make("port", network_id=net["id"], security_groups=[group["id"]])
    assert port["security_groups"] == [group["id"]]
    assert cloud.make("port", network_id=net["id"], security_groups=[])["security_groups"] == []
    foreign = cloud.make("security_group", name="f", by=cloud.stranger)
    for wanted in (foreign["id"], "00000000-0000-0000-0000-000000000000"):
        body = {"port": {"network_id": net["id"], "security_groups": [wanted]}}
        cloud.refused(404, "SecurityGroupNotFound", "POST", "/ports", body)
    cloud.refused(409, "SecurityGroupInUse", "DELETE", f"/security-groups/{group['id']}")
    found = cloud.ask("PUT", f"/ports/{port['id']}", {"port": {"security_groups": []}})
    assert (found.json["port"]["security_groups"], found.json["port"]["revision_number"]) == ([], 1)
    assert cloud.ask("DELETE", f"/security-groups/{group['id']}").status == 204


def test_port_security(cloud: Cloud) -> None:
    net, _ = cloud.net()
    bare = cloud.make("port", network_id=net["id"], port_security_enabled=False)
    assert (bare["port_security_enabled"], bare["security_groups"]) == (False, [])
    default = cloud.make("port", network_id=net["id"])["security_groups"]
    wrong = {"network_id": net["id"], "port_security_enabled": False}
    cloud.refused(
        400,
        "PortSecurityAndIPRequiredForSecurityGroups",
        "POST",
        "/ports",
        {"port": {**wrong, "security_groups": default}},
    )
    pairs = [{"ip_address": "10.0.0.50"}]
    cloud.refused(
        409,
        "AddressPairAndPortSecurityRequired",
        "POST",
        "/ports",
        {"port": {**wrong, "allowed_address_pairs": pairs}},
    )
    port = cloud.make("port", network_id=net["id"])
    path = f"/ports/{port['id']}"
    cloud.refused(409, "PortSecurityPortHasSecurityGroup", "PUT", path, {"port": {"port_security_enabled": False}})
    assert cloud.ask("PUT", path, {"port": {"port_security_enabled": False, "security_groups": []}}).status == 200
    cloud.refused(
        400, "PortSecurityAndIPRequiredForSecurityGroups", "PUT", path, {"port": {"security_groups": default}}
    )
    cloud.refused(409, "AddressPairAndPortSecurityRequired", "PUT", path, {"port": {"allowed_address_pairs": pairs}})
    open_net = cloud.make("network", port_security_enabled=False)
    cloud.make("subnet", network_id=open_net["id"], cidr="10.0.0.0/24")
    assert cloud.make("port", network_id=open_net["id"])["port_security_enabled"] is False


def test_allowed_address_pairs_and_dhcp_options(cloud: Cloud) -> None:
    net, _ = cloud.net()
    port = cloud.make(
        "port",
        network_id=net["id"],
        allowed_address_pairs=[
            {"ip_address": "10.0.0.50"},
            {"ip_address": "10.5.0.0/16", "mac_address": "FA:16:3E:00:00:01"},
        ],
        extra_dhcp_opts=[
            {"opt_name": "mtu", "opt_value": "1400"},
            {"opt_name": "ntp-server", "opt_value": "fd00::1", "ip_version": 6},
        ],
    )
    assert port["allowed_address_pairs"] == [
        {"ip_address": "10.0.0.50", "mac_address": port["mac_address"]},
        {"ip_address": "10.5.0.0/16", "mac_address": "fa:16:3e:00:00:01"},
    ]
    path = f"/ports/{port['id']}"
    options = [{"opt_name": "mtu", "opt_value": None}, {"opt_name": "domain-name", "opt_value": "x"}]
    found = cloud.ask("PUT", path, {"port": {"extra_dhcp_opts": options}}).json["port"]["extra_dhcp_opts"]
    assert found == [
        {"opt_name": "ntp-server", "opt_value": "fd00::1", "ip_version": 6},
        {"opt_name": "domain-name", "opt_value": "x", "ip_version": 4},
    ]
    for wrong in (
        {"allowed_address_pairs": [{"ip_address": "nonsense"}]},
        {"allowed_address_pairs": [{"ip_address": "10.0.0.50"}, {"ip_address": "10.0.0.50"}]},
        {"allowed_address_pairs": [{"mac_address": "fa:16:3e:00:00:01"}]},
        {"allowed_address_pairs": [{"ip_address": f"10.0.0.{one}"} for one in range(50, 61)]},
        {"extra_dhcp_opts": [{"opt_name": "a\nb", "opt_value": "x"}]},
        {"extra_dhcp_opts": [{"opt_name": "a", "opt_value": "x\ndhcp-script=/bin/sh"}]},
        {"extra_dhcp_opts": [{"opt_name": "", "opt_value": "x"}]},
    ):
        assert cloud.ask("PUT", path, {"port": wrong}).status == 400, wrong


def test_dhcp_options_do_not_add_up_without_end(cloud: Cloud) -> None:
    net, _ = cloud.net()
    first = [{"opt_name": f"a{number}", "opt_value": "x"} for number in range(256)]
    port = cloud.make("port", network_id=net["id"], extra_dhcp_opts=first)
    path = f"/ports/{port['id']}"
    more = {"port": {"extra_dhcp_opts": [{"opt_name": "b", "opt_value": "x"}]}}
    cloud.refused(400, "InvalidInput", "PUT", path, more)
    less = {"port": {"extra_dhcp_opts": [{"opt_name": "a7", "opt_value": None}]}}
    assert len(cloud.ask("PUT", path, less).json["port"]["extra_dhcp_opts"]) == 255
    assert cloud.ask("PUT", path, more).status == 200


def test_a_port_is_changed(cloud: Cloud) -> None:
    net, subnet = cloud.net()
    port = cloud.make("port", network_id=net["id"])
    path = f"/ports/{port['id']}"
    values = {"name": "n", "description": "d", "admin_state_up": False, "device_id": "x", "device_owner": "y:z"}
    found = cloud.ask("PUT", path, {"port": values}).json["port"]
    assert {name: found[name] for name in values} == values
    assert found["revision_number"] == 1
    more = [{"subnet_id": subnet["id"]}, {"subnet_id": subnet["id"], "ip_address": "10.0.0.9"}]
    found = cloud.ask("PUT", path, {"port": {"fixed_ips": more}}).json["port"]
    assert addresses(found) == ["10.0.0.3", "10.0.0.9"]
    found = cloud.ask("PUT", path, {"port": {"fixed_ips": [{"ip_address": "10.0.0.9"}]}}).json["port"]
    assert addresses(found) == ["10.0.0.9"]
    assert addresses(cloud.make("port", network_id=net["id"], fixed_ips=[{"ip_address": "10.0.0.3"}])) == ["10.0.0.3"]
    cloud.refused(409, "IpAddressInUse", "PUT", path, {"port": {"fixed_ips": [{"ip_address": "10.0.0.3"}]}})
    assert addresses(cloud.get(path)["port"]) == ["10.0.0.9"]
    assert addresses(cloud.ask("PUT", path, {"port": {"fixed_ips": []}}).json["port"]) == []
    assert cloud.ask("PUT", path, {"port": {"network_id": net["id"]}}).status == 400
    late = cloud.ask("PUT", path, {"port": {"name": "z"}}, revision=0)
    assert late.status == 412


def test_a_mac_address_is_changed_by_those_who_may(cloud: Cloud) -> None:
    net, _ = cloud.net()
    slaac = cloud.make("subnet", network_id=net["id"], cidr="fd00::/64", **SLAAC)
    port = cloud.make("port", network_id=net["id"])
    path, body = f"/ports/{port['id']}", {"port": {"mac_address": "fa:16:3e:01:02:03"}}
    cloud.refused(403, "PolicyNotAuthorized", "PUT", path, body)
    found = cloud.ask("PUT", path, body, by=cloud.manager).json["port"]
    assert found["mac_address"] == "fa:16:3e:01:02:03"
    assert {"subnet_id": slaac["id"], "ip_address": "fd00::f816:3eff:fe01:203"} in found["fixed_ips"]
    assert "10.0.0.3" in addresses(found)
    for empty in ("", None):
        cloud.refused(403, "PolicyNotAuthorized", "PUT", path, {"port": {"mac_address": empty}})
    cloud.refused(400, "InvalidInput", "PUT", path, {"port": {"mac_address": ""}}, by=cloud.manager)
    found = cloud.ask("PUT", path, {"port": {"mac_address": None}}, by=cloud.admin).json["port"]
    assert found["mac_address"] not in ("fa:16:3e:01:02:03", port["mac_address"])


def test_what_only_the_networks_owner_may(cloud: Cloud) -> None:
    net = cloud.make("network", by=cloud.admin, shared=True)
    subnet = cloud.make("subnet", by=cloud.admin, network_id=net["id"], cidr="10.0.0.0/24")
    for values in (
        {"mac_address": "fa:16:3e:00:00:01"},
        {"fixed_ips": [{"ip_address": "10.0.0.9"}]},
        {"port_security_enabled": False},
        {"allowed_address_pairs": [{"ip_address": "10.0.0.9"}]},
        {"device_owner": "network:x"},
        {"binding:host_id": "h"},
        {"binding:profile": {"a": 1}},
        {"project_id": "p2", "device_id": "x"},
    ):
        body = {"port": {"network_id": net["id"], **values}}
        assert cloud.ask("POST", "/ports", body).status == 403, values
    port = cloud.make("port", network_id=net["id"], fixed_ips=[{"subnet_id": subnet["id"]}], device_id="mine")
    body = {"port": {"fixed_ips": [{"ip_address": "10.0.0.9"}]}}
    cloud.refused(403, "PolicyNotAuthorized", "PUT", f"/ports/{port['id']}", body)
    assert len(cloud.get("/ports")["ports"]) == 1
    assert len(cloud.get("/ports", by=cloud.admin)["ports"]) == 2
    assert cloud.ask("GET", f"/ports/{port['id']}", by=cloud.stranger).status == 404
    assert cloud.ask("DELETE", f"/ports/{port['id']}", by=cloud.reader).status == 403


def test_the_networks_owner_sees_all_of_its_ports(cloud: Cloud) -> None:
    net, _ = cloud.net()
    port = cloud.make("port", by=cloud.admin, network_id=net["id"], project_id="p2", name="theirs")
    assert cloud.get(f"/ports/{port['id']}")["port"]["name"] == "theirs"
    assert cloud.get(f"/ports/{port['id']}", by=cloud.stranger)["port"]["name"] == "theirs"
    assert cloud.get("/quotas/p2/details", by=cloud.stranger)["quota"]["port"]["used"] == 1


def test_a_servers_port_is_deleted_by_admins_alone(cloud: Cloud) -> None:
    net, _ = cloud.net()
    port = cloud.make("port", network_id=net["id"], device_owner="compute:nova", device_id="x")
    cloud.refused(403, "PolicyNotAuthorized", "DELETE", f"/ports/{port['id']}")
    assert cloud.ask("DELETE", f"/ports/{port['id']}", by=cloud.admin).status == 204


def test_binding_attributes_of_admins(cloud: Cloud) -> None:
    net, _ = cloud.net()
    port = cloud.make("port", by=cloud.admin, network_id=net["id"], **{"binding:host_id": "h"})
    assert (port["binding:host_id"], port["binding:vif_type"]) == ("h", "binding_failed")
    service = cloud.served.client("admin+service:adm")
    body = {"port": {"binding:profile": {"k": "v"}, "binding:vnic_type": "direct", "binding:host_id": None}}
    found = cloud.ask("PUT", f"/ports/{port['id']}", body, by=service).json["port"]
    assert (found["binding:profile"], found["binding:vnic_type"], found["binding:host_id"]) == (
        {"k": "v"},
        "direct",
        "",
    )


def test_port_quota(cloud: Cloud) -> None:
    net, _ = cloud.net()
    assert cloud.ask("PUT", "/quotas/p1", {"quota": {"port": 1}}, by=cloud.admin).status == 200
    cloud.make("port", network_id=net["id"])
    cloud.refused(409, "OverQuota", "POST", "/ports", {"port": {"network_id": net["id"]}})


def test_tags_of_ports(cloud: Cloud) -> None:
    net, _ = cloud.net()
    port = cloud.make("port", network_id=net["id"], tags=["a"])
    assert cloud.ask("PUT", f"/ports/{port['id']}/tags/b").status == 201
    assert cloud.get("/ports?tags=a,b")["ports"][0]["id"] == port["id"]
    assert cloud.ask("DELETE", f"/ports/{port['id']}").status == 204


def test_a_port_costs_few_statements(cloud: Cloud) -> None:
    net, _ = cloud.net()
    cloud.make("port", network_id=net["id"])
    statements: list[str] = []
    sa.event.listen(cloud.store.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    cloud.make("port", network_id=net["id"])
    assert len(statements) <= 16, statements
    statements.clear()
    made = cloud.make("network")
    cloud.make("subnet", network_id=made["id"], cidr="10.0.0.0/24")
    assert len(statements) <= 25, statements


def test_the_clouds_own_ports_are_not_made_or_changed_by_users(cloud: Cloud) -> None:
    _, subnet = cloud.net()
    router = cloud.make("router")
    leg = cloud.leg(router, subnet)
    [dhcp] = cloud.get("/ports?device_owner=network:dhcp")["ports"]
    changes: list[dict[str, Any]] = [
        {"fixed_ips": []},
        {"fixed_ips": [{"subnet_id": subnet["id"], "ip_address": "10.0.0.77"}]},
        {"fixed_ips": [{"subnet_id": subnet["id"]}, {"subnet_id": subnet["id"]}]},
        {"security_groups": []},
        {"allowed_address_pairs": [{"ip_address": "10.0.0.9"}]},
        {"port_security_enabled": False},
    ]
    for one in (dhcp["id"], leg["port_id"]):
        for values in changes:
            cloud.refused(409, "UnsupportedPortDeviceOwner", "PUT", f"/ports/{one}", {"port": values})
        same = {"name": "ours", "fixed_ips": [{"subnet_id": subnet["id"]}]}
        assert cloud.ask("PUT", f"/ports/{one}", {"port": same}).status == 200


@pytest.mark.parametrize("name", ["-a", "a_b", "a\nb", "a b", "x" * 64])
def test_dns_names_that_cannot_be(cloud: Cloud, name: str) -> None:
    net, _ = cloud.net()
    assert cloud.ask("POST", "/ports", {"port": {"network_id": net["id"], "dns_name": name}}).status == 400
    assert cloud.ask("PUT", f"/networks/{net['id']}", {"network": {"dns_domain": name}}).status == 400


def test_names_in_the_networks_domain(cloud: Cloud) -> None:
    net, _ = cloud.net(dns_domain="cloud.example.")
    port = cloud.make("port", network_id=net["id"], dns_name="web-1")
    assert port["dns_assignment"][0]["fqdn"] == "web-1.cloud.example."
