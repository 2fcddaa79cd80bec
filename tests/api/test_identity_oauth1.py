"""Identity: OAuth 1.0a, from a consumer's first request to a token of its own."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from oauthlib import oauth1

from tests.api.edge import Client, Response
from tests.services.identity.cloud import Cloud, make_cloud, ok

ROOT = "http://testserver"
OAUTH = "/v3/OS-OAUTH1"


def parsed(response: Response) -> dict[str, str]:
    assert response.status == 201, response
    assert response.headers["content-type"] == "application/x-www-form-urlencoded"
    return dict(urllib.parse.parse_qsl(response.body.decode()))


@dataclass
class Stage:
    """A consumer, and an administrator of a project who may let it act."""

    cloud: Cloud
    user: str
    project: str
    consumer: dict[str, str]

    @property
    def owner(self) -> Client:
        return self.cloud.client(self.user, "project", self.project)

    @property
    def tokens(self) -> str:
        return f"/v3/users/{self.user}/OS-OAUTH1/access_tokens"

    def signed(self, path: str, **more: Any) -> dict[str, str]:
        """The header of a request that the consumer has signed."""
        given = {
            "client_key": self.consumer["id"],
            "client_secret": self.consumer["secret"],
            "timestamp": str(int(self.cloud.clock.now().timestamp())),
            **more,
        }
        _, headers, _ = oauth1.Client(**given).sign(ROOT + path, http_method="POST")
        return {"authorization": str(headers["Authorization"])}

    def send(self, path: str, headers: dict[str, str], json: Any = None) -> Response:
        return self.cloud.served.client().request("POST", path, json, headers=headers)

    def ask(self, project: str | None = None, **more: Any) -> Response:
        path = f"{OAUTH}/request_token"
        headers = self.signed(path, callback_uri="oob", **more)
        return self.send(path, {**headers, "requested-project-id": project or self.project})

    def authorize(self, key: str, *roles: str) -> Response:
        body = {"roles": [{"name": name} for name in roles]}
        return self.owner.request("PUT", f"{OAUTH}/authorize/{key}", body)

    def exchange(self, asked: dict[str, str], verifier: str, **more: Any) -> Response:
        path = f"{OAUTH}/access_token"
        given = {"resource_owner_key": asked["oauth_token"], "resource_owner_secret": asked["oauth_token_secret"]}
        return self.send(path, self.signed(path, **{**given, "verifier": verifier, **more}))

    def access(self, *roles: str) -> dict[str, str]:
        """An access token for some of the user's roles."""
        asked = parsed(self.ask())
        verifier = ok(self.authorize(asked["oauth_token"], *(roles or ("member",))))["token"]["oauth_verifier"]
        return parsed(self.exchange(asked, verifier))

    def login(self, access: dict[str, str], path: str = "/v3/auth/tokens", **more: Any) -> Response:
        given = {"resource_owner_key": access["oauth_token"], "resource_owner_secret": access["oauth_token_secret"]}
        body = {"auth": {"identity": {"methods": ["oauth1"], "oauth1": {}}}}
        return self.send(path, self.signed(path, **{**given, **more}), body)

    def acting(self, access: dict[str, str]) -> Client:
        return self.cloud.acting(self.login(access))


@pytest.fixture
def cloud(database_url: str, tmp_path: Path) -> Iterator[Cloud]:
    with make_cloud(database_url, tmp_path) as made:
        yield made


@pytest.fixture
def stage(cloud: Cloud) -> Stage:
    consumer = ok(cloud.admin.request("POST", f"{OAUTH}/consumers", {"consumer": {}}), 201)["consumer"]
    made = Stage(cloud, cloud.user("owner"), cloud.project("p"), consumer)
    cloud.grant(made.user, "admin", f"projects/{made.project}")
    return made


