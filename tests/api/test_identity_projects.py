"""Identity: projects, their tags and their tree, and domains."""

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


def names(body: Any, key: str) -> set[str]:
    return {one["name"] for one in body[key]}


def test_a_project_from_first_to_last(cloud: Cloud) -> None:
    wanted = {"name": " p ", "description": "d", "tags": ["b", "a"], "colour": "red", "options": {"immutable": None}}
    project = ok(cloud.admin.request("POST", "/v3/projects", {"project": wanted}), 201)["project"]
    path = f"/v3/projects/{project['id']}"
    assert project == {
        "id": project["id"],
        "name": "p",
        "domain_id": "default",
        "parent_id": "default",
        "is_domain": False,
        "description": "d",
        "enabled": True,
        "tags": ["a", "b"],
        "options": {},
        "colour": "red",
        "links": {"self": "http://testserver" + path},
    }
    assert ok(cloud.admin.request("GET", path))["project"] == project
    change = {"name": "q", "description": None, "tags": ["c"], "size": 1, "parent_id": "default", "is_domain": False}
    changed = ok(cloud.admin.request("PATCH", path, {"project": change}))["project"]
    assert changed == {**project, "name": "q", "description": "", "tags": ["c"], "size": 1}
    ok(cloud.admin.request("DELETE", path), 204)
    for method, body in (("GET", None), ("DELETE", None), ("PATCH", {"project": {"name": "x"}})):
        ok(cloud.admin.request(method, path, body), 404)


@pytest.mark.parametrize(
    ("project", "status"),
    [
        ({}, 400),
        ({"name": ""}, 400),
        ({"name": " "}, 400),
        ({"name": "x" * 65}, 400),
        ({"name": "p", "enabled": 1}, 400),
        ({"name": "p", "domain_id": "nowhere"}, 400),
        ({"name": "p", "parent_id": "nowhere"}, 400),
        ({"name": "p", "tags": ["a,b"]}, 400),
        ({"name": "p", "tags": "a"}, 400),
        ({"name": "p", "tags": [str(number) for number in range(81)]}, 400),
        ({"name": "p", "options": {"what": True}}, 400),
        ({"name": "p", "is_domain": True, "parent_id": "default"}, 400),
        ({"name": "Admin"}, 409),
        ({"name": "default", "is_domain": True}, 409),
    ],
)
def test_projects_that_cannot_be(cloud: Cloud, project: dict[str, Any], status: int) -> None:
    ok(cloud.admin.request("POST", "/v3/projects", {"project": project}), status)
    assert names(ok(cloud.admin.request("GET", "/v3/projects")), "projects") == {"admin"}


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 400),
        ({"id": "x"}, 400),
        ({"name": ""}, 400),
        ({"enabled": None}, 400),
        ({"is_domain": True}, 400),
        ({"domain_id": "x"}, 400),
        ({"parent_id": "x"}, 403),
        ({"name": "ADMIN"}, 409),
    ],
)
def test_changes_that_cannot_be(cloud: Cloud, change: dict[str, Any], status: int) -> None:
    path = f"/v3/projects/{cloud.project('p')}"
    before = ok(cloud.admin.request("GET", path))
    ok(cloud.admin.request("PATCH", path, {"project": change}), status)
    assert ok(cloud.admin.request("GET", path)) == before


