"""What hosts are told, and what is made of what they say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pileus.core.reconcile import Again
from pileus.services.network import interface
from pileus.services.network.controllers import group
from pileus.services.network.controllers.group import MemberController
from tests.services.network.cloud import Cloud


@pytest.fixture
def cloud(database_url: str) -> Iterator[Cloud]:
    with Cloud(database_url) as cloud:
        yield cloud


class Entry:
    """An entry of a server create's `networks`."""

    def __init__(self, uuid: str | None = None, port: str | None = None, fixed_ip: str | None = None) -> None:
        self.uuid, self.port, self.fixed_ip = uuid, port, fixed_ip


def boot(cloud: Cloud, device: str, net: Any, host_id: str | None = None, groups: list[str] | None = None) -> str:
    """A server's port, bound to a host; its id."""

    def work(ctx: Any) -> str:
        requests = interface.requested(ctx, [Entry(net["id"])])
        ids = interface.create_ports(
            ctx,
            requests,
            device_id=device,
            device_owner="compute:nova",
            security_groups=groups or [],
            hostname=f"name-{device}",
        )
        if host_id is not None:
            interface.bind_ports(ctx.tx, [device], host_id)
        return ids[0]

    found = cloud.within(work)
    cloud.settle()
    return found


def test_a_bound_port_brings_its_network_and_groups(cloud: Cloud) -> None:
    host_id = cloud.host("one")
    net, _ = cloud.net()
    assert cloud.everything(host_id) == set()
    port_id = boot(cloud, "server-1", net, host_id)
    default = cloud.get("/security-groups")["security_groups"][0]
    assert cloud.everything(host_id) == {
        ("network", net["id"]),
        ("port", port_id),
        ("security_group", default["id"]),
    }
    port = cloud.held(host_id, "port")[port_id]
    shown = cloud.get(f"/ports/{port_id}", by=cloud.admin)["port"]
    assert port.mac_address == shown["mac_address"]
    assert [one.ip_address for one in port.fixed_ips] == ["10.0.0.3"]
    assert port.hostname == "name-server-1"
    assert port.guest_id == "server-1"
    assert port.security_groups == (default["id"],)
    assert shown["binding:host_id"] == "one"
    assert shown["binding:vif_type"] == "bridge"
    told = cloud.held(host_id, "network")[net["id"]]
    dhcp = cloud.get("/ports?device_owner=network:dhcp")["ports"][0]
    assert told.dhcp_mac == dhcp["mac_address"]
    assert told.subnets[0].dhcp_address == "10.0.0.2"
    assert not told.subnets[0].routed
    assert not told.external
    group = cloud.held(host_id, "security_group")[default["id"]]
    assert group.members == ("10.0.0.3",)
    assert {(rule.direction, rule.ethertype, rule.remote_group_id) for rule in group.rules} == {
        ("egress", "IPv4", None),
        ("egress", "IPv6", None),
        ("ingress", "IPv4", default["id"]),
        ("ingress", "IPv6", default["id"]),
    }
    assert cloud.ask("DELETE", f"/ports/{dhcp['id']}").status == 204
    cloud.settle()
    [another] = cloud.get("/ports?device_owner=network:dhcp")["ports"]
    told = cloud.held(host_id, "network")[net["id"]]
    assert (told.dhcp_mac, told.subnets[0].dhcp_address) == (
        another["mac_address"],
        another["fixed_ips"][0]["ip_address"],
    )


def test_a_port_becomes_active_when_its_host_says_so(cloud: Cloud) -> None:
    host_id = cloud.host("one")
    net, _ = cloud.net()
    port_id = boot(cloud, "server-1", net)
    assert cloud.get(f"/ports/{port_id}")["port"]["status"] == "DOWN"
    cloud.write(lambda tx: interface.bind_ports(tx, ["server-1"], host_id))
    cloud.settle()
    assert cloud.get(f"/ports/{port_id}")["port"]["status"] == "BUILD"
    cloud.say(host_id)
    assert cloud.get(f"/ports/{port_id}")["port"]["status"] == "ACTIVE"
    assert [one["status"] for one in cloud.get("/ports?device_owner=network:dhcp")["ports"]] == ["ACTIVE"]
    cloud.say(host_id, "failed", only=[port_id], permanent=True)
    assert cloud.get(f"/ports/{port_id}")["port"]["status"] == "ERROR"
    cloud.say(host_id)
    assert cloud.ask("PUT", f"/ports/{port_id}", {"port": {"admin_state_up": False}}).status == 200
    cloud.settle()
    assert cloud.held(host_id, "port")[port_id].admin_state_up is False
    cloud.say(host_id)
    assert cloud.get(f"/ports/{port_id}")["port"]["status"] == "DOWN"
    assert cloud.get("/ports?status=DOWN")["ports"][0]["id"] == port_id