def test_consumers(cloud: Cloud) -> None:
    path = f"{OAUTH}/consumers"
    body = {"consumer": {"description": "My consumer", "note": "kept", "secret": "mine"}}
    made = ok(cloud.admin.request("POST", path, body), 201)["consumer"]
    assert len(made.pop("secret")) == 32
    one = f"{path}/{made['id']}"
    assert made["links"]["self"].endswith(one)
    assert (made["description"], made["note"]) == ("My consumer", "kept")
    for client in (cloud.admin, cloud.persona("reader", "system")):
        assert ok(client.request("GET", one))["consumer"] == made
        assert ok(client.request("GET", path))["consumers"] == [made]
    changed = ok(cloud.admin.request("PATCH", one, {"consumer": {"description": "Another"}}))["consumer"]
    assert changed == {**made, "description": "Another"}
    for change in ({"secret": "x"}, {"id": "x"}, {}, {"description": "x" * 256}):
        ok(cloud.admin.request("PATCH", one, {"consumer": change}), 400)
    ok(cloud.admin.request("PATCH", one, {"consumer": {"description": None}}))
    ok(cloud.admin.request("POST", path, {"consumer": {"description": 7}}), 400)
    ok(cloud.admin.request("DELETE", one), 204)
    for method, content in (("GET", None), ("DELETE", None), ("PATCH", {"consumer": {"description": "x"}})):
        ok(cloud.admin.request(method, one, content), 404)


def test_who_manages_consumers(stage: Stage) -> None:
    path = f"{OAUTH}/consumers"
    one = f"{path}/{stage.consumer['id']}"
    change = {"consumer": {"description": "x"}}
    manager = stage.cloud.persona("manager", "project", stage.project)
    domain = stage.cloud.persona("admin", "domain", "default")
    reader = stage.cloud.persona("reader", "system")
    for client in (manager, domain):
        ok(client.request("GET", path), 403)
        ok(client.request("GET", one), 403)
    for client in (manager, domain, reader):
        ok(client.request("POST", path, change), 403)
        ok(client.request("PATCH", one, change), 403)
        ok(client.request("DELETE", one), 403)
    ok(stage.cloud.served.client().request("GET", path), 401)


def test_the_whole_way(stage: Stage) -> None:
    asked = parsed(stage.ask())
    assert asked["oauth_expires_at"] == "2030-01-01T08:00:00.000000Z"
    verifier = ok(stage.authorize(asked["oauth_token"], "member"))["token"]["oauth_verifier"]
    assert len(verifier) == 8
    access = parsed(stage.exchange(asked, verifier))
    assert access["oauth_expires_at"] == "2030-01-02T00:00:00.000000Z"
    response = stage.login(access)
    token = ok(response, 201)["token"]
    assert token["methods"] == ["oauth1"]
    assert token["OS-OAUTH1"] == {"access_token_id": access["oauth_token"], "consumer_id": stage.consumer["id"]}
    assert token["user"]["id"] == stage.user
    assert token["project"]["id"] == stage.project
    assert [role["name"] for role in token["roles"]] == ["member", "reader"]
    header = {"x-subject-token": response.headers["x-subject-token"]}
    assert ok(stage.cloud.admin.request("GET", "/v3/auth/tokens", headers=header))["token"] == token
    ok(stage.login(access, path="/identity/v3/auth/tokens"), 201)
    ok(stage.login(access, signature_method=oauth1.SIGNATURE_HMAC_SHA256), 201)
    ok(stage.login(access, signature_method=oauth1.SIGNATURE_HMAC_SHA512), 201)


def test_request_tokens_that_cannot_be(stage: Stage) -> None:
    path = f"{OAUTH}/request_token"
    signed = stage.signed(path)
    project = {"requested-project-id": stage.project}
    ok(stage.send(path, project), 400)
    ok(stage.send(path, signed), 400)
    ok(stage.send(path, {**project, "authorization": "Basic eDp5"}), 400)
    ok(stage.send(path, {**project, "authorization": "OAuth oauth_nonce"}), 400)
    ok(stage.send(path, {**project, "authorization": 'OAuth oauth_consumer_key="x"'}), 400)
    ok(stage.ask(client_key="0" * 32), 404)
    ok(stage.ask(client_secret="0" * 32), 401)
    ok(stage.ask(project="0" * 32), 404)
    ok(stage.ask(project="default"), 404)
    ok(stage.ask(signature_method=oauth1.SIGNATURE_PLAINTEXT), 400)
    ok(stage.ask(resource_owner_key="0" * 32), 400)
    for method in ("GET", "PUT"):
        ok(stage.cloud.admin.request(method, path), 405)