def test_a_tree(cloud: Cloud) -> None:
    keys = ["default"]
    for depth in range(5):
        keys.append(cloud.project(f"p{depth}", parent_id=keys[-1]))
    too_deep = {"project": {"name": "p5", "parent_id": keys[-1]}}
    ok(cloud.admin.request("POST", "/v3/projects", too_deep), 403)
    other = cloud.domain("d")
    astray = {"project": {"name": "x", "domain_id": other, "parent_id": keys[1]}}
    ok(cloud.admin.request("POST", "/v3/projects", astray), 400)
    path = f"/v3/projects/{keys[2]}"
    shown = ok(cloud.admin.request("GET", f"{path}?parents_as_ids&subtree_as_ids"))["project"]
    assert shown["parents"] == {keys[1]: {"default": None}}
    assert shown["subtree"] == {keys[3]: {keys[4]: {keys[5]: None}}}
    assert "parents" not in ok(cloud.admin.request("GET", f"{path}?parents_as_ids=0"))["project"]
    ok(cloud.admin.request("GET", f"{path}?parents_as_ids&parents_as_list"), 400)
    ok(cloud.admin.request("GET", f"{path}?subtree_as_ids&subtree_as_list"), 400)
    cloud.grant(cloud.started.admin_id, "reader", f"projects/{keys[1]}")
    cloud.grant(cloud.started.admin_id, "reader", f"projects/{keys[4]}")
    lists = ok(cloud.admin.request("GET", f"{path}?parents_as_list&subtree_as_list"))["project"]
    assert [one["project"]["name"] for one in lists["parents"]] == ["p0"]
    assert [one["project"]["name"] for one in lists["subtree"]] == ["p3"]
    assert names(ok(cloud.admin.request("GET", f"/v3/projects?parent_id={keys[1]}")), "projects") == {"p1"}

    def switch(key: str, enabled: bool) -> int:
        body = {"project": {"enabled": enabled}}
        return cloud.admin.request("PATCH", f"/v3/projects/{key}", body).status

    assert switch(keys[4], False) == 403
    assert [switch(key, False) for key in (keys[5], keys[4])] == [200, 200]
    assert switch(keys[5], True) == 403
    ok(cloud.admin.request("POST", "/v3/projects", {"project": {"name": "x", "parent_id": keys[4]}}), 400)
    ok(cloud.admin.request("DELETE", f"/v3/projects/{keys[4]}"), 403)
    assert [switch(key, True) for key in (keys[4], keys[5])] == [200, 200]
    for key in reversed(keys[1:]):
        ok(cloud.admin.request("DELETE", f"/v3/projects/{key}"), 204)


def test_listing_projects(cloud: Cloud) -> None:
    domain_id = cloud.domain("d")
    cloud.project("one", tags=["a", "b"])
    cloud.project("two", tags=["b"])
    cloud.project("three", domain_id=domain_id, enabled=False)

    def listed(query: str) -> set[str]:
        return names(ok(cloud.admin.request("GET", f"/v3/projects{query}")), "projects")

    assert listed("") == {"admin", "one", "two", "three"}
    assert listed("?name=ONE") == {"one"}
    assert listed("?name__icontains=O") == {"one", "two"}
    assert listed(f"?domain_id={domain_id}") == {"three"}
    assert listed("?enabled=False") == {"three"}
    assert listed("?is_domain=true") == {"Default", "d"}
    assert listed("?tags=a,b") == {"one"}
    assert listed("?tags=b") == {"one", "two"}
    assert listed("?tags-any=a,x") == {"one"}
    assert listed("?not-tags=a,b") == {"admin", "two", "three"}
    assert listed("?not-tags-any=a,b") == {"admin", "three"}
    assert listed("?limit=1000&sort_key=name") == listed("")
    assert len(listed("?limit=2")) == 2


def test_lists_are_asked_for_so_much_and_no_more(cloud: Cloud) -> None:
    tags = [f"t{number}" for number in range(65)]
    for name in ("tags", "tags-any", "not-tags", "not-tags-any"):
        ok(cloud.admin.request("GET", f"/v3/projects?{name}={','.join(tags[:64])}"))
        ok(cloud.admin.request("GET", f"/v3/projects?{name}={','.join(tags)}"), 400)
        ok(cloud.admin.request("GET", "/v3/projects?" + "&".join(f"{name}={tag}" for tag in tags)), 400)
    ok(cloud.admin.request("GET", "/v3/projects?" + "&".join(["name__contains=a"] * 65)), 400)
    ok(cloud.admin.request("GET", "/v3/users?" + "&".join(["password_expires_at=lt:2030-01-01T00:00:00Z"] * 65)), 400)


