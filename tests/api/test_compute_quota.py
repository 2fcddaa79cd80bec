"""Quotas of projects and of users in them, through the edge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pileus.core.errors import QuotaExceeded
from pileus.services.compute.resources.quota import check_user
from tests.api.compute_cloud import Cloud, cloud, fault, ok
from tests.api.edge import make_projects
from tests.services.compute import cloud as servers

FLAVOR = {"name": "small", "vcpus": 2, "ram": 1024, "disk": 10, "ephemeral": 0}
SETS = "/os-quota-sets"


@pytest.fixture(name="cloud")
def one_cloud(database_url: str) -> Iterator[Cloud]:
    with cloud(database_url) as made:
        make_projects(made.served.store, "p1", "p2")
        yield made


def put(cloud: Cloud, query: str = "", *, version: str = "2.104", **limits: Any) -> Any:
    return cloud.ask("PUT", f"{SETS}/p1{query}", {"quota_set": limits}, version=version)


def shown(cloud: Cloud, query: str = "", version: str = "2.104") -> dict[str, Any]:
    found: dict[str, Any] = ok(cloud.ask("GET", f"{SETS}/p1{query}", version=version))["quota_set"]
    return found


def test_a_user_has_limits_of_its_own(cloud: Cloud) -> None:
    made = ok(put(cloud, "?user_id=u", instances=5, key_pairs=7, cores=None))["quota_set"]
    assert (made["instances"], made["key_pairs"], made["cores"]) == (5, 7, 20)
    assert "id" not in made
    assert shown(cloud, "?user_id=u") == {"id": "p1", **made}
    assert shown(cloud)["instances"] == 10
    assert shown(cloud, "?user_id=another")["instances"] == 10
    assert cloud.ask("DELETE", f"{SETS}/p1?user_id=u").status == 202
    assert shown(cloud, "?user_id=u")["instances"] == 10
    ok(put(cloud, instances=8))
    ok(put(cloud, "?user_id=u", instances=6))
    assert cloud.ask("DELETE", f"{SETS}/p1").status == 202
    assert (shown(cloud)["instances"], shown(cloud, "?user_id=u")["instances"]) == (10, 10)


def test_a_user_s_limit_lies_between_use_and_the_project_s(cloud: Cloud) -> None:
    for _ in range(2):
        cloud.add_server(None, None, user_id="u", flavor=FLAVOR)
    cloud.add_server(None, None, user_id="u", flavor=FLAVOR, deleting_at=cloud.clock.now())
    detail = ok(cloud.ask("GET", f"{SETS}/p1/detail?user_id=u"))["quota_set"]
    assert detail["instances"] == {"limit": 10, "in_use": 2, "reserved": 0}
    assert (detail["cores"]["in_use"], detail["ram"]["in_use"], detail["key_pairs"]["in_use"]) == (4, 2048, 0)
    assert "already used" in fault(put(cloud, "?user_id=u", cores=3), 400)
    assert "less than or equal to 20" in fault(put(cloud, "?user_id=u", cores=21), 400)
    assert "less than or equal to 20" in fault(put(cloud, "?user_id=u", cores=-1), 400)
    assert ok(put(cloud, "?user_id=u", cores=1, force=True))["quota_set"]["cores"] == 1
    fault(put(cloud, f"?user_id={'u' * 65}", cores=5), 400)


def test_servers_of_a_user_count_against_its_limits(cloud: Cloud) -> None:
    cloud.add_server(None, None, user_id="u", flavor=FLAVOR)
    store = cloud.served.store

    def check(user_id: str, **amounts: int) -> None:
        store.write_here(lambda tx: check_user(tx, "p1", user_id, amounts))

    check("u", instances=1000)
    ok(put(cloud, "?user_id=u", instances=2, ram=2048))
    check("u", instances=1, ram=1024, cores=1000)
    check("another", instances=1000)
    with pytest.raises(QuotaExceeded) as caught:
        check("u", instances=2)
    assert (caught.value.limit, caught.value.used, caught.value.requested) == (2, 1, 2)
    with pytest.raises(QuotaExceeded):
        check("u", ram=1025)
    check("u", ram=-1025)


def test_old_versions_keep_what_is_set_of_networking(cloud: Cloud) -> None:
    assert ok(put(cloud, version="2.35", fixed_ips=99, floating_ips=7))["quota_set"]["fixed_ips"] == 99
    assert (shown(cloud, version="2.35")["floating_ips"], shown(cloud, version="2.35")["security_groups"]) == (7, -1)
    assert "fixed_ips" not in shown(cloud, version="2.36")
    fault(put(cloud, version="2.36", fixed_ips=99), 400)
    limits = ok(cloud.ask("GET", "/limits?tenant_id=p1&reserved=1", version="2.35"))["limits"]["absolute"]
    assert limits["maxTotalFloatingIps"] == 7
    path, body = "/os-quota-class-sets/default", {"quota_class_set": {"fixed_ips": 99, "cores": 21}}
    made = ok(cloud.ask("PUT", path, body, version="2.49"))["quota_class_set"]
    assert (made["fixed_ips"], made["cores"], made["floating_ips"]) == (99, 21, -1)
    assert ok(cloud.ask("GET", path, version="2.49"))["quota_class_set"]["fixed_ips"] == 99
    assert ok(cloud.ask("GET", f"{SETS}/p2", version="2.35"))["quota_set"]["fixed_ips"] == 99
    fault(cloud.ask("PUT", path, body, version="2.50"), 400)


def test_a_project_must_be_there(cloud: Cloud) -> None:
    body = {"quota_set": {"cores": 1}}
    for method, tail in (("GET", ""), ("GET", "/detail"), ("GET", "/defaults"), ("PUT", "")):
        found = cloud.ask(method, f"{SETS}/p3{tail}", body if method == "PUT" else None)
        assert fault(found, 400) == "Project ID p3 is not a valid project."
    fault(cloud.ask("GET", f"{SETS}/default"), 400)
    assert cloud.ask("DELETE", f"{SETS}/p3").status == 202
    fault(cloud.ask("GET", f"{SETS}/p3", token="member:p1"), 403)
    ok(cloud.ask("GET", f"{SETS}/p3/defaults", token="member:p1"))


def test_who_may_see_and_set_quotas(cloud: Cloud) -> None:
    for query in ("", "?user_id=u", "/detail?user_id=u"):
        assert cloud.ask("GET", f"{SETS}/p1{query}", token="reader:p1").status == 200
        fault(cloud.ask("GET", f"{SETS}/p1{query}", token="manager:p2"), 403)
    for query in ("", "?user_id=u"):
        fault(cloud.ask("PUT", f"{SETS}/p1{query}", {"quota_set": {"cores": 1}}, token="manager:p1"), 403)
        fault(cloud.ask("DELETE", f"{SETS}/p1{query}", token="manager:p1"), 403)


def test_a_server_beyond_its_user_s_limit_is_refused(database_url: str) -> None:
    with servers.Cloud(database_url) as full:
        full.image()
        full.flavor("1")
        path = f"/compute/v2.1{SETS}/{servers.PROJECT}?user_id={servers.PROJECT}-user"
        assert full.admin.request("PUT", path, json={"quota_set": {"instances": 1}}).status == 200
        full.made()
        refused = full.create()
        assert refused.status == 403, refused
        assert "Quota exceeded for instances" in refused.json["forbidden"]["message"]


def test_a_resize_beyond_the_limit_of_the_server_s_user_is_refused(database_url: str) -> None:
    with servers.Cloud(database_url) as full:
        full.image()
        full.host("host-1")
        full.flavor("1", vcpus=1)
        full.flavor("2", vcpus=2)
        full.flavor("3", vcpus=3)
        path = f"/compute/v2.1{SETS}/{servers.PROJECT}?user_id={servers.PROJECT}-user"
        assert full.admin.request("PUT", path, json={"quota_set": {"cores": 2}}).status == 200
        one = full.made(flavorRef="1")
        full.reach(one, "ACTIVE")
        refused = full.act(one, "resize", {"flavorRef": "3"})
        assert refused.status == 403, refused
        assert "Quota exceeded for cores" in refused.json["forbidden"]["message"]
        assert full.act(one, "resize", {"flavorRef": "2"}).status == 202
        full.reach(one, "VERIFY_RESIZE")
        used = full.admin.request("GET", path.replace("?", "/detail?")).json["quota_set"]["cores"]["in_use"]
        assert used == 2
