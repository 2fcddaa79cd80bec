"""Identity: application credentials, the access rules that limit them, and tokens that stand on them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.api.edge import Client, Response
from tests.services.identity.cloud import Cloud, make_cloud, ok


@dataclass
class Stage:
    """A user who is a member of a project."""

    cloud: Cloud
    user: str
    project: str

    @property
    def path(self) -> str:
        return f"/v3/users/{self.user}/application_credentials"

    @property
    def rules(self) -> str:
        return f"/v3/users/{self.user}/access_rules"

    @property
    def owner(self) -> Client:
        return self.cloud.client(self.user, "project", self.project)

    def make(self, name: str = "robot", **more: Any) -> dict[str, Any]:
        body = {"application_credential": {"name": name, **more}}
        found: dict[str, Any] = ok(self.owner.request("POST", self.path, body), 201)["application_credential"]
        return found

    def login(self, credential: dict[str, Any], **more: Any) -> Response:
        shown = {"id": credential["id"], "secret": credential["secret"]}
        identity = {"methods": ["application_credential"], "application_credential": shown}
        return self.cloud.login({"identity": identity, **more})

    def acting(self, credential: dict[str, Any]) -> Client:
        return self.cloud.acting(self.login(credential))


@pytest.fixture
def cloud(database_url: str, tmp_path: Path) -> Iterator[Cloud]:
    with make_cloud(database_url, tmp_path) as made:
        yield made


@pytest.fixture
def stage(cloud: Cloud) -> Stage:
    made = Stage(cloud, cloud.user("owner"), cloud.project("p"))
    cloud.grant(made.user, "member", f"projects/{made.project}")
    return made


def test_from_its_making_to_its_end(stage: Stage) -> None:
    made = stage.make(description="watches", expires_at="2030-01-01T01:00:00.5")
    secret = made.pop("secret")
    assert len(secret) == 86
    assert made["expires_at"] == "2030-01-01T01:00:00.500000"
    assert (made["name"], made["description"], made["project_id"]) == ("robot", "watches", stage.project)
    assert made["unrestricted"] is False
    assert sorted(role["name"] for role in made["roles"]) == ["member", "reader"]
    assert "access_rules" not in made
    path = f"{stage.path}/{made['id']}"
    assert made["links"]["self"].endswith(path)
    for client in (stage.owner, stage.cloud.admin, stage.cloud.persona("reader", "system")):
        assert ok(client.request("GET", path))["application_credential"] == made
        assert ok(client.request("GET", stage.path))["application_credentials"] == [made]
    stage.make("other")
    named = ok(stage.owner.request("GET", f"{stage.path}?name=Robot"))["application_credentials"]
    assert [one["id"] for one in named] == [made["id"]]
    ok(stage.owner.request("DELETE", path), 204)
    ok(stage.owner.request("GET", path), 404)
    ok(stage.owner.request("DELETE", path), 404)


def test_the_secret_is_nowhere(stage: Stage) -> None:
    made = stage.make(secret="a secret of its own")
    assert made["secret"] == "a secret of its own"
    for path in (stage.path, f"{stage.path}/{made['id']}"):
        assert b"a secret of its own" not in stage.owner.request("GET", path).body
    token = ok(stage.login(made), 201)
    assert "secret" not in token["token"]["application_credential"]


def test_who_may(stage: Stage) -> None:
    made = stage.make()
    path = f"{stage.path}/{made['id']}"
    stranger = stage.cloud.persona("manager", "project", stage.project)
    domain = stage.cloud.persona("admin", "domain", "default")
    for client in (stranger, domain):
        ok(client.request("GET", stage.path), 403)
        ok(client.request("GET", path), 403)
        ok(client.request("DELETE", path), 403)
    for client in (stranger, domain, stage.cloud.admin):
        ok(client.request("POST", stage.path, {"application_credential": {"name": "x"}}), 403)
    ok(stage.cloud.persona("reader", "system").request("DELETE", path), 403)
    mine = stranger.request("GET", "/v3/auth/tokens", headers={"x-subject-token": stranger.token or ""})
    own = f"/v3/users/{ok(mine)['token']['user']['id']}/application_credentials/{made['id']}"
    ok(stranger.request("GET", own), 403)
    ok(stranger.request("DELETE", own), 403)
    ok(stage.cloud.admin.request("GET", own), 404)
    ok(stage.cloud.client(stage.user).request("POST", stage.path, {"application_credential": {"name": "x"}}), 400)
    ok(stage.cloud.admin.request("DELETE", path), 204)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"name": ""}, 400),
        ({"name": None}, 400),
        ({"name": "x" * 256}, 400),
        ({"nonsense": 1}, 400),
        ({"secret": "x" * 5000}, 400),
        ({"expires_at": "bad"}, 400),
        ({"expires_at": "2029-01-01T00:00:00"}, 400),
        ({"roles": [{"name": "member", "id": "x"}]}, 400),
        ({"roles": [{}]}, 400),
        ({"roles": [{"name": "manager"}]}, 400),
        ({"roles": [{"name": "nothing"}]}, 404),
        ({"unrestricted": "yes"}, 400),
        ({"access_rules": [{"path": "/v2.1/servers", "method": "GET"}]}, 400),
        ({"access_rules": [{"path": "v2.1/servers", "method": "GET", "service": "compute"}]}, 400),
        ({"access_rules": [{"path": "/x", "method": "LOOK", "service": "compute"}]}, 400),
        ({"access_rules": [{"path": "/" + "x" * 225, "method": "GET", "service": "compute"}]}, 400),
        ({"access_rules": [{"id": "0" * 32}]}, 404),
        ({"access_rules": [{"path": f"/{n}", "method": "GET", "service": "compute"} for n in range(129)]}, 400),
    ],
)
def test_credentials_that_cannot_be(stage: Stage, change: dict[str, Any], status: int) -> None:
    body = {"application_credential": {"name": "robot", **change}}
    ok(stage.owner.request("POST", stage.path, body), status)
    assert ok(stage.owner.request("GET", stage.path))["application_credentials"] == []


def test_names_are_a_users_own(stage: Stage) -> None:
    stage.make("robot")
    ok(stage.owner.request("POST", stage.path, {"application_credential": {"name": "ROBOT"}}), 409)
    other = Stage(stage.cloud, stage.cloud.user("other"), stage.project)
    stage.cloud.grant(other.user, "reader", f"projects/{stage.project}")
    assert [role["name"] for role in other.make("robot")["roles"]] == ["reader"]


def test_a_token_by_an_application_credential(stage: Stage) -> None:
    made = stage.make(roles=[{"name": "reader"}])
    response = stage.login(made)
    token = ok(response, 201)["token"]
    assert token["methods"] == ["application_credential"]
    assert token["user"]["id"] == stage.user
    assert token["project"]["id"] == stage.project
    assert [role["name"] for role in token["roles"]] == ["reader"]
    assert token["application_credential"] == {"id": made["id"], "name": "robot", "restricted": True}
    header = {"x-subject-token": response.headers["x-subject-token"]}
    assert ok(stage.cloud.admin.request("GET", "/v3/auth/tokens", headers=header))["token"] == token


def test_ways_to_name_a_credential(stage: Stage) -> None:
    made = stage.make()

    def login(**shown: Any) -> Response:
        identity = {"methods": ["application_credential"], "application_credential": shown}
        return stage.cloud.login({"identity": identity})

    secret = made["secret"]
    ok(login(name="robot", secret=secret, user={"id": stage.user}), 201)
    ok(login(name="Robot", secret=secret, user={"name": "owner", "domain": {"id": "default"}}), 201)
    ok(login(name="robot", secret=secret, user={"id": "0" * 32}), 401)
    ok(login(name="robot", secret=secret, user={"name": "nobody", "domain": {"id": "default"}}), 401)
    ok(login(name="other", secret=secret, user={"id": stage.user}), 401)
    ok(login(id="0" * 32, secret=secret), 401)
    ok(login(id=made["id"], secret="wrong"), 401)
    ok(login(id=made["id"]), 400)
    ok(login(secret=secret), 400)
    ok(login(name="robot", secret=secret), 400)
    ok(login(name="robot", secret=secret, user={"name": "owner"}), 400)
    ok(stage.cloud.login({"identity": {"methods": ["application_credential"]}}), 400)


def test_guesses_of_a_secret_wait_whatever_is_said_beside_what_names_it(stage: Stage) -> None:
    made = stage.make()

    def status(secret: str, **said: Any) -> int:
        shown = {"secret": secret, **said}
        identity = {"methods": ["application_credential"], "application_credential": shown}
        return stage.cloud.login({"identity": identity}).status

    by_id = [{"id": made["id"], "user": {"name": f"n{n}"}, "name": f"m{n}"} for n in range(6)]
    user = {"name": "owner", "domain": {"id": "default"}}
    by_name = [{"name": "r\u200b" + "obot" + " " * n, "user": {"password": f"{n}", **user}} for n in range(6)]
    for ways in (by_id, by_name):
        assert [status("wrong", **said) for said in ways[:5]] == [401] * 5
        assert status(made["secret"], **ways[5]) == 429
    assert status(made["secret"], name="robot", user={"id": stage.user}) == 201


def test_it_names_its_scope_itself(stage: Stage) -> None:
    made = stage.make()
    for scope in ("unscoped", {"project": {"id": stage.project}}, {"system": {"all": True}}):
        ok(stage.login(made, scope=scope), 401)


def test_what_a_token_by_it_cannot_do(stage: Stage) -> None:
    stage.cloud.grant(stage.user, "manager", f"projects/{stage.project}")
    made = stage.make(roles=[{"name": "member"}])
    client = stage.acting(made)
    for scope in ({"project": {"id": stage.project}}, "unscoped"):
        body = {"identity": {"methods": ["token"], "token": {"id": client.token}}, "scope": scope}
        ok(stage.cloud.login(body), 403)
    ok(client.request("POST", stage.path, {"application_credential": {"name": "x"}}), 403)
    ok(client.request("DELETE", f"{stage.path}/{made['id']}"), 403)
    ok(client.request("GET", stage.path))
    trust = {
        "trustor_user_id": stage.user,
        "trustee_user_id": stage.cloud.user("trustee"),
        "project_id": stage.project,
        "impersonation": True,
        "roles": [{"name": "member"}],
    }
    made_trust = ok(stage.owner.request("POST", "/v3/OS-TRUST/trusts", {"trust": trust}), 201)["trust"]
    for free in (made, stage.make("free", unrestricted=True)):
        client = stage.acting(free)
        ok(client.request("POST", "/v3/OS-TRUST/trusts", {"trust": trust}), 403)
        ok(client.request("GET", f"/v3/OS-TRUST/trusts?trustor_user_id={stage.user}"), 403)
        for method in ("GET", "DELETE"):
            ok(client.request(method, f"/v3/OS-TRUST/trusts/{made_trust['id']}"), 403)


def test_one_that_is_not_restricted_makes_no_more_of_itself(stage: Stage) -> None:
    stage.cloud.grant(stage.user, "manager", f"projects/{stage.project}")
    client = stage.acting(stage.make(unrestricted=True, roles=[{"name": "member"}]))
    body = {"application_credential": {"name": "child", "roles": [{"name": "manager"}]}}
    ok(client.request("POST", stage.path, body), 400)
    child = ok(client.request("POST", stage.path, {"application_credential": {"name": "child"}}), 201)
    found = child["application_credential"]
    assert sorted(role["name"] for role in found["roles"]) == ["member", "reader"]
    ok(client.request("DELETE", f"{stage.path}/{found['id']}"), 204)


def test_a_token_by_a_trust_makes_none(stage: Stage) -> None:
    trustee = stage.cloud.user("trustee")
    trust = {
        "trustor_user_id": stage.user,
        "trustee_user_id": trustee,
        "project_id": stage.project,
        "impersonation": True,
        "roles": [{"name": "member"}],
    }
    made = ok(stage.owner.request("POST", "/v3/OS-TRUST/trusts", {"trust": trust}), 201)["trust"]
    body = {
        "identity": {"methods": ["token"], "token": {"id": stage.cloud.token(trustee)}},
        "scope": {"OS-TRUST:trust": {"id": made["id"]}},
    }
    response = stage.cloud.login(body)
    ok(response, 201)
    client = stage.cloud.served.client(response.headers["x-subject-token"])
    credential = stage.make()
    ok(client.request("POST", stage.path, {"application_credential": {"name": "x"}}), 403)
    ok(client.request("GET", stage.path), 403)
    ok(client.request("GET", stage.rules), 403)
    for method in ("GET", "DELETE"):
        ok(client.request(method, f"{stage.path}/{credential['id']}"), 403)


def test_what_voids_it(stage: Stage) -> None:
    cloud = stage.cloud
    member = f"/v3/projects/{stage.project}/users/{stage.user}/roles/{cloud.role('member')}"
    made = stage.make()

    def patch(path: str, **changes: Any) -> None:
        noun = path.partition("/")[0].removesuffix("s")
        ok(cloud.admin.request("PATCH", f"/v3/{path}", {noun: changes}))

    for path in (f"users/{stage.user}", f"projects/{stage.project}"):
        client = stage.acting(made)
        patch(path, enabled=False)
        assert not stage.cloud.alive(client)
        ok(stage.login(made), 401)
        patch(path, enabled=True)
        assert not stage.cloud.alive(client)
    client = stage.acting(made)
    cloud.grant(stage.user, "reader", f"projects/{stage.project}")
    ok(cloud.admin.request("DELETE", member), 204)
    assert not stage.cloud.alive(client)
    ok(stage.login(made), 401)
    cloud.grant(stage.user, "member", f"projects/{stage.project}")
    client = stage.acting(made)
    ok(stage.owner.request("DELETE", f"{stage.path}/{made['id']}"), 204)
    assert not stage.cloud.alive(client)
    ok(stage.login(made), 401)


def test_it_ends(stage: Stage) -> None:
    made = stage.make(expires_at="2030-01-01T00:10:00")
    response = stage.login(made)
    assert ok(response, 201)["token"]["expires_at"] == "2030-01-01T00:10:00.000000Z"
    client = stage.cloud.served.client(response.headers["x-subject-token"])
    stage.cloud.clock.advance(600)
    assert not stage.cloud.alive(client)
    ok(stage.login(made), 401)


@pytest.mark.parametrize("gone", ["users", "projects"])
def test_it_goes_with_user_and_project(stage: Stage, gone: str) -> None:
    made = stage.make(access_rules=[{"path": "/v3/auth/catalog", "method": "GET", "service": "identity"}])
    client = stage.acting(made)
    key = stage.user if gone == "users" else stage.project
    ok(stage.cloud.admin.request("DELETE", f"/v3/{gone}/{key}"), 204)
    assert not stage.cloud.alive(client)
    ok(stage.login(made), 401)
    ok(stage.cloud.admin.request("GET", f"{stage.path}/{made['id']}"), 404)


SERVERS = {"path": "/v2.1/servers/*/ips", "method": "GET", "service": "compute"}


def test_access_rules_of_a_user(stage: Stage) -> None:
    made = stage.make(access_rules=[SERVERS, SERVERS, {**SERVERS, "method": "HEAD"}])
    assert len(made["access_rules"]) == 2
    rule = next(one for one in made["access_rules"] if one["method"] == "GET")
    assert {name: rule[name] for name in SERVERS} == SERVERS
    other = stage.make("other", access_rules=[SERVERS])
    assert other["access_rules"] == [rule]
    third = stage.make("third", access_rules=[{"id": rule["id"]}])
    assert third["access_rules"] == [rule]
    for client in (stage.owner, stage.cloud.persona("reader", "system")):
        assert len(ok(client.request("GET", stage.rules))["access_rules"]) == 2
        shown = ok(client.request("GET", f"{stage.rules}/{rule['id']}"))["access_rule"]
        assert shown.pop("links")["self"].endswith(f"{stage.rules}/{rule['id']}")
        assert shown == rule
    filtered = ok(stage.owner.request("GET", f"{stage.rules}?method=HEAD&service=compute"))["access_rules"]
    assert [one["method"] for one in filtered] == ["HEAD"]
    for one in (made, other, third):
        ok(stage.owner.request("DELETE", f"{stage.rules}/{rule['id']}"), 403)
        ok(stage.owner.request("DELETE", f"{stage.path}/{one['id']}"), 204)
    ok(stage.owner.request("DELETE", f"{stage.rules}/{rule['id']}"), 204)
    ok(stage.owner.request("DELETE", f"{stage.rules}/{rule['id']}"), 404)
    ok(stage.owner.request("GET", f"{stage.rules}/{rule['id']}"), 404)


def test_access_rules_are_a_users_own(stage: Stage) -> None:
    rule = stage.make(access_rules=[SERVERS])["access_rules"][0]
    other = Stage(stage.cloud, stage.cloud.user("other"), stage.project)
    stage.cloud.grant(other.user, "member", f"projects/{stage.project}")
    body = {"application_credential": {"name": "x", "access_rules": [{"id": rule["id"]}]}}
    ok(other.owner.request("POST", other.path, body), 404)
    for client in (other.owner, stage.cloud.admin, stage.cloud.persona("admin", "domain", "default")):
        ok(client.request("GET", stage.rules), 403)
        for method in ("GET", "DELETE"):
            ok(client.request(method, f"{stage.rules}/{rule['id']}"), 403)
    ok(other.owner.request("GET", f"{other.rules}/{rule['id']}"), 404)
    ok(stage.cloud.persona("reader", "system").request("DELETE", f"{stage.rules}/{rule['id']}"), 403)
    ok(stage.cloud.persona("admin", "system").request("DELETE", f"{stage.rules}/{rule['id']}"), 403)


def test_a_long_path_fits_no_rule_and_costs_no_time(stage: Stage) -> None:
    paths = ["/**" + "a**" * n + "/x" for n in range(50)]
    rules = [{"path": path, "method": "GET", "service": "identity"} for path in paths]
    client = stage.acting(stage.make(access_rules=rules))
    begun = time.process_time()
    ok(client.request("GET", "/v3/users/" + "a" * 20_000), 401)
    ok(client.request("GET", "/v3/users/" + "a" * 1500), 401)
    assert time.process_time() - begun < 0.5
    ok(client.request("GET", "/v3/users/a/x"), 404)


def test_access_rules_hold_for_each_request(stage: Stage) -> None:
    rules = [
        {"path": f"/v3/users/{stage.user}", "method": "GET", "service": "identity"},
        {"path": "/v3/projects/{project_id}", "method": "GET", "service": "identity"},
        {"path": "/v3/auth/**", "method": "GET", "service": "identity"},
        {"path": "/v3/roles", "method": "GET", "service": "compute"},
        {"path": "/identity/v3/domains/*", "method": "GET", "service": "identity"},
    ]
    made = stage.make(access_rules=rules)
    response = stage.login(made)
    shown = ok(response, 201)["token"]["application_credential"]["access_rules"]
    assert sorted(one["path"] for one in shown) == sorted(one["path"] for one in rules)
    client = stage.cloud.served.client(response.headers["x-subject-token"])
    for path in (f"/v3/users/{stage.user}", f"/identity/v3/users/{stage.user}", "/v3/auth/catalog"):
        ok(client.request("GET", path))
    ok(client.request("GET", f"/v3/projects/{stage.project}"))
    ok(client.request("GET", "/identity/v3/domains/default"))
    ok(client.request("GET", "/v3/domains/default"), 401)
    ok(client.request("GET", "/v3"))
    for method, path in (
        ("GET", "/v3/users"),
        ("GET", f"/v3/users/{stage.user}/groups"),
        ("GET", f"/v3/users/{stage.user}/"),
        ("PATCH", f"/v3/users/{stage.user}"),
        ("HEAD", f"/v3/users/{stage.user}"),
        ("GET", "/v3/roles"),
        ("GET", stage.path),
    ):
        assert client.request(method, path).status == 401, path
    header = {"x-subject-token": client.token or ""}
    ok(client.request("GET", "/v3/auth/tokens", headers=header), 404)
    for version, status in (("0.9", 404), ("nonsense", 404), ("1.0", 200)):
        keeps = {**header, "openstack-identity-access-rules": version}
        ok(client.request("GET", "/v3/auth/tokens", headers=keeps), status)
    ok(client.request("DELETE", "/v3/auth/tokens", headers=header), 401)
    service = stage.cloud.persona("service", "project", stage.project)
    ok(client.request("GET", "/v3/users", headers={"x-service-token": service.token or ""}), 403)
    ok(client.request("GET", "/v3/users", headers={"x-service-token": client.token or ""}), 401)
