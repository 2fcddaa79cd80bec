"""Identity: tokens after their end, their keys, and what is told of revoked ones."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pileus.services.identity.interface import Keys, Tokens
from pileus.services.identity.service import service
from tests.api.edge import Response, Served, make_edge
from tests.services.identity.cloud import PASSWORD, Cloud, make_cloud, ok

HOUR = 3600


@pytest.fixture
def cloud(database_url: str, tmp_path: Path) -> Iterator[Cloud]:
    with make_cloud(database_url, tmp_path) as made:
        yield made


@pytest.fixture
def other(cloud: Cloud, database_url: str, tmp_path: Path) -> Iterator[Served]:
    """Another control process on the same store, with the same master key."""
    tokens = Tokens(Keys(tmp_path / "keys"))
    seams = cloud.served.store.seams
    provided = {Tokens: tokens}
    with make_edge(database_url, service(), provided=provided, authenticate=tokens.authenticate, seams=seams) as made:
        yield made


def show(cloud: Cloud, token: str, query: str = "", method: str = "GET") -> Response:
    return cloud.admin.request(method, f"/v3/auth/tokens{query}", headers={"x-subject-token": token})


def stand(cloud: Cloud, role: str = "member") -> tuple[str, str, str]:
    """A user, a project, and the user's token for it."""
    name = cloud.served.store.seams.hex()
    user_id, project_id = cloud.user(name, password=PASSWORD), cloud.project(name)
    cloud.grant(user_id, role, f"projects/{project_id}")
    return user_id, project_id, cloud.token(user_id, "project", project_id)


def test_a_token_can_be_shown_for_some_time_after_its_end(cloud: Cloud) -> None:
    _, _, token = stand(cloud)
    cloud.clock.advance(HOUR)
    for query, status in (
        ("", 404),
        ("?allow_expired=0", 404),
        ("?allow_expired=1", 200),
        ("?allow_expired=true", 200),
    ):
        ok(show(cloud, token, query), status)
        assert show(cloud, token, query, "HEAD").status == status
    ok(cloud.served.client(token).request("GET", "/v3/auth/projects"), 401)
    cloud.clock.advance(48 * HOUR - 1)
    ok(show(cloud, token, "?allow_expired=1"))
    cloud.clock.advance(1)
    ok(show(cloud, token, "?allow_expired=1"), 404)
    ok(show(cloud, token, "?allow_expired=perhaps"), 400)


def test_what_is_revoked_stays_so_after_its_end(cloud: Cloud) -> None:
    _, _, token = stand(cloud)
    ok(show(cloud, token, method="DELETE"), 204)
    cloud.clock.advance(HOUR + 1)
    _, _, another = stand(cloud)
    ok(show(cloud, another, method="DELETE"), 204)
    ok(show(cloud, token, "?allow_expired=1"), 404)


def test_a_service_finishes_what_was_begun_with_a_token(cloud: Cloud) -> None:
    user_id, project_id, token = stand(cloud)
    cloud.clock.advance(HOUR)
    client = cloud.served.client(token)

    def status(service_token: str) -> int:
        return client.request("GET", "/v3/auth/projects", headers={"x-service-token": service_token}).status

    assert status(stand(cloud, "service")[2]) == 200
    assert status(stand(cloud, "admin")[2]) == 401
    assert status("nonsense") == 401
    fresh = cloud.client(user_id, "project", project_id)
    assert fresh.request("GET", "/v3/auth/projects", headers={"x-service-token": "nonsense"}).status == 401
    assert fresh.request("GET", "/v3/auth/projects", headers={"x-service-token": token}).status == 401
    service_token = stand(cloud, "service")[2]
    cloud.clock.advance(HOUR)
    assert status(service_token) == 401


def test_a_scoped_token_is_exchanged_only_where_that_is_allowed(cloud: Cloud) -> None:
    user_id, project_id, token = stand(cloud)
    scope = {"project": {"id": project_id}}

    def exchange(text: str) -> Response:
        return cloud.login({"identity": {"methods": ["token"], "token": {"id": text}}, "scope": scope})

    ok(exchange(token), 201)
    cloud.tokens.rescope_scoped = False
    ok(exchange(token), 403)
    ok(exchange(cloud.token(user_id)), 201)


def test_methods_are_in_one_order(cloud: Cloud) -> None:
    body = {"identity": {"methods": ["token"], "token": {"id": cloud.token(cloud.started.admin_id)}}}
    issued = cloud.login(body)
    shown = ok(show(cloud, issued.headers["x-subject-token"]))
    assert ok(issued, 201) == shown
    assert shown["token"]["methods"] == ["password", "token"]


def test_methods_that_are_switched_off_answer_alike(cloud: Cloud) -> None:
    for method in ("totp", "mapped", "saml2", "openid", "external", "kerberos", "x509", "oauth2_credential", ""):
        ok(cloud.login({"identity": {"methods": [method], method: {}}}), 401)
    ok(cloud.login({"identity": {"methods": ["password", "totp"], "password": {}, "totp": {}}}), 400)


def test_a_rotation_voids_nothing_and_is_known_everywhere_at_once(cloud: Cloud, other: Served) -> None:
    before = stand(cloud)
    there = other.client(before[2])
    ok(there.request("GET", "/v3/auth/projects"))
    for _ in range(4):
        cloud.served.store.write_here(cloud.tokens.keys.rotate)
        token = cloud.token(before[0], "project", before[1])
        ok(other.client(token).request("GET", "/v3/auth/projects"))
        ok(there.request("GET", "/v3/auth/projects"))
    user = {"id": before[0], "password": PASSWORD}
    made = other.client().request(
        "POST", "/v3/auth/tokens", {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}}}
    )
    ok(made, 201)
    ok(show(cloud, made.headers["x-subject-token"]))
    cloud.served.store.write_here(lambda tx: cloud.tokens.keys.rotate(tx, forget=True))
    ok(there.request("GET", "/v3/auth/projects"), 401)
    ok(show(cloud, before[2]), 404)


