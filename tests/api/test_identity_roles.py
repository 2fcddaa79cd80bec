"""Identity: roles, what they imply, and who holds them where."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.edge import Client
from tests.services.identity.cloud import Cloud, make_cloud, ok


@pytest.fixture
def cloud(database_url: str, tmp_path: Path) -> Iterator[Cloud]:
    with make_cloud(database_url, tmp_path) as made:
        yield made


def make_role(cloud: Cloud, name: str, **more: Any) -> str:
    return str(ok(cloud.admin.request("POST", "/v3/roles", {"role": {"name": name, **more}}), 201)["role"]["id"])


def make_group(cloud: Cloud, name: str, *members: str) -> str:
    key = str(ok(cloud.admin.request("POST", "/v3/groups", {"group": {"name": name}}), 201)["group"]["id"])
    for member in members:
        ok(cloud.admin.request("PUT", f"/v3/groups/{key}/users/{member}"), 204)
    return key


def names(body: Any, key: str) -> set[str]:
    return {one["name"] for one in body[key]}


def test_a_role_from_first_to_last(cloud: Cloud) -> None:
    wanted = {"name": "r", "description": "d", "colour": "red"}
    role = ok(cloud.admin.request("POST", "/v3/roles", {"role": wanted}), 201)["role"]
    path = f"/v3/roles/{role['id']}"
    links = {"self": "http://testserver" + path}
    assert role == {**wanted, "id": role["id"], "domain_id": None, "options": {}, "links": links}
    assert ok(cloud.admin.request("GET", path))["role"] == role
    changed = ok(cloud.admin.request("PATCH", path, {"role": {"name": "s", "description": None}}))["role"]
    assert changed == {**role, "name": "s", "description": None}
    ok(cloud.admin.request("PATCH", path, {"role": {}}), 400)
    ok(cloud.admin.request("PATCH", path, {"role": {"name": "ADMIN"}}), 409)
    ok(cloud.admin.request("PATCH", path, {"role": {"domain_id": "default"}}), 400)
    ok(cloud.admin.request("PATCH", path, {"role": {"id": "x"}}), 400)
    ok(cloud.admin.request("DELETE", path), 204)
    for method, body in (("GET", None), ("DELETE", None), ("PATCH", {"role": {"name": "x"}})):
        ok(cloud.admin.request(method, path, body), 404)
    for bad, status in (({}, 400), ({"name": ""}, 400), ({"name": "Admin"}, 409), ({"name": "x" * 256}, 400)):
        ok(cloud.admin.request("POST", "/v3/roles", {"role": bad}), status)
    ok(cloud.admin.request("POST", "/v3/roles", {"role": {"name": "x", "domain_id": "nowhere"}}), 404)


def test_the_default_roles_cannot_be_changed_by_accident(cloud: Cloud) -> None:
    path = f"/v3/roles/{cloud.role('member')}"
    ok(cloud.admin.request("DELETE", path), 403)
    ok(cloud.admin.request("PATCH", path, {"role": {"name": "x"}}), 403)
    ok(cloud.admin.request("PATCH", path, {"role": {"options": {"immutable": None}}}))
    ok(cloud.admin.request("DELETE", path), 204)


def test_listing_roles(cloud: Cloud) -> None:
    domain_id = cloud.domain("d")
    make_role(cloud, "mine", domain_id=domain_id)
    everyone = {"admin", "manager", "member", "reader", "service"}
    assert names(ok(cloud.admin.request("GET", "/v3/roles")), "roles") == everyone
    assert names(ok(cloud.admin.request("GET", "/v3/roles?name=Reader")), "roles") == {"reader"}
    assert names(ok(cloud.admin.request("GET", "/v3/roles?name__contains=er")), "roles") == everyone - {"admin"}
    assert names(ok(cloud.admin.request("GET", f"/v3/roles?domain_id={domain_id}")), "roles") == {"mine"}


def test_who_may_see_roles(cloud: Cloud) -> None:
    domain_id, project_id = cloud.domain("d"), cloud.project("p")
    member, admin = cloud.role("member"), cloud.role("admin")
    boss = cloud.persona("manager", "domain", domain_id)
    ok(boss.request("GET", "/v3/roles"))
    ok(boss.request("GET", f"/v3/roles/{member}"))
    ok(boss.request("GET", f"/v3/roles/{admin}"), 403)
    ok(boss.request("GET", f"/v3/roles?domain_id={domain_id}"), 403)
    ok(boss.request("POST", "/v3/roles", {"role": {"name": "x"}}), 403)
    manager = cloud.persona("manager", "project", project_id)
    ok(manager.request("GET", "/v3/roles"), 403)
    ok(manager.request("GET", f"/v3/roles/{member}"))
    reader = cloud.persona("reader", "system")
    own = make_role(cloud, "mine", domain_id=domain_id)
    for path in ("/v3/roles", f"/v3/roles/{admin}", f"/v3/roles/{own}", f"/v3/roles?domain_id={domain_id}"):
        ok(reader.request("GET", path))
        ok(manager.request("GET", path), 403)
    ok(reader.request("DELETE", f"/v3/roles/{own}"), 403)
    ok(reader.request("GET", "/v3/role_inferences"))
    ok(manager.request("GET", "/v3/role_inferences"), 403)


def test_implications(cloud: Cloud) -> None:
    one, two, three = (make_role(cloud, name) for name in ("one", "two", "three"))
    path = f"/v3/roles/{one}/implies/{two}"
    ok(cloud.admin.request("GET", path), 404)
    ok(cloud.admin.request("DELETE", path), 404)
    made = ok(cloud.admin.request("PUT", path), 201)["role_inference"]
    assert (made["prior_role"]["name"], made["implies"]["name"]) == ("one", "two")
    assert made["implies"]["links"]["self"] == f"http://testserver/v3/roles/{two}"
    ok(cloud.admin.request("PUT", path), 409)
    assert ok(cloud.admin.request("GET", path))["role_inference"] == made
    ok(cloud.admin.request("PUT", f"/v3/roles/{two}/implies/{three}"), 201)
    ok(cloud.admin.request("PUT", f"/v3/roles/{three}/implies/{one}"), 201)
    listed = ok(cloud.admin.request("GET", f"/v3/roles/{one}/implies"))["role_inference"]
    assert [role["name"] for role in listed["implies"]] == ["two"]
    rules = ok(cloud.admin.request("GET", "/v3/role_inferences"))["role_inferences"]
    found = {(rule["prior_role"]["name"], role["name"]) for rule in rules for role in rule["implies"]}
    assert found == {
        ("admin", "manager"),
        ("manager", "member"),
        ("member", "reader"),
        ("one", "two"),
        ("two", "three"),
        ("three", "one"),
    }
    user_id, project_id = cloud.user("u"), cloud.project("p")
    cloud.grant(user_id, "two", f"projects/{project_id}")
    client = cloud.client(user_id, "project", project_id)
    own = {"x-subject-token": client.token or ""}

    def held() -> list[str]:
        return sorted(names(ok(client.request("GET", "/v3/auth/tokens", headers=own))["token"], "roles"))

    assert held() == ["one", "three", "two"]
    ok(cloud.admin.request("DELETE", path), 204)
    assert held() == ["one", "three", "two"]
    ok(cloud.admin.request("DELETE", f"/v3/roles/{two}/implies/{three}"), 204)
    assert held() == ["two"]


def test_what_nothing_may_imply(cloud: Cloud) -> None:
    one, own = make_role(cloud, "one"), make_role(cloud, "own", domain_id="default")
    ok(cloud.admin.request("PUT", f"/v3/roles/{one}/implies/{cloud.role('admin')}"), 403)
    ok(cloud.admin.request("PUT", f"/v3/roles/{one}/implies/{own}"), 403)
    ok(cloud.admin.request("PUT", f"/v3/roles/{one}/implies/none"), 404)
    ok(cloud.admin.request("PUT", f"/v3/roles/none/implies/{one}"), 404)
    ok(cloud.admin.request("GET", "/v3/roles/none/implies"), 404)
    ok(cloud.admin.request("PUT", f"/v3/roles/{own}/implies/{one}"), 201)


def test_a_role_of_a_domain_means_what_it_implies(cloud: Cloud) -> None:
    domain_id = cloud.domain("d")
    own = make_role(cloud, "own", domain_id=domain_id)
    ok(cloud.admin.request("PUT", f"/v3/roles/{own}/implies/{cloud.role('reader')}"), 201)
    user_id, inside, outside = cloud.user("u"), cloud.project("p", domain_id=domain_id), cloud.project("q")
    path = f"users/{user_id}/roles/{own}"
    ok(cloud.admin.request("PUT", f"/v3/projects/{outside}/{path}"), 403)
    ok(cloud.admin.request("PUT", f"/v3/domains/default/{path}"), 204)  # upstream looks at projects alone
    ok(cloud.admin.request("PUT", f"/v3/system/{path}"), 400)
    ok(cloud.admin.request("PUT", f"/v3/projects/{inside}/{path}"), 204)
    client = cloud.client(user_id, "project", inside)
    own_token = {"x-subject-token": client.token or ""}
    token = ok(client.request("GET", "/v3/auth/tokens", headers=own_token))["token"]
    assert names(token, "roles") == {"reader"}


KINDS = [
    (place, actor, inherited)
    for place in ("projects/{project}", "domains/{domain}", "system")
    for actor in ("users/{user}", "groups/{group}")
    for inherited in (False, True)
    if not (inherited and place == "system")
]


@pytest.mark.parametrize(("place", "actor", "inherited"), KINDS)
def test_a_grant_from_first_to_last(cloud: Cloud, place: str, actor: str, inherited: bool) -> None:
    user_id = cloud.user("u")
    keys = {"project": cloud.project("p"), "domain": "default", "user": user_id, "group": make_group(cloud, "g")}
    holder = f"{place}/{actor}".format(**keys)
    prefix, suffix = ("/v3/OS-INHERIT/", "/inherited_to_projects") if inherited else ("/v3/", "")
    role_id = cloud.role("reader")
    many, one = f"{prefix}{holder}/roles{suffix}", f"{prefix}{holder}/roles/{role_id}{suffix}"
    assert ok(cloud.admin.request("GET", many))["roles"] == []
    ok(cloud.admin.request("GET", one), 404)
    ok(cloud.admin.request("DELETE", one), 404)
    ok(cloud.admin.request("PUT", one), 204)
    ok(cloud.admin.request("PUT", one), 204)
    ok(cloud.admin.request("GET", one), 204)
    assert cloud.admin.request("HEAD", one).status == 204
    assert names(ok(cloud.admin.request("GET", many)), "roles") == {"reader"}
    if place != "system":
        other = f"/v3/{holder}/roles" if inherited else f"/v3/OS-INHERIT/{holder}/roles/inherited_to_projects"
        assert ok(cloud.admin.request("GET", other))["roles"] == []
    kind = actor.split("s/", maxsplit=1)[0]
    listed = ok(cloud.admin.request("GET", f"/v3/role_assignments?{kind}.id={keys[kind]}"))["role_assignments"]
    assert [entry["links"]["assignment"] for entry in listed] == [f"http://testserver{one}"]
    ok(cloud.admin.request("DELETE", one), 204)
    ok(cloud.admin.request("GET", one), 404)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_grants_of_what_is_not_there(cloud: Cloud, method: str) -> None:
    project_id, user_id, role_id = cloud.project("p"), cloud.user("u"), cloud.role("reader")
    manager = cloud.persona("manager", "project", project_id)
    for path in (
        f"projects/none/users/{user_id}/roles/{role_id}",
        f"projects/{project_id}/users/none/roles/{role_id}",
        f"projects/{project_id}/groups/none/roles/{role_id}",
        f"projects/{project_id}/users/{user_id}/roles/none",
        f"domains/{project_id}/users/{user_id}/roles/{role_id}",
        f"system/users/none/roles/{role_id}",
        f"system/users/{user_id}/roles/none",
    ):
        ok(cloud.admin.request(method, f"/v3/{path}"), 404)
        ok(manager.request(method, f"/v3/{path}"), 403)


def test_a_manager_gives_only_what_is_below_it(cloud: Cloud) -> None:
    """A manager of a domain may give its users member and reader on its projects, and nothing that leads further."""
    domain_id = cloud.domain("d")
    boss = cloud.persona("manager", "domain", domain_id)
    mine, inside = cloud.user("mine", domain_id), cloud.project("inside", domain_id=domain_id)
    foreign, outside = cloud.user("foreign"), cloud.project("outside")

    def give(client: Client, user_id: str, place: str, role: str) -> int:
        return client.request("PUT", f"/v3/{place}/users/{user_id}/roles/{cloud.role(role)}").status

    assert give(boss, mine, f"projects/{inside}", "member") == 204
    assert give(boss, mine, f"domains/{domain_id}", "manager") == 204
    for role in ("admin", "service"):
        assert give(boss, mine, f"projects/{inside}", role) == 403
    assert give(boss, foreign, f"projects/{inside}", "member") == 403
    assert give(boss, mine, f"projects/{outside}", "member") == 403
    assert give(boss, mine, "domains/default", "member") == 403
    assert give(boss, mine, "system", "reader") == 403
    for path in (
        f"projects/{inside}/users/{mine}/roles",
        f"projects/{inside}/users/{mine}/roles/{cloud.role('member')}",
    ):
        assert boss.request("GET", f"/v3/{path}").status in (200, 204)
    assert boss.request("GET", f"/v3/projects/{outside}/users/{mine}/roles").status == 403
    member = f"/v3/projects/{inside}/users/{mine}/roles/{cloud.role('member')}"
    ok(cloud.persona("manager", "project", inside).request("DELETE", member), 403)
    ok(boss.request("DELETE", member), 204)


class Stage:
    """A domain with a tree of two projects, a group of two users, and assignments of every kind."""

    def __init__(self, cloud: Cloud) -> None:
        self.domain = cloud.domain("d")
        self.top = cloud.project("top", domain_id=self.domain)
        self.leaf = cloud.project("leaf", domain_id=self.domain, parent_id=self.top)
        self.one, self.two = cloud.user("one"), cloud.user("two")
        self.group = make_group(cloud, "g", self.one, self.two)
        self.member, self.reader = cloud.role("member"), cloud.role("reader")
        for path in (
            f"projects/{self.top}/users/{self.one}/roles/{self.member}",
            f"domains/{self.domain}/groups/{self.group}/roles/{self.reader}",
            f"OS-INHERIT/projects/{self.top}/users/{self.two}/roles/{self.member}/inherited_to_projects",
            f"OS-INHERIT/domains/{self.domain}/groups/{self.group}/roles/{self.reader}/inherited_to_projects",
            f"system/users/{self.two}/roles/{self.reader}",
        ):
            ok(cloud.admin.request("PUT", f"/v3/{path}"), 204)

    def read(self, client: Client, query: str) -> set[tuple[str, str, str, bool]]:
        """Assignments as who, where, role and whether inherited, by name."""
        body = ok(client.request("GET", f"/v3/role_assignments?include_names&{query}"))
        found = set()
        for entry in body["role_assignments"]:
            who = entry.get("user") or entry["group"]
            scope = entry["scope"]
            where = scope.get("project") or scope.get("domain") or {"name": "system"}
            found.add((who["name"], where["name"], entry["role"]["name"], "OS-INHERIT:inherited_to" in scope))
        return found


def test_assignments_as_they_were_made(cloud: Cloud) -> None:
    stage = Stage(cloud)
    admin = {("admin", "admin", "admin", False), ("admin", "system", "admin", False)}
    made = {
        ("one", "top", "member", False),
        ("g", "d", "reader", False),
        ("two", "top", "member", True),
        ("g", "d", "reader", True),
        ("two", "system", "reader", False),
    }
    assert stage.read(cloud.admin, "") == admin | made
    for query, kept in (
        (f"user.id={stage.two}", lambda who, where, role, inherited: who == "two"),
        (f"group.id={stage.group}", lambda who, where, role, inherited: who == "g"),
        (f"scope.project.id={stage.top}", lambda who, where, role, inherited: where == "top"),
        (f"scope.domain.id={stage.domain}", lambda who, where, role, inherited: where == "d"),
        ("scope.OS-INHERIT:inherited_to=projects", lambda who, where, role, inherited: inherited),
        (f"role.id={stage.member}", lambda who, where, role, inherited: role == "member"),
        (f"scope.project.id={stage.top}&include_subtree", lambda who, where, role, inherited: where in ("top", "leaf")),
    ):
        assert stage.read(cloud.admin, query) == {entry for entry in made if kept(*entry)}, query
    assert stage.read(cloud.admin, "scope.system=all") == {entry for entry in admin | made if entry[1] == "system"}


def test_assignments_in_their_effect(cloud: Cloud) -> None:
    stage = Stage(cloud)
    assert stage.read(cloud.admin, f"effective&user.id={stage.one}") == {
        ("one", "top", "member", False),
        ("one", "top", "reader", False),
        ("one", "d", "reader", False),
        ("one", "top", "reader", True),
        ("one", "leaf", "reader", True),
    }
    assert stage.read(cloud.admin, f"effective&scope.project.id={stage.leaf}") == {
        ("two", "leaf", "member", True),
        ("two", "leaf", "reader", True),
        ("one", "leaf", "reader", True),
    }
    assert stage.read(cloud.admin, f"effective&scope.domain.id={stage.domain}") == {
        ("one", "d", "reader", False),
        ("two", "d", "reader", False),
    }
    assert stage.read(
        cloud.admin, f"effective&role.id={stage.member}&scope.project.id={stage.top}&include_subtree"
    ) == {
        ("one", "top", "member", False),
        ("two", "leaf", "member", True),
    }
    assert stage.read(cloud.admin, "effective&scope.system=all&role.id=" + stage.reader) == {
        ("admin", "system", "reader", False),
        ("two", "system", "reader", False),
    }
    query = f"effective&user.id={stage.two}&scope.project.id={stage.leaf}&role.id={stage.reader}"
    entries = ok(cloud.admin.request("GET", f"/v3/role_assignments?{query}"))["role_assignments"]
    assert all(set(entry["user"]) == {"id"} for entry in entries)
    root = "http://testserver/v3"
    inherit = f"{root}/OS-INHERIT"
    assert {entry["links"]["assignment"] for entry in entries} == {
        f"{inherit}/projects/{stage.top}/users/{stage.two}/roles/{stage.member}/inherited_to_projects",
        f"{inherit}/domains/{stage.domain}/groups/{stage.group}/roles/{stage.reader}/inherited_to_projects",
    }
    links = {entry["links"].get("membership") for entry in entries}
    assert links == {None, f"{root}/groups/{stage.group}/users/{stage.two}"}
    tokens = {
        "one": ["reader"],
        "two": ["member", "reader"],
    }
    for who, held in tokens.items():
        client = cloud.client(getattr(stage, who), "project", stage.leaf)
        own = {"x-subject-token": client.token or ""}
        token = ok(client.request("GET", "/v3/auth/tokens", headers=own))["token"]
        assert [role["name"] for role in token["roles"]] == held


@pytest.mark.parametrize(
    "query",
    [
        "scope.domain.id=a&scope.project.id=b",
        "scope.domain.id=a&scope.system=all",
        "scope.project.id=a&scope.system=all",
        "user.id=a&group.id=b",
        "effective&group.id=a",
        "effective&scope.domain.id=a&scope.OS-INHERIT:inherited_to=projects",
        "include_subtree",
    ],
)
def test_questions_about_assignments_that_make_no_sense(cloud: Cloud, query: str) -> None:
    ok(cloud.admin.request("GET", f"/v3/role_assignments?{query}"), 400)


def test_who_may_list_assignments(cloud: Cloud) -> None:
    stage = Stage(cloud)
    boss = cloud.persona("reader", "domain", stage.domain)
    seen = {("one", "top", "member", False), ("two", "top", "member", True)}
    seen |= {
        ("g", "d", "reader", False),
        ("g", "d", "reader", True),
        (f"reader on domain {stage.domain}", "d", "reader", False),
    }
    assert stage.read(boss, "") == seen
    ok(boss.request("GET", f"/v3/role_assignments?scope.project.id={stage.top}&include_subtree"))
    admin_project = cloud.started.admin_project_id
    ok(boss.request("GET", f"/v3/role_assignments?scope.project.id={admin_project}&include_subtree"), 403)
    assert len(stage.read(cloud.persona("reader", "system"), "")) == 9
    ok(cloud.persona("manager", "project", stage.top).request("GET", "/v3/role_assignments"), 403)


def test_projects_of_a_user(cloud: Cloud) -> None:
    stage = Stage(cloud)

    def projects(user_id: str) -> set[str]:
        return names(ok(cloud.admin.request("GET", f"/v3/users/{user_id}/projects")), "projects")

    assert projects(stage.one) == {"top", "leaf"}
    assert projects(cloud.started.admin_id) == {"admin"}
    ok(cloud.admin.request("GET", "/v3/users/none/projects"), 404)


def test_what_is_not_there_is_said_before_permission_is_asked(cloud: Cloud) -> None:
    member = cloud.persona("member", "project", cloud.project("p"))
    for path, body in (("roles/none", {"role": {"name": "x"}}), ("domains/none", {"domain": {"name": "x"}})):
        ok(member.request("PATCH", f"/v3/{path}", body), 404)
        ok(member.request("DELETE", f"/v3/{path}"), 404)
    ok(member.request("GET", "/v3/roles/none"), 404)
    ok(member.request("DELETE", "/v3/groups/none"), 404)
    ok(member.request("GET", "/v3/groups/none"), 403)
    ok(member.request("PATCH", f"/v3/roles/{cloud.role('reader')}", {"role": {"name": "x"}}), 403)


def test_checking_an_implication_answers_nothing(cloud: Cloud) -> None:
    path = f"/v3/roles/{cloud.role('admin')}/implies/{cloud.role('manager')}"
    ok(cloud.admin.request("HEAD", path), 204)
    ok(cloud.admin.request("GET", path), 200)
    ok(cloud.admin.request("HEAD", f"/v3/roles/{cloud.role('reader')}/implies/{cloud.role('admin')}"), 404)
    ok(cloud.persona("member", "project", cloud.project("p")).request("HEAD", path), 403)


def test_an_implied_role_is_not_renamed_to_one_that_none_may_imply(cloud: Cloud) -> None:
    implied = make_role(cloud, "implied")
    ok(cloud.admin.request("PUT", f"/v3/roles/{cloud.role('reader')}/implies/{implied}"), 201)
    admin = cloud.role("admin")
    ok(cloud.admin.request("PATCH", f"/v3/roles/{admin}", {"role": {"options": {"immutable": False}}}))
    own = cloud.admin
    ok(own.request("PATCH", f"/v3/roles/{implied}", {"role": {"name": " ADMIN "}}), 403)
    ok(own.request("PATCH", f"/v3/roles/{implied}", {"role": {"name": "other"}}))


def test_a_domains_manager_gives_only_what_managers_may_give_and_only_at_home(cloud: Cloud) -> None:
    home, away = cloud.domain("home"), cloud.domain("away")
    inside, outside = cloud.project("in", domain_id=home), cloud.project("out", domain_id=away)
    ours, theirs = cloud.user("ours", home), cloud.user("theirs", away)
    manager = cloud.persona("manager", "domain", home)
    for role in ("reader", "member", "manager"):
        key = cloud.role(role)
        ok(manager.request("PUT", f"/v3/projects/{inside}/users/{ours}/roles/{key}"), 204)
        ok(manager.request("PUT", f"/v3/domains/{home}/users/{ours}/roles/{key}"), 204)
        ok(manager.request("PUT", f"/v3/OS-INHERIT/domains/{home}/users/{ours}/roles/{key}/inherited_to_projects"), 204)
        ok(manager.request("PUT", f"/v3/projects/{outside}/users/{ours}/roles/{key}"), 403)
        ok(manager.request("PUT", f"/v3/projects/{inside}/users/{theirs}/roles/{key}"), 403)
        ok(manager.request("PUT", f"/v3/system/users/{ours}/roles/{key}"), 403)
    for role in ("admin", "service"):
        ok(manager.request("PUT", f"/v3/projects/{inside}/users/{ours}/roles/{cloud.role(role)}"), 403)
        ok(manager.request("PUT", f"/v3/domains/{home}/users/{ours}/roles/{cloud.role(role)}"), 403)
    ok(manager.request("PUT", f"/v3/roles/{cloud.role('reader')}/implies/{cloud.role('member')}"), 403)
    ok(manager.request("POST", "/v3/roles", {"role": {"name": "mine", "domain_id": home}}), 403)
