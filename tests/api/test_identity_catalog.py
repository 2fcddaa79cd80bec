"""Identity: regions, services and endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.services.identity.cloud import Cloud, make_cloud, ok


@pytest.fixture
def cloud(database_url: str, tmp_path: Path) -> Iterator[Cloud]:
    with make_cloud(database_url, tmp_path) as made:
        yield made


def test_a_region_from_first_to_last(cloud: Cloud) -> None:
    wanted = {"id": "north", "description": "d", "colour": "white"}
    region = ok(cloud.admin.request("POST", "/v3/regions", {"region": wanted}), 201)["region"]
    path = "/v3/regions/north"
    assert region == {**wanted, "parent_region_id": None, "links": {"self": "http://testserver" + path}}
    assert ok(cloud.admin.request("GET", path))["region"] == region
    change = {"description": "e", "parent_region_id": "RegionOne", "id": "north"}
    changed = ok(cloud.admin.request("PATCH", path, {"region": change}))["region"]
    assert changed == {**region, "description": "e", "parent_region_id": "RegionOne"}
    assert [one["id"] for one in ok(cloud.admin.request("GET", "/v3/regions"))["regions"]] == ["RegionOne", "north"]
    below = ok(cloud.admin.request("GET", "/v3/regions?parent_region_id=RegionOne"))["regions"]
    assert [one["id"] for one in below] == ["north"]
    ok(cloud.admin.request("DELETE", path), 204)
    for method, body in (("GET", None), ("DELETE", None), ("PATCH", {"region": {"description": "x"}})):
        ok(cloud.admin.request(method, path, body), 404)


def test_more_on_regions(cloud: Cloud) -> None:
    made = ok(cloud.admin.request("POST", "/v3/regions", {"region": {}}), 201)["region"]
    assert len(made["id"]) == 32
    assert ok(cloud.admin.request("PUT", "/v3/regions/east", {"region": {}}), 201)["region"]["id"] == "east"
    ok(cloud.admin.request("PUT", "/v3/regions/west", {"region": {"id": "other"}}), 400)
    ok(cloud.admin.request("POST", "/v3/regions", {"region": {"id": "east"}}), 409)
    ok(cloud.admin.request("POST", "/v3/regions", {"region": {"parent_region_id": "none"}}), 404)
    ok(cloud.admin.request("POST", "/v3/regions", {"region": {"id": "x" * 256}}), 400)
    ok(cloud.admin.request("POST", "/v3/regions", {"region": {"description": 7}}), 400)
    ok(cloud.admin.request("PATCH", "/v3/regions/east", {"region": {}}), 400)
    ok(cloud.admin.request("PATCH", "/v3/regions/east", {"region": {"id": "west"}}), 400)
    ok(cloud.admin.request("PUT", "/v3/regions/far", {"region": {"parent_region_id": "east"}}), 201)
    ok(cloud.admin.request("PATCH", "/v3/regions/east", {"region": {"parent_region_id": "far"}}), 400)
    ok(cloud.admin.request("PATCH", "/v3/regions/east", {"region": {"parent_region_id": "east"}}), 400)
    ok(cloud.admin.request("DELETE", "/v3/regions/east"), 204)
    ok(cloud.admin.request("GET", "/v3/regions/far"), 404)
    ok(cloud.admin.request("DELETE", "/v3/regions/RegionOne"), 403)


def test_a_service_from_first_to_last(cloud: Cloud) -> None:
    wanted = {"type": "dns", "name": "designate", "description": "d", "colour": "red"}
    service = ok(cloud.admin.request("POST", "/v3/services", {"service": wanted}), 201)["service"]
    path = f"/v3/services/{service['id']}"
    assert service == {**wanted, "id": service["id"], "enabled": True, "links": {"self": "http://testserver" + path}}
    assert ok(cloud.admin.request("GET", path))["service"] == service
    changed = ok(cloud.admin.request("PATCH", path, {"service": {"enabled": False, "size": 1}}))["service"]
    assert changed == {**service, "enabled": False, "size": 1}
    for query, count in (
        ("?type=dns", 1),
        ("?name=designate", 1),
        ("?type=none", 0),
        ("?name__contains=sig", 1),
        ("", 4),
    ):
        assert len(ok(cloud.admin.request("GET", f"/v3/services{query}"))["services"]) == count
    catalog = ok(cloud.admin.request("GET", "/v3/auth/catalog"))["catalog"]
    assert "dns" not in {one["type"] for one in catalog}
    ok(cloud.admin.request("PATCH", path, {"service": {}}), 400)
    ok(cloud.admin.request("PATCH", path, {"service": {"type": ""}}), 400)
    ok(cloud.admin.request("DELETE", path), 204)
    for method, body in (("GET", None), ("DELETE", None), ("PATCH", {"service": {"name": "x"}})):
        ok(cloud.admin.request(method, path, body), 404)
    for bad in ({}, {"name": "x"}, {"type": 7}, {"type": "x" * 256}, {"type": "x", "enabled": "yes"}):
        ok(cloud.admin.request("POST", "/v3/services", {"service": bad}), 400)


def test_an_endpoint_from_first_to_last(cloud: Cloud) -> None:
    service_id = ok(cloud.admin.request("POST", "/v3/services", {"service": {"type": "dns"}}), 201)["service"]["id"]
    url = "http://x/$(tenant_id)s/%(user_id)s"
    wanted = {"service_id": service_id, "interface": "public", "url": url, "region": "new", "colour": "red"}
    endpoint = ok(cloud.admin.request("POST", "/v3/endpoints", {"endpoint": wanted}), 201)["endpoint"]
    path = f"/v3/endpoints/{endpoint['id']}"
    links = {"self": "http://testserver" + path}
    assert endpoint == {**wanted, "id": endpoint["id"], "region_id": "new", "enabled": True, "links": links}
    ok(cloud.admin.request("GET", "/v3/regions/new"))
    assert ok(cloud.admin.request("GET", path))["endpoint"] == endpoint
    catalog = {one["type"]: one for one in ok(cloud.admin.request("GET", "/v3/auth/catalog"))["catalog"]}
    shown = catalog["dns"]["endpoints"]
    assert [one["url"] for one in shown] == [f"http://x/{cloud.started.admin_project_id}/{cloud.started.admin_id}"]
    changed = ok(cloud.admin.request("PATCH", path, {"endpoint": {"region_id": "RegionOne", "interface": "admin"}}))
    assert changed["endpoint"] == {**endpoint, "region_id": "RegionOne", "region": "RegionOne", "interface": "admin"}
    for query, count in (
        (f"?service_id={service_id}", 1),
        ("?interface=admin", 4),
        ("?region_id=new", 0),
        ("?region_id=RegionOne&interface=public", 3),
        ("", 10),
    ):
        assert len(ok(cloud.admin.request("GET", f"/v3/endpoints{query}"))["endpoints"]) == count
    ok(cloud.admin.request("PATCH", path, {"endpoint": {}}), 400)
    ok(cloud.admin.request("PATCH", path, {"endpoint": {"url": "nowhere"}}), 400)
    ok(cloud.admin.request("PATCH", path, {"endpoint": {"service_id": "none"}}), 400)
    ok(cloud.admin.request("PATCH", path, {"endpoint": {"region_id": "none"}}), 400)
    ok(cloud.admin.request("DELETE", path), 204)
    for method, body in (("GET", None), ("DELETE", None), ("PATCH", {"endpoint": {"url": "http://x"}})):
        ok(cloud.admin.request(method, path, body), 404)
    again = ok(cloud.admin.request("POST", "/v3/endpoints", {"endpoint": wanted}), 201)["endpoint"]["id"]
    ok(cloud.admin.request("DELETE", f"/v3/services/{service_id}"), 204)
    ok(cloud.admin.request("GET", f"/v3/endpoints/{again}"), 404)


@pytest.mark.parametrize(
    "change",
    [
        {"interface": "secret"},
        {"service_id": "none"},
        {"url": "nowhere"},
        {"url": "http://x/$(admin_token)s"},
        {"url": "http://x/" + "x" * 217},
        {"region_id": "none"},
        {"enabled": "yes"},
    ],
)
def test_endpoints_that_cannot_be(cloud: Cloud, change: dict[str, Any]) -> None:
    service_id = ok(cloud.admin.request("POST", "/v3/services", {"service": {"type": "dns"}}), 201)["service"]["id"]
    right = {"service_id": service_id, "interface": "public", "url": "http://x"}
    ok(cloud.admin.request("POST", "/v3/endpoints", {"endpoint": {**right, **change}}), 400)
    ok(cloud.admin.request("POST", "/v3/endpoints", {"endpoint": right}), 201)


def test_who_may_do_what_with_the_catalog(cloud: Cloud) -> None:
    """Everybody sees regions; the rest is the administrators' and, to look at, the system readers'."""
    member = cloud.persona("manager", "project", cloud.project("p"))
    reader = cloud.persona("reader", "system")
    endpoint = ok(cloud.admin.request("GET", "/v3/endpoints"))["endpoints"][0]
    paths = [
        "/v3/services",
        f"/v3/services/{endpoint['service_id']}",
        "/v3/endpoints",
        f"/v3/endpoints/{endpoint['id']}",
    ]
    for path in paths:
        ok(member.request("GET", path), 403)
        ok(reader.request("GET", path))
    for path in ("/v3/regions", "/v3/regions/RegionOne"):
        ok(member.request("GET", path))
    bodies = {"regions": {"region": {}}, "services": {"service": {"type": "x"}}, "endpoints": {"endpoint": {}}}
    for client in (member, reader):
        for noun, body in bodies.items():
            ok(client.request("POST", f"/v3/{noun}", body), 403)
            ok(client.request("DELETE", f"/v3/{noun}/any"), 403)
            ok(client.request("PATCH", f"/v3/{noun}/any", body), 403)
    ok(cloud.served.client().request("GET", "/v3/regions"), 401)
    ok(cloud.admin.request("GET", "/v3/nothing"), 404)
    assert cloud.admin.request("PUT", "/v3/services").status == 405
