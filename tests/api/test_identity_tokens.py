"""Identity: tokens, from the first to the last."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pileus.services.identity.interface import Keys, Tokens
from pileus.services.identity.rules import password as passwords
from pileus.services.identity.service import service
from tests.api.edge import Response, make_edge
from tests.services.identity.cloud import PASSWORD, Cloud, make_cloud, ok

ADMIN = {"name": "admin", "domain": {"id": "default"}, "password": PASSWORD}


@pytest.fixture
def cloud(database_url: str, tmp_path: Path) -> Iterator[Cloud]:
    with make_cloud(database_url, tmp_path) as made:
        yield made


def by_password(user: dict[str, Any], scope: Any = None) -> dict[str, Any]:
    found: dict[str, Any] = {"identity": {"methods": ["password"], "password": {"user": user}}}
    return found if scope is None else {**found, "scope": scope}


def by_token(token: str, scope: Any = None) -> dict[str, Any]:
    found: dict[str, Any] = {"identity": {"methods": ["token"], "token": {"id": token}}}
    return found if scope is None else {**found, "scope": scope}


def issued(response: Response) -> str:
    ok(response, 201)
    return response.headers["x-subject-token"]


def show(cloud: Cloud, token: str, method: str = "GET", query: str = "") -> Response:
    return cloud.admin.request(method, f"/v3/auth/tokens{query}", headers={"x-subject-token": token})


def test_version_documents(cloud: Cloud) -> None:
    anybody = cloud.served.client()
    for path, root in (("/", ""), ("/identity", "/identity"), ("/identity/", "/identity")):
        response = anybody.request("GET", path)
        values = ok(response, 300)["versions"]["values"]
        assert [value["id"] for value in values] == ["v3.14"]
        assert response.headers["location"] == f"http://testserver{root}/v3/"
    for path in ("/v3", "/v3/", "/identity/v3"):
        version = ok(anybody.request("GET", path))["version"]
        assert version["status"] == "stable"
        assert version["links"][0]["href"].endswith("/v3/")


def test_a_token_by_password_for_a_project(cloud: Cloud) -> None:
    scope = {"project": {"name": "admin", "domain": {"name": "Default"}}}
    response = cloud.login(by_password(ADMIN, scope))
    token = ok(response, 201)["token"]
    assert len(response.headers["x-subject-token"]) <= 255
    assert token["methods"] == ["password"]
    assert token["user"] == {
        "domain": {"id": "default", "name": "Default"},
        "id": cloud.started.admin_id,
        "name": "admin",
        "password_expires_at": None,
    }
    assert token["project"]["id"] == cloud.started.admin_project_id
    assert token["project"]["domain"] == {"id": "default", "name": "Default"}
    assert token["is_domain"] is False
    assert [role["name"] for role in token["roles"]] == ["admin", "manager", "member", "reader"]
    assert token["issued_at"] == "2030-01-01T00:00:00.000000Z"
    assert token["expires_at"] == "2030-01-01T01:00:00.000000Z"
    assert len(token["audit_ids"]) == 1
    catalog = {one["type"]: one for one in token["catalog"]}
    assert set(catalog) == {"identity", "compute", "object-store"}
    urls = {one["url"] for one in catalog["object-store"]["endpoints"]}
    assert urls == {f"http://cloud/object-store/AUTH_{cloud.started.admin_project_id}"}
    assert {one["interface"] for one in catalog["compute"]["endpoints"]} == {"public", "internal", "admin"}
    assert catalog["compute"]["endpoints"][0]["region"] == "RegionOne"


@pytest.mark.parametrize(
    "user",
    [
        {"name": "admin", "domain": {"name": "Default"}, "password": PASSWORD},
        {"name": "ADMIN", "domain": {"name": "default"}, "password": PASSWORD},
    ],
)
def test_names_are_the_same_in_any_case(cloud: Cloud, user: dict[str, Any]) -> None:
    assert ok(cloud.login(by_password(user)), 201)["token"]["user"]["name"] == "admin"


def test_every_scope(cloud: Cloud) -> None:
    admin = cloud.started.admin_id
    cloud.grant(admin, "reader", "domains/default")
    user = {"id": admin, "password": PASSWORD}
    unscoped = ok(cloud.login(by_password(user)), 201)["token"]
    assert not {"project", "domain", "system", "roles", "catalog"} & unscoped.keys()
    assert "roles" not in ok(cloud.login(by_password(user, "unscoped")), 201)["token"]
    assert "roles" not in ok(cloud.login(by_password(user, {"unscoped": {}})), 201)["token"]
    domain = ok(cloud.login(by_password(user, {"domain": {"id": "default"}})), 201)["token"]
    assert domain["domain"] == {"id": "default", "name": "Default"}
    assert [role["name"] for role in domain["roles"]] == ["reader"]
    assert {one["type"]: len(one["endpoints"]) for one in domain["catalog"]} == {
        "identity": 3,
        "compute": 3,
        "object-store": 0,
    }
    system = ok(cloud.login(by_password(user, {"system": {"all": True}})), 201)["token"]
    assert system["system"] == {"all": True}
    project = {"project": {"id": cloud.started.admin_project_id}}
    assert ok(cloud.login(by_password(user, project)), 201)["token"]["project"]["name"] == "admin"


def test_the_default_project_is_used_where_it_can_be(cloud: Cloud) -> None:
    project_id = cloud.project("p")
    user_id = cloud.user("u", password=PASSWORD)
    change = {"user": {"default_project_id": project_id}}
    ok(cloud.admin.request("PATCH", f"/v3/users/{user_id}", change))
    user = {"id": user_id, "password": PASSWORD}
    assert "project" not in ok(cloud.login(by_password(user)), 201)["token"]
    cloud.grant(user_id, "member", f"projects/{project_id}")
    assert ok(cloud.login(by_password(user)), 201)["token"]["project"]["id"] == project_id
    assert "project" not in ok(cloud.login(by_password(user, "unscoped")), 201)["token"]
    ok(cloud.admin.request("PATCH", f"/v3/projects/{project_id}", {"project": {"enabled": False}}))
    assert "project" not in ok(cloud.login(by_password(user)), 201)["token"]


def test_whatever_is_wrong_looks_the_same(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither status nor body nor the work that is done tells which of user, password and scope is wrong."""
    compared = []
    real = passwords.matches

    def matches(hashed: str | None, password: str | None) -> bool:
        compared.append(hashed)
        return real(hashed, password)

    monkeypatch.setattr(passwords, "matches", matches)
    disabled = cloud.user("disabled", password=PASSWORD)
    ok(cloud.admin.request("PATCH", f"/v3/users/{disabled}", {"user": {"enabled": False}}))
    wrong: list[dict[str, Any]] = [
        by_password({**ADMIN, "password": "wrong"}),
        by_password({**ADMIN, "name": "nobody"}),
        by_password({**ADMIN, "domain": {"name": "nowhere"}}),
        by_password({**ADMIN, "password": None}),
        by_password({"id": "nobody", "password": PASSWORD}),
        by_password({"id": cloud.user("without"), "password": ""}),
        by_password({"id": disabled, "password": PASSWORD}),
        by_password(ADMIN, {"project": {"id": "nowhere"}}),
        by_password(ADMIN, {"project": {"id": "default"}}),
        by_password(ADMIN, {"project": {"id": cloud.project("not mine")}}),
        by_password(ADMIN, {"domain": {"id": "default"}}),
        by_password(ADMIN, {"OS-TRUST:trust": {"id": "none"}}),
    ]
    answers = [cloud.login(body) for body in wrong]
    assert {answer.status for answer in answers} == {401}
    assert len({answer.body for answer in answers}) == 1
    assert len(compared) == len(wrong)
    assert ok(cloud.login({"identity": {"methods": ["saml2"]}}), 401)["error"]["title"] == "Unauthorized"
    ok(cloud.login({"identity": {"methods": []}}), 401)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"identity": {}},
        {"identity": {"methods": "password"}},
        {"identity": {"methods": ["password"]}},
        {"identity": {"methods": ["token"]}},
        {"identity": {"methods": ["token"], "token": {}}},
        {"identity": {"methods": ["password"], "password": {}}},
        by_password({"password": "x"}),
        by_password({"name": "admin", "password": "x"}),
        by_password({"name": "admin", "domain": {}, "password": "x"}),
        by_password({"name": 1, "domain": {"id": "default"}, "password": "x"}),
        by_password({"id": "x", "password": 7}),
        by_password(ADMIN, {}),
        by_password(ADMIN, "scoped"),
        by_password(ADMIN, {"project": {"id": "x"}, "system": {"all": True}}),
        by_password(ADMIN, {"project": {}}),
        by_password(ADMIN, {"project": {"name": "x"}}),
        by_password(ADMIN, {"domain": {}}),
        by_password(ADMIN, {"system": {}}),
    ],
)
def test_requests_that_make_no_sense(cloud: Cloud, body: dict[str, Any]) -> None:
    response = cloud.login(body)
    assert ok(response, 400)["error"]["title"] == "Bad Request"
    assert PASSWORD.encode() not in response.body


