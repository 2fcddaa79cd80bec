"""Networks and subnets through the real edge; with them what all lists of Network have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.services.network.cloud import Cloud


@pytest.fixture
def cloud(database_url: str) -> Iterator[Cloud]:
    with Cloud(database_url, loops=False) as cloud:
        yield cloud


def names(found: Any) -> list[str]:
    [items] = [value for key, value in found.items() if not key.endswith("_links")]
    return [one["name"] for one in items]


def test_discovery(cloud: Cloud) -> None:
    nobody = cloud.served.client()
    found = nobody.request("GET", "/network/").json["versions"]
    assert found == [
        {
            "id": "v2.0",
            "status": "CURRENT",
            "links": [{"rel": "self", "href": "http://testserver/network/v2.0/"}],
        }
    ]
    assert nobody.request("GET", "/network").status == 200
    collections = nobody.request("GET", "/network/v2.0").json["resources"]
    assert {"network", "subnet", "port", "router", "floatingip", "security_group"} <= {
        one["name"] for one in collections
    }
    found_401 = nobody.request("GET", "/network/v2.0/networks")
    assert found_401.status == 401
    assert found_401.json["NeutronError"]["type"] == "Unauthorized"


def test_extensions(cloud: Cloud) -> None:
    aliases = {one["alias"] for one in cloud.get("/extensions")["extensions"]}
    assert {
        "router",
        "external-net",
        "security-group",
        "quotas",
        "binding",
        "port-security",
        "standard-attr-tag",
    } <= aliases
    shown = cloud.get("/extensions/router")["extension"]
    assert shown["name"] == "Neutron L3 Router"
    cloud.refused(404, "ExtensionsNotFound", "GET", "/extensions/qos")


def test_service_providers(cloud: Cloud) -> None:
    assert "service-type" in {one["alias"] for one in cloud.get("/extensions")["extensions"]}
    routers = {"service_type": "L3_ROUTER_NAT", "name": "single_node", "default": True}
    assert cloud.get("/service-providers")["service_providers"] == [routers]
    assert cloud.get("/service-providers?service_type=L3_ROUTER_NAT&default=true")["service_providers"] == [routers]
    assert cloud.get("/service-providers?service_type=VPN")["service_providers"] == []
    assert cloud.get("/service-providers?default=false")["service_providers"] == []


def test_a_network_has_what_upstreams_has(cloud: Cloud) -> None:
    net = cloud.make("network", name="n", description="d", mtu=1400)
    assert net["project_id"] == net["tenant_id"] == "p1"
    assert net["status"] == "ACTIVE"
    assert net["subnets"] == []
    assert net["mtu"] == 1400
    assert net["revision_number"] == 0
    assert net["created_at"].endswith("Z")
    assert (net["shared"], net["router:external"], net["admin_state_up"]) == (False, False, True)
    assert net["port_security_enabled"] is True
    assert "provider:network_type" not in net
    shown = cloud.get(f"/networks/{net['id']}", by=cloud.admin)["network"]
    assert shown["provider:network_type"] == "local"
    assert shown["provider:segmentation_id"] is None


def test_what_only_admins_may_say_of_a_network(cloud: Cloud) -> None:
    for attribute, value in (
        ("shared", True),
        ("router:external", True),
        ("provider:network_type", "flat"),
        ("provider:physical_network", "p"),
    ):
        body = {"network": {attribute: value}}
        assert cloud.ask("POST", "/networks", body).status == 403
    assert cloud.ask("POST", "/networks", {"network": {"project_id": "p2"}}).status == 403
    assert cloud.ask("POST", "/networks", {"network": {}}, by=cloud.reader).status == 403
    made = cloud.make("network", by=cloud.admin, project_id="p1", shared="true")
    assert (made["project_id"], made["shared"]) == ("p1", True)
    flat: dict[str, Any] = {"provider:network_type": "flat", "provider:physical_network": "phys"}
    cloud.refused(400, "InvalidInput", "POST", "/networks", {"network": flat}, by=cloud.admin)  # no host would make it
    flat["router:external"] = True
    assert cloud.make("network", by=cloud.admin, **flat)["provider:physical_network"] == "phys"
    assert cloud.ask("POST", "/networks", {"network": flat}, by=cloud.admin).status == 409
    cloud.refused(
        400, "InvalidInput", "POST", "/networks", {"network": {"provider:network_type": "flat"}}, by=cloud.admin
    )


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"network": {"name": "x" * 256}},
        {"network": {"name": 5}},
        {"network": {"nonsense": 1}},
        {"network": {"admin_state_up": "maybe"}},
        {"network": {"mtu": 10}},
        {"network": {"mtu": -1}},
        {"network": {"status": "ACTIVE"}},
        {"network": {"availability_zone_hints": ["mars"]}},
        {"network": {"project_id": "p1", "tenant_id": "p2"}},
        {"networks": []},
        {"networks": [{"name": "a"}, {"nonsense": 1}]},
        [],
    ],
)
def test_networks_that_cannot_be(cloud: Cloud, body: Any) -> None:
    found = cloud.ask("POST", "/networks", body)
    assert found.status == 400, found
    assert set(found.json["NeutronError"]) == {"type", "message", "detail"}
    assert cloud.get("/networks")["networks"] == []


def test_another_projects_network_is_not_there(cloud: Cloud) -> None:
    net, subnet = cloud.net()
    for method, path in (
        ("GET", f"/networks/{net['id']}"),
        ("PUT", f"/networks/{net['id']}"),
        ("DELETE", f"/networks/{net['id']}"),
        ("GET", f"/subnets/{subnet['id']}"),
        ("PUT", f"/subnets/{subnet['id']}"),
        ("DELETE", f"/subnets/{subnet['id']}"),
        ("GET", f"/networks/{net['id']}/tags"),
    ):
        noun = "network" if "networks" in path else "subnet"
        body = {noun: {"name": "mine"}} if method == "PUT" else None
        assert cloud.ask(method, path, body, by=cloud.stranger).status == 404, (method, path)
    assert cloud.get("/networks", by=cloud.stranger)["networks"] == []
    assert cloud.get("/subnets", by=cloud.stranger)["subnets"] == []
    assert cloud.ask("PUT", f"/networks/{net['id']}", {"network": {"name": "x"}}, by=cloud.reader).status == 403
    assert cloud.ask("DELETE", f"/networks/{net['id']}", by=cloud.reader).status == 403


def test_a_shared_network_is_seen_but_not_changed(cloud: Cloud) -> None:
    net = cloud.make("network", by=cloud.admin, shared=True)
    subnet = cloud.make("subnet", by=cloud.admin, network_id=net["id"], cidr="10.0.0.0/24")
    assert cloud.get(f"/networks/{net['id']}")["network"]["subnets"] == [subnet["id"]]
    assert cloud.get("/subnets?shared=true")["subnets"][0]["id"] == subnet["id"]
    cloud.refused(403, "PolicyNotAuthorized", "PUT", f"/networks/{net['id']}", {"network": {"name": "x"}})
    cloud.refused(403, "PolicyNotAuthorized", "DELETE", f"/networks/{net['id']}")
    cloud.refused(
        403, "PolicyNotAuthorized", "POST", "/subnets", {"subnet": {"network_id": net["id"], "cidr": "10.1.0.0/24"}}
    )
    cloud.make("port", network_id=net["id"])
    body = {"network": {"shared": False}}
    cloud.refused(409, "InvalidSharedSetting", "PUT", f"/networks/{net['id']}", body, by=cloud.admin)


def test_updates_count_revisions_and_heed_if_match(cloud: Cloud) -> None:
    net = cloud.make("network", name="a")
    path = f"/networks/{net['id']}"
    found = cloud.ask("PUT", path, {"network": {"name": "b", "mtu": 1300}}).json["network"]
    assert (found["name"], found["mtu"], found["revision_number"]) == ("b", 1300, 1)
    assert cloud.ask("PUT", path, {"network": {"name": "b"}}).json["network"]["revision_number"] == 1
    found_412 = cloud.ask("PUT", path, {"network": {"name": "c"}}, revision=0)
    assert (found_412.status, found_412.json["NeutronError"]["type"]) == (412, "RevisionNumberConstraintFailed")
    assert cloud.ask("DELETE", path, revision=0).status == 412
    endless = {"if-match": f"revision_number={'1' * 5000}"}
    assert cloud.member.request("DELETE", f"/network/v2.0{path}", headers=endless).status == 400
    assert cloud.ask("PUT", path, {"network": {"name": "c"}}, revision=1).status == 200
    assert cloud.ask("PUT", path, {"network": {"id": "x"}}).status == 400


def test_bulk_creation_is_all_or_nothing(cloud: Cloud) -> None:
    found = cloud.ask("POST", "/networks", {"networks": [{"name": "a"}, {"name": "b"}]})
    assert found.status == 201
    assert names(found.json) == ["a", "b"]
    assert cloud.ask("PUT", "/quotas/p1", {"quota": {"network": 3}}, by=cloud.admin).status == 200
    cloud.refused(409, "OverQuota", "POST", "/networks", {"networks": [{"name": "c"}, {"name": "d"}]})
    assert names(cloud.get("/networks?sort_key=name")) == ["a", "b"]


def test_lists_are_filtered_sorted_and_narrowed(cloud: Cloud) -> None:
    for name in ("b", "a", "c"):
        cloud.make("network", name=name, description=name * 2)
    assert names(cloud.get("/networks?sort_key=name&sort_dir=desc")) == ["c", "b", "a"]
    assert names(cloud.get("/networks?name=a&name=c&sort_key=name")) == ["a", "c"]
    assert names(cloud.get("/networks?description=bb")) == ["b"]
    assert cloud.get("/networks?description=")["networks"] == []
    assert cloud.get("/networks?fields=name&fields=mtu&name=a")["networks"] == [{"name": "a", "mtu": 1500}]
    assert cloud.get("/networks?admin_state_up=False")["networks"] == []
    assert len(cloud.get("/networks?router:external=False&status=ACTIVE&project_id=p1")["networks"]) == 3
    assert cloud.ask("GET", "/networks?sort_key=nonsense").status == 400
    assert cloud.ask("GET", "/networks?admin_state_up=perhaps").status == 400
    assert cloud.ask("GET", "/networks?limit=-1").status == 400
    assert cloud.ask("GET", "/networks?marker=nonsense&limit=1").status == 400
    shown = cloud.get("/networks?name=a")["networks"][0]
    assert cloud.get(f"/networks/{shown['id']}?fields=name")["network"] == {"name": "a"}
    assert len(cloud.get(f"/networks?created_at={shown['created_at']}")["networks"]) >= 1


def test_pages_lead_forth_and_back(cloud: Cloud) -> None:
    for name in "abcde":
        cloud.make("network", name=name)
    assert "networks_links" not in cloud.get("/networks?sort_key=name")
    seen, path = [], "/networks?sort_key=name&limit=2"
    last: Any = None
    while path:
        last = cloud.get(path)
        seen.append(names(last))
        links = {one["rel"]: urlsplit(one["href"]) for one in last.get("networks_links", ())}
        path = f"/networks?{links['next'].query}" if "next" in links else ""
    assert seen == [["a", "b"], ["c", "d"], ["e"]]
    back = []
    links = {one["rel"]: urlsplit(one["href"]) for one in last["networks_links"]}
    while "previous" in links:
        assert links["previous"].path == "/network/v2.0/networks"
        last = cloud.get(f"/networks?{links['previous'].query}")
        back.append(names(last))
        links = {one["rel"]: urlsplit(one["href"]) for one in last.get("networks_links", ())}
    assert [one for one in back if one] == [["c", "d"], ["a", "b"]]


@pytest.mark.parametrize("name", ["tags", "tags-any", "not-tags", "not-tags-any"])
def test_lists_are_asked_for_so_many_tags_and_no_more(cloud: Cloud, name: str) -> None:
    tags = [f"t{number}" for number in range(65)]
    for query, status in (
        (f"{name}={','.join(tags[:64])}", 200),
        (f"{name}={','.join(tags)}", 400),
        ("&".join(f"{name}={tag}" for tag in tags), 400),
        ("&".join(f"id={number:032x}" for number in range(900)), 200),
        ("&".join(["created_at=2030-01-01T00:00:00Z"] * 65), 400),
    ):
        assert cloud.member.request("GET", f"/network/v2.0/networks?{query}").status == status


def test_tags(cloud: Cloud) -> None:
    net, other = cloud.make("network", name="n"), cloud.make("network", name="o")
    path = f"/networks/{net['id']}/tags"
    assert cloud.ask("PUT", path, {"tags": ["red", "blue"]}).json == {"tags": ["blue", "red"]}
    assert cloud.ask("PUT", f"{path}/green").status == 201
    assert cloud.ask("GET", f"{path}/green").status == 204
    assert cloud.ask("POST", path, {"tags": ["red", "black"]}).status == 201
    assert cloud.ask("DELETE", f"{path}/blue").status == 204
    cloud.refused(404, "TagNotFound", "GET", f"{path}/blue")
    cloud.refused(404, "TagNotFound", "DELETE", f"{path}/blue")
    assert cloud.get(path) == {"tags": ["black", "green", "red"]}
    assert cloud.get(f"/networks/{net['id']}")["network"]["tags"] == ["black", "green", "red"]
    assert cloud.ask("PUT", f"/networks/{other['id']}/tags/red").status == 201
    assert names(cloud.get("/networks?tags=red,green")) == ["n"]
    assert sorted(names(cloud.get("/networks?tags-any=red,green"))) == ["n", "o"]
    assert names(cloud.get("/networks?not-tags=red,green")) == ["o"]
    assert names(cloud.get("/networks?not-tags-any=green")) == ["o"]
    assert cloud.ask("PUT", path, {"tags": ["x"]}, by=cloud.reader).status == 403
    assert cloud.ask("PUT", path, {"tags": [""]}).status == 400
    assert cloud.ask("PUT", path, {"tags": [str(one) for one in range(51)]}).status == 400
    assert cloud.ask("DELETE", path).status == 204
    assert cloud.get(path) == {"tags": []}


def test_a_network_in_use_stays(cloud: Cloud) -> None:
    net, subnet = cloud.net()
    port = cloud.make("port", network_id=net["id"])
    cloud.refused(409, "NetworkInUse", "DELETE", f"/networks/{net['id']}")
    cloud.refused(409, "SubnetInUse", "DELETE", f"/subnets/{subnet['id']}")
    assert cloud.ask("DELETE", f"/ports/{port['id']}").status == 204
    assert cloud.ask("DELETE", f"/networks/{net['id']}").status == 204
    cloud.refused(404, "NetworkNotFound", "GET", f"/networks/{net['id']}")
    cloud.refused(404, "SubnetNotFound", "GET", f"/subnets/{subnet['id']}")
    assert cloud.get("/ports", by=cloud.admin)["ports"] == []
    used = {name: one["used"] for name, one in cloud.get("/quotas/p1/details")["quota"].items()}
    assert (used["network"], used["subnet"], used["port"]) == (0, 0, 0)


def test_an_external_network_in_use_stays_external(cloud: Cloud) -> None:
    public, _ = cloud.public()
    assert public["is_default"] is False
    cloud.make("floatingip", floating_network_id=public["id"])
    body = {"network": {"router:external": False}}
    cloud.refused(409, "ExternalNetworkInUse", "PUT", f"/networks/{public['id']}", body, by=cloud.admin)
    router = cloud.make("router", external_gateway_info={"network_id": public["id"]})
    cloud.refused(409, "NetworkInUse", "DELETE", f"/networks/{public['id']}", by=cloud.admin)
    assert len(cloud.get("/floatingips")["floatingips"]) == 1, "a refusal changes nothing"
    assert cloud.ask("DELETE", f"/routers/{router['id']}").status == 204
    assert cloud.ask("DELETE", f"/networks/{public['id']}", by=cloud.admin).status == 204
    assert cloud.get("/floatingips")["floatingips"] == [], "floating IPs that lead nowhere go with their network"
    used = cloud.get("/quotas/p1/details")["quota"]
    assert (used["floatingip"]["used"], used["port"]["used"]) == (0, 0)


def test_a_subnet_has_what_upstreams_has(cloud: Cloud) -> None:
    net, subnet = cloud.net("10.0.0.77/24")
    assert subnet["cidr"] == "10.0.0.0/24"
    assert subnet["gateway_ip"] == "10.0.0.1"
    assert subnet["allocation_pools"] == [{"start": "10.0.0.2", "end": "10.0.0.254"}]
    assert (subnet["enable_dhcp"], subnet["ip_version"], subnet["network_id"]) == (True, 4, net["id"])
    assert subnet["ipv6_ra_mode"] is None
    assert subnet["router:external"] is False
    six = cloud.make("subnet", network_id=net["id"], cidr="fd00::/64")
    assert (six["ip_version"], six["gateway_ip"]) == (6, "fd00::1")
    assert cloud.get(f"/networks/{net['id']}")["network"]["subnets"] == [subnet["id"], six["id"]]
    none = cloud.make("subnet", network_id=net["id"], cidr="10.1.0.0/29", gateway_ip=None)
    assert none["gateway_ip"] is None
    assert none["allocation_pools"] == [{"start": "10.1.0.1", "end": "10.1.0.6"}]
    assert len(cloud.get("/subnets?ip_version=6")["subnets"]) == 1
    assert cloud.get("/subnets?cidr=10.1.0.0/29")["subnets"][0]["id"] == none["id"]


def pool(start: str, end: str) -> dict[str, Any]:
    return {"cidr": "10.0.0.0/24", "allocation_pools": [{"start": start, "end": end}]}


@pytest.mark.parametrize(
    ("values", "status", "kind"),
    [
        ({"cidr": "10.0.0.0/33"}, 400, "InvalidInput"),
        ({"cidr": "10.0.0.0/24", "ip_version": 6}, 400, "InvalidInput"),
        ({"cidr": "10.0.0.0/24", "ip_version": 5}, 400, "BadRequest"),
        ({"cidr": "10.0.0.0/24", "gateway_ip": "10.0.0.255"}, 400, "InvalidIpForSubnet"),
        ({"cidr": "10.0.0.0/24", "gateway_ip": "fd00::1"}, 400, "InvalidInput"),
        ({"cidr": "10.0.0.0/24", "dns_nameservers": ["x"]}, 400, "InvalidInput"),
        ({"cidr": "10.0.0.0/24", "dns_nameservers": ["9.9.9.9", "9.9.9.9"]}, 400, "InvalidInput"),
        ({"cidr": "10.0.0.0/24", "host_routes": [{"destination": "x", "nexthop": "10.0.0.1"}]}, 400, "InvalidInput"),
        ({"cidr": "10.0.0.0/24", "host_routes": [{"destination": "10.0.0.0/8"}]}, 400, "BadRequest"),
        ({"cidr": "10.0.0.0/24", "ipv6_ra_mode": "slaac"}, 400, "InvalidInput"),
        ({"cidr": "fd00::/80", "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}, 400, "InvalidInput"),
        (
            {"cidr": "10.0.0.0/24", "allocation_pools": [{"start": "10.0.0.9", "end": "10.0.0.2"}]},
            400,
            "InvalidAllocationPool",
        ),
        (
            {"cidr": "10.0.0.0/24", "allocation_pools": [{"start": "10.0.0.1", "end": "10.0.0.2"}]},
            409,
            "GatewayConflictWithAllocationPools",
        ),
        (
            {"cidr": "10.0.0.0/24", "allocation_pools": [{"start": "10.0.0.9", "end": "10.0.1.2"}]},
            400,
            "OutOfBoundsAllocationPool",
        ),
        ({"cidr": "192.168.0.128/25"}, 400, "InvalidInput"),
        ({"cidr": "192.168.0.0/16"}, 400, "InvalidInput"),
        ({"cidr": "10.0.0.0/24", "network_id": "00000000-0000-0000-0000-000000000000"}, 404, "NetworkNotFound"),
    ],
)
def test_subnets_that_cannot_be(cloud: Cloud, values: dict[str, Any], status: int, kind: str) -> None:
    net, _ = cloud.net("192.168.0.0/24")
    cloud.refused(status, kind, "POST", "/subnets", {"subnet": {"network_id": net["id"], **values}})
    assert len(cloud.get("/subnets")["subnets"]) == 1


def test_two_networks_may_have_the_same_addresses(cloud: Cloud) -> None:
    cloud.net("10.0.0.0/24")
    cloud.net("10.0.0.0/24")
    assert len(cloud.get("/subnets")["subnets"]) == 2


def test_a_subnet_is_changed(cloud: Cloud) -> None:
    net, subnet = cloud.net()
    path = f"/subnets/{subnet['id']}"
    values = {
        "name": "s",
        "gateway_ip": "10.0.0.254",
        "allocation_pools": [{"start": "10.0.0.100", "end": "10.0.0.101"}],
        "dns_nameservers": ["9.9.9.9"],
        "host_routes": [{"destination": "10.9.0.0/16", "nexthop": "10.0.0.9"}],
    }
    found = cloud.ask("PUT", path, {"subnet": values})
    assert found.status == 200
    assert {name: found.json["subnet"][name] for name in values} == values
    assert [one["fixed_ips"][0]["ip_address"] for one in [cloud.make("port", network_id=net["id"]) for _ in "ab"]] == [
        "10.0.0.100",
        "10.0.0.101",
    ]
    cloud.refused(409, "IpAddressGenerationFailure", "POST", "/ports", {"port": {"network_id": net["id"]}})
    body = {"subnet": {"gateway_ip": "10.0.0.100"}}
    cloud.refused(409, "GatewayConflictWithAllocationPools", "PUT", path, body)
    assert cloud.ask("PUT", path, {"subnet": {"cidr": "10.2.0.0/24"}}).status == 400
    assert cloud.ask("PUT", path, {"subnet": {"gateway_ip": None}}).json["subnet"]["gateway_ip"] is None


def test_the_gateway_of_a_router_is_not_moved(cloud: Cloud) -> None:
    _, subnet = cloud.net()
    router = cloud.make("router")
    cloud.leg(router, subnet)
    path = f"/subnets/{subnet['id']}"
    cloud.refused(409, "GatewayIpInUse", "PUT", path, {"subnet": {"gateway_ip": None}})
    cloud.refused(409, "SubnetInUse", "DELETE", path)


def test_the_dhcp_port_comes_and_goes_with_the_subnets(cloud: Cloud) -> None:
    net, subnet = cloud.net()
    other = cloud.make("subnet", network_id=net["id"], cidr="10.1.0.0/24", enable_dhcp=False)
    [dhcp] = cloud.get("/ports")["ports"]
    assert dhcp["device_owner"] == "network:dhcp"
    assert dhcp["fixed_ips"] == [{"subnet_id": subnet["id"], "ip_address": "10.0.0.2"}]
    assert cloud.get("/quotas/p1/details")["quota"]["port"]["used"] == 0
    assert cloud.ask("PUT", f"/subnets/{other['id']}", {"subnet": {"enable_dhcp": True}}).status == 200
    [dhcp] = cloud.get("/ports")["ports"]
    assert [one["ip_address"] for one in dhcp["fixed_ips"]] == ["10.0.0.2", "10.1.0.2"]
    assert cloud.ask("DELETE", f"/ports/{dhcp['id']}").status == 204
    cloud.refused(404, "PortNotFound", "GET", f"/ports/{dhcp['id']}")
    [another] = cloud.get("/ports")["ports"]
    assert another["device_id"] == dhcp["device_id"]
    assert {one["subnet_id"] for one in another["fixed_ips"]} == {subnet["id"], other["id"]}
    assert cloud.ask("DELETE", f"/subnets/{subnet['id']}").status == 204
    [dhcp] = cloud.get("/ports")["ports"]
    assert [one["subnet_id"] for one in dhcp["fixed_ips"]] == [other["id"]]
    assert cloud.ask("PUT", f"/subnets/{other['id']}", {"subnet": {"enable_dhcp": False}}).status == 200
    assert cloud.get("/ports")["ports"] == []


def test_a_subnet_too_small_for_dhcp_does_without(cloud: Cloud) -> None:
    net, subnet = cloud.net("10.0.0.0/31")
    assert subnet["allocation_pools"] == [{"start": "10.0.0.1", "end": "10.0.0.1"}]
    [dhcp] = cloud.get("/ports")["ports"]
    assert dhcp["fixed_ips"][0]["ip_address"] == "10.0.0.1"
    cloud.make("subnet", network_id=net["id"], cidr="10.1.0.0/32")
    [dhcp] = cloud.get("/ports")["ports"]
    assert len(dhcp["fixed_ips"]) == 2


def test_quotas(cloud: Cloud) -> None:
    assert cloud.get("/quotas/p1")["quota"]["network"] == 100
    assert cloud.get("/quotas/p1/default")["quota"]["router"] == 10
    cloud.refused(403, "PolicyNotAuthorized", "GET", "/quotas/p2")
    assert cloud.ask("GET", "/quotas").status == 403
    assert cloud.ask("PUT", "/quotas/p1", {"quota": {"network": 1}}).status == 403
    assert cloud.ask("PUT", "/quotas/p1", {"quota": {"network": -2}}, by=cloud.admin).status == 400
    assert cloud.ask("PUT", "/quotas/p1", {"quota": {"nonsense": 1}}, by=cloud.admin).status == 400
    assert cloud.ask("PUT", "/quotas/p1", {"quota": {"network": 1}}, by=cloud.admin).json["quota"]["network"] == 1
    assert [one["project_id"] for one in cloud.get("/quotas", by=cloud.admin)["quotas"]] == ["p1"]
    cloud.make("network")
    cloud.refused(409, "OverQuota", "POST", "/networks", {"network": {}})
    assert cloud.get("/quotas/p1/details")["quota"]["network"] == {"limit": 1, "used": 1, "reserved": 0}
    assert cloud.ask("PUT", "/quotas/p1", {"quota": {"network": 0}}, by=cloud.admin).status == 400
    forced = {"quota": {"network": 0, "force": True}}
    assert cloud.ask("PUT", "/quotas/p1", forced, by=cloud.admin).json["quota"]["network"] == 0
    assert cloud.ask("DELETE", "/quotas/p1", by=cloud.admin).status == 204
    assert cloud.get("/quotas/p1")["quota"]["network"] == 100


def test_availability_zones(cloud: Cloud) -> None:
    found = cloud.get("/availability_zones?resource=router")["availability_zones"]
    assert found == [{"name": "nova", "resource": "router", "state": "available"}]