def test_tags(cloud: Cloud) -> None:
    path = f"/v3/projects/{cloud.project('p')}/tags"
    assert ok(cloud.admin.request("GET", path))["tags"] == []
    added = cloud.admin.request("PUT", f"{path}/one")
    ok(added, 201)
    assert added.headers["location"] == f"http://testserver{path}/one"
    ok(cloud.admin.request("PUT", f"{path}/one"), 201)
    ok(cloud.admin.request("GET", f"{path}/one"), 204)
    assert cloud.admin.request("HEAD", f"{path}/two").status == 404
    ok(cloud.admin.request("PUT", f"{path}/a,b"), 400)
    body = ok(cloud.admin.request("PUT", path, {"tags": ["x", "y", "x"]}))
    assert body["tags"] == ["x", "y"]
    ok(cloud.admin.request("PUT", path, {"tags": [""]}), 400)
    ok(cloud.admin.request("PUT", path, {"labels": []}), 400)
    ok(cloud.admin.request("DELETE", f"{path}/x"), 204)
    ok(cloud.admin.request("DELETE", f"{path}/x"), 404)
    ok(cloud.admin.request("DELETE", path), 204)
    assert ok(cloud.admin.request("GET", path))["tags"] == []
    ok(cloud.admin.request("PUT", path, {"tags": [str(number) for number in range(80)]}))
    ok(cloud.admin.request("PUT", f"{path}/more"), 400)
    ok(cloud.admin.request("PUT", f"{path}/7"), 201)
    for method, rest in (("GET", ""), ("PUT", "/t"), ("DELETE", ""), ("GET", "/t"), ("DELETE", "/t")):
        ok(cloud.admin.request(method, f"/v3/projects/none/tags{rest}"), 404)


def test_an_immutable_project(cloud: Cloud) -> None:
    path = f"/v3/projects/{cloud.project('p', options={'immutable': True})}"
    ok(cloud.admin.request("DELETE", path), 403)
    ok(cloud.admin.request("PATCH", path, {"project": {"name": "q"}}), 403)
    ok(cloud.admin.request("PATCH", path, {"project": {"name": "q", "options": {"immutable": False}}}), 403)
    ok(cloud.admin.request("PATCH", path, {"project": {"options": {}}}), 403)
    ok(cloud.admin.request("PATCH", path, {"project": {"options": {"immutable": False}}}))
    ok(cloud.admin.request("DELETE", path), 204)


def test_what_members_may_do_with_projects(cloud: Cloud) -> None:
    mine, foreign = cloud.project("mine"), cloud.project("foreign")
    client = cloud.persona("manager", "project", mine)
    ok(client.request("GET", f"/v3/projects/{mine}"))
    ok(client.request("GET", f"/v3/projects/{mine}/tags"))
    for path in ("/v3/projects", f"/v3/projects/{foreign}", "/v3/projects/none", f"/v3/projects/{foreign}/tags"):
        ok(client.request("GET", path), 403)
    ok(client.request("POST", "/v3/projects", {"project": {"name": "x"}}), 403)
    ok(client.request("PATCH", f"/v3/projects/{mine}", {"project": {"name": "x"}}), 403)
    ok(client.request("DELETE", f"/v3/projects/{mine}"), 403)
    ok(client.request("PUT", f"/v3/projects/{mine}/tags/x"), 403)
    reader = cloud.persona("reader", "system")
    ok(reader.request("GET", "/v3/projects"))
    ok(reader.request("GET", f"/v3/projects/{foreign}"))
    ok(reader.request("DELETE", f"/v3/projects/{foreign}"), 403)


def test_a_manager_of_a_domain_rules_its_projects_and_no_others(cloud: Cloud) -> None:
    domain_id, foreign = cloud.domain("d"), cloud.project("foreign")
    boss = cloud.persona("manager", "domain", domain_id)
    ok(boss.request("POST", "/v3/projects", {"project": {"name": "x"}}), 403)
    ok(boss.request("POST", "/v3/projects", {"project": {"name": "x", "is_domain": True}}), 403)
    wanted = {"project": {"name": "x", "domain_id": domain_id}}
    mine = ok(boss.request("POST", "/v3/projects", wanted), 201)["project"]["id"]
    assert names(ok(boss.request("GET", "/v3/projects")), "projects") == {"x"}
    ok(boss.request("GET", f"/v3/projects/{foreign}"), 403)
    ok(boss.request("PATCH", f"/v3/projects/{foreign}", {"project": {"name": "y"}}), 403)
    ok(boss.request("GET", f"/v3/domains/{domain_id}"))
    ok(boss.request("GET", "/v3/domains/default"), 403)
    assert names(ok(boss.request("GET", "/v3/domains")), "domains") == {"d"}
    ok(boss.request("PATCH", f"/v3/domains/{domain_id}", {"domain": {"name": "y"}}), 403)
    ok(boss.request("DELETE", f"/v3/projects/{mine}"), 204)