def test_a_signature_is_for_one_url_once_and_about_now(stage: Stage) -> None:
    path = f"{OAUTH}/request_token"
    project = {"requested-project-id": stage.project}
    ok(stage.send(path, {**stage.signed(f"{OAUTH}/access_token"), **project}), 401)
    now = int(stage.cloud.clock.now().timestamp())
    for late in (-601, 601):
        ok(stage.send(path, {**stage.signed(path, timestamp=str(now + late)), **project}), 401)
    for timestamp in ("x", "-1", "9" * 12, "9" * 13):
        ok(stage.send(path, {**stage.signed(path, timestamp=timestamp), **project}), 401)
    once = {**stage.signed(path), **project}
    parsed(stage.send(path, once))
    ok(stage.send(path, once), 401)
    stage.cloud.clock.advance(1300)
    ok(stage.send(path, once), 401)
    query = f"{path}?a=1&b=%20x"
    parsed(stage.send(query, {**stage.signed(query), **project}))


def test_authorizing(stage: Stage) -> None:
    key = parsed(stage.ask())["oauth_token"]
    path = f"{OAUTH}/authorize/{key}"
    body = {"roles": [{"name": "member"}]}
    ok(stage.cloud.persona("manager", "project", stage.project).request("PUT", path, body), 403)
    ok(stage.cloud.persona("admin", "system").request("PUT", path, body), 403)
    ok(stage.cloud.persona("admin", "domain", "default").request("PUT", path, body), 403)
    ok(stage.cloud.served.client().request("PUT", path, body), 401)
    ok(stage.cloud.admin.request("PUT", path, body), 401)
    ok(stage.authorize(key, "service"), 401)
    ok(stage.authorize(key, "nothing"), 404)
    ok(stage.authorize("0" * 32, "member"), 404)
    wrong: list[Any] = [[{}], [{"id": "x", "name": "y"}], "member", [{"fake": "x"}]]
    for roles in wrong:
        ok(stage.owner.request("PUT", path, {"roles": roles}), 400)
    ok(stage.authorize(key, "member"))
    stage.cloud.clock.advance(8 * 3600)
    ok(stage.authorize(key, "member"), 401)


def test_exchanges_that_fail(stage: Stage) -> None:
    asked = parsed(stage.ask())
    ok(stage.exchange(asked, "abcdefgh"), 401)
    verifier = ok(stage.authorize(asked["oauth_token"], "member"))["token"]["oauth_verifier"]
    ok(stage.exchange(asked, "abcdefgh"), 401)
    ok(stage.exchange(asked, ""), 400)
    ok(stage.exchange(asked, verifier, client_secret="wrong"), 401)
    ok(stage.exchange(asked, verifier, resource_owner_secret="wrong"), 401)
    ok(stage.exchange(asked, verifier, resource_owner_key="0" * 32), 404)
    ok(stage.exchange(asked, verifier, resource_owner_key=None), 400)
    ok(stage.exchange(asked, verifier, client_key="0" * 32), 401)
    path = f"{OAUTH}/consumers"
    other = ok(stage.cloud.admin.request("POST", path, {"consumer": {}}), 201)["consumer"]
    ok(stage.exchange(asked, verifier, client_key=other["id"], client_secret=other["secret"]), 401)
    parsed(stage.exchange(asked, verifier))
    ok(stage.exchange(asked, verifier), 404)


def test_logins_that_fail(stage: Stage) -> None:
    access = stage.access()
    ok(stage.login(access, client_secret="wrong"), 401)
    ok(stage.login(access, resource_owner_secret="wrong"), 401)
    ok(stage.login(access, resource_owner_key="0" * 32), 404)
    ok(stage.login(access, resource_owner_key=None), 400)
    ok(stage.login(access, client_key="0" * 32), 401)
    anybody = stage.cloud.served.client()
    identity = {"methods": ["oauth1"], "oauth1": {}}
    ok(anybody.request("POST", "/v3/auth/tokens", {"auth": {"identity": identity}}), 400)
    ok(anybody.request("POST", "/v3/auth/tokens", {"auth": {"identity": {"methods": ["oauth1"]}}}), 400)
    stage.cloud.clock.advance(24 * 3600)
    ok(stage.login(access), 401)