def test_bodies_that_are_none(cloud: Cloud) -> None:
    anybody = cloud.served.client()
    assert anybody.request("POST", "/v3/auth/tokens", data=b"{").status == 400
    assert anybody.request("POST", "/v3/auth/tokens").status == 400
    assert anybody.request("POST", "/v3/auth/tokens", json=[]).status == 400
    assert anybody.request("POST", "/v3/auth/tokens", data=b"<a/>", headers={"content-type": "text/xml"}).status == 415


def test_rescoping_keeps_the_chain_and_the_end(cloud: Cloud) -> None:
    first = issued(cloud.login(by_password(ADMIN, "unscoped")))
    parent = ok(show(cloud, first))["token"]
    cloud.clock.advance(600)
    second = cloud.login(by_token(first, {"project": {"id": cloud.started.admin_project_id}}))
    child = ok(second, 201)["token"]
    assert child["methods"] == ["password", "token"] or child["methods"] == ["token", "password"]
    assert child["expires_at"] == parent["expires_at"]
    assert child["issued_at"] > parent["issued_at"]
    assert child["audit_ids"][1] == parent["audit_ids"][0] != child["audit_ids"][0]
    third = ok(cloud.login(by_token(second.headers["x-subject-token"], {"system": {"all": True}})), 201)["token"]
    assert third["audit_ids"][1] == parent["audit_ids"][0]
    assert ok(show(cloud, issued(cloud.login(by_token(first)))))["token"]["expires_at"] == parent["expires_at"]


