"""Metering labels, agents, and how many addresses are in use, through the real edge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.services.network.cloud import Cloud

UNKNOWN = "11111111-2222-4333-8444-555555555555"
LABELS, RULES = "/metering/metering-labels", "/metering/metering-label-rules"


@pytest.fixture
def cloud(database_url: str) -> Iterator[Cloud]:
    with Cloud(database_url, loops=False) as cloud:
        yield cloud


def make_label(cloud: Cloud, by: Any = None, **values: Any) -> Any:
    found = cloud.ask("POST", LABELS, {"metering_label": values}, by=by or cloud.manager)
    assert found.status == 201, found
    return found.json["metering_label"]


def make_rule(cloud: Cloud, label: Any, by: Any = None, **values: Any) -> Any:
    body = {"metering_label_id": label["id"], "direction": "ingress", **values}
    return cloud.ask("POST", RULES, {"metering_label_rule": body}, by=by or cloud.manager)


def test_a_label_lives_and_goes_with_its_rules(cloud: Cloud) -> None:
    label = make_label(cloud, name="web", description="d" * 1024)
    expected = {"name": "web", "description": "d" * 1024, "shared": False, "project_id": "p1", "tenant_id": "p1"}
    assert label == {"id": label["id"], **expected}
    made = make_rule(cloud, label, remote_ip_prefix="10.0.0.7/24").json["metering_label_rule"]
    assert made == {
        "id": made["id"],
        "metering_label_id": label["id"],
        "direction": "ingress",
        "excluded": False,
        "remote_ip_prefix": "10.0.0.0/24",
        "source_ip_prefix": None,
        "destination_ip_prefix": None,
    }
    both = make_rule(cloud, label, source_ip_prefix="fd02::/64", destination_ip_prefix="fd03::/64", excluded=True)
    assert both.json["metering_label_rule"]["source_ip_prefix"] == "fd02::/64"
    assert cloud.get(f"{LABELS}/{label['id']}", by=cloud.reader)["metering_label"] == label
    assert cloud.get(f"{LABELS}?name=web")["metering_labels"] == [label]
    assert cloud.get(f"{LABELS}?id=33")["metering_labels"] == []
    assert cloud.get(f"{RULES}/{made['id']}")["metering_label_rule"] == made
    assert cloud.get(f"{RULES}?excluded=false")["metering_label_rules"] == [made]
    assert cloud.ask("DELETE", f"{RULES}/{made['id']}", by=cloud.manager).status == 204
    cloud.refused(404, "MeteringLabelRuleNotFound", "GET", f"{RULES}/{made['id']}")
    assert cloud.ask("DELETE", f"{LABELS}/{label['id']}", by=cloud.manager).status == 204
    cloud.refused(404, "MeteringLabelNotFound", "GET", f"{LABELS}/{label['id']}")
    assert cloud.get(RULES)["metering_label_rules"] == []


def test_rules_that_cannot_be_are_refused(cloud: Cloud) -> None:
    label = make_label(cloud)
    for values in (
        {},
        {"remote_ip_prefix": "nowhere"},
        {"remote_ip_prefix": "10.0.0.0/8", "source_ip_prefix": "10.0.0.0/8"},
        {"remote_ip_prefix": "10.0.0.0/8", "direction": "sideways"},
    ):
        assert make_rule(cloud, label, **values).status == 400, values
    assert make_rule(cloud, {"id": UNKNOWN}, remote_ip_prefix="10.0.0.0/8").status == 404


def test_labels_are_made_by_managers_and_seen_by_their_project(cloud: Cloud) -> None:
    label = make_label(cloud)
    rule = make_rule(cloud, label, remote_ip_prefix="10.0.0.0/8").json["metering_label_rule"]
    cloud.refused(403, "PolicyNotAuthorized", "POST", LABELS, {"metering_label": {"name": "x"}})
    assert make_rule(cloud, label, by=cloud.member, remote_ip_prefix="10.0.0.0/8").status == 403
    for path, kind in ((f"{LABELS}/{label['id']}", "MeteringLabelNotFound"), (f"{RULES}/{rule['id']}", "")):
        cloud.refused(403, "PolicyNotAuthorized", "DELETE", path)
        cloud.refused(404, kind or "MeteringLabelRuleNotFound", "GET", path, by=cloud.stranger)
        assert cloud.ask("GET", path, by=cloud.admin).status == 200
    assert cloud.get(LABELS, by=cloud.stranger)["metering_labels"] == []
    assert cloud.get(RULES, by=cloud.stranger)["metering_label_rules"] == []


def test_addresses_in_use_are_counted(cloud: Cloud) -> None:
    net, subnet = cloud.net("10.0.0.0/28")
    cloud.make("subnet", network_id=net["id"], cidr="fd00::/64", ip_version=6)
    empty = cloud.make("network", name="empty")
    cloud.make("port", network_id=net["id"], fixed_ips=[{"subnet_id": subnet["id"]}])
    path = "/network-ip-availabilities"
    shown = cloud.get(f"{path}/{net['id']}", by=cloud.admin)["network_ip_availability"]
    four, six = shown["subnet_ip_availability"]
    assert (four["cidr"], four["total_ips"], four["used_ips"]) == ("10.0.0.0/28", 13, 2)
    assert (six["total_ips"], six["used_ips"]) == (2**64 - 2, 1)
    assert (shown["total_ips"], shown["used_ips"], shown["project_id"]) == (2**64 + 11, 3, "p1")
    found = cloud.get(path, by=cloud.admin)["network_ip_availabilities"]
    assert [one["network_id"] for one in found] == [net["id"], empty["id"]]
    [found] = cloud.get(f"{path}?ip_version=4&project_id=p1", by=cloud.admin)["network_ip_availabilities"]
    assert found["total_ips"] == 13
    assert cloud.get(path)["network_ip_availabilities"] == []
    for by, key in ((cloud.member, net["id"]), (cloud.admin, UNKNOWN)):
        cloud.refused(404, "NetworkNotFound", "GET", f"{path}/{key}", by=by)


def test_pools_of_floating_ips_are_subnets_of_external_networks(cloud: Cloud) -> None:
    net, subnet = cloud.public()
    cloud.net()
    [pool] = cloud.get("/floatingip_pools", by=cloud.reader)["floatingip_pools"]
    assert (pool["subnet_id"], pool["network_id"], pool["cidr"]) == (subnet["id"], net["id"], "172.24.4.0/24")
    assert (pool["subnet_name"], pool["project_id"], pool["tenant_id"]) == ("", "adm", "adm")
    assert cloud.get("/floatingip_pools?cidr=172.24.4.0/24")["floatingip_pools"] == [pool]
    assert cloud.get("/floatingip_pools?cidr=10.0.0.0/24")["floatingip_pools"] == []
    service = cloud.served.client("service:services")
    cloud.refused(403, "Forbidden", "GET", "/floatingip_pools", by=service)


def test_each_host_has_an_agent(cloud: Cloud) -> None:
    assert cloud.get("/agents", by=cloud.admin)["agents"] == []
    host_id = cloud.host("alpha")
    [shown] = cloud.get("/agents", by=cloud.admin)["agents"]
    assert (shown["id"], shown["host"], shown["binary"], shown["alive"]) == (host_id, "alpha", "pileus-agent", True)
    assert shown["configurations"] == {"packet_filter": "fake"}
    assert cloud.get(f"/agents/{host_id}", by=cloud.admin)["agent"] == shown
    for query, amount in (("host=alpha", 1), ("host=beta", 0), ("alive=true", 1), ("alive=false", 0)):
        assert len(cloud.get(f"/agents?{query}", by=cloud.admin)["agents"]) == amount, query
    assert cloud.get("/agents")["agents"] == []
    cloud.refused(404, "AgentNotFound", "GET", f"/agents/{host_id}")
    cloud.refused(404, "AgentNotFound", "GET", f"/agents/{UNKNOWN}", by=cloud.admin)
