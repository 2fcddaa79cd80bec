"""Security groups and their rules through the real edge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.services.network.cloud import Cloud


@pytest.fixture
def cloud(database_url: str) -> Iterator[Cloud]:
    with Cloud(database_url, loops=False) as cloud:
        yield cloud


def test_each_project_has_a_default_group(cloud: Cloud) -> None:
    [default] = cloud.get("/security-groups")["security_groups"]
    assert (default["name"], default["project_id"], default["stateful"]) == ("default", "p1", True)
    found = {
        (one["direction"], one["ethertype"], one["remote_group_id"], one["belongs_to_default_sg"])
        for one in default["security_group_rules"]
    }
    assert found == {
        ("egress", "IPv4", None, True),
        ("egress", "IPv6", None, True),
        ("ingress", "IPv4", default["id"], True),
        ("ingress", "IPv6", default["id"], True),
    }
    assert [one["id"] for one in cloud.get("/security-groups")["security_groups"]] == [default["id"]]
    path = f"/security-groups/{default['id']}"
    cloud.refused(409, "SecurityGroupCannotRemoveDefault", "DELETE", path)
    cloud.refused(409, "SecurityGroupCannotUpdateDefault", "PUT", path, {"security_group": {"name": "x"}})
    assert cloud.ask("PUT", path, {"security_group": {"description": "d"}}).status == 200
    body = {"security_group": {"name": "default"}}
    cloud.refused(409, "SecurityGroupDefaultAlreadyExists", "POST", "/security-groups", body)
    assert cloud.ask("DELETE", path, by=cloud.admin).status == 204
    used = cloud.get("/quotas/p1/details")["quota"]
    assert (used["security_group"]["used"], used["security_group_rule"]["used"]) == (0, 0)


def test_a_group_lives_and_dies(cloud: Cloud) -> None:
    group = cloud.make("security_group", name="g", description="d", stateful=False)
    assert (group["stateful"], group["shared"]) == (False, False)
    assert {(one["direction"], one["ethertype"]) for one in group["security_group_rules"]} == {
        ("egress", "IPv4"),
        ("egress", "IPv6"),
    }
    path = f"/security-groups/{group['id']}"
    found = cloud.ask("PUT", path, {"security_group": {"name": "h"}}).json["security_group"]
    assert (found["name"], found["revision_number"]) == ("h", 1)
    assert [one["name"] for one in cloud.get("/security-groups?name=h")["security_groups"]] == ["h"]
    for method in ("GET", "PUT", "DELETE"):
        body = {"security_group": {"name": "x"}} if method == "PUT" else None
        cloud.refused(404, "SecurityGroupNotFound", method, path, body, by=cloud.stranger)
    assert cloud.ask("DELETE", path, by=cloud.reader).status == 403
    assert cloud.ask("POST", "/security-groups", {"security_group": {}}, by=cloud.reader).status == 403
    assert cloud.ask("PUT", f"{path}/tags/t").status == 201
    assert cloud.ask("DELETE", path).status == 204
    cloud.refused(404, "SecurityGroupNotFound", "GET", path)


def _rules_used(cloud: Cloud) -> Any:
    return cloud.get("/quotas/p1/details")["quota"]["security_group_rule"]["used"]


def test_rules(cloud: Cloud) -> None:
    group = cloud.make("security_group", name="g")
    other = cloud.make("security_group", name="o")
    rule = cloud.make(
        "security_group_rule",
        security_group_id=group["id"],
        direction="ingress",
        protocol="TCP",
        port_range_min="22",
        port_range_max=22,
        remote_ip_prefix="10.0.0.77/8",
        description="ssh",
    )
    assert (rule["protocol"], rule["port_range_min"], rule["ethertype"]) == ("tcp", 22, "IPv4")
    assert (rule["remote_ip_prefix"], rule["normalized_cidr"]) == ("10.0.0.77/8", "10.0.0.0/8")
    assert rule["belongs_to_default_sg"] is False
    assert cloud.get(f"/security-group-rules/{rule['id']}")["security_group_rule"] == rule
    shown = cloud.get(f"/security-groups/{group['id']}")["security_group"]
    assert rule["id"] in {one["id"] for one in shown["security_group_rules"]}
    assert shown["revision_number"] == 1
    same = {
        "security_group_id": group["id"],
        "direction": "ingress",
        "protocol": 6,
        "port_range_min": 22,
        "port_range_max": 22,
        "remote_ip_prefix": "10.0.0.0/8",
    }
    message = cloud.refused(
        409, "SecurityGroupRuleExists", "POST", "/security-group-rules", {"security_group_rule": same}
    )
    assert rule["id"] in message
    bulk = [{**same, "port_range_max": 23}, {**same, "port_range_max": 24, "description": "x"}]
    found = cloud.ask("POST", "/security-group-rules", {"security_group_rules": bulk})
    assert (found.status, len(found.json["security_group_rules"])) == (201, 2)
    twice = {"security_group_rules": [{**same, "port_range_max": 30}, {**same, "port_range_max": 30}]}
    cloud.refused(409, "DuplicateSecurityGroupRuleInPost", "POST", "/security-group-rules", twice)
    mixed = {"security_group_rules": [same, {**same, "security_group_id": other["id"]}]}
    cloud.refused(400, "InvalidInput", "POST", "/security-group-rules", mixed)
    named = cloud.make(
        "security_group_rule", security_group_id=group["id"], direction="ingress", remote_group_id=other["id"]
    )
    before = cloud.get(f"/security-groups/{group['id']}")["security_group"]["revision_number"]
    used = _rules_used(cloud)
    assert cloud.ask("DELETE", f"/security-groups/{other['id']}").status == 204
    cloud.refused(404, "SecurityGroupRuleNotFound", "GET", f"/security-group-rules/{named['id']}")
    left = cloud.get(f"/security-groups/{group['id']}")["security_group"]
    assert left["revision_number"] == before + 1
    assert named["id"] not in [one["id"] for one in left["security_group_rules"]]
    assert _rules_used(cloud) == used - 1 - len(other["security_group_rules"])
    listed = cloud.get(f"/security-group-rules?security_group_id={group['id']}&direction=ingress&port_range_max=22")
    assert [one["id"] for one in listed["security_group_rules"]] == [rule["id"]]


def test_icmp(cloud: Cloud) -> None:
    group = cloud.make("security_group", name="g")

    def make(**values: Any) -> Any:
        return cloud.make("security_group_rule", security_group_id=group["id"], direction="ingress", **values)

    assert make(protocol="icmp", port_range_min=8, port_range_max=0)["port_range_min"] == 8
    assert make(protocol="icmp", ethertype="ipv6")["ethertype"] == "IPv6"
    assert make(protocol="ipv6-icmp", ethertype="IPv6", port_range_min=128)["protocol"] == "ipv6-icmp"
    assert make(protocol="any")["protocol"] is None


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({"direction": "sideways"}, 400),
        ({"ethertype": "IPv5"}, 400),
        ({"protocol": "nonsense"}, 400),
        ({"protocol": 300}, 400),
        ({"port_range_min": 1, "port_range_max": 2}, 400),
        ({"protocol": "tcp", "port_range_min": 2, "port_range_max": 1}, 400),
        ({"protocol": "tcp", "port_range_min": 1, "port_range_max": 65536}, 400),
        ({"protocol": "icmp", "port_range_max": 0}, 400),
        ({"remote_ip_prefix": "nonsense"}, 400),
        ({"remote_ip_prefix": "fd00::/64"}, 400),
        ({"remote_group_id": "00000000-0000-0000-0000-000000000000"}, 404),
        ({"remote_ip_prefix": "10.0.0.0/8", "remote_group_id": "x"}, 400),
        ({"security_group_id": "00000000-0000-0000-0000-000000000000"}, 404),
        ({"nonsense": 1}, 400),
    ],
)
def test_rules_that_cannot_be(cloud: Cloud, values: dict[str, Any], status: int) -> None:
    group = cloud.make("security_group", name="g")
    body = {"security_group_id": group["id"], "direction": "ingress", **values}
    found = cloud.ask("POST", "/security-group-rules", {"security_group_rule": body})
    assert found.status == status, found
    assert len(cloud.get(f"/security-groups/{group['id']}")["security_group"]["security_group_rules"]) == 2


def test_rules_belong_to_the_groups_project(cloud: Cloud) -> None:
    group = cloud.make("security_group", name="g")
    rule = group["security_group_rules"][0]
    path = f"/security-group-rules/{rule['id']}"
    cloud.refused(404, "SecurityGroupRuleNotFound", "GET", path, by=cloud.stranger)
    cloud.refused(404, "SecurityGroupRuleNotFound", "DELETE", path, by=cloud.stranger)
    assert cloud.ask("DELETE", path, by=cloud.reader).status == 403
    body = {"security_group_rule": {"security_group_id": group["id"], "direction": "ingress"}}
    cloud.refused(404, "SecurityGroupNotFound", "POST", "/security-group-rules", body, by=cloud.stranger)
    cloud.refused(403, "PolicyNotAuthorized", "POST", "/security-group-rules", body, by=cloud.reader)
    found = cloud.ask("POST", "/security-group-rules", body, by=cloud.admin)
    assert found.json["security_group_rule"]["project_id"] == "p1"
    strangers = cloud.get("/security-group-rules", by=cloud.stranger)["security_group_rules"]
    assert {one["project_id"] for one in strangers} == {"p2"}


def test_group_quotas(cloud: Cloud) -> None:
    cloud.get("/security-groups")
    quota = {"quota": {"security_group": 2, "security_group_rule": 7}}
    assert cloud.ask("PUT", "/quotas/p1", quota, by=cloud.admin).status == 200
    group = cloud.make("security_group", name="g")
    cloud.refused(409, "OverQuota", "POST", "/security-groups", {"security_group": {"name": "h"}})
    body = {"security_group_id": group["id"], "direction": "ingress", "protocol": "udp"}
    assert cloud.ask("POST", "/security-group-rules", {"security_group_rule": body}).status == 201
    more = {"security_group_rule": {**body, "protocol": "tcp"}}
    cloud.refused(409, "OverQuota", "POST", "/security-group-rules", more)
    assert cloud.ask("DELETE", f"/security-groups/{group['id']}").status == 204
    details = cloud.get("/quotas/p1/details")["quota"]
    assert (details["security_group"]["used"], details["security_group_rule"]["used"]) == (1, 4)


def test_statefulness_of_a_group_in_use_stays(cloud: Cloud) -> None:
    net, _ = cloud.net()
    group = cloud.make("security_group", name="g")
    path = f"/security-groups/{group['id']}"
    assert cloud.ask("PUT", path, {"security_group": {"stateful": False}}).json["security_group"]["stateful"] is False
    cloud.make("port", network_id=net["id"], security_groups=[group["id"]])
    cloud.refused(409, "SecurityGroupInUse", "PUT", path, {"security_group": {"stateful": True}})