def test_the_last_port_takes_everything_with_it(cloud: Cloud) -> None:
    host_id = cloud.host("one")
    net, _ = cloud.net()
    first, second = boot(cloud, "server-1", net, host_id), boot(cloud, "server-2", net, host_id)
    cloud.write(lambda tx: interface.release_ports(tx, ["server-1"]))
    cloud.settle()
    assert set(cloud.held(host_id, "port")) == {second}
    assert set(cloud.held(host_id, "network")) == {net["id"]}
    cloud.write(lambda tx: interface.release_ports(tx, ["server-2"]))
    cloud.settle()
    assert cloud.everything(host_id) == set()
    cloud.say(host_id)
    assert cloud.generations() == {}
    assert cloud.ask("GET", f"/ports/{first}").status == 404
    assert cloud.get("/quotas/p1/details")["quota"]["port"]["used"] == 0


def test_a_user_port_is_given_back(cloud: Cloud) -> None:
    host_id = cloud.host("one")
    net, _ = cloud.net()
    port = cloud.make("port", network_id=net["id"], name="mine")

    def work(ctx: Any) -> list[str]:
        requests = interface.requested(ctx, [Entry(port=port["id"])])
        ids = interface.create_ports(ctx, requests, device_id="server-1", device_owner="compute:nova", hostname="x")
        interface.bind_ports(ctx.tx, ["server-1"], host_id)
        return ids

    assert cloud.within(work) == [port["id"]]
    cloud.settle()
    assert set(cloud.held(host_id, "port")) == {port["id"]}
    with pytest.raises(Exception, match="still in use"):
        cloud.within(work)
    cloud.write(lambda tx: interface.release_ports(tx, ["server-1"]))
    cloud.settle()
    assert cloud.everything(host_id) == set()
    shown = cloud.get(f"/ports/{port['id']}", by=cloud.admin)["port"]
    assert (shown["device_id"], shown["device_owner"], shown["binding:host_id"]) == ("", "", "")
    assert shown["fixed_ips"] == port["fixed_ips"]


def test_a_port_that_moves_leaves_its_old_host(cloud: Cloud) -> None:
    one, two = cloud.host("one"), cloud.host("two")
    net, _ = cloud.net()
    port_id = boot(cloud, "server-1", net, one)
    cloud.write(lambda tx: interface.bind_ports(tx, ["server-1"], two))
    cloud.settle()
    assert cloud.everything(one) == set()
    assert {kind for kind, _ in cloud.everything(two)} == {"network", "port", "security_group"}
    cloud.write(lambda tx: interface.unbind_ports(tx, ["server-1"]))
    cloud.settle()
    assert cloud.everything(two) == set()
    assert cloud.get(f"/ports/{port_id}")["port"]["status"] == "DOWN"


def test_a_port_costs_nothing_for_its_neighbours(cloud: Cloud) -> None:
    host_id = cloud.host("one")
    net, _ = cloud.net()
    group = cloud.make("security_group", name="plain")
    boot(cloud, "server-1", net, host_id, ["plain"])
    before = cloud.generations()
    boot(cloud, "server-2", net, host_id, ["plain"])
    after = cloud.generations()
    assert {key: after[key] for key in before} == before
    assert len(after) == len(before) + 1
    assert cloud.held(host_id, "security_group")[group["id"]].members == ()


