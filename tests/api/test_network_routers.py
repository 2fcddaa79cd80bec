"""Routers and floating IPs through the real edge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.services.network.cloud import Cloud


@pytest.fixture
def cloud(database_url: str) -> Iterator[Cloud]:
    with Cloud(database_url, loops=False) as cloud:
        yield cloud


@pytest.fixture
def way(cloud: Cloud) -> Any:
    """A network behind a router, an external network before it, and a port: by name."""
    public, outer = cloud.public()
    net, subnet = cloud.net()
    router = cloud.make("router", name="r", external_gateway_info={"network_id": public["id"]})
    leg = cloud.leg(router, subnet)
    port = cloud.make("port", network_id=net["id"], name="p")
    return {"public": public, "outer": outer, "net": net, "subnet": subnet, "router": router, "leg": leg, "port": port}


def put(cloud: Cloud, router: Any, **values: Any) -> Any:
    found = cloud.ask("PUT", f"/routers/{router['id']}", {"router": values})
    assert found.status == 200, found
    return found.json["router"]


def test_a_router_has_what_upstreams_has(cloud: Cloud) -> None:
    router = cloud.make("router", name="r", description="d")
    assert (router["status"], router["external_gateway_info"], router["routes"]) == ("ACTIVE", None, [])
    assert router["project_id"] == router["tenant_id"] == "p1"
    assert "ha" not in router
    shown = cloud.get(f"/routers/{router['id']}", by=cloud.admin)["router"]
    assert (shown["ha"], shown["distributed"]) == (False, False)
    found = put(cloud, router, name="s", admin_state_up=False)
    assert (found["name"], found["admin_state_up"], found["status"]) == ("s", False, "DOWN")
    for method in ("GET", "PUT", "DELETE"):
        body = {"router": {"name": "x"}} if method == "PUT" else None
        cloud.refused(404, "RouterNotFound", method, f"/routers/{router['id']}", body, by=cloud.stranger)
    assert cloud.ask("DELETE", f"/routers/{router['id']}", by=cloud.reader).status == 403
    assert cloud.get("/routers", by=cloud.stranger)["routers"] == []
    assert cloud.ask("DELETE", f"/routers/{router['id']}").status == 204
    assert cloud.get("/quotas/p1/details")["quota"]["router"]["used"] == 0


@pytest.mark.parametrize("empty", [None, {}])
def test_an_empty_gateway_is_none(cloud: Cloud, empty: dict[str, Any] | None) -> None:
    assert cloud.make("router", name="r", external_gateway_info=empty)["external_gateway_info"] is None


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({"ha": True}, 400),
        ({"ha": False}, 403),
        ({"routes": []}, 400),
        ({"external_gateway_info": {"enable_snat": True}}, 403),
        ({"external_gateway_info": {"network_id": "00000000-0000-0000-0000-000000000000"}}, 404),
        ({"availability_zone_hints": ["mars"]}, 400),
    ],
)
def test_routers_that_cannot_be(cloud: Cloud, values: dict[str, Any], status: int) -> None:
    found = cloud.ask("POST", "/routers", {"router": values})
    if values.get("ha"):
        assert found.status in (400, 403)
    else:
        assert found.status == status, found
    assert cloud.get("/routers")["routers"] == []


def test_the_gateway(cloud: Cloud, way: Any) -> None:
    router, public = way["router"], way["public"]
    info = router["external_gateway_info"]
    assert info == {
        "network_id": public["id"],
        "enable_snat": True,
        "external_fixed_ips": [{"subnet_id": way["outer"]["id"], "ip_address": "172.24.4.2"}],
    }
    [gateway] = cloud.get("/ports?device_owner=network:router_gateway", by=cloud.admin)["ports"]
    assert (gateway["project_id"], gateway["device_id"]) == ("", router["id"])
    assert cloud.get("/ports?device_owner=network:router_gateway")["ports"] == []
    cloud.refused(409, "ServicePortInUse", "DELETE", f"/ports/{gateway['id']}", by=cloud.admin)
    body = {"router": {"external_gateway_info": {"network_id": public["id"], "enable_snat": False}}}
    assert cloud.ask("PUT", f"/routers/{router['id']}", body).status == 403
    found = cloud.ask("PUT", f"/routers/{router['id']}", body, by=cloud.admin).json["router"]
    assert found["external_gateway_info"]["enable_snat"] is False
    assert found["external_gateway_info"]["external_fixed_ips"] == info["external_fixed_ips"]
    fixed = {"network_id": public["id"], "external_fixed_ips": [{"ip_address": "172.24.4.99"}]}
    body = {"router": {"external_gateway_info": fixed}}
    found = cloud.ask("PUT", f"/routers/{router['id']}", body, by=cloud.admin).json["router"]
    assert found["external_gateway_info"]["external_fixed_ips"][0]["ip_address"] == "172.24.4.99"
    assert put(cloud, router, external_gateway_info={})["external_gateway_info"] is None
    assert cloud.get("/ports?device_owner=network:router_gateway", by=cloud.admin)["ports"] == []
    assert put(cloud, router, external_gateway_info={"network_id": public["id"]})["external_gateway_info"][
        "enable_snat"
    ]
    body = {"router": {"external_gateway_info": {"network_id": way["net"]["id"]}}}
    found = cloud.ask("PUT", f"/routers/{router['id']}", body)
    assert (found.status, "not an external" in found.json["NeutronError"]["message"]) == (400, True)


def test_legs(cloud: Cloud, way: Any) -> None:
    router, subnet, leg = way["router"], way["subnet"], way["leg"]
    assert leg["id"] == router["id"]
    assert leg["subnet_ids"] == [subnet["id"]]
    shown = cloud.get(f"/ports/{leg['port_id']}")["port"]
    assert (shown["device_owner"], shown["device_id"]) == ("network:router_interface", router["id"])
    assert shown["fixed_ips"][0]["ip_address"] == "10.0.0.1"
    add, remove = f"/routers/{router['id']}/add_router_interface", f"/routers/{router['id']}/remove_router_interface"
    cloud.refused(400, "InvalidInput", "PUT", add, {"subnet_id": subnet["id"]})
    _, overlap = cloud.net("10.0.0.128/25")
    cloud.refused(400, "InvalidInput", "PUT", add, {"subnet_id": overlap["id"]})
    _, outer_twin = cloud.net("172.24.0.0/16")
    cloud.refused(400, "InvalidInput", "PUT", add, {"subnet_id": outer_twin["id"]})
    bare = cloud.make("subnet", network_id=way["net"]["id"], cidr="10.7.0.0/24", gateway_ip=None)
    cloud.refused(400, "BadRequest", "PUT", add, {"subnet_id": bare["id"]})
    cloud.refused(400, "BadRequest", "PUT", add, {})
    cloud.refused(400, "BadRequest", "PUT", add, {"subnet_id": subnet["id"], "port_id": leg["port_id"]})
    cloud.refused(404, "SubnetNotFound", "PUT", add, {"subnet_id": "00000000-0000-0000-0000-000000000000"})
    cloud.refused(404, "PortNotFound", "PUT", add, {"port_id": "00000000-0000-0000-0000-000000000000"})
    cloud.refused(409, "PortInUse", "PUT", add, {"port_id": leg["port_id"]})
    cloud.refused(404, "RouterNotFound", "PUT", add, {"subnet_id": subnet["id"]}, by=cloud.stranger)
    assert cloud.ask("PUT", add, {"subnet_id": subnet["id"]}, by=cloud.reader).status == 403
    cloud.refused(409, "ServicePortInUse", "DELETE", f"/ports/{leg['port_id']}")
    cloud.refused(409, "RouterInUse", "DELETE", f"/routers/{router['id']}")
    cloud.refused(404, "RouterInterfaceNotFoundForSubnet", "PUT", remove, {"subnet_id": overlap["id"]})
    cloud.refused(404, "RouterInterfaceNotFound", "PUT", remove, {"port_id": way["port"]["id"]})
    cloud.refused(400, "BadRequest", "PUT", remove, {"port_id": leg["port_id"], "subnet_id": overlap["id"]})
    found = cloud.ask("PUT", remove, {"subnet_id": subnet["id"]})
    assert (found.status, found.json["port_id"]) == (200, leg["port_id"])
    assert cloud.ask("GET", f"/ports/{leg['port_id']}").status == 404


def test_a_leg_by_way_of_a_port(cloud: Cloud, way: Any) -> None:
    other, other_subnet = cloud.net("10.1.0.0/24")
    port = cloud.make("port", network_id=other["id"], fixed_ips=[{"ip_address": "10.1.0.9"}])
    path = f"/routers/{way['router']['id']}/add_router_interface"
    found = cloud.ask("PUT", path, {"port_id": port["id"]})
    assert (found.status, found.json["subnet_id"]) == (200, other_subnet["id"])
    shown = cloud.get(f"/ports/{port['id']}")["port"]
    assert (shown["device_owner"], shown["security_groups"]) == ("network:router_interface", [])
    used = cloud.get("/quotas/p1/details")["quota"]["port"]["used"]
    assert used == 3
    empty = cloud.make("port", network_id=other["id"], fixed_ips=[])
    cloud.refused(400, "BadRequest", "PUT", path, {"port_id": empty["id"]})


def test_routes(cloud: Cloud, way: Any) -> None:
    router = way["router"]
    route = {"destination": "10.9.0.0/16", "nexthop": "10.0.0.9"}
    assert put(cloud, router, routes=[route])["routes"] == [route]
    path = f"/routers/{router['id']}"
    for wrong in (
        {"destination": "10.9.0.0/16", "nexthop": "10.5.0.9"},
        {"destination": "10.9.0.0/16", "nexthop": "10.0.0.1"},
    ):
        cloud.refused(400, "InvalidRoutes", "PUT", path, {"router": {"routes": [wrong]}})
    cloud.refused(400, "InvalidInput", "PUT", path, {"router": {"routes": [{**route, "destination": "x"}]}})
    cloud.refused(400, "InvalidInput", "PUT", path, {"router": {"routes": [route, route]}})
    many = [{"destination": f"10.{one}.0.0/16", "nexthop": "10.0.0.9"} for one in range(100, 131)]
    cloud.refused(400, "RoutesExhausted", "PUT", path, {"router": {"routes": many}})
    remove = f"{path}/remove_router_interface"
    cloud.refused(409, "RouterInterfaceInUseByRoute", "PUT", remove, {"subnet_id": way["subnet"]["id"]})
    second = {"destination": "10.10.0.0/16", "nexthop": "10.0.0.9"}
    found = cloud.ask("PUT", f"{path}/add_extraroutes", {"router": {"routes": [route, second]}})
    assert found.json["router"]["routes"] == [route, second]
    found = cloud.ask("PUT", f"{path}/remove_extraroutes", {"router": {"routes": [route]}})
    assert found.json["router"]["routes"] == [second]
    assert put(cloud, router, routes=None)["routes"] == []


def test_no_route_leads_to_a_neighbour(cloud: Cloud, way: Any) -> None:
    router = way["router"]
    path = f"/routers/{router['id']}"
    _, inside = cloud.net("fd00:7::/64")
    cloud.ask("PUT", f"{path}/add_router_interface", {"subnet_id": inside["id"]})
    near = ("10.0.0.66/32", "10.0.0.128/25", "169.254.169.254/32", "169.254.0.0/16")
    wrong = [{"destination": one, "nexthop": "10.0.0.9"} for one in near]
    wrong += [{"destination": one, "nexthop": "fd00:7::9"} for one in ("fd00:7::66/128", "fe80::/64")]
    _, second = cloud.net("10.0.2.0/24")
    cloud.ask("PUT", f"{path}/add_router_interface", {"subnet_id": second["id"]})
    wrong.append({"destination": "10.0.2.0/24", "nexthop": "10.0.0.9"})
    for route in wrong:
        cloud.refused(400, "InvalidRoutes", "PUT", path, {"router": {"routes": [route]}})
        cloud.refused(400, "InvalidRoutes", "PUT", f"{path}/add_extraroutes", {"router": {"routes": [route]}})
    # Wider ones, others, the subnet of the hop itself, and parts of what is outside.
    far = ("0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/24", "10.0.1.0/24", "169.0.0.0/8", "172.24.4.64/26")
    routes = [{"destination": one, "nexthop": "10.0.0.9"} for one in far]
    assert put(cloud, router, routes=routes)["routes"] == routes


def test_no_leg_comes_to_where_a_route_leads(cloud: Cloud, way: Any) -> None:
    router = way["router"]
    net, subnet = cloud.net("10.1.0.0/24")
    port = cloud.make("port", network_id=net["id"])
    path = f"/routers/{router['id']}/add_router_interface"
    for destination in ("10.1.0.66/32", "10.1.0.0/24"):
        put(cloud, router, routes=[{"destination": destination, "nexthop": "10.0.0.9"}])
        cloud.refused(400, "InvalidInput", "PUT", path, {"subnet_id": subnet["id"]})
        cloud.refused(400, "InvalidInput", "PUT", path, {"port_id": port["id"]})
    put(cloud, router, routes=[{"destination": "10.0.0.0/8", "nexthop": "10.0.0.9"}])
    assert cloud.ask("PUT", path, {"port_id": port["id"]}).status == 200


def test_a_floating_ip_lives_and_dies(cloud: Cloud, way: Any) -> None:
    public, port = way["public"], way["port"]
    floating = cloud.make("floatingip", floating_network_id=public["id"], description="d")
    assert (floating["status"], floating["port_id"], floating["router_id"]) == ("DOWN", None, None)
    assert floating["port_details"] is None
    path = f"/floatingips/{floating['id']}"
    found = cloud.ask("PUT", path, {"floatingip": {"port_id": port["id"]}}).json["floatingip"]
    assert (found["fixed_ip_address"], found["router_id"]) == ("10.0.0.3", way["router"]["id"])
    assert found["port_details"]["name"] == "p"
    assert found["revision_number"] == 1
    other = cloud.make("floatingip", floating_network_id=public["id"])
    cloud.refused(
        409,
        "FloatingIPPortAlreadyAssociated",
        "PUT",
        f"/floatingips/{other['id']}",
        {"floatingip": {"port_id": port["id"]}},
    )
    assert [one["id"] for one in cloud.get(f"/floatingips?port_id={port['id']}")["floatingips"]] == [floating["id"]]
    assert len(cloud.get(f"/floatingips?floating_network_id={public['id']}&status=DOWN")["floatingips"]) == 2
    remove = f"/routers/{way['router']['id']}/remove_router_interface"
    cloud.refused(409, "RouterInterfaceInUseByFloatingIP", "PUT", remove, {"subnet_id": way["subnet"]["id"]})
    gone = {"router": {"external_gateway_info": None}}
    cloud.refused(409, "RouterExternalGatewayInUseByFloatingIp", "PUT", f"/routers/{way['router']['id']}", gone)
    for method in ("GET", "PUT", "DELETE"):
        body = {"floatingip": {"description": "x"}} if method == "PUT" else None
        cloud.refused(404, "FloatingIPNotFound", method, path, body, by=cloud.stranger)
    assert cloud.ask("DELETE", f"/ports/{port['id']}").status == 204
    assert cloud.get(path)["floatingip"]["port_id"] is None
    assert cloud.ask("PUT", path, {"floatingip": {"description": "e"}}).json["floatingip"]["description"] == "e"
    assert cloud.ask("DELETE", path).status == 204
    assert cloud.ask("DELETE", f"/floatingips/{other['id']}").status == 204
    assert cloud.get("/quotas/p1/details")["quota"]["floatingip"]["used"] == 0
    assert cloud.get("/ports?device_owner=network:floatingip", by=cloud.admin)["ports"] == []


def _lodge(cloud: Cloud, by: Any, public: Any, subnet: Any) -> Any:
    """A router of a project in a subnet that is shared, by a port of the project's own."""
    router = cloud.make("router", by=by, external_gateway_info={"network_id": public["id"]})
    port = cloud.make("port", by=by, network_id=subnet["network_id"], fixed_ips=[{"subnet_id": subnet["id"]}])
    path = f"/routers/{router['id']}/add_router_interface"
    assert cloud.ask("PUT", path, {"port_id": port["id"]}, by=by).status == 200
    return router


