"""A server's cards and addresses, given and taken while it is there: through the real edge, link and loops."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.edge import Response
from tests.services.compute.cloud import NEWEST, OTHER, PROJECT, Cloud, Host, at

SERVERS = "/compute/v2.1/servers"


@pytest.fixture
def cloud(database_url: str) -> Iterator[Cloud]:
    with Cloud(database_url) as found:
        found.image()
        found.flavor("1")
        yield found


def attach(cloud: Cloud, server_id: str, version: str = "2.104", **wanted: Any) -> Response:
    body = {"interfaceAttachment": wanted}
    return cloud.member.request("POST", f"{SERVERS}/{server_id}/os-interface", json=body, headers=at(version))


def detach(cloud: Cloud, server_id: str, port_id: str) -> Response:
    return cloud.member.request("DELETE", f"{SERVERS}/{server_id}/os-interface/{port_id}", headers=NEWEST)


def ports(cloud: Cloud, server_id: str) -> list[dict[str, Any]]:
    found = cloud.member.request("GET", f"{SERVERS}/{server_id}/os-interface", headers=NEWEST)
    return list(found.json["interfaceAttachments"])


def port(cloud: Cloud, network_id: str) -> str:
    body = {"port": {"network_id": network_id}}
    return str(cloud.member.request("POST", "/network/v2.0/ports", json=body).json["port"]["id"])


def message(answer: Response) -> str:
    [(_, fault)] = answer.json.items()
    return str(fault["message"])


def running(cloud: Cloud) -> tuple[Host, str, str]:
    """A host, a network, and a server that runs with a card in it."""
    host, network = cloud.host("h1"), cloud.network()
    server_id = cloud.made(networks=[{"uuid": network}])
    cloud.reach(server_id, "ACTIVE")
    return host, network, server_id


def test_cards_come_and_go(cloud: Cloud) -> None:
    host, network, server_id = running(cloud)
    made = attach(cloud, server_id, net_id=network, tag="second")
    assert made.status == 200, made
    found = made.json["interfaceAttachment"]
    assert (found["net_id"], found["tag"], len(found["fixed_ips"])) == (network, "second", 1)
    cloud.wait(lambda: len(host.guests[server_id].nics) == 2)
    assert [one.port_id for one in host.guests[server_id].nics][1] == found["port_id"]
    meta = json.loads(host.guests[server_id].documents["openstack/latest/meta_data.json"])
    assert meta["devices"] == [
        {"type": "nic", "mac": found["mac_addr"], "bus": "none", "address": "none", "tags": ["second"]}
    ]
    shown = cloud.member.request("GET", f"/network/v2.0/ports/{found['port_id']}").json["port"]
    assert (shown["device_id"], shown["device_owner"]) == (server_id, "compute:nova")
    old = cloud.member.request("GET", f"{SERVERS}/{server_id}/os-interface/{found['port_id']}", headers=at("2.69"))
    assert "tag" not in old.json["interfaceAttachment"]
    assert detach(cloud, server_id, found["port_id"]).status == 202
    cloud.wait(lambda: len(host.guests[server_id].nics) == 1)
    assert len(ports(cloud, server_id)) == 1
    assert cloud.member.request("GET", f"/network/v2.0/ports/{found['port_id']}").status == 404
    assert actions(cloud, server_id) == ["detach_interface", "attach_interface", "create"]


def actions(cloud: Cloud, server_id: str) -> list[str]:
    """What was asked of a server, the newest first."""
    path = f"{SERVERS}/{server_id}/os-instance-actions"
    return [one["action"] for one in cloud.member.request("GET", path, headers=NEWEST).json["instanceActions"]]


def test_a_given_port_is_only_lent(cloud: Cloud) -> None:
    host, network, server_id = running(cloud)
    port_id = port(cloud, network)
    assert attach(cloud, server_id, port_id=port_id).json["interfaceAttachment"]["port_id"] == port_id
    again = attach(cloud, server_id, port_id=port_id)
    assert (again.status, "in use" in message(again)) == (409, True)
    cloud.wait(lambda: port_id in {one.port_id for one in host.guests[server_id].nics})
    assert detach(cloud, server_id, port_id).status == 202
    shown = cloud.member.request("GET", f"/network/v2.0/ports/{port_id}").json["port"]
    assert (shown["device_id"], shown["device_owner"], shown["status"]) == ("", "", "DOWN")
    other = cloud.made(networks="none")
    cloud.reach(other, "ACTIVE")
    assert attach(cloud, other, port_id=port_id).status == 200
    cloud.wait(lambda: [one.port_id for one in host.guests[other].nics] == [port_id])


def test_cards_of_a_stopped_server(cloud: Cloud) -> None:
    host, network, server_id = running(cloud)
    cloud.act(server_id, "os-stop")
    cloud.reach(server_id, "SHUTOFF")
    made = attach(cloud, server_id, net_id=network, fixed_ips=[{"ip_address": "10.0.0.77"}])
    assert made.json["interfaceAttachment"]["fixed_ips"][0]["ip_address"] == "10.0.0.77"
    cloud.wait(lambda: len(host.guests[server_id].nics) == 2)
    taken = attach(cloud, server_id, net_id=network, fixed_ips=[{"ip_address": "10.0.0.77"}])
    assert (taken.status, len(ports(cloud, server_id))) == (409, 2)


def test_without_a_name_the_projects_one_network_is_meant(cloud: Cloud) -> None:
    _, _, server_id = running(cloud)
    path = f"{SERVERS}/{server_id}/os-interface"
    assert cloud.member.request("POST", path, json={}, headers=NEWEST).status == 200
    cloud.network("other", "10.1.0.0/24")
    many = cloud.member.request("POST", path, json={}, headers=NEWEST)
    assert (many.status, "Multiple possible networks" in message(many)) == (400, True)


@pytest.mark.parametrize(
    ("wanted", "version", "status"),
    [
        ({"net_id": "N", "port_id": "11111111-0000-4000-8000-000000000000"}, "2.1", 400),
        ({"fixed_ips": [{"ip_address": "10.0.0.5"}]}, "2.1", 400),
        ({"net_id": "N", "fixed_ips": [{"ip_address": "no address"}]}, "2.1", 400),
        ({"net_id": "N", "fixed_ips": [{"ip_address": "192.0.2.5"}]}, "2.1", 400),
        ({"net_id": "N", "fixed_ips": []}, "2.1", 400),
        ({"net_id": "11111111-0000-4000-8000-000000000000"}, "2.1", 404),
        ({"port_id": "11111111-0000-4000-8000-000000000000"}, "2.1", 404),
        ({"net_id": "N", "tag": "x"}, "2.48", 400),
        ({"net_id": "N", "tag": "a/b"}, "2.49", 400),
        ({"net_id": "no uuid"}, "2.1", 400),
        ({"more": 1}, "2.1", 400),
    ],
)
def test_what_is_refused(cloud: Cloud, wanted: dict[str, Any], version: str, status: int) -> None:
    _, network, server_id = running(cloud)
    wanted = {name: network if value == "N" else value for name, value in wanted.items()}
    assert attach(cloud, server_id, version, **wanted).status == status
    assert len(ports(cloud, server_id)) == 1


def test_who_may_not(cloud: Cloud) -> None:
    _, network, server_id = running(cloud)
    path, body = f"{SERVERS}/{server_id}/os-interface", {"interfaceAttachment": {"net_id": network}}
    assert cloud.reader.request("POST", path, json=body).status == 403
    assert cloud.stranger.request("POST", path, json=body).status == 404
    [one] = ports(cloud, server_id)
    assert cloud.stranger.request("DELETE", f"{path}/{one['port_id']}").status == 404
    assert detach(cloud, server_id, "11111111-0000-4000-8000-000000000000").status == 404
    cloud.act(server_id, "lock")
    assert (attach(cloud, server_id, net_id=network).status, detach(cloud, server_id, one["port_id"]).status) == (
        409,
        409,
    )


def test_what_an_admin_attaches_is_the_servers_projects(cloud: Cloud) -> None:
    _, network, server_id = running(cloud)
    admin = cloud.served.client(f"admin:{OTHER}")
    body = {"interfaceAttachment": {"net_id": network}}
    made = admin.request("POST", f"{SERVERS}/{server_id}/os-interface", json=body, headers=NEWEST)
    found = cloud.admin.request("GET", f"/network/v2.0/ports/{made.json['interfaceAttachment']['port_id']}").json
    assert found["port"]["project_id"] == PROJECT


def test_fixed_addresses(cloud: Cloud) -> None:
    _, network, server_id = running(cloud)
    path = f"{SERVERS}/{server_id}/action"

    def act(name: str, body: dict[str, str], version: str = "2.43") -> Response:
        return cloud.member.request("POST", path, json={name: body}, headers=at(version))

    [first] = [one["ip_address"] for one in ports(cloud, server_id)[0]["fixed_ips"]]
    assert act("addFixedIp", {"networkId": network}).status == 202
    both = [one["ip_address"] for one in ports(cloud, server_id)[0]["fixed_ips"]]
    assert (both[0], len(both)) == (first, 2)
    assert act("removeFixedIp", {"address": first}).status == 202
    assert [one["ip_address"] for one in ports(cloud, server_id)[0]["fixed_ips"]] == both[1:]
    assert actions(cloud, server_id) == ["create"], "upstream keeps none of these"
    assert act("removeFixedIp", {"address": first}).status == 400
    assert act("removeFixedIp", {"address": "nothing"}).status == 400
    assert act("addFixedIp", {"networkId": "11111111-0000-4000-8000-000000000000"}).status == 404
    assert act("addFixedIp", {"networkId": network}, "2.44").status in (400, 404)


def test_floating_addresses(cloud: Cloud) -> None:
    host, network, server_id = running(cloud)
    outer = cloud.admin.request(
        "POST", "/network/v2.0/networks", json={"network": {"name": "public", "router:external": True}}
    ).json["network"]["id"]
    subnet = {"network_id": outer, "cidr": "203.0.113.0/24", "ip_version": 4}
    assert cloud.admin.request("POST", "/network/v2.0/subnets", json={"subnet": subnet}).status == 201
    made = cloud.member.request(
        "POST", "/network/v2.0/floatingips", json={"floatingip": {"floating_network_id": outer}}
    )
    floating = made.json["floatingip"]["floating_ip_address"]
    path = f"{SERVERS}/{server_id}/action"

    def act(name: str, body: dict[str, str], version: str = "2.43") -> Response:
        return cloud.member.request("POST", path, json={name: body}, headers=at(version))

    unreachable = act("addFloatingIp", {"address": floating})
    assert (unreachable.status, "Unable to associate" in message(unreachable)) == (400, True)
    body = {"router": {"external_gateway_info": {"network_id": outer}}}
    router = cloud.member.request("POST", "/network/v2.0/routers", json=body).json["router"]["id"]
    [inner] = cloud.member.request("GET", f"/network/v2.0/subnets?network_id={network}").json["subnets"]
    leg = cloud.member.request(
        "PUT", f"/network/v2.0/routers/{router}/add_router_interface", json={"subnet_id": inner["id"]}
    )
    assert leg.status == 200, leg
    wrong = act("addFloatingIp", {"address": floating, "fixed_address": "10.0.0.250"})
    assert (wrong.status, message(wrong)) == (400, "Specified fixed address not assigned to instance")
    assert act("addFloatingIp", {"address": "203.0.113.250"}).status == 404
    assert act("removeFloatingIp", {"address": floating}).status == 409
    assert act("addFloatingIp", {"address": floating}).status == 202
    kinds = {one["OS-EXT-IPS:type"]: one["addr"] for one in cloud.show(server_id)["addresses"]["net"]}
    assert kinds["floating"] == floating
    cloud.wait(lambda: host.guests[server_id].documents["latest/meta-data/public-ipv4"].decode() == floating)
    assert act("removeFloatingIp", {"address": floating}).status == 202
    assert len(cloud.show(server_id)["addresses"]["net"]) == 1
    assert act("addFloatingIp", {"address": floating}, "2.44").status in (400, 404)


def test_acts_of_networking_that_are_left(cloud: Cloud) -> None:
    _, _, server_id = running(cloud)
    assert cloud.act(server_id, "injectNetworkInfo", client=cloud.admin).status == 202
    assert cloud.act(server_id, "injectNetworkInfo").status == 403
    assert actions(cloud, server_id) == ["create"]
    gone = cloud.act(server_id, "resetNetwork", client=cloud.admin)
    assert (gone.status, list(gone.json)) == (410, ["computeFault"])
    early = cloud.admin.request("GET", SERVERS, headers=at("2.999"))
    assert (early.status, list(early.json)) == (406, ["computeFault"])