def test_remote_groups_come_with_the_groups_that_name_them(cloud: Cloud) -> None:
    one, two = cloud.host("one"), cloud.host("two")
    net, _ = cloud.net()
    web, client = cloud.make("security_group", name="web"), cloud.make("security_group", name="client")
    boot(cloud, "server-1", net, one, ["web"])
    boot(cloud, "server-2", net, two, ["client"])
    assert set(cloud.held(one, "security_group")) == {web["id"]}
    rule = cloud.make(
        "security_group_rule",
        security_group_id=web["id"],
        direction="ingress",
        protocol="tcp",
        port_range_min=80,
        port_range_max=80,
        remote_group_id=client["id"],
    )
    cloud.settle()
    assert set(cloud.held(one, "security_group")) == {web["id"], client["id"]}
    assert cloud.held(one, "security_group")[client["id"]].members == ("10.0.0.4",)
    assert cloud.held(two, "security_group")[client["id"]].members == ("10.0.0.4",)
    assert set(cloud.held(two, "security_group")) == {client["id"]}
    boot(cloud, "server-3", net, two, ["client"])
    assert cloud.held(one, "security_group")[client["id"]].members == ("10.0.0.4", "10.0.0.5")
    boot(cloud, "server-4", net, one, ["web"])
    assert cloud.ask("DELETE", f"/security-group-rules/{rule['id']}").status == 204
    cloud.settle()
    assert set(cloud.held(one, "security_group")) == {web["id"]}
    assert cloud.held(two, "security_group")[client["id"]].members == ()
    spare = cloud.make("security_group", name="spare")
    before = cloud.held(one, "security_group")[web["id"]].rules
    cloud.make("security_group_rule", security_group_id=web["id"], direction="ingress", remote_group_id=spare["id"])
    cloud.settle()
    assert set(cloud.held(one, "security_group")) == {web["id"], spare["id"]}
    assert cloud.ask("DELETE", f"/security-groups/{spare['id']}").status == 204
    cloud.settle()
    assert set(cloud.held(one, "security_group")) == {web["id"]}
    assert cloud.held(one, "security_group")[web["id"]].rules == before


def test_groups_of_a_device(cloud: Cloud) -> None:
    host_id = cloud.host("one")
    net, _ = cloud.net()
    web = cloud.make("security_group", name="web", description="d")
    port_id = boot(cloud, "server-1", net, host_id)
    cloud.within(lambda ctx: interface.add_group(ctx, "server-1", "web"))
    cloud.settle()
    assert web["id"] in cloud.held(host_id, "port")[port_id].security_groups
    assert web["id"] in cloud.held(host_id, "security_group")
    found = cloud.write(lambda tx: interface.groups_of(tx, "server-1"))
    assert [one["name"] for one in found] == ["default", "web"]
    assert found[0]["rules"][0]["group"] == {"name": "default", "tenant_id": "p1"}
    cloud.within(lambda ctx: interface.remove_group(ctx, "server-1", "default"))
    cloud.settle()
    assert cloud.held(host_id, "port")[port_id].security_groups == (web["id"],)
    assert set(cloud.held(host_id, "security_group")) == {web["id"]}
    with pytest.raises(Exception, match="not associated"):
        cloud.within(lambda ctx: interface.remove_group(ctx, "server-1", "default"))
    with pytest.raises(Exception, match="not found"):
        cloud.within(lambda ctx: interface.add_group(ctx, "server-1", "nonsense"))


def test_a_network_that_changes_is_told(cloud: Cloud) -> None:
    host_id = cloud.host("one")
    net, subnet = cloud.net()
    boot(cloud, "server-1", net, host_id)
    assert cloud.ask("PUT", f"/networks/{net['id']}", {"network": {"mtu": 1400}}).status == 200
    change = {
        "subnet": {
            "dns_nameservers": ["9.9.9.9"],
            "host_routes": [{"destination": "10.9.0.0/16", "nexthop": "10.0.0.9"}],
        }
    }
    assert cloud.ask("PUT", f"/subnets/{subnet['id']}", change).status == 200
    cloud.settle()
    told = cloud.held(host_id, "network")[net["id"]]
    assert told.mtu == 1400
    assert told.subnets[0].dns_nameservers == ("9.9.9.9",)
    assert told.subnets[0].host_routes[0].nexthop == "10.0.0.9"
    assert cloud.ask("PUT", f"/subnets/{subnet['id']}", {"subnet": {"enable_dhcp": False}}).status == 200
    cloud.settle()
    told = cloud.held(host_id, "network")[net["id"]]
    assert not told.subnets[0].enable_dhcp
    assert told.subnets[0].dhcp_address is None
    assert cloud.get("/ports?device_owner=network:dhcp")["ports"] == []


