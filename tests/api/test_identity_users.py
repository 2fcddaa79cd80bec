"""Identity: users and groups."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.services.identity.cloud import PASSWORD, Cloud, hashed, make_cloud, ok


@pytest.fixture
def cloud(database_url: str, tmp_path: Path) -> Iterator[Cloud]:
    with make_cloud(database_url, tmp_path) as made:
        yield made


def names(body: Any, key: str) -> set[str]:
    return {one["name"] for one in body[key]}


def login(cloud: Cloud, user_id: str, password: str) -> int:
    user = {"id": user_id, "password": password}
    return cloud.login({"identity": {"methods": ["password"], "password": {"user": user}}}).status


def test_a_user_from_first_to_last(cloud: Cloud) -> None:
    wanted = {
        "name": " Alice ",
        "password": "first",
        "email": "alice@example.org",
        "description": "whoever",
        "options": {"ignore_password_expiry": True},
    }
    response = cloud.admin.request("POST", "/v3/users", {"user": wanted})
    user = ok(response, 201)["user"]
    user_id = user["id"]
    assert user == {
        "id": user_id,
        "name": "Alice",
        "domain_id": "default",
        "enabled": True,
        "password_expires_at": None,
        "options": {"ignore_password_expiry": True},
        "email": "alice@example.org",
        "description": "whoever",
        "links": {"self": f"http://testserver/v3/users/{user_id}"},
    }
    assert b"first" not in response.body
    assert ok(cloud.admin.request("GET", f"/v3/users/{user_id}"))["user"] == user
    assert cloud.admin.request("HEAD", f"/v3/users/{user_id}").status == 200
    change = {"name": "Bob", "email": "bob@example.org", "password": "second", "options": {}, "phone": "1"}
    changed = ok(cloud.admin.request("PATCH", f"/v3/users/{user_id}", {"user": change}))["user"]
    assert changed == {**user, "name": "Bob", "email": "bob@example.org", "phone": "1"}
    assert login(cloud, user_id, "first") == 401
    assert login(cloud, user_id, "second") == 201
    ok(cloud.admin.request("PATCH", f"/v3/users/{user_id}", {"user": {"password": None}}))
    assert login(cloud, user_id, "second") == 401
    ok(cloud.admin.request("DELETE", f"/v3/users/{user_id}"), 204)
    for method, body in (("GET", None), ("DELETE", None), ("PATCH", {"user": {"name": "x"}})):
        ok(cloud.admin.request(method, f"/v3/users/{user_id}", body), 404)


@pytest.mark.parametrize(
    ("user", "status"),
    [
        ({}, 400),
        ({"name": ""}, 400),
        ({"name": "   "}, 400),
        ({"name": "x" * 256}, 400),
        ({"name": 7}, 400),
        ({"name": "u", "enabled": "sometimes"}, 400),
        ({"name": "u", "domain_id": ""}, 400),
        ({"name": "u", "domain_id": "nowhere"}, 404),
        ({"name": "u", "options": {"unknown": True}}, 400),
        ({"name": "u", "default_project_id": "default"}, 400),
        ({"name": "u", "password": 1}, 400),
        ({"name": "u", "password": "x" * 4097}, 403),
        ({"name": "ADMIN"}, 409),
        ({"name": " admin"}, 409),
    ],
)
def test_users_that_cannot_be(cloud: Cloud, user: dict[str, Any], status: int) -> None:
    assert ok(cloud.admin.request("POST", "/v3/users", {"user": user}), status)["error"]["code"] == status
    assert names(ok(cloud.admin.request("GET", "/v3/users")), "users") == {"admin"}


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 400),
        ({"id": "another"}, 400),
        ({"name": ""}, 400),
        ({"domain_id": "other"}, 400),
        ({"enabled": None}, 400),
        ({"default_project_id": "default"}, 400),
        ({"name": "Admin"}, 409),
        ({"password": "x" * 4097}, 403),
    ],
)
def test_changes_that_cannot_be(cloud: Cloud, change: dict[str, Any], status: int) -> None:
    user_id = cloud.user("u")
    before = ok(cloud.admin.request("GET", f"/v3/users/{user_id}"))
    ok(cloud.admin.request("PATCH", f"/v3/users/{user_id}", {"user": change}), status)
    assert ok(cloud.admin.request("GET", f"/v3/users/{user_id}")) == before


def test_what_a_user_is_given_besides_does_not_go_deep(cloud: Cloud) -> None:
    for depth, status in ((62, 201), (63, 400), (900, 400)):
        note: Any = "x"
        for _ in range(depth):
            note = [note]
        ok(cloud.admin.request("POST", "/v3/users", {"user": {"name": f"n{depth}", "note": note}}), status)
    ok(cloud.admin.request("GET", "/v3/users"))


def test_a_name_is_free_in_another_domain_and_may_change_its_case(cloud: Cloud) -> None:
    user_id = cloud.user("u")
    cloud.user("u", cloud.domain("d"))
    assert ok(cloud.admin.request("PATCH", f"/v3/users/{user_id}", {"user": {"name": "U"}}))["user"]["name"] == "U"


def test_listing_users(cloud: Cloud) -> None:
    domain_id = cloud.domain("d")
    for name in ("alice", "Albert", "bob_x"):
        cloud.user(name)
    carol = cloud.user("carol", domain_id)
    ok(cloud.admin.request("PATCH", f"/v3/users/{carol}", {"user": {"enabled": False}}))

    def listed(query: str) -> set[str]:
        return names(ok(cloud.admin.request("GET", f"/v3/users{query}")), "users")

    assert listed("") == {"admin", "alice", "Albert", "bob_x", "carol"}
    assert listed("?name=ALICE") == {"alice"}
    assert listed("?name=ali") == set()
    assert listed("?name__contains=ob_") == {"bob_x"}
    assert listed("?name__istartswith=AL") == {"alice", "Albert"}
    assert listed("?name__endswith=e") == {"alice"}
    assert listed("?name__contains=%25") == set()
    assert listed(f"?domain_id={domain_id}") == {"carol"}
    assert listed("?enabled=false") == {"carol"}
    assert listed("?enabled=0&name=carol") == {"carol"}
    assert listed("?enabled") == {"admin", "alice", "Albert", "bob_x"}
    assert listed("?unknown=x&sort_key=name&sort_dir=desc") == listed("")
    assert cloud.admin.request("HEAD", "/v3/users").status == 200
    ok(cloud.admin.request("GET", "/v3/users?limit=x"), 400)


def test_pages(cloud: Cloud) -> None:
    for number in range(5):
        cloud.user(f"u{number}")
    found: list[str] = []
    path = "/v3/users?limit=2&sort_key=name"
    while path:
        body = ok(cloud.admin.request("GET", path))
        assert body["links"]["self"] == "http://testserver/v3/users"
        found += [user["name"] for user in body["users"]]
        path = (body["links"]["next"] or "").removeprefix("http://testserver")
    assert found == ["admin", "u0", "u1", "u2", "u3", "u4"]


def test_changing_ones_own_password(cloud: Cloud) -> None:
    user_id = cloud.user("u", password="old")
    token = cloud.token(user_id)
    anybody = cloud.served.client()

    def change(old: Any, new: Any, key: str = user_id) -> int:
        body = {"user": {"original_password": old, "password": new}}
        return anybody.request("POST", f"/v3/users/{key}/password", body).status

    assert change("wrong", "new") == 401
    assert change("old", "new", "nobody") == 401
    assert change("old", None) == 400
    assert change("old", "x" * 4097) == 403
    assert anybody.request("POST", f"/v3/users/{user_id}/password", {"user": {"password": "new"}}).status == 400
    assert anybody.request("GET", f"/v3/users/{user_id}/password").status == 405
    assert change("old", "new") == 204
    assert (login(cloud, user_id, "old"), login(cloud, user_id, "new")) == (401, 201)
    ok(cloud.served.client(token).request("GET", "/v3/auth/projects"), 401)
    ok(cloud.admin.request("PATCH", f"/v3/users/{user_id}", {"user": {"options": {"lock_password": True}}}))
    assert change("new", "newer") == 400
    ok(cloud.admin.request("PATCH", f"/v3/users/{user_id}", {"user": {"options": {"lock_password": None}}}))
    ok(cloud.admin.request("PATCH", f"/v3/users/{user_id}", {"user": {"enabled": False}}))
    assert change("new", "newer") == 401


def test_what_a_user_may_do_with_users(cloud: Cloud) -> None:
    project_id, me, other = cloud.project("p"), cloud.user("me"), cloud.user("other")
    cloud.grant(me, "manager", f"projects/{project_id}")
    client = cloud.client(me, "project", project_id)
    ok(client.request("GET", f"/v3/users/{me}"))
    ok(client.request("GET", f"/v3/users/{me}/projects"))
    ok(client.request("GET", f"/v3/users/{me}/groups"))
    for path in ("/v3/users", f"/v3/users/{other}", "/v3/users/nobody", f"/v3/users/{other}/groups"):
        ok(client.request("GET", path), 403)
    ok(client.request("POST", "/v3/users", {"user": {"name": "x"}}), 403)
    ok(client.request("PATCH", f"/v3/users/{me}", {"user": {"name": "x"}}), 403)
    ok(client.request("DELETE", f"/v3/users/{me}"), 403)
    ok(client.request("DELETE", f"/v3/users/{other}/tokens"), 403)
    ok(client.request("DELETE", f"/v3/users/{me}/tokens"), 204)
    ok(client.request("GET", f"/v3/users/{me}"), 401)
    ok(cloud.admin.request("DELETE", "/v3/users/nobody/tokens"), 404)


def test_a_manager_of_a_domain_rules_its_users_and_no_others(cloud: Cloud) -> None:
    domain_id, user_id = cloud.domain("d"), cloud.user("boss")
    cloud.grant(user_id, "manager", f"domains/{domain_id}")
    boss = cloud.client(user_id, "domain", domain_id)
    ok(boss.request("POST", "/v3/users", {"user": {"name": "x"}}), 403)
    ok(boss.request("POST", "/v3/users", {"user": {"name": "x", "domain_id": "default"}}), 403)
    mine = ok(boss.request("POST", "/v3/users", {"user": {"name": "x", "domain_id": domain_id}}), 201)["user"]["id"]
    assert names(ok(boss.request("GET", "/v3/users")), "users") == {"x"}
    assert names(ok(boss.request("GET", "/v3/users?domain_id=default")), "users") == set()
    ok(boss.request("GET", f"/v3/users/{mine}"))
    ok(boss.request("GET", f"/v3/users/{cloud.started.admin_id}"), 403)
    ok(boss.request("PATCH", f"/v3/users/{mine}", {"user": {"name": "y"}}))
    ok(boss.request("PATCH", f"/v3/users/{cloud.started.admin_id}", {"user": {"name": "y"}}), 403)
    ok(boss.request("DELETE", f"/v3/users/{cloud.started.admin_id}"), 403)
    group = {"group": {"name": "g", "domain_id": domain_id}}
    group_id = ok(boss.request("POST", "/v3/groups", group), 201)["group"]["id"]
    ok(boss.request("PUT", f"/v3/groups/{group_id}/users/{mine}"), 204)
    ok(boss.request("PUT", f"/v3/groups/{group_id}/users/{cloud.started.admin_id}"), 403)
    foreign = ok(cloud.admin.request("POST", "/v3/groups", {"group": {"name": "g"}}), 201)["group"]["id"]
    ok(boss.request("PUT", f"/v3/groups/{foreign}/users/{mine}"), 403)
    assert [one["id"] for one in ok(boss.request("GET", "/v3/groups"))["groups"]] == [group_id]
    ok(boss.request("DELETE", f"/v3/users/{mine}"), 204)


def test_a_group_from_first_to_last(cloud: Cloud) -> None:
    wanted = {"name": "g", "description": "d", "colour": "red"}
    group = ok(cloud.admin.request("POST", "/v3/groups", {"group": wanted}), 201)["group"]
    path = f"/v3/groups/{group['id']}"
    assert group == {**wanted, "id": group["id"], "domain_id": "default", "links": {"self": "http://testserver" + path}}
    assert ok(cloud.admin.request("GET", path))["group"] == group
    changed = ok(cloud.admin.request("PATCH", path, {"group": {"name": "h", "description": None}}))["group"]
    assert changed == {**group, "name": "h", "description": ""}
    assert names(ok(cloud.admin.request("GET", "/v3/groups?name=H")), "groups") == {"h"}
    ok(cloud.admin.request("DELETE", path), 204)
    ok(cloud.admin.request("GET", path), 404)
    ok(cloud.admin.request("DELETE", path), 404)


@pytest.mark.parametrize(
    ("group", "status"),
    [({}, 400), ({"name": ""}, 400), ({"name": "g", "domain_id": "nowhere"}, 404), ({"name": "TAKEN"}, 409)],
)
def test_groups_that_cannot_be(cloud: Cloud, group: dict[str, Any], status: int) -> None:
    ok(cloud.admin.request("POST", "/v3/groups", {"group": {"name": "taken"}}), 201)
    ok(cloud.admin.request("POST", "/v3/groups", {"group": group}), status)


def test_changes_of_groups_that_cannot_be(cloud: Cloud) -> None:
    one, _ = (
        ok(cloud.admin.request("POST", "/v3/groups", {"group": {"name": name}}), 201)["group"]["id"]
        for name in ("one", "two")
    )
    path = f"/v3/groups/{one}"
    ok(cloud.admin.request("PATCH", path, {"group": {}}), 400)
    ok(cloud.admin.request("PATCH", path, {"group": {"id": "x"}}), 400)
    ok(cloud.admin.request("PATCH", path, {"group": {"domain_id": "x"}}), 400)
    ok(cloud.admin.request("PATCH", path, {"group": {"name": "Two"}}), 409)
    ok(cloud.admin.request("PATCH", "/v3/groups/none", {"group": {"name": "x"}}), 404)


def test_membership(cloud: Cloud) -> None:
    group_id = ok(cloud.admin.request("POST", "/v3/groups", {"group": {"name": "g"}}), 201)["group"]["id"]
    project_id, user_id = cloud.project("p"), cloud.user("u")
    path = f"/v3/groups/{group_id}/users/{user_id}"
    ok(cloud.admin.request("GET", path), 404)
    ok(cloud.admin.request("DELETE", path), 404)
    ok(cloud.admin.request("PUT", path), 204)
    ok(cloud.admin.request("PUT", path), 204)
    ok(cloud.admin.request("GET", path), 204)
    assert cloud.admin.request("HEAD", path).status == 204
    assert names(ok(cloud.admin.request("GET", f"/v3/groups/{group_id}/users")), "users") == {"u"}
    assert names(ok(cloud.admin.request("GET", f"/v3/groups/{group_id}/users?name=x")), "users") == set()
    assert names(ok(cloud.admin.request("GET", f"/v3/users/{user_id}/groups")), "groups") == {"g"}
    ok(cloud.admin.request("PUT", f"/v3/groups/{group_id}/users/nobody"), 404)
    ok(cloud.admin.request("PUT", f"/v3/groups/none/users/{user_id}"), 404)
    ok(cloud.admin.request("GET", "/v3/groups/none/users"), 404)
    ok(cloud.admin.request("GET", "/v3/users/nobody/groups"), 404)
    role = cloud.role("reader")
    ok(cloud.admin.request("PUT", f"/v3/projects/{project_id}/groups/{group_id}/roles/{role}"), 204)
    client = cloud.client(user_id, "project", project_id)
    ok(client.request("GET", "/v3/auth/catalog"))
    ok(cloud.admin.request("DELETE", path), 204)
    ok(client.request("GET", "/v3/auth/catalog"), 401)
    ok(cloud.admin.request("PUT", path), 204)
    ok(client.request("GET", "/v3/auth/catalog"))
    ok(cloud.admin.request("DELETE", f"/v3/groups/{group_id}"), 204)
    ok(client.request("GET", "/v3/auth/catalog"), 401)


def test_no_answer_and_no_log_holds_a_secret(cloud: Cloud, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    secret = "unspeakable"
    bodies = [
        cloud.admin.request("POST", "/v3/users", {"user": {"name": "u", "password": secret}}),
        cloud.admin.request("POST", "/v3/users", {"user": {"name": "u", "password": secret}}),
        cloud.admin.request("POST", "/v3/users", {"user": {"password": secret}}),
        cloud.login({"identity": {"methods": ["password"], "password": {"user": {"id": "x", "password": secret}}}}),
        cloud.login({"identity": {"methods": ["password"], "password": {"user": {"password": secret}}}}),
        cloud.admin.request("GET", "/v3/users"),
    ]
    assert all(secret.encode() not in one.body and hashed(PASSWORD).encode() not in one.body for one in bodies)
    assert secret not in caplog.text
    assert "$argon2" not in caplog.text


def test_only_one_of_many_gets_a_name(cloud: Cloud) -> None:
    """Requests at the same time, from as many threads as the engine has, and in any case of the name."""
    admin = cloud.admin
    waiting = [
        admin.submit("POST", f"/v3/{noun}s", {noun: {"name": "racer" if number % 2 else "RACER"}})
        for number in range(8)
        for noun in ("user", "group", "project", "domain", "role")
    ]
    statuses = sorted(one.result(60).status for one in waiting)
    assert statuses == [201] * 5 + [409] * 35