def test_what_a_token_cannot_be_exchanged_for(cloud: Cloud) -> None:
    system = cloud.token(cloud.started.admin_id, "system")
    project = {"project": {"id": cloud.started.admin_project_id}}
    ok(cloud.login(by_token(system, project)), 403)
    cloud.grant(cloud.started.admin_id, "reader", "domains/default")
    ok(cloud.login(by_token(system, {"domain": {"id": "default"}})), 403)
    ok(cloud.login(by_token(system, "unscoped")), 201)
    ok(cloud.login(by_token("nonsense")), 404)
    other = cloud.token(cloud.user("other"))
    both = {"methods": ["password", "token"], "password": {"user": ADMIN}, "token": {"id": other}}
    ok(cloud.login({"identity": both}), 401)


def test_both_methods_together(cloud: Cloud) -> None:
    mine = cloud.token(cloud.started.admin_id)
    both = {"methods": ["password", "token"], "password": {"user": ADMIN}, "token": {"id": mine}}
    assert sorted(ok(cloud.login({"identity": both}), 201)["token"]["methods"]) == ["password", "token"]


def test_a_token_ends(cloud: Cloud) -> None:
    token = cloud.token(cloud.started.admin_id, "project", cloud.started.admin_project_id)
    client = cloud.served.client(token)
    cloud.clock.advance(3599.9)
    ok(client.request("GET", "/v3/projects"))
    cloud.clock.advance(0.1)
    ok(client.request("GET", "/v3/projects"), 401)
    ok(show(cloud, token), 404)
    ok(cloud.login(by_token(token)), 404)