def test_a_router_is_on_one_host_with_all_its_networks(cloud: Cloud) -> None:
    public, outer = cloud.public()
    net, subnet = cloud.net()
    second, second_subnet = cloud.net("10.1.0.0/24")
    router = cloud.make("router", name="r", external_gateway_info={"network_id": public["id"]})
    assert router["status"] == "BUILD"
    leg = cloud.leg(router, subnet)
    cloud.leg(router, second_subnet)
    one = cloud.host("one")
    two = cloud.host("two")
    cloud.loops.queues["network.router"].add(router["id"])  # type: ignore[union-attr] # as its timer does
    cloud.settle()
    assert cloud.everything(two) == set()
    assert cloud.everything(one) == {
        ("network", public["id"]),
        ("network", net["id"]),
        ("network", second["id"]),
        ("router", router["id"]),
    }
    assert cloud.held(one, "network")[public["id"]].external
    assert cloud.held(one, "network")[net["id"]].subnets[0].routed
    told = cloud.held(one, "router")[router["id"]]
    assert {each.addresses for each in told.interfaces} == {("10.0.0.1/24",), ("10.1.0.1/24",)}
    assert told.gateway.addresses == ("172.24.4.2/24",)
    assert told.gateway_nexthops == (outer["gateway_ip"],)
    assert told.enable_snat
    cloud.say(one)
    assert cloud.get(f"/routers/{router['id']}")["router"]["status"] == "ACTIVE"
    shown = cloud.get(f"/ports/{leg['port_id']}", by=cloud.admin)["port"]
    assert (shown["status"], shown["binding:host_id"]) == ("ACTIVE", "one")
    boot(cloud, "server-1", net, two)
    assert cloud.held(two, "network").keys() == {net["id"]}
    assert cloud.get(f"/ports/{leg['port_id']}", by=cloud.admin)["port"]["binding:host_id"] == "one"


def test_a_floating_ip_is_active_once_its_router_has_it(cloud: Cloud) -> None:
    host_id = cloud.host("one")
    public, _ = cloud.public()
    net, subnet = cloud.net()
    router = cloud.make("router", external_gateway_info={"network_id": public["id"]})
    cloud.leg(router, subnet)
    port_id = boot(cloud, "server-1", net, host_id)
    cloud.say(host_id)
    floating = cloud.make("floatingip", floating_network_id=public["id"], port_id=port_id)
    assert floating["status"] == "DOWN"
    cloud.settle()
    told = cloud.held(host_id, "router")[router["id"]].floating_ips
    assert [(one.floating_ip_address, one.fixed_ip_address) for one in told] == [
        (floating["floating_ip_address"], "10.0.0.3")
    ]
    assert cloud.get(f"/floatingips/{floating['id']}")["floatingip"]["status"] == "DOWN"
    cloud.say(host_id)
    assert cloud.get(f"/floatingips/{floating['id']}")["floatingip"]["status"] == "ACTIVE"
    info = cloud.write(lambda tx: interface.ports_of(tx, ["server-1"]))["server-1"][0]
    assert info.addresses[0].floating_ip_address == floating["floating_ip_address"]
    assert cloud.ask("PUT", f"/floatingips/{floating['id']}", {"floatingip": {"port_id": None}}).status == 200
    cloud.settle()
    assert cloud.held(host_id, "router")[router["id"]].floating_ips == ()


def test_the_leg_of_a_router_that_is_switched_off_is_in_place(cloud: Cloud) -> None:
    host_id = cloud.host("one")
    _, subnet = cloud.net()
    router = cloud.make("router", admin_state_up=False)
    leg = cloud.leg(router, subnet)
    cloud.settle()
    assert cloud.get(f"/ports/{leg['port_id']}")["port"]["status"] != "ACTIVE"
    cloud.say(host_id)
    assert cloud.get(f"/ports/{leg['port_id']}")["port"]["status"] == "ACTIVE"
    assert cloud.get(f"/routers/{router['id']}")["router"]["status"] == "DOWN"


