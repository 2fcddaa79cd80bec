"""OS-EP-FILTER: endpoint groups, projects' associations, and what they make of a catalog."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pileus.services.identity.resources.endpoint_filter.table import endpoints_of
from tests.services.identity.cloud import Cloud, make_cloud, ok

FILTER = "/v3/OS-EP-FILTER"


@pytest.fixture
def cloud(database_url: str, tmp_path: Path) -> Iterator[Cloud]:
    with make_cloud(database_url, tmp_path) as made:
        yield made


def group(cloud: Cloud, **filters: str) -> str:
    body = {"endpoint_group": {"name": "some", "filters": filters}}
    return str(ok(cloud.admin.request("POST", f"{FILTER}/endpoint_groups", body), 201)["endpoint_group"]["id"])


def ids(found: object, key: str) -> set[str]:
    assert isinstance(found, dict)
    return {one["id"] for one in found[key]}


def all_endpoints(cloud: Cloud) -> list[dict[str, str]]:
    return list(ok(cloud.admin.request("GET", "/v3/endpoints"))["endpoints"])


def test_endpoint_groups_are_made_changed_and_deleted(cloud: Cloud) -> None:
    admin = cloud.admin
    body = {"endpoint_group": {"name": "public", "description": "seen by all", "filters": {"interface": "public"}}}
    made = ok(admin.request("POST", f"{FILTER}/endpoint_groups", body), 201)["endpoint_group"]
    path = f"{FILTER}/endpoint_groups/{made['id']}"
    assert made["links"]["self"].endswith(path)
    assert made["filters"] == {"interface": "public"}
    assert ok(admin.request("GET", path))["endpoint_group"] == made
    assert admin.request("HEAD", path).status == 200
    assert ids(ok(admin.request("GET", f"{FILTER}/endpoint_groups?name=public")), "endpoint_groups") == {made["id"]}
    assert ok(admin.request("GET", f"{FILTER}/endpoint_groups?name=other"))["endpoint_groups"] == []
    change = {"endpoint_group": {"filters": {"interface": "admin", "region_id": "RegionOne"}}}
    changed = ok(admin.request("PATCH", path, change))["endpoint_group"]
    assert changed["filters"] == {"interface": "admin", "region_id": "RegionOne"}
    assert changed["name"] == "public"
    assert admin.request("DELETE", path).status == 204
    assert admin.request("GET", path).status == 404
    assert admin.request("DELETE", path).status == 404


@pytest.mark.parametrize(
    "body",
    [
        {"name": "none"},
        {"name": "none", "filters": {}},
        {"name": "odd", "filters": {"url": "http://x"}},
        {"name": "odd", "filters": {"interface": "private"}},
        {"name": "odd", "filters": {"interface": "public"}, "more": 1},
        {"filters": {"interface": "public"}},
    ],
)
def test_an_endpoint_group_needs_a_name_and_filters_that_exist(cloud: Cloud, body: dict[str, object]) -> None:
    assert cloud.admin.request("POST", f"{FILTER}/endpoint_groups", {"endpoint_group": body}).status == 400


def test_a_project_is_associated_with_single_endpoints(cloud: Cloud) -> None:
    admin, project = cloud.admin, cloud.project("p")
    endpoint = all_endpoints(cloud)[0]["id"]
    path = f"{FILTER}/projects/{project}/endpoints/{endpoint}"
    assert admin.request("GET", path).status == 404
    assert admin.request("DELETE", path).status == 404
    assert admin.request("PUT", path).status == 204
    assert admin.request("PUT", path).status == 409
    assert admin.request("GET", path).status == 204
    assert admin.request("HEAD", path).status == 204
    assert ids(ok(admin.request("GET", f"{FILTER}/projects/{project}/endpoints")), "endpoints") == {endpoint}
    assert ids(ok(admin.request("GET", f"{FILTER}/endpoints/{endpoint}/projects")), "projects") == {project}
    assert admin.request("DELETE", path).status == 204
    assert ok(admin.request("GET", f"{FILTER}/projects/{project}/endpoints"))["endpoints"] == []
    assert admin.request("PUT", f"{FILTER}/projects/{project}/endpoints/none").status == 404
    assert admin.request("PUT", f"{FILTER}/projects/none/endpoints/{endpoint}").status == 404


def test_a_project_is_associated_with_groups_of_endpoints(cloud: Cloud) -> None:
    admin, project, public = cloud.admin, cloud.project("p"), group(cloud, interface="public")
    path = f"{FILTER}/endpoint_groups/{public}/projects/{project}"
    assert admin.request("GET", path).status == 404
    assert admin.request("PUT", path).status == 204
    assert admin.request("PUT", path).status == 409
    assert ok(admin.request("GET", path))["project_endpoint_group"]["project_id"] == project
    wanted = {one["id"] for one in all_endpoints(cloud) if one["interface"] == "public"}
    assert len(wanted) == 3
    assert ids(ok(admin.request("GET", f"{FILTER}/endpoint_groups/{public}/endpoints")), "endpoints") == wanted
    assert ids(ok(admin.request("GET", f"{FILTER}/projects/{project}/endpoints")), "endpoints") == wanted
    assert ids(ok(admin.request("GET", f"{FILTER}/endpoint_groups/{public}/projects")), "projects") == {project}
    groups = ok(admin.request("GET", f"{FILTER}/projects/{project}/endpoint_groups"))
    assert ids(groups, "endpoint_groups") == {public}
    assert admin.request("DELETE", path).status == 204
    assert admin.request("DELETE", path).status == 404


def test_the_endpoints_of_a_catalog_are_those_of_all_associations(cloud: Cloud) -> None:
    store, project = cloud.served.store, cloud.project("p")
    assert store.read_here(lambda tx: endpoints_of(tx, project)) is None
    every = all_endpoints(cloud)
    internal = next(one["id"] for one in every if one["interface"] == "internal")
    ok(cloud.admin.request("PUT", f"{FILTER}/projects/{project}/endpoints/{internal}"), 204)
    assert store.read_here(lambda tx: endpoints_of(tx, project)) == {internal}
    public = group(cloud, interface="public", region_id="RegionOne")
    ok(cloud.admin.request("PUT", f"{FILTER}/endpoint_groups/{public}/projects/{project}"), 204)
    wanted = {internal, *(one["id"] for one in every if one["interface"] == "public")}
    assert store.read_here(lambda tx: endpoints_of(tx, project)) == wanted
    ok(cloud.admin.request("DELETE", f"/v3/endpoints/{internal}"), 204)
    assert store.read_here(lambda tx: endpoints_of(tx, project)) == wanted - {internal}
    ok(cloud.admin.request("DELETE", f"{FILTER}/endpoint_groups/{public}"), 204)
    assert store.read_here(lambda tx: endpoints_of(tx, project)) is None


def test_who_may_filter_endpoints(cloud: Cloud) -> None:
    project, public = cloud.project("p"), group(cloud, interface="public")
    endpoint = all_endpoints(cloud)[0]["id"]
    reads = [
        f"{FILTER}/endpoint_groups",
        f"{FILTER}/endpoint_groups/{public}",
        f"{FILTER}/endpoint_groups/{public}/endpoints",
        f"{FILTER}/endpoint_groups/{public}/projects",
        f"{FILTER}/projects/{project}/endpoints",
        f"{FILTER}/projects/{project}/endpoint_groups",
        f"{FILTER}/endpoints/{endpoint}/projects",
    ]
    reader = cloud.persona("reader", "system", None)
    others = [cloud.persona("member", "project", project), cloud.persona("admin", "domain", "default")]
    for path in reads:
        assert reader.request("GET", path).status == 200
        assert [one.request("GET", path).status for one in others] == [403, 403]
    for path in (f"{FILTER}/projects/{project}/endpoints/{endpoint}", f"{FILTER}/endpoint_groups/{public}/projects/x"):
        assert [one.request("PUT", path).status for one in (reader, *others)] == [403, 403, 403]
