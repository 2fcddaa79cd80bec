"""Networks that are shared with single projects, through the real edge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.services.network.cloud import Cloud

UNKNOWN = "11111111-2222-4333-8444-555555555555"
PATH = "/rbac-policies"


@pytest.fixture
def cloud(database_url: str) -> Iterator[Cloud]:
    with Cloud(database_url, loops=False) as cloud:
        yield cloud


def body(net: Any, target: str = "p2", **more: Any) -> dict[str, Any]:
    values = {"object_type": "network", "object_id": net["id"], "action": "access_as_shared", "target_tenant": target}
    return {"rbac_policy": {**values, **more}}


def share(cloud: Cloud, net: Any, target: str = "p2", by: Any = None) -> Any:
    found = cloud.ask("POST", PATH, body(net, target), by=by)
    assert found.status == 201, found
    return found.json["rbac_policy"]


def test_a_project_uses_what_is_shared_with_it(cloud: Cloud) -> None:
    net, subnet = cloud.net()
    theirs = cloud.served.client("member:p3")
    cloud.refused(404, "NetworkNotFound", "GET", f"/networks/{net['id']}", by=cloud.stranger)
    made = share(cloud, net)
    assert made == {
        "id": made["id"],
        "project_id": "p1",
        "tenant_id": "p1",
        "object_type": "network",
        "object_id": net["id"],
        "action": "access_as_shared",
        "target_tenant": "p2",
    }
    for client, shared in ((cloud.stranger, True), (cloud.member, False)):
        assert cloud.get(f"/networks/{net['id']}", by=client)["network"]["shared"] is shared
        [listed] = cloud.get("/networks", by=client)["networks"]
        assert listed["shared"] is shared
        assert [one["id"] for one in cloud.get("/subnets", by=client)["subnets"]] == [subnet["id"]]
    assert cloud.get(f"/subnets/{subnet['id']}", by=cloud.stranger)["subnet"]["id"] == subnet["id"]
    assert cloud.get("/networks", by=theirs)["networks"] == []
    cloud.refused(403, "PolicyNotAuthorized", "PUT", f"/networks/{net['id']}", {"network": {}}, by=cloud.stranger)
    port = cloud.make("port", by=cloud.stranger, network_id=net["id"])
    cloud.refused(409, "RbacPolicyInUse", "DELETE", f"{PATH}/{made['id']}")
    assert cloud.ask("DELETE", f"/ports/{port['id']}", by=cloud.stranger).status == 204
    assert cloud.ask("DELETE", f"{PATH}/{made['id']}").status == 204
    cloud.refused(404, "NetworkNotFound", "GET", f"/networks/{net['id']}", by=cloud.stranger)


def test_everybody_is_a_target_for_admins(cloud: Cloud) -> None:
    net, _ = cloud.net()
    cloud.refused(403, "PolicyNotAuthorized", "POST", PATH, body(net, "*"))
    made = share(cloud, net, "*", by=cloud.admin)
    assert cloud.get(f"/networks/{net['id']}")["network"]["shared"] is True
    cloud.refused(409, "DuplicateRbacPolicy", "POST", PATH, body(net, "*"), by=cloud.admin)
    assert cloud.ask("DELETE", f"{PATH}/{made['id']}", by=cloud.admin).status == 204
    assert cloud.get(f"/networks/{net['id']}")["network"]["shared"] is False
    shared = cloud.make("network", by=cloud.admin, name="all", shared=True)
    [listed] = cloud.get(f"{PATH}?object_id={shared['id']}", by=cloud.admin)["rbac_policies"]
    assert listed["target_tenant"] == "*"
    cloud.ask("PUT", f"/networks/{shared['id']}", {"network": {"shared": False}}, by=cloud.admin)
    assert cloud.get(PATH, by=cloud.admin)["rbac_policies"] == []


def test_a_policy_moves_to_another_project(cloud: Cloud) -> None:
    net, _ = cloud.net()
    made, other = share(cloud, net), share(cloud, net, "p4")
    path = f"{PATH}/{made['id']}"
    changed = cloud.ask("PUT", path, {"rbac_policy": {"target_tenant": "p3"}}).json["rbac_policy"]
    assert changed == {**made, "target_tenant": "p3"}
    cloud.refused(404, "NetworkNotFound", "GET", f"/networks/{net['id']}", by=cloud.stranger)
    assert cloud.ask("GET", f"/networks/{net['id']}", by=cloud.served.client("member:p3")).status == 200
    cloud.refused(409, "DuplicateRbacPolicy", "PUT", path, {"rbac_policy": {"target_tenant": "p4"}})
    cloud.refused(403, "PolicyNotAuthorized", "PUT", path, {"rbac_policy": {"target_tenant": "*"}})
    assert {one["id"] for one in cloud.get(PATH)["rbac_policies"]} == {made["id"], other["id"]}
    cloud.make("port", by=cloud.served.client("member:p3"), network_id=net["id"])
    cloud.refused(409, "RbacPolicyInUse", "PUT", path, {"rbac_policy": {"target_tenant": "p5"}})


def test_policies_go_with_their_network(cloud: Cloud) -> None:
    net, _ = cloud.net()
    made = share(cloud, net)
    assert cloud.get(f"{PATH}/{made['id']}", by=cloud.reader)["rbac_policy"] == made
    assert cloud.ask("DELETE", f"/networks/{net['id']}").status == 204
    cloud.refused(404, "RbacPolicyNotFound", "GET", f"{PATH}/{made['id']}")


def test_who_may_share_what(cloud: Cloud) -> None:
    net, _ = cloud.net()
    made = share(cloud, net)
    cloud.refused(404, "NetworkNotFound", "POST", PATH, body({"id": UNKNOWN}))
    cloud.refused(403, "PolicyNotAuthorized", "POST", PATH, body(net, "p3"), by=cloud.reader)
    cloud.refused(400, "InvalidInput", "POST", PATH, body(net, "p3"), by=cloud.stranger)
    cloud.refused(404, "NetworkNotFound", "POST", PATH, body(net, "p4"), by=cloud.served.client("member:p3"))
    for wrong in ({"object_type": "router"}, {"action": "access_as_owner"}, {"target_tenant": ""}):
        assert cloud.ask("POST", PATH, body(net, **{"target": "p3", **wrong})).status == 400, wrong
    for verb in ("GET", "DELETE"):
        cloud.refused(404, "RbacPolicyNotFound", verb, f"{PATH}/{made['id']}", by=cloud.stranger)
    cloud.refused(403, "PolicyNotAuthorized", "DELETE", f"{PATH}/{made['id']}", by=cloud.reader)
    assert cloud.get(PATH, by=cloud.stranger)["rbac_policies"] == []


def test_policies_count_against_the_quota(cloud: Cloud) -> None:
    net, _ = cloud.net()
    cloud.ask("PUT", "/quotas/p1", {"quota": {"rbac_policy": 1}}, by=cloud.admin)
    made = share(cloud, net)
    cloud.refused(409, "OverQuota", "POST", PATH, body(net, "p3"))
    assert cloud.ask("DELETE", f"{PATH}/{made['id']}").status == 204
    share(cloud, net)
    assert cloud.ask("DELETE", f"/networks/{net['id']}").status == 204
    assert cloud.get("/quotas/p1/details")["quota"]["rbac_policy"] == {"limit": 1, "used": 0, "reserved": 0}