def test_a_floating_ip_goes_by_the_router_that_is_the_subnets_gateway(cloud: Cloud) -> None:
    public, _ = cloud.public()
    _, subnet = cloud.net("10.1.0.0/24", by=cloud.admin, shared=True)
    for older in (cloud.member, cloud.stranger):
        _lodge(cloud, older, public, subnet)
    own = cloud.make("router", by=cloud.admin, external_gateway_info={"network_id": public["id"]})
    leg = f"/routers/{own['id']}/add_router_interface"
    assert cloud.ask("PUT", leg, {"subnet_id": subnet["id"]}, by=cloud.admin).status == 200
    port = cloud.make("port", network_id=subnet["network_id"])
    made = cloud.make("floatingip", floating_network_id=public["id"], port_id=port["id"])
    assert made["router_id"] == own["id"]


def test_a_strangers_router_takes_no_floating_ip_over(cloud: Cloud) -> None:
    public, _ = cloud.public()
    _, subnet = cloud.net("10.1.0.0/24", by=cloud.admin, shared=True, name="shared")
    _lodge(cloud, cloud.stranger, public, subnet)
    port = cloud.make("port", network_id=subnet["network_id"])
    floating = cloud.make("floatingip", floating_network_id=public["id"])
    path, body = f"/floatingips/{floating['id']}", {"floatingip": {"port_id": port["id"]}}
    cloud.refused(404, "ExternalGatewayForFloatingIPNotFound", "PUT", path, body)
    mine = _lodge(cloud, cloud.member, public, subnet)
    assert cloud.ask("PUT", path, body).json["floatingip"]["router_id"] == mine["id"]


