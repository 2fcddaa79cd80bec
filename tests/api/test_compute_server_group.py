"""Server groups through the edge: policies by microversion, members, quota, who sees what, and where members go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.edge import Client, Response
from tests.services.compute.cloud import IMAGE, OTHER, PROJECT, Cloud, at

GROUPS = "/compute/v2.1/os-server-groups"
SERVERS = "/compute/v2.1/servers"


@pytest.fixture
def cloud(database_url: str) -> Iterator[Cloud]:
    with Cloud(database_url) as found:
        found.image()
        found.flavor("1")
        yield found


def post(cloud: Cloud, version: str = "2.64", client: Client | None = None, **group: Any) -> Response:
    """Make a group."""
    body = {"server_group": {"name": "g", **group}}
    return (client or cloud.member).request("POST", GROUPS, json=body, headers=at(version))


def made(cloud: Cloud, policy: str = "anti-affinity", **more: Any) -> str:
    """The id of a new group."""
    found = post(cloud, policy=policy, **more)
    assert found.status == 200, found
    return str(found.json["server_group"]["id"])


def boot(cloud: Cloud, group: Any, **values: Any) -> Response:
    """Ask for a server in a group."""
    server = {"name": "s", "flavorRef": "1", "imageRef": IMAGE, "networks": "none", **values}
    body = {"server": server, "os:scheduler_hints": {"group": group}}
    return cloud.member.request("POST", SERVERS, json=body, headers=at("2.90"))


@pytest.mark.parametrize(
    ("version", "group", "status"),
    [
        ("2.1", {"policies": ["affinity"]}, 200),
        ("2.1", {"policies": ["soft-affinity"]}, 400),
        ("2.15", {"policies": ["soft-affinity"]}, 200),
        ("2.1", {"policies": ["affinity", "anti-affinity"]}, 400),
        ("2.1", {"policies": []}, 400),
        ("2.1", {"policy": "affinity"}, 400),
        ("2.1", {}, 400),
        ("2.64", {"policies": ["affinity"]}, 400),
        ("2.64", {"policy": "affinity"}, 200),
        ("2.64", {"policy": "nearby"}, 400),
        ("2.64", {}, 400),
        ("2.64", {"policy": "anti-affinity", "rules": {"max_server_per_host": 2}}, 200),
        ("2.64", {"policy": "anti-affinity", "rules": {"max_server_per_host": 0}}, 400),
        ("2.64", {"policy": "anti-affinity", "rules": {"other": 1}}, 400),
        ("2.64", {"policy": "affinity", "rules": {"max_server_per_host": 2}}, 400),
        ("2.63", {"policies": ["anti-affinity"], "rules": {}}, 400),
        ("2.64", {"policy": "affinity", "more": 1}, 400),
        ("2.64", {"policy": "affinity", "name": ""}, 400),
    ],
)
def test_bodies(cloud: Cloud, version: str, group: dict[str, Any], status: int) -> None:
    assert post(cloud, version, **group).status == status


def test_views_by_microversion(cloud: Cloud) -> None:
    group = made(cloud, rules={"max_server_per_host": 2})

    def show(version: str) -> dict[str, Any]:
        found = cloud.member.request("GET", f"{GROUPS}/{group}", headers=at(version))
        assert found.status == 200
        body: dict[str, Any] = found.json["server_group"]
        return body

    assert show("2.1") == {"id": group, "name": "g", "policies": ["anti-affinity"], "members": [], "metadata": {}}
    assert show("2.13").keys() - show("2.1").keys() == {"project_id", "user_id"}
    newest = show("2.64")
    assert newest["policy"] == "anti-affinity"
    assert newest["rules"] == {"max_server_per_host": 2}
    assert not {"policies", "metadata"} & newest.keys()


def test_other_projects_see_nothing(cloud: Cloud) -> None:
    group = made(cloud)
    for method in ("GET", "DELETE"):
        assert cloud.stranger.request(method, f"{GROUPS}/{group}").status == 404
    assert cloud.stranger.request("GET", GROUPS).json == {"server_groups": []}
    outsider = cloud.served.client("admin:ops")
    assert outsider.request("GET", GROUPS).json == {"server_groups": []}
    for value in ("True", "False", "", "maybe"):
        assert cloud.stranger.request("GET", f"{GROUPS}?all_projects={value}").json == {"server_groups": []}
        assert len(outsider.request("GET", f"{GROUPS}?all_projects={value}").json["server_groups"]) == 1
    assert cloud.reader.request("GET", f"{GROUPS}/{group}").status == 200
    assert cloud.reader.request("DELETE", f"{GROUPS}/{group}").status == 403
    assert post(cloud, client=cloud.reader, policy="affinity").status == 403
    server = {"name": "s", "flavorRef": "1", "imageRef": IMAGE, "networks": "none"}
    theirs = {"server": server, "os:scheduler_hints": {"group": group}}
    assert cloud.stranger.request("POST", SERVERS, json=theirs, headers=at("2.90")).status == 400
    assert OTHER != PROJECT


def test_lists_have_pages(cloud: Cloud) -> None:
    groups = [made(cloud) for _ in range(3)]
    found = cloud.member.request("GET", f"{GROUPS}?limit=1&offset=1").json["server_groups"]
    assert [one["id"] for one in found] == groups[1:2]
    for query in ("limit=-1", "offset=x"):
        assert cloud.member.request("GET", f"{GROUPS}?{query}").status == 400


def test_quota_of_groups_and_of_members(cloud: Cloud) -> None:
    quota = f"/compute/v2.1/os-quota-sets/{PROJECT}"
    limits = {"quota_set": {"server_groups": 1, "server_group_members": 2}}
    assert cloud.admin.request("PUT", quota, json=limits).status == 200
    group = made(cloud)
    assert post(cloud, policy="affinity").status == 403
    assert boot(cloud, group, max_count=2, min_count=2).status == 202
    assert boot(cloud, group).status == 403
    assert cloud.member.request("DELETE", f"{GROUPS}/{group}").status == 204
    made(cloud, "affinity")


@pytest.mark.parametrize("group", ["99999999-2222-4333-8444-555555555555", "", 7, {"a": 1}, None])
def test_a_group_that_is_none_is_refused(cloud: Cloud, group: Any) -> None:
    assert boot(cloud, group).status == 400
    assert cloud.member.request("GET", SERVERS).json["servers"] == []


def test_members_are_kept_apart_shown_and_let_go(cloud: Cloud) -> None:
    for name in ("a", "b"):
        cloud.host(name)
    group = made(cloud)
    servers = [str(boot(cloud, group).json["server"]["id"]) for _ in range(2)]
    hosts = {cloud.reach(one, "ACTIVE")["OS-EXT-SRV-ATTR:host"] for one in servers}
    assert hosts == {"a", "b"}
    assert cloud.show(servers[0])["server_groups"] == [group]
    assert cloud.member.request("GET", f"{GROUPS}/{group}").json["server_group"]["members"] == servers
    third = str(boot(cloud, group).json["server"]["id"])
    assert "No valid host" in cloud.reach(third, "ERROR")["fault"]["message"]
    explained = cloud.admin.request("GET", f"{SERVERS}/{third}/explain").json["explanation"]
    assert explained["refused_by"] == {"group": 2}
    assert cloud.member.request("DELETE", f"{SERVERS}/{servers[0]}").status == 204
    cloud.wait(lambda: cloud.member.request("GET", f"{SERVERS}/{servers[0]}").status == 404)
    assert servers[0] not in cloud.member.request("GET", f"{GROUPS}/{group}").json["server_group"]["members"]
    fourth = str(boot(cloud, group).json["server"]["id"])
    cloud.reach(fourth, "ACTIVE")


def test_members_are_kept_together(cloud: Cloud) -> None:
    for name in ("a", "b", "c"):
        cloud.host(name)
    group = made(cloud, "affinity")
    servers = [str(boot(cloud, group).json["server"]["id"]) for _ in range(4)]
    assert len({cloud.reach(one, "ACTIVE")["OS-EXT-SRV-ATTR:host"] for one in servers}) == 1


def test_a_deleted_group_leaves_its_servers(cloud: Cloud) -> None:
    cloud.host("a")
    group = made(cloud)
    server = str(boot(cloud, group).json["server"]["id"])
    cloud.reach(server, "ACTIVE")
    assert cloud.member.request("DELETE", f"{GROUPS}/{group}").status == 204
    assert cloud.member.request("GET", f"{GROUPS}/{group}").status == 404
    assert cloud.show(server)["server_groups"] == []
