"""What one project must not do to another's: name it as owner, join its devices, or take an address of everybody's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pileus.core.context import Context
from pileus.services.network import interface
from tests.services.network.cloud import Cloud


@pytest.fixture
def cloud(database_url: str) -> Iterator[Cloud]:
    with Cloud(database_url, loops=False) as cloud:
        yield cloud


def test_nobody_makes_things_for_another_project(cloud: Cloud) -> None:
    net, _ = cloud.net("10.0.0.0/24")
    shared, _ = cloud.net("10.1.0.0/24", by=cloud.admin, shared=True)
    for path, noun, values in (
        ("/ports", "port", {"network_id": net["id"]}),
        ("/ports", "port", {"network_id": shared["id"]}),
        ("/subnets", "subnet", {"network_id": net["id"], "cidr": "10.2.0.0/24", "ip_version": 4}),
        ("/security-groups", "security_group", {"name": "x"}),
        ("/routers", "router", {"name": "x"}),
    ):
        for key in ("project_id", "tenant_id"):
            found = cloud.ask("POST", path, {noun: {**values, key: "p2"}})
            assert found.status == 403, (noun, key, found)
    assert cloud.get("/quotas/p2/details", by=cloud.stranger)["quota"]["port"]["used"] == 0
    own = cloud.make("port", network_id=net["id"], project_id="p1")
    assert own["project_id"] == "p1"


def test_a_port_that_names_anothers_server_is_not_the_servers(cloud: Cloud) -> None:
    cloud.net("10.0.0.0/24")

    def give(ctx: Context) -> None:
        interface.create_ports(ctx, interface.requested(ctx, None), device_id="server-1", device_owner="compute:nova")

    cloud.within(give)
    theirs, _ = cloud.net("10.5.0.0/24", by=cloud.stranger)
    alien = cloud.make(
        "port", by=cloud.stranger, network_id=theirs["id"], device_id="server-1", device_owner="compute:nova"
    )
    found = cloud.store.read_here(lambda tx: interface.ports_of(tx, ["server-1"]))["server-1"]
    assert [one.network_id == theirs["id"] for one in found] == [False]
    assert cloud.store.read_here(lambda tx: tx.all(interface.devices_at(tx, "10.5.%", 4))) == []
    assert cloud.store.read_here(lambda tx: [one["name"] for one in interface.groups_of(tx, "server-1")]) == ["default"]
    cloud.store.write_here(lambda tx: interface.release_ports(tx, ["server-1"]))
    assert cloud.get(f"/ports/{alien['id']}", by=cloud.stranger)["port"]["device_id"] == "server-1"


def test_a_servers_port_cannot_be_moved_to_anothers_server(cloud: Cloud) -> None:
    cloud.net("10.0.0.0/24")

    def give(ctx: Context) -> list[str]:
        return interface.create_ports(
            ctx, interface.requested(ctx, None), device_id="mine", device_owner="compute:nova"
        )

    [port_id] = cloud.within(give)
    cloud.refused(409, "PortInUse", "PUT", f"/ports/{port_id}", {"port": {"device_id": "server-of-another"}})
    same = {"port": {"device_id": "mine", "device_owner": "compute:nova", "name": "x"}}
    assert cloud.ask("PUT", f"/ports/{port_id}", same).status == 200


def test_nobody_makes_a_leg_of_anothers_router(cloud: Cloud) -> None:
    router = cloud.make("router", name="r")
    theirs, _ = cloud.net("10.5.0.0/24", by=cloud.stranger)
    plain = cloud.make("port", by=cloud.stranger, network_id=theirs["id"])
    for kind in ("router_interface", "router_gateway", "dhcp", "floatingip"):
        values = {"device_id": router["id"], "device_owner": f"network:{kind}"}
        body = {"port": {"network_id": theirs["id"], **values}}
        cloud.refused(400, "InvalidInput", "POST", "/ports", body, by=cloud.stranger)
        cloud.refused(400, "InvalidInput", "PUT", f"/ports/{plain['id']}", {"port": values}, by=cloud.stranger)
    own = cloud.make("router", by=cloud.stranger, name="s")
    body = {"port_id": plain["id"]}
    assert cloud.ask("PUT", f"/routers/{own['id']}/add_router_interface", body, by=cloud.stranger).status == 200
    moved = {"port": {"device_id": router["id"]}}
    cloud.refused(400, "InvalidInput", "PUT", f"/ports/{plain['id']}", moved, by=cloud.stranger)
    assert cloud.ask("PUT", f"/ports/{plain['id']}", {"port": {"name": "x"}}, by=cloud.stranger).status == 200
    assert cloud.ask("DELETE", f"/routers/{router['id']}").status == 204


def test_the_gateway_of_a_network_that_is_not_ones_own_is_not_for_the_taking(cloud: Cloud) -> None:
    _, shared = cloud.net("10.1.0.0/24", by=cloud.admin, shared=True)
    _, public = cloud.public()
    router = cloud.make("router", name="r")
    path = f"/routers/{router['id']}/add_router_interface"
    for subnet in (shared, public):
        cloud.refused(400, "BadRequest", "PUT", path, {"subnet_id": subnet["id"]})
    assert cloud.ask("PUT", path, {"subnet_id": shared["id"]}, by=cloud.admin).status == 200


def test_readers_make_no_ports_in_shared_networks(cloud: Cloud) -> None:
    shared, _ = cloud.net("10.1.0.0/24", by=cloud.admin, shared=True)
    body = {"port": {"network_id": shared["id"]}}
    assert cloud.ask("POST", "/ports", body, by=cloud.reader).status == 403
    assert cloud.ask("POST", "/ports", body).status == 201


def test_who_has_no_project_sees_no_ports(cloud: Cloud) -> None:
    public, _ = cloud.public()
    cloud.make("router", name="r", external_gateway_info={"network_id": public["id"]})
    assert len(cloud.get("/ports?device_owner=network:router_gateway", by=cloud.admin)["ports"]) == 1
    for token in ("member@domain:d", "reader@system"):
        assert cloud.get("/ports", by=cloud.served.client(token))["ports"] == []