def test_a_floating_address_on_request(cloud: Cloud, way: Any) -> None:
    body = {"floatingip": {"floating_network_id": way["public"]["id"], "floating_ip_address": "172.24.4.77"}}
    assert cloud.ask("POST", "/floatingips", body).status == 403
    found = cloud.ask("POST", "/floatingips", body, by=cloud.manager)
    assert (found.status, found.json["floatingip"]["floating_ip_address"]) == (201, "172.24.4.77")
    cloud.refused(409, "IpAddressInUse", "POST", "/floatingips", body, by=cloud.manager)
    sub = {"floatingip": {"floating_network_id": way["public"]["id"], "subnet_id": way["outer"]["id"]}}
    assert cloud.ask("POST", "/floatingips", sub).status == 201


def test_floating_ips_that_cannot_be(cloud: Cloud, way: Any) -> None:
    public = way["public"]["id"]

    def refused(status: int, kind: str, **values: Any) -> None:
        cloud.refused(status, kind, "POST", "/floatingips", {"floatingip": values})

    refused(400, "BadRequest", floating_network_id=way["net"]["id"])
    refused(404, "NetworkNotFound", floating_network_id="00000000-0000-0000-0000-000000000000")
    refused(400, "BadRequest", floating_network_id=public, fixed_ip_address="10.0.0.3")
    refused(404, "PortNotFound", floating_network_id=public, port_id="00000000-0000-0000-0000-000000000000")
    refused(400, "BadRequest", floating_network_id=public, port_id=way["port"]["id"], fixed_ip_address="10.0.0.4")
    island, _ = cloud.net("10.3.0.0/24")
    alone = cloud.make("port", network_id=island["id"])
    refused(404, "ExternalGatewayForFloatingIPNotFound", floating_network_id=public, port_id=alone["id"])
    double = cloud.make(
        "port", network_id=way["net"]["id"], fixed_ips=[{"ip_address": "10.0.0.8"}, {"ip_address": "10.0.0.9"}]
    )
    refused(400, "BadRequest", floating_network_id=public, port_id=double["id"])
    made = cloud.make("floatingip", floating_network_id=public, port_id=double["id"], fixed_ip_address="10.0.0.9")
    assert made["fixed_ip_address"] == "10.0.0.9"
    body = {"floatingip": {"fixed_ip_address": "10.0.0.8"}}
    assert cloud.ask("PUT", f"/floatingips/{made['id']}", body).json["floatingip"]["fixed_ip_address"] == "10.0.0.8"
    changed = {"port": {"fixed_ips": [{"ip_address": "10.0.0.9"}]}}
    assert cloud.ask("PUT", f"/ports/{double['id']}", changed).status == 200
    assert cloud.get(f"/floatingips/{made['id']}")["floatingip"]["port_id"] is None
    assert cloud.ask("PUT", "/quotas/p1", {"quota": {"floatingip": 1}}, by=cloud.admin).status == 200
    refused(409, "OverQuota", floating_network_id=public)


def test_the_external_network_runs_out(cloud: Cloud) -> None:
    net = cloud.make("network", by=cloud.admin, **{"router:external": True})
    cloud.make(
        "subnet",
        by=cloud.admin,
        network_id=net["id"],
        cidr="172.24.4.0/24",
        enable_dhcp=False,
        allocation_pools=[{"start": "172.24.4.10", "end": "172.24.4.10"}],
    )
    cloud.make("floatingip", floating_network_id=net["id"])
    body = {"floatingip": {"floating_network_id": net["id"]}}
    cloud.refused(409, "IpAddressGenerationFailure", "POST", "/floatingips", body)
    body = {"router": {"external_gateway_info": {"network_id": net["id"]}}}
    cloud.refused(409, "IpAddressGenerationFailure", "POST", "/routers", body)


def test_router_quota_and_bulk(cloud: Cloud) -> None:
    assert cloud.ask("PUT", "/quotas/p1", {"quota": {"router": 2}}, by=cloud.admin).status == 200
    found = cloud.ask("POST", "/routers", {"routers": [{"name": "a"}, {"name": "b"}]})
    assert [one["name"] for one in found.json["routers"]] == ["a", "b"]
    cloud.refused(409, "OverQuota", "POST", "/routers", {"router": {}})
