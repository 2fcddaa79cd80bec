"""What is secret is in no log: neither when it is taken nor when it is refused, at any level."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.whole import Whole, whole_cloud

MARK = "Sesame"
"""What each secret of these tests holds, as it is and in Base64."""

COMPUTE, IDENTITY, IMAGE = "/compute/v2.1", "/identity/v3", "/image/v2"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with whole_cloud(tmp_path_factory.mktemp("whole")) as whole:
        yield whole


def _text(what: str) -> str:
    return base64.b64encode(f"{MARK} of {what}".encode()).decode()


def requests(whole: Whole) -> list[tuple[str, str, Any]]:
    """Requests that hold secrets; half of them cannot be right."""
    admin = whole.admin.request("GET", f"{IDENTITY}/users?name=admin").json["users"][0]["id"]
    server = {"name": "one", "flavorRef": "1", "imageRef": "00000000-0000-0000-0000-000000000000", "networks": "none"}
    login = {"user": {"name": "admin", "domain": {"id": "default"}, "password": f"{MARK} of a login"}}
    credential = {"type": "cert", "blob": f"{MARK} of a blob", "user_id": admin}
    found: list[tuple[str, str, Any]] = [
        ("POST", f"{IDENTITY}/users", {"user": {"name": "somebody", "password": f"{MARK} of a user"}}),
        ("POST", f"{IDENTITY}/users", {"user": {"name": "somebody", "password": [f"{MARK} of a list"]}}),
        ("POST", f"{IDENTITY}/users", {"user": {"name": 7, "password": f"{MARK} of nobody"}}),
        ("POST", f"{IDENTITY}/users", {"user": f"{MARK} of a text"}),
        ("PATCH", f"{IDENTITY}/users/{admin}", {"user": {"password": f"{MARK} of a change", "enabled": "?"}}),
        ("POST", f"{IDENTITY}/users/{admin}/password", {"user": {"original_password": MARK, "password": MARK}}),
        (
            "POST",
            f"{IDENTITY}/auth/tokens",
            {"auth": {"identity": {"methods": ["password"], "password": login}}},
        ),
        ("POST", f"{IDENTITY}/auth/tokens", {"auth": {"identity": {"methods": ["token"], "token": {"id": MARK}}}}),
        ("POST", f"{IDENTITY}/credentials", {"credential": credential}),
        ("POST", f"{IDENTITY}/credentials", {"credential": {**credential, "type": []}}),
        (
            "POST",
            f"{IDENTITY}/users/{admin}/application_credentials",
            {"application_credential": {"name": "robot", "secret": f"{MARK} of a robot"}},
        ),
    ]
    further: list[dict[str, Any]] = [
        {"user_data": _text("user data")},
        {"adminPass": f"{MARK}!"},
        {"personality": [{"path": "/etc/x", "contents": _text("a file")}]},
        {"user_data": _text("user data"), "min_count": "many"},
        {"user_data": "?" + MARK},
    ]
    found += [("POST", f"{COMPUTE}/servers", {"server": {**server, **more}}) for more in further]
    missing = f"{COMPUTE}/servers/{server['imageRef']}/action"
    found.append(("POST", missing, {"changePassword": {"adminPass": f"{MARK} of a server"}}))
    found.append(("POST", missing, {"rebuild": {"imageRef": server["imageRef"], "adminPass": MARK, "user_data": "?"}}))
    return found


def test_no_secret_of_a_request_is_logged(whole: Whole, caplog: pytest.LogCaptureFixture) -> None:
    asked = requests(whole)
    caplog.set_level(logging.DEBUG)
    statuses = []
    for method, path, body in asked:
        # Once as it is meant, and once as the caller's token; and as no JSON at all.
        statuses.append(whole.admin.request(method, path, body, {"openstack-api-version": "compute 2.57"}).status)
        whole.served.client(f"{MARK} of a token").request(method, path, body)
        whole.admin.request(method, path, data=f'{{"{MARK}'.encode(), headers={"content-type": "application/json"})
    assert {201, 400, 401, 404} <= set(statuses)
    assert caplog.records, "nothing was logged at all"
    marks = (MARK, base64.b64encode(MARK.encode()).decode()[:7], whole.admin.token or "")
    told = [record.getMessage() + str(record.exc_info or "") + str(record.exc_text or "") for record in caplog.records]
    assert [text for text in told if any(mark in text for mark in marks)] == []


def test_no_refusal_repeats_a_secret(whole: Whole) -> None:
    said = []
    for method, path, body in requests(whole):
        found = whole.admin.request(method, path, body, {"openstack-api-version": "compute 2.57"})
        if found.status >= 400 and MARK.encode() in found.body:
            said.append(f"{method} {path}: {found}")
    assert said == []
