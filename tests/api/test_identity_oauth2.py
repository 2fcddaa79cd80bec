"""Identity: tokens for clients of OAuth 2.0."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.api.edge import Response
from tests.services.identity.cloud import Cloud, make_cloud, ok

GRANT = {"grant_type": "client_credentials"}
SECRET = "a client's secret"


@pytest.fixture
def cloud(database_url: str, tmp_path: Path) -> Iterator[Cloud]:
    with make_cloud(database_url, tmp_path) as made:
        yield made


@pytest.fixture
def client_id(cloud: Cloud) -> str:
    path = f"/v3/users/{cloud.started.admin_id}/application_credentials"
    wanted = {"application_credential": {"name": "c", "secret": SECRET, "roles": [{"name": "reader"}]}}
    return str(ok(cloud.admin.request("POST", path, wanted), 201)["application_credential"]["id"])


def ask(cloud: Cloud, form: dict[str, str], basic: str | None = None, media: str | None = None) -> Response:
    headers = {"content-type": media or "application/x-www-form-urlencoded"}
    if basic is not None:
        headers["authorization"] = f"Basic {base64.b64encode(basic.encode()).decode()}"
    return cloud.served.client().request("POST", "/v3/OS-OAUTH2/token", headers=headers, data=urlencode(form).encode())


def test_a_client_gets_a_token(cloud: Cloud, client_id: str) -> None:
    by_header = ask(cloud, GRANT, f"{client_id}:{SECRET}")
    by_form = ask(cloud, {**GRANT, "client_id": client_id, "client_secret": SECRET})
    for answer in (by_header, by_form):
        found = ok(answer)
        assert found == {"access_token": found["access_token"], "token_type": "Bearer", "expires_in": 3600}
        assert answer.headers["cache-control"] == "no-store"
        client = cloud.served.client(found["access_token"])
        header = {"x-subject-token": found["access_token"]}
        token = ok(client.request("GET", "/v3/auth/tokens", headers=header))["token"]
        assert token["application_credential"]["id"] == client_id
        assert [role["name"] for role in token["roles"]] == ["reader"]
        assert token["project"]["id"] == cloud.started.admin_project_id


def test_refusals_have_the_form_of_the_standard(cloud: Cloud, client_id: str) -> None:
    right = f"{client_id}:{SECRET}"
    for form, basic, status, error in (
        ({}, right, 400, "invalid_request"),
        ({"grant_type": "password"}, right, 400, "unsupported_grant_type"),
        (GRANT, None, 401, "invalid_client"),
        (GRANT, f"{client_id}:wrong", 401, "invalid_client"),
        (GRANT, f"nobody:{SECRET}", 401, "invalid_client"),
        (GRANT, client_id, 401, "invalid_client"),
        (GRANT, f"{client_id}:\x00", 401, "invalid_client"),
    ):
        answer = ask(cloud, form, basic)
        found = ok(answer, status)
        assert found["error"] == error
        assert set(found) == {"error", "error_description"}
        assert ("www-authenticate" in answer.headers) == (status == 401)
    wrong, nobody = (ok(ask(cloud, GRANT, f"{one}:wrong"), 401) for one in (client_id, "nobody"))
    assert wrong == nobody
    assert ok(ask(cloud, GRANT, right, media="application/json"), 400)["error"] == "invalid_request"
    ok(ask(cloud, {**GRANT, "more": "x" * 20_000}, right), 413)
    broken = {"content-type": "application/x-www-form-urlencoded", "authorization": "Basic ?"}
    data = urlencode(GRANT).encode()
    ok(cloud.served.client().request("POST", "/v3/OS-OAUTH2/token", headers=broken, data=data), 401)
    ok(cloud.served.client().request("GET", "/v3/OS-OAUTH2/token"), 405)


def test_guessing_a_clients_secret_takes_ever_longer(cloud: Cloud, client_id: str) -> None:
    for _ in range(5):
        ok(ask(cloud, GRANT, f"{client_id}:wrong"), 401)
    ok(ask(cloud, GRANT, f"{client_id}:{SECRET}"), 429)
    cloud.clock.advance(2)
    ok(ask(cloud, GRANT, f"{client_id}:{SECRET}"))