def test_access_tokens_of_a_user(stage: Stage) -> None:
    access = stage.access("member", "reader")
    path = f"{stage.tokens}/{access['oauth_token']}"
    listed = ok(stage.owner.request("GET", stage.tokens))["access_tokens"]
    shown = ok(stage.owner.request("GET", path))["access_token"]
    assert listed == [shown]
    links = shown.pop("links")
    assert (links["self"], links["roles"]) == (ROOT + path, f"{ROOT}{path}/roles")
    assert shown == {
        "id": access["oauth_token"],
        "consumer_id": stage.consumer["id"],
        "project_id": stage.project,
        "authorizing_user_id": stage.user,
        "expires_at": access["oauth_expires_at"],
    }
    roles = ok(stage.owner.request("GET", f"{path}/roles"))["roles"]
    assert [role["name"] for role in roles] == ["member", "reader"]
    assert ok(stage.owner.request("GET", f"{path}/roles/{roles[0]['id']}"))["role"] == roles[0]
    ok(stage.owner.request("GET", f"{path}/roles/{stage.cloud.role('admin')}"), 404)
    others = f"/v3/users/{stage.cloud.started.admin_id}/OS-OAUTH1/access_tokens/{access['oauth_token']}"
    for method, one in (("GET", others), ("DELETE", others), ("GET", f"{others}/roles"), ("GET", f"{path}0")):
        ok(stage.owner.request(method, one), 404)
    manager = stage.cloud.persona("manager", "project", stage.project)
    for client in (manager, stage.cloud.persona("admin", "system")):
        for one in (stage.tokens, path, f"{path}/roles", f"{path}/roles/{roles[0]['id']}"):
            ok(client.request("GET", one), 403)
        ok(client.request("DELETE", path), 403)
    ok(stage.owner.request("DELETE", path), 204)
    ok(stage.owner.request("DELETE", path), 404)
    assert ok(stage.owner.request("GET", stage.tokens))["access_tokens"] == []


def test_what_voids_it(stage: Stage) -> None:
    cloud = stage.cloud

    def patch(path: str, **changes: Any) -> None:
        noun = path.partition("/")[0].removesuffix("s")
        ok(cloud.admin.request("PATCH", f"/v3/{path}", {noun: changes}))

    access = stage.access()
    for path in (f"users/{stage.user}", f"projects/{stage.project}"):
        client = stage.acting(access)
        patch(path, enabled=False)
        assert not stage.cloud.alive(client)
        ok(stage.login(access), 401)
        patch(path, enabled=True)
        assert not stage.cloud.alive(client)
    client = stage.acting(access)
    patch(f"users/{stage.user}", password="another secret")
    assert not stage.cloud.alive(client)
    client = stage.acting(access)
    cloud.grant(stage.user, "reader", f"projects/{stage.project}")
    role = f"/v3/projects/{stage.project}/users/{stage.user}/roles/{cloud.role('admin')}"
    ok(cloud.admin.request("DELETE", role), 204)
    assert not stage.cloud.alive(client)
    ok(stage.login(access), 401)
    cloud.grant(stage.user, "admin", f"projects/{stage.project}")
    client = stage.acting(access)
    ok(stage.owner.request("DELETE", f"{stage.tokens}/{access['oauth_token']}"), 204)
    assert not stage.cloud.alive(client)
    client = stage.acting(stage.access())
    ok(cloud.admin.request("DELETE", f"{OAUTH}/consumers/{stage.consumer['id']}"), 204)
    assert not stage.cloud.alive(client)
    assert ok(stage.owner.request("GET", stage.tokens))["access_tokens"] == []


def test_what_a_token_by_it_cannot_do(stage: Stage) -> None:
    access = stage.access("admin")
    client = stage.acting(access)
    body = {"identity": {"methods": ["token"], "token": {"id": client.token}}, "scope": "unscoped"}
    ok(stage.cloud.login(body), 403)
    key = parsed(stage.ask())["oauth_token"]
    ok(client.request("PUT", f"{OAUTH}/authorize/{key}", {"roles": [{"name": "member"}]}), 403)
    for path in (stage.tokens, f"{stage.tokens}/{access['oauth_token']}"):
        ok(client.request("GET", path), 403)
    ok(client.request("DELETE", f"{stage.tokens}/{access['oauth_token']}"), 403)
    ok(client.request("GET", "/v3/OS-TRUST/trusts"), 403)
    trust = {
        "trustor_user_id": stage.user,
        "trustee_user_id": stage.cloud.user("trustee"),
        "project_id": stage.project,
        "impersonation": True,
        "roles": [{"name": "member"}],
    }
    ok(client.request("POST", "/v3/OS-TRUST/trusts", {"trust": trust}), 403)
    credentials = f"/v3/users/{stage.user}/application_credentials"
    ok(client.request("POST", credentials, {"application_credential": {"name": "x"}}), 403)
    ok(client.request("GET", credentials), 403)
    assert ok(client.request("GET", "/v3/credentials"))["credentials"] == []
    ok(client.request("GET", "/v3/users"))