def test_a_domain_from_first_to_last(cloud: Cloud) -> None:
    wanted = {"name": "d", "description": "x", "tags": ["t"], "colour": "red"}
    domain = ok(cloud.admin.request("POST", "/v3/domains", {"domain": wanted}), 201)["domain"]
    path = f"/v3/domains/{domain['id']}"
    links = {"self": "http://testserver" + path}
    assert domain == {**wanted, "id": domain["id"], "enabled": True, "options": {}, "links": links}
    assert ok(cloud.admin.request("GET", path))["domain"] == domain
    as_project = ok(cloud.admin.request("GET", f"/v3/projects/{domain['id']}"))["project"]
    assert (as_project["is_domain"], as_project["domain_id"], as_project["parent_id"]) == (True, None, None)
    user_id = cloud.user("u", domain["id"])
    project_id = cloud.project("p", domain_id=domain["id"])
    cloud.project("child", domain_id=domain["id"], parent_id=project_id)
    role = {"role": {"name": "r", "domain_id": domain["id"]}}
    role_id = ok(cloud.admin.request("POST", "/v3/roles", role), 201)["role"]["id"]
    cloud.grant(user_id, "member", f"projects/{project_id}")
    client = cloud.client(user_id, "project", project_id)
    ok(client.request("GET", path))
    ok(cloud.admin.request("DELETE", path), 403)
    changed = ok(cloud.admin.request("PATCH", path, {"domain": {"name": "e", "enabled": False}}))["domain"]
    assert changed == {**domain, "name": "e", "enabled": False}
    ok(client.request("GET", path), 401)
    ok(cloud.admin.request("DELETE", path), 204)
    for gone in (path, f"/v3/users/{user_id}", f"/v3/projects/{project_id}", f"/v3/roles/{role_id}"):
        ok(cloud.admin.request("GET", gone), 404)
    ok(cloud.admin.request("PATCH", path, {"domain": {"name": "f"}}), 404)
    ok(cloud.admin.request("DELETE", path), 404)


@pytest.mark.parametrize(
    ("domain", "status"),
    [
        ({}, 400),
        ({"name": ""}, 400),
        ({"name": "x" * 65}, 400),
        ({"name": "d", "explicit_domain_id": "not hex"}, 400),
        ({"name": "DEFAULT"}, 409),
    ],
)
def test_domains_that_cannot_be(cloud: Cloud, domain: dict[str, Any], status: int) -> None:
    ok(cloud.admin.request("POST", "/v3/domains", {"domain": domain}), status)
    assert names(ok(cloud.admin.request("GET", "/v3/domains")), "domains") == {"Default"}


def test_more_on_domains(cloud: Cloud) -> None:
    key = "0123456789abcdef" * 2
    wanted = {"domain": {"name": "d", "explicit_domain_id": key}}
    assert ok(cloud.admin.request("POST", "/v3/domains", wanted), 201)["domain"]["id"] == key
    again = {"domain": {"name": "other", "explicit_domain_id": key}}
    ok(cloud.admin.request("POST", "/v3/domains", again), 409)
    ok(cloud.admin.request("PATCH", f"/v3/domains/{key}", {"domain": {}}), 400)
    ok(cloud.admin.request("PATCH", f"/v3/domains/{key}", {"domain": {"name": "Default"}}), 409)


def test_the_default_domain_stays(cloud: Cloud) -> None:
    domain_id = cloud.domain("d")
    cloud.grant(cloud.user("root", domain_id), "admin", "system")
    user_id = ok(cloud.admin.request("GET", f"/v3/users?domain_id={domain_id}"))["users"][0]["id"]
    root = cloud.client(user_id, "system")
    ok(root.request("PATCH", "/v3/domains/default", {"domain": {"enabled": False}}))
    ok(cloud.served.client().request("GET", "/v3/domains"), 401)
    ok(root.request("DELETE", "/v3/domains/default"), 403)
    assert names(ok(root.request("GET", "/v3/domains?enabled=0")), "domains") == {"Default"}
    ok(root.request("GET", f"/v3/domains/{cloud.started.admin_project_id}"), 404)