def test_a_router_without_legs_is_let_go(cloud: Cloud) -> None:
    host_id = cloud.host("one")
    net, subnet = cloud.net()
    router = cloud.make("router")
    assert router["status"] == "ACTIVE"
    leg = cloud.leg(router, subnet)
    cloud.settle()
    assert cloud.everything(host_id) == {("network", net["id"]), ("router", router["id"])}
    found = cloud.ask("PUT", f"/routers/{router['id']}/remove_router_interface", {"port_id": leg["port_id"]})
    assert found.status == 200
    cloud.settle()
    assert cloud.everything(host_id) == set()
    cloud.say(host_id)
    assert cloud.get(f"/routers/{router['id']}")["router"]["status"] == "ACTIVE"
    assert cloud.ask("DELETE", f"/routers/{router['id']}").status == 204


def test_a_router_with_a_gateway_is_deleted_whole(cloud: Cloud) -> None:
    host_id = cloud.host("one")
    public, _ = cloud.public()
    router = cloud.make("router", external_gateway_info={"network_id": public["id"]})
    cloud.settle()
    assert cloud.everything(host_id) == {("network", public["id"]), ("router", router["id"])}
    assert cloud.ask("DELETE", f"/routers/{router['id']}").status == 204
    cloud.settle()
    assert cloud.everything(host_id) == set()
    assert cloud.get("/ports", by=cloud.admin)["ports"] == []


def test_lost_signals_are_made_up_for(database_url: str) -> None:
    with Cloud(database_url, loops=False) as quiet:
        host_id = quiet.host("one")
        quiet.net()

        def work(ctx: Any) -> None:
            requests = interface.requested(ctx, None)
            interface.create_ports(ctx, requests, device_id="server-1", device_owner="compute:nova")
            interface.bind_ports(ctx.tx, ["server-1"], host_id)

        quiet.within(work)
        assert quiet.everything(host_id) == set()
    with Cloud(database_url) as cloud:
        cloud.wait(lambda: {kind for kind, _ in cloud.everything(host_id)} == {"network", "port", "security_group"})
    with Cloud(database_url, loops=False) as quiet:
        quiet.write(lambda tx: interface.release_ports(tx, ["server-1"]))
        assert len(quiet.everything(host_id)) == 3
    with Cloud(database_url) as cloud:
        cloud.wait(lambda: cloud.everything(host_id) == set())


def test_ipv6_legs_advertise(cloud: Cloud) -> None:
    host_id = cloud.host("one")
    net = cloud.make("network")
    subnet = cloud.make(
        "subnet",
        network_id=net["id"],
        cidr="fd00:1::/64",
        ip_version=6,
        ipv6_ra_mode="slaac",
        ipv6_address_mode="slaac",
    )
    router = cloud.make("router")
    cloud.leg(router, subnet)
    cloud.settle()
    told = cloud.held(host_id, "router")[router["id"]]
    assert told.interfaces[0].addresses == ("fd00:1::1/64",)
    assert [one.id for one in told.interfaces[0].advertise] == [subnet["id"]]
    assert cloud.held(host_id, "network")[net["id"]].subnets[0].routed


def test_a_group_of_many_hosts_rests_between_two_tellings(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    host_id = cloud.host("one")
    net, _ = cloud.net()
    named = cloud.make("security_group", name="named")
    rule = {"security_group_id": named["id"], "direction": "ingress", "remote_group_id": named["id"]}
    cloud.make("security_group_rule", **rule)
    boot(cloud, "server-1", net, host_id, ["named"])
    controller, key = MemberController(), named["id"]
    monkeypatch.setattr(group, "FEW", 0)
    monkeypatch.setattr(group, "SHARE", 600.0)
    assert cloud.write(lambda tx: controller.work(tx, [key])) == {}
    resting = cloud.write(lambda tx: controller.work(tx, [key]))[key]
    assert isinstance(resting, Again)
    assert 500 < resting.after <= 600
    assert cloud.write(lambda tx: controller.work(tx, ["another"])) == {}
    monkeypatch.setattr(group, "SHARE", 0.0)
    controller = MemberController()
    for _ in range(2):
        assert cloud.write(lambda tx: controller.work(tx, [key])) == {}


def test_a_group_that_few_hosts_hold_never_rests() -> None:
    assert group.rest(group.FEW) == 0
    assert 9 < group.rest(group.FEW + 1000) < 11