def test_showing_and_checking(cloud: Cloud) -> None:
    token = cloud.token(cloud.started.admin_id, "project", cloud.started.admin_project_id)
    shown = show(cloud, token)
    assert shown.headers["x-subject-token"] == token
    assert "catalog" in ok(shown)["token"]
    assert "catalog" not in ok(show(cloud, token, query="?nocatalog"))["token"]
    assert (
        "catalog"
        not in ok(
            cloud.served.client().request(
                "POST", "/v3/auth/tokens?nocatalog", {"auth": by_password(ADMIN, {"system": {"all": True}})}
            ),
            201,
        )["token"]
    )
    checked = show(cloud, token, "HEAD")
    assert (checked.status, checked.body) == (200, b"")
    assert show(cloud, "nonsense", "HEAD").status == 404
    ok(show(cloud, "nonsense"), 404)
    ok(show(cloud, "ü"), 404)
    ok(cloud.admin.request("GET", "/v3/auth/tokens"), 404)
    response = cloud.served.client().request("GET", "/v3/auth/tokens", headers={"x-subject-token": token})
    assert response.headers["www-authenticate"].startswith("Keystone uri=")
    ok(response, 401)


def test_who_may_validate(cloud: Cloud) -> None:
    project_id = cloud.project("p")
    victim = cloud.token(cloud.started.admin_id)
    header = {"x-subject-token": victim}
    for role, status in (("reader", 403), ("member", 403), ("manager", 403), ("service", 200), ("admin", 200)):
        client = cloud.persona(role, "project", project_id)
        ok(client.request("GET", "/v3/auth/tokens", headers=header), status)
        if status == 403:
            ok(client.request("DELETE", "/v3/auth/tokens", headers=header), 403)
            own = {"x-subject-token": client.token or ""}
            ok(client.request("GET", "/v3/auth/tokens", headers=own))
            ok(client.request("GET", "/v3/auth/tokens"), 403)
    ok(cloud.persona("reader", "system").request("GET", "/v3/auth/tokens", headers=header))


def test_revoking_takes_what_was_made_from_it(cloud: Cloud) -> None:
    first = issued(cloud.login(by_password(ADMIN, "unscoped")))
    project = {"project": {"id": cloud.started.admin_project_id}}
    second, third = (issued(cloud.login(by_token(first, project))) for _ in range(2))
    revoke = {"x-subject-token": second}
    ok(cloud.served.client(second).request("DELETE", "/v3/auth/tokens", headers=revoke), 204)
    ok(show(cloud, second), 404)
    ok(show(cloud, first))
    ok(show(cloud, third))
    ok(cloud.admin.request("DELETE", "/v3/auth/tokens", headers={"x-subject-token": first}), 204)
    ok(show(cloud, first), 404)
    ok(show(cloud, third), 404)
    ok(cloud.admin.request("DELETE", "/v3/auth/tokens", headers={"x-subject-token": first}), 404)
    ok(cloud.admin.request("DELETE", "/v3/auth/tokens"), 404)