def test_a_tree_is_disabled_enabled_and_deleted_as_a_whole(cloud: Cloud) -> None:
    admin = cloud.admin
    top = cloud.project("top")
    middle = cloud.project("middle", parent_id=top)
    leaf = cloud.project("leaf", parent_id=middle)
    tree = (top, middle, leaf)
    member = cloud.persona("member", "project", leaf)
    path = f"/v3/projects/{top}/cascade"

    def states() -> list[bool]:
        return [ok(admin.request("GET", f"/v3/projects/{key}"))["project"]["enabled"] for key in tree]

    for bad in ({}, {"enabled": False, "name": "x"}, {"name": "x"}, {"enabled": False, "colour": "red"}):
        ok(admin.request("PATCH", path, {"project": bad}), 400)
    ok(admin.request("PATCH", f"/v3/projects/{top}", {"project": {"enabled": False}}), 403)
    ok(admin.request("DELETE", path), 403)
    ok(admin.request("PATCH", path, {"project": {"enabled": False}}))
    assert states() == [False, False, False]
    assert member.request("GET", "/v3/auth/catalog").status == 401
    ok(admin.request("PATCH", f"/v3/projects/{leaf}/cascade", {"project": {"enabled": True}}), 403)
    ok(admin.request("PATCH", path, {"project": {"enabled": True}}))
    assert states() == [True, True, True]
    assert member.request("GET", "/v3/auth/catalog").status == 401  # what was disabled stays void
    ok(admin.request("PATCH", path, {"project": {"enabled": False}}))
    ok(admin.request("DELETE", f"/v3/projects/{top}"), 403)
    ok(admin.request("DELETE", path), 204)
    assert [admin.request("GET", f"/v3/projects/{key}").status for key in tree] == [404, 404, 404]


def test_a_tree_with_an_immutable_project_stays(cloud: Cloud) -> None:
    admin = cloud.admin
    domain = cloud.domain("d")
    top = cloud.project("top", domain_id=domain)
    cloud.project("leaf", parent_id=top, domain_id=domain, options={"immutable": True})
    ok(admin.request("PATCH", f"/v3/projects/{top}/cascade", {"project": {"enabled": False}}))
    ok(admin.request("DELETE", f"/v3/projects/{top}/cascade"), 403)
    ok(admin.request("PATCH", f"/v3/domains/{domain}", {"domain": {"enabled": False}}))
    ok(admin.request("DELETE", f"/v3/domains/{domain}"), 403)
    ok(admin.request("GET", f"/v3/projects/{top}"))


def test_an_immutable_projects_tags_stay(cloud: Cloud) -> None:
    project = cloud.project("p", tags=["a"], options={"immutable": True})
    path = f"/v3/projects/{project}/tags"
    for method, place, body in (
        ("PUT", f"{path}/b", None),
        ("DELETE", f"{path}/a", None),
        ("DELETE", path, None),
        ("PUT", path, {"tags": []}),
    ):
        ok(cloud.admin.request(method, place, body), 403)
    assert ok(cloud.admin.request("GET", path))["tags"] == ["a"]


def test_projects_above_and_below_with_their_limits(cloud: Cloud) -> None:
    admin = cloud.admin
    top = cloud.project("top")
    leaf = cloud.project("leaf", parent_id=top)
    cloud.grant(cloud.started.admin_id, "member", f"projects/{leaf}")
    service = ok(admin.request("GET", "/v3/services?type=compute"))["services"][0]["id"]
    registered = {"service_id": service, "resource_name": "servers", "default_limit": 1}
    ok(admin.request("POST", "/v3/registered_limits", {"registered_limits": [registered]}), 201)
    limit = {"service_id": service, "resource_name": "servers", "resource_limit": 2, "project_id": leaf}
    ok(admin.request("POST", "/v3/limits", {"limits": [limit]}), 201)
    shown = ok(admin.request("GET", f"/v3/projects/{top}?subtree_as_list&include_limits"))["project"]
    assert [one["project"]["limits"][0]["resource_limit"] for one in shown["subtree"]] == [2]
    shown = ok(admin.request("GET", f"/v3/projects/{leaf}?parents_as_list&include_limits"))["project"]
    assert shown["parents"] == []  # the caller holds no role there


def test_a_domain_is_not_changed_as_a_project_by_its_own_administrator(cloud: Cloud) -> None:
    domain = cloud.domain("d")
    own = cloud.persona("admin", "domain", domain)
    for path in (f"/v3/projects/{domain}", f"/v3/domains/{domain}"):
        ok(own.request("PATCH", path, {path.split("/")[2][:-1]: {"description": "mine"}}), 403)
        ok(own.request("DELETE", path), 403)
    ok(own.request("POST", "/v3/domains", {"domain": {"name": "another"}}), 403)
    ok(own.request("POST", "/v3/projects", {"project": {"name": "another", "is_domain": True}}), 403)
    ok(own.request("PATCH", f"/v3/projects/{cloud.project('p', domain_id=domain)}", {"project": {"name": "q"}}))
