"""Topologies that are made when they are asked for, through the edge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.services.network.cloud import Cloud

PATH = "/auto-allocated-topology"


@pytest.fixture
def cloud(database_url: str) -> Iterator[Cloud]:
    with Cloud(database_url, loops=False) as cloud:
        yield cloud


def prepare(cloud: Cloud) -> Any:
    """A default external network with a subnet, and default pools; the network."""
    net, _ = cloud.public()
    found = cloud.ask("PUT", f"/networks/{net['id']}", {"network": {"is_default": True}}, by=cloud.admin)
    assert found.json["network"]["is_default"] is True
    for prefix, length in (("10.64.0.0/16", 24), ("fd00:64::/48", 64)):
        values = {"prefixes": [prefix], "default_prefixlen": length, "is_default": True, "shared": True}
        cloud.make("subnetpool", by=cloud.admin, name="auto", **values)
    return net


def test_a_topology_is_made_once_and_goes_whole(cloud: Cloud) -> None:
    public = prepare(cloud)
    cloud.get("/security-groups")  # the default group is there from then on
    before = {name: one["used"] for name, one in cloud.get("/quotas/p1/details")["quota"].items()}
    made = cloud.get(f"{PATH}/p1")["auto_allocated_topology"]
    assert made == {"id": made["id"], "project_id": "p1", "tenant_id": "p1"}
    assert cloud.get(f"{PATH}/None")["auto_allocated_topology"] == made
    assert cloud.get(f"{PATH}/p1", by=cloud.reader)["auto_allocated_topology"] == made
    assert cloud.get(f"{PATH}/p1", by=cloud.admin)["auto_allocated_topology"] == made
    net = cloud.get(f"/networks/{made['id']}")["network"]
    assert (net["name"], net["admin_state_up"], net["project_id"]) == ("auto_allocated_network", True, "p1")
    subnets = cloud.get(f"/subnets?network_id={net['id']}")["subnets"]
    assert {one["name"]: one["cidr"] for one in subnets} == {
        "auto_allocated_subnet_v4": "10.64.0.0/24",
        "auto_allocated_subnet_v6": "fd00:64::/64",
    }
    [router] = cloud.get("/routers")["routers"]
    assert router["name"] == "auto_allocated_router"
    assert router["external_gateway_info"]["network_id"] == public["id"]
    legs = cloud.get(f"/ports?device_id={router['id']}&network_id={net['id']}")["ports"]
    assert {one["fixed_ips"][0]["subnet_id"] for one in legs} == {one["id"] for one in subnets}
    cloud.make("port", network_id=net["id"])
    cloud.refused(409, "NetworkInUse", "DELETE", f"{PATH}/p1")
    [router] = cloud.get("/routers")["routers"]  # all of it is as it was
    for one in cloud.get(f"/ports?network_id={net['id']}&device_owner=")["ports"]:
        assert cloud.ask("DELETE", f"/ports/{one['id']}").status == 204
    assert cloud.ask("DELETE", f"{PATH}/p1").status == 204
    assert cloud.get("/routers")["routers"] == []
    cloud.refused(404, "NetworkNotFound", "GET", f"/networks/{net['id']}")
    after = {name: one["used"] for name, one in cloud.get("/quotas/p1/details")["quota"].items()}
    assert after == before
    assert cloud.ask("DELETE", f"{PATH}/p1").status == 204
    assert cloud.get(f"{PATH}/p1")["auto_allocated_topology"]["id"] != made["id"]


def test_a_topology_that_was_taken_apart_is_made_anew(cloud: Cloud) -> None:
    prepare(cloud)
    network_id = cloud.get(f"{PATH}/p1")["auto_allocated_topology"]["id"]
    [router] = cloud.get("/routers")["routers"]
    for subnet in cloud.get(f"/subnets?network_id={network_id}")["subnets"]:
        path = f"/routers/{router['id']}/remove_router_interface"
        assert cloud.ask("PUT", path, {"subnet_id": subnet["id"]}).status == 200
    assert cloud.ask("DELETE", f"/routers/{router['id']}").status == 204
    assert cloud.get(f"{PATH}/p1")["auto_allocated_topology"]["id"] == network_id
    assert cloud.ask("DELETE", f"/networks/{network_id}").status == 204
    assert cloud.get(f"{PATH}/p1")["auto_allocated_topology"]["id"] != network_id


def test_what_a_topology_is_made_of_must_be_there(cloud: Cloud) -> None:
    for path in (f"{PATH}/p1", f"{PATH}/p1?fields=dry-run"):
        assert "external network" in cloud.refused(409, "AutoAllocationFailure", "GET", path)
    net, _ = cloud.public()
    assert cloud.ask("PUT", f"/networks/{net['id']}", {"network": {"is_default": True}}, by=cloud.admin).status == 200
    for path in (f"{PATH}/p1", f"{PATH}/p1?fields=dry-run"):
        assert "subnetpools" in cloud.refused(409, "AutoAllocationFailure", "GET", path)
    cloud.make("subnetpool", by=cloud.admin, name="mine", prefixes=["10.64.0.0/16"], is_default=True)
    cloud.refused(409, "AutoAllocationFailure", "GET", f"{PATH}/p1")  # a pool that others do not see is not for them
    values = {"prefixes": ["fd00:64::/48"], "is_default": True, "shared": True}
    every = cloud.make("subnetpool", by=cloud.admin, name="all", **values)
    shown = cloud.get(f"{PATH}/p1?fields=dry-run")["auto_allocated_topology"]
    assert (shown["id"], shown["project_id"]) == ("dry-run=pass", "p1")
    pool = {"subnetpool": {"min_prefixlen": 48, "default_prefixlen": 48}}
    assert cloud.ask("PUT", f"/subnetpools/{every['id']}", pool, by=cloud.admin).status == 200
    cloud.make("subnet", subnetpool_id=every["id"], network_id=cloud.make("network")["id"], ip_version=6)
    assert "prefix" in cloud.refused(409, "AutoAllocationFailure", "GET", f"{PATH}/p1")
    assert cloud.get("/routers")["routers"] == []
    assert cloud.get("/networks?name=auto_allocated_network")["networks"] == []


def test_who_may(cloud: Cloud) -> None:
    prepare(cloud)
    cloud.refused(403, "PolicyNotAuthorized", "GET", f"{PATH}/p1", by=cloud.stranger)
    cloud.refused(403, "PolicyNotAuthorized", "DELETE", f"{PATH}/p1", by=cloud.stranger)
    cloud.refused(403, "PolicyNotAuthorized", "GET", f"{PATH}/p1", by=cloud.reader)  # it may make no network
    cloud.get(f"{PATH}/p1")
    cloud.refused(403, "PolicyNotAuthorized", "DELETE", f"{PATH}/p1", by=cloud.reader)
    assert cloud.get("/networks?name=auto_allocated_network", by=cloud.stranger)["networks"] == []


def test_one_external_network_is_the_default_one(cloud: Cloud) -> None:
    public = prepare(cloud)
    body = {"network": {"name": "more", "router:external": True, "is_default": True}}
    message = cloud.refused(409, "DefaultExternalNetworkExists", "POST", "/networks", body, by=cloud.admin)
    assert public["id"] in message
    other = cloud.make("network", by=cloud.admin, name="more", **{"router:external": True})
    path, body = f"/networks/{other['id']}", {"network": {"is_default": True}}
    cloud.refused(409, "DefaultExternalNetworkExists", "PUT", path, body, by=cloud.admin)
    assert cloud.ask("PUT", f"/networks/{public['id']}", body, by=cloud.admin).status == 200
    off = {"network": {"is_default": False}}
    assert cloud.ask("PUT", f"/networks/{public['id']}", off, by=cloud.admin).status == 200
    assert cloud.ask("PUT", path, body, by=cloud.admin).json["network"]["is_default"] is True