def test_revoking_one_alone(cloud: Cloud) -> None:
    first = issued(cloud.login(by_password(ADMIN, "unscoped")))
    second = issued(cloud.login(by_token(first, {"project": {"id": cloud.started.admin_project_id}})))
    header = {"x-subject-token": first}
    ok(cloud.admin.request("DELETE", "/v3/auth/tokens?cascade=false", headers=header), 204)
    ok(show(cloud, first), 404)
    ok(show(cloud, second))


def test_what_makes_tokens_void_at_once_and_for_ever(cloud: Cloud) -> None:
    """Each act makes the token void, and undoing it does not bring the token back."""
    domain_id = cloud.domain("d")

    def stand() -> tuple[str, str, str]:
        name = cloud.served.store.seams.hex()
        user_id = cloud.user(name, domain_id)
        project_id = cloud.project(name, domain_id=domain_id)
        cloud.grant(user_id, "member", f"projects/{project_id}")
        return user_id, project_id, cloud.token(user_id, "project", project_id)

    def patch(path: str, key: str, **changes: Any) -> None:
        ok(cloud.admin.request("PATCH", f"/v3/{path}", {key: changes}))

    for act in ("user", "project", "domain", "password", "tokens"):
        user_id, project_id, token = stand()
        ok(show(cloud, token))
        if act == "user":
            patch(f"users/{user_id}", "user", enabled=False)
            ok(show(cloud, token), 404)
            patch(f"users/{user_id}", "user", enabled=True)
        elif act == "project":
            patch(f"projects/{project_id}", "project", enabled=False)
            ok(show(cloud, token), 404)
            patch(f"projects/{project_id}", "project", enabled=True)
        elif act == "domain":
            patch(f"domains/{domain_id}", "domain", enabled=False)
            ok(show(cloud, token), 404)
            patch(f"domains/{domain_id}", "domain", enabled=True)
        elif act == "password":
            patch(f"users/{user_id}", "user", password="new")
        else:
            ok(cloud.admin.request("DELETE", f"/v3/users/{user_id}/tokens"), 204)
        ok(show(cloud, token), 404)
        ok(cloud.served.client(token).request("GET", "/v3/auth/projects"), 401)
        ok(show(cloud, cloud.token(user_id, "project", project_id)))


def test_a_token_lives_by_the_roles_of_its_user(cloud: Cloud) -> None:
    project_id, user_id = cloud.project("p"), cloud.user("u")
    cloud.grant(user_id, "member", f"projects/{project_id}")
    token = cloud.token(user_id, "project", project_id)

    def names() -> list[str]:
        return [role["name"] for role in ok(show(cloud, token))["token"]["roles"]]

    assert names() == ["member", "reader"]
    cloud.grant(user_id, "service", f"projects/{project_id}")
    assert names() == ["member", "reader", "service"]
    for role in ("member", "service"):
        path = f"/v3/projects/{project_id}/users/{user_id}/roles/{cloud.role(role)}"
        ok(cloud.admin.request("DELETE", path), 204)
    ok(show(cloud, token), 404)
    cloud.grant(user_id, "reader", f"projects/{project_id}")
    assert names() == ["reader"]
    ok(cloud.admin.request("DELETE", f"/v3/users/{user_id}"), 204)
    ok(show(cloud, token), 404)


def test_another_process_knows_at_once(cloud: Cloud, database_url: str, tmp_path: Path) -> None:
    """Two control processes keep tokens each for itself, and neither answers from what is no longer so."""
    tokens = Tokens(Keys(tmp_path / "keys"))
    provided = {Tokens: tokens}
    seams = cloud.served.store.seams
    with make_edge(database_url, service(), provided=provided, authenticate=tokens.authenticate, seams=seams) as other:
        project_id, user_id = cloud.project("p"), cloud.user("u")
        cloud.grant(user_id, "admin", f"projects/{project_id}")
        token = cloud.token(user_id, "project", project_id)
        there, here = other.client(token), cloud.served.client(token)
        ok(there.request("GET", "/v3/users"))
        ok(here.request("GET", "/v3/users"))
        path = f"/v3/projects/{project_id}/users/{user_id}/roles/"
        ok(there.request("PUT", path + cloud.role("reader")), 204)
        ok(there.request("DELETE", path + cloud.role("admin")), 204)
        ok(here.request("GET", "/v3/users"), 403)
        ok(there.request("GET", "/v3/users"), 403)
        ok(cloud.admin.request("DELETE", "/v3/auth/tokens", headers={"x-subject-token": token}), 204)
        ok(there.request("GET", "/v3/auth/projects"), 401)
        ok(here.request("GET", "/v3/auth/projects"), 401)


