"""Policies that Identity keeps for others, and the endpoints that they are for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.identity.cloud import Cloud, make_cloud, ok


@pytest.fixture
def cloud(database_url: str, tmp_path: Path) -> Iterator[Cloud]:
    with make_cloud(database_url, tmp_path) as made:
        yield made


def make_policy(cloud: Cloud, blob: str = "{}") -> str:
    body = {"policy": {"type": "application/json", "blob": blob}}
    return str(ok(cloud.admin.request("POST", "/v3/policies", body), 201)["policy"]["id"])


def make_region(cloud: Cloud, key: str, parent: str | None = None) -> str:
    body = {"region": {"id": key, "parent_region_id": parent}}
    return str(ok(cloud.admin.request("POST", "/v3/regions", body), 201)["region"]["id"])


def make_endpoint(cloud: Cloud, service: str, region: str) -> str:
    body = {"interface": "public", "service_id": service, "url": "http://x/y", "region_id": region}
    return str(ok(cloud.admin.request("POST", "/v3/endpoints", {"endpoint": body}), 201)["endpoint"]["id"])


def test_a_policy_from_first_to_last(cloud: Cloud) -> None:
    admin = cloud.admin
    body = {"policy": {"type": "application/json", "blob": '{"a": "@"}', "colour": "red"}}
    made = ok(admin.request("POST", "/v3/policies", body), 201)["policy"]
    path = f"/v3/policies/{made['id']}"
    links = {"self": "http://testserver" + path}
    assert made == {"id": made["id"], "type": "application/json", "blob": '{"a": "@"}', "colour": "red", "links": links}
    assert ok(admin.request("GET", path))["policy"] == made
    assert ok(admin.request("GET", "/v3/policies?type=application/json"))["policies"] == [made]
    assert ok(admin.request("GET", "/v3/policies?type=text/plain"))["policies"] == []
    assert ok(admin.request("PATCH", path, {"policy": {"type": "text/plain"}}))["policy"] == {
        **made,
        "type": "text/plain",
    }
    ok(admin.request("PATCH", path, {"policy": {}}), 400)
    ok(admin.request("POST", "/v3/policies", {"policy": {"type": "x"}}), 400)
    ok(admin.request("POST", "/v3/policies", {"policy": {"type": "x" * 256, "blob": ""}}), 400)
    ok(admin.request("DELETE", path), 204)
    ok(admin.request("GET", path), 404)


def test_the_nearest_policy_holds(cloud: Cloud) -> None:
    admin = cloud.admin
    service = str(ok(admin.request("POST", "/v3/services", {"service": {"type": "t"}}), 201)["service"]["id"])
    inner = make_region(cloud, "inner", make_region(cloud, "outer"))
    endpoint, elsewhere = make_endpoint(cloud, service, inner), make_endpoint(cloud, service, "RegionOne")
    effective = f"/v3/endpoints/{endpoint}/OS-ENDPOINT-POLICY/policy"
    ok(admin.request("GET", effective), 404)
    places = [f"services/{service}", f"services/{service}/regions/outer", f"services/{service}/regions/inner"]
    paths = []
    for place in (*places, f"endpoints/{endpoint}"):
        key = make_policy(cloud)
        path = f"/v3/policies/{key}/OS-ENDPOINT-POLICY/{place}"
        ok(admin.request("GET", path), 404)
        ok(admin.request("PUT", path), 204)
        ok(admin.request("GET", path), 204)
        ok(admin.request("HEAD", path), 204)
        assert ok(admin.request("GET", effective))["policy"]["id"] == key
        assert ok(admin.request("GET", f"/v3/policies/{key}/OS-ENDPOINT-POLICY/policy"))["policy"]["id"] == key
        assert admin.request("HEAD", f"/v3/policies/{key}/OS-ENDPOINT-POLICY/policy").status == 200
        found = ok(admin.request("GET", f"/v3/policies/{key}/OS-ENDPOINT-POLICY/endpoints"))["endpoints"]
        wanted = {endpoint, elsewhere} if place == places[0] else {endpoint}
        assert {one["id"] for one in found} == wanted
        paths.append((key, path))
    for key, path in reversed(paths):
        assert ok(admin.request("GET", effective))["policy"]["id"] == key
        ok(admin.request("DELETE", path), 204)
        ok(admin.request("GET", path), 404)
        ok(admin.request("GET", f"/v3/policies/{key}/OS-ENDPOINT-POLICY/policy"), 404)
    ok(admin.request("GET", effective), 404)


def test_an_endpoint_has_one_policy(cloud: Cloud) -> None:
    admin = cloud.admin
    endpoint = ok(admin.request("GET", "/v3/endpoints"))["endpoints"][0]["id"]
    first, second = make_policy(cloud), make_policy(cloud)
    for key in (first, second):
        ok(admin.request("PUT", f"/v3/policies/{key}/OS-ENDPOINT-POLICY/endpoints/{endpoint}"), 204)
    ok(admin.request("GET", f"/v3/policies/{first}/OS-ENDPOINT-POLICY/endpoints/{endpoint}"), 404)
    ok(admin.request("DELETE", f"/v3/policies/{second}"), 204)
    ok(admin.request("GET", f"/v3/endpoints/{endpoint}/OS-ENDPOINT-POLICY/policy"), 404)
    for path in (
        f"policies/{first}/OS-ENDPOINT-POLICY/endpoints/none",
        f"policies/x/OS-ENDPOINT-POLICY/services/{first}",
    ):
        ok(admin.request("PUT", f"/v3/{path}"), 404)


def test_who_may_read_and_write_policies(cloud: Cloud) -> None:
    key = make_policy(cloud)
    reader = cloud.persona("reader", "system", None)
    others = [cloud.persona("manager", "project", cloud.project("p")), cloud.persona("admin", "domain", "default")]
    body = {"policy": {"type": "x", "blob": ""}}
    for path in ("/v3/policies", f"/v3/policies/{key}", f"/v3/policies/{key}/OS-ENDPOINT-POLICY/endpoints"):
        ok(reader.request("GET", path))
        assert [one.request("GET", path).status for one in others] == [403, 403]
    for client in (reader, *others):
        ok(client.request("POST", "/v3/policies", body), 403)
        ok(client.request("PATCH", f"/v3/policies/{key}", body), 403)
        ok(client.request("DELETE", f"/v3/policies/{key}"), 403)
        ok(client.request("PUT", f"/v3/policies/{key}/OS-ENDPOINT-POLICY/services/none"), 403)