def test_what_one_process_revokes_the_other_refuses_at_once(cloud: Cloud, other: Served) -> None:
    acts: dict[str, Any] = {
        "token": lambda user, project, token: show(cloud, token, method="DELETE"),
        "user": lambda user, project, token: cloud.admin.request("DELETE", f"/v3/users/{user}"),
        "tokens": lambda user, project, token: cloud.admin.request("DELETE", f"/v3/users/{user}/tokens"),
        "project": lambda user, project, token: cloud.admin.request("DELETE", f"/v3/projects/{project}"),
        "role": lambda user, project, token: cloud.admin.request(
            "DELETE", f"/v3/projects/{project}/users/{user}/roles/{cloud.role('member')}"
        ),
        "password": lambda user, project, token: cloud.served.client().request(
            "POST", f"/v3/users/{user}/password", {"user": {"original_password": PASSWORD, "password": "new"}}
        ),
    }
    for act in acts.values():
        stood = stand(cloud)
        there = other.client(stood[2])
        ok(there.request("GET", "/v3/auth/catalog"))
        ok(act(*stood), 204)
        ok(there.request("GET", "/v3/auth/catalog"), 401)


def test_revocation_events(cloud: Cloud) -> None:
    def events(query: str = "") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = ok(cloud.admin.request("GET", f"/v3/OS-REVOKE/events{query}"))["events"]
        return found

    assert events() == []
    user_id, project_id, token = stand(cloud)
    audit_id = ok(show(cloud, token))["token"]["audit_ids"][0]
    ok(show(cloud, token, "?cascade=0", "DELETE"), 204)
    at = "2030-01-01T00:00:00.000000Z"
    assert events() == [{"issued_before": at, "audit_id": audit_id}]
    cloud.clock.advance(60)
    second = stand(cloud)
    chain = ok(show(cloud, second[2]))["token"]["audit_ids"][0]
    ok(show(cloud, second[2], method="DELETE"), 204)
    ok(cloud.admin.request("PATCH", f"/v3/users/{user_id}", {"user": {"enabled": False}}))
    ok(cloud.admin.request("PATCH", f"/v3/projects/{project_id}", {"project": {"enabled": False}}))
    later = events("?since=2030-01-01T00:01:00Z")
    bare = [{key: value for key, value in one.items() if key != "issued_before"} for one in later]
    assert sorted(bare, key=str) == sorted(
        [{"audit_id": chain}, {"audit_chain_id": chain}, {"user_id": user_id}, {"project_id": project_id}], key=str
    )
    assert len(events()) == 5
    assert events("?since=2030-01-01T00:01:01Z") == []
    ok(cloud.admin.request("GET", "/v3/OS-REVOKE/events?since=yesterday"), 400)
    for role, status in (("reader", 403), ("member", 403), ("manager", 403), ("service", 200), ("admin", 200)):
        ok(cloud.persona(role, "project", cloud.project(f"of {role}")).request("GET", "/v3/OS-REVOKE/events"), status)
    cloud.clock.advance(8 * 24 * HOUR)
    ok(cloud.admin.request("DELETE", f"/v3/users/{second[0]}/tokens"), 204)
    assert [one["user_id"] for one in events()] == [second[0]]


def test_what_there_was_for_signed_tokens(cloud: Cloud) -> None:
    anybody = cloud.served.client()
    ok(anybody.request("GET", "/v3/OS-SIMPLE-CERT/ca"), 410)
    ok(anybody.request("GET", "/v3/OS-SIMPLE-CERT/certificates"), 410)
    ok(anybody.request("GET", "/v3/auth/tokens/OS-PKI/revoked"), 403)


def test_the_catalog_shows_what_a_project_is_associated_with(cloud: Cloud) -> None:
    user_id, project_id, _ = stand(cloud)
    endpoints = ok(cloud.admin.request("GET", "/v3/endpoints?interface=public"))["endpoints"]
    chosen = endpoints[0]
    path = f"/v3/OS-EP-FILTER/projects/{project_id}/endpoints/{chosen['id']}"

    def catalog(kind: str) -> list[dict[str, Any]]:
        client = cloud.client(user_id, "project", project_id)
        if kind == "catalog":
            found: list[dict[str, Any]] = ok(client.request("GET", "/v3/auth/catalog"))["catalog"]
        else:
            found = ok(show(cloud, client.token or ""))["token"]["catalog"]
        return found

    for kind in ("catalog", "token"):
        assert len(catalog(kind)) == 3
        ok(cloud.admin.request("PUT", path), 204)
        (service_shown,) = catalog(kind)
        assert [one["id"] for one in service_shown["endpoints"]] == [chosen["id"]]
        assert len(ok(cloud.admin.request("GET", "/v3/auth/catalog"))["catalog"]) == 3
        ok(cloud.admin.request("DELETE", path), 204)


def test_a_lifetime_is_of_whole_seconds(cloud: Cloud) -> None:
    cloud.tokens.lifetime = timedelta(seconds=90.5)
    cloud.clock.advance(0.75)
    token = ok(show(cloud, cloud.token(cloud.started.admin_id)))["token"]
    assert token["issued_at"] == "2030-01-01T00:00:00.750000Z"
    assert token["expires_at"] == "2030-01-01T00:01:31.000000Z"