def test_a_kept_token_is_forgotten_when_there_are_too_many(cloud: Cloud) -> None:
    tokens = Tokens(cloud.tokens.keys, size=2)
    texts = [cloud.token(cloud.started.admin_id) for _ in range(4)]
    for text in texts * 2:
        assert cloud.served.store.read_here(functools.partial(tokens.validate, text=text)).user.name == "admin"
    assert len(tokens._kept) == 2


def test_where_a_token_could_lead(cloud: Cloud) -> None:
    domain_id = cloud.domain("d")
    mine, inherited, disabled = (cloud.project(name, domain_id=domain_id) for name in ("mine", "inherited", "off"))
    cloud.project("foreign")
    user_id = cloud.user("u")
    cloud.grant(user_id, "reader", f"projects/{mine}")
    role = cloud.role("reader")
    path = f"/v3/OS-INHERIT/domains/{domain_id}/users/{user_id}/roles/{role}/inherited_to_projects"
    ok(cloud.admin.request("PUT", path), 204)
    ok(cloud.admin.request("PATCH", f"/v3/projects/{disabled}", {"project": {"enabled": False}}))
    client = cloud.client(user_id)
    projects = ok(client.request("GET", "/v3/auth/projects"))
    assert {one["id"] for one in projects["projects"]} == {mine, inherited}
    assert projects["links"]["self"] == "http://testserver/v3/auth/projects"
    assert ok(client.request("GET", "/v3/auth/domains"))["domains"] == []
    assert ok(client.request("GET", "/v3/auth/system"))["system"] == []
    cloud.grant(user_id, "reader", f"domains/{domain_id}")
    cloud.grant(user_id, "reader", "system")
    assert [one["id"] for one in ok(client.request("GET", "/v3/auth/domains"))["domains"]] == [domain_id]
    assert ok(client.request("GET", "/v3/auth/system"))["system"] == [{"all": True}]
    ok(cloud.served.client().request("GET", "/v3/auth/projects"), 401)


def test_the_catalog(cloud: Cloud) -> None:
    catalog = ok(cloud.admin.request("GET", "/v3/auth/catalog"))
    assert {one["type"] for one in catalog["catalog"]} == {"identity", "compute", "object-store"}
    assert cloud.admin.request("HEAD", "/v3/auth/catalog").status == 200
    ok(cloud.client(cloud.started.admin_id).request("GET", "/v3/auth/catalog"), 403)
    endpoints = ok(cloud.admin.request("GET", "/v3/endpoints"))["endpoints"]
    for one in endpoints:
        ok(cloud.admin.request("PATCH", f"/v3/endpoints/{one['id']}", {"endpoint": {"enabled": False}}))
    after = ok(cloud.admin.request("GET", "/v3/auth/catalog"))["catalog"]
    assert [one["endpoints"] for one in after] == [[], [], []]


def test_a_password_is_hashed_again_when_the_parameters_grow(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    user_id = cloud.user("u", password=PASSWORD)
    monkeypatch.setattr(passwords, "stale", lambda hashed: True)
    user = {"id": user_id, "password": PASSWORD}
    token = issued(cloud.login(by_password(user)))
    ok(cloud.login(by_password(user)), 201)
    ok(show(cloud, token))
