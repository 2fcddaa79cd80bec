"""Identity: credentials, sealed in the store, and the keys of the EC2 API."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from pileus.services.identity.interface import Secrets
from pileus.services.identity.resources.credential.table import table
from tests.api.edge import Client
from tests.services.identity.cloud import Cloud, make_cloud, ok

CREDENTIALS = "/v3/credentials"


@dataclass
class Stage:
    """A member of a project."""

    cloud: Cloud
    user: str
    project: str

    @property
    def owner(self) -> Client:
        return self.cloud.client(self.user, "project", self.project)

    @property
    def ec2(self) -> str:
        return f"/v3/users/{self.user}/credentials/OS-EC2"

    def wish(self, **more: Any) -> dict[str, Any]:
        return {"credential": {"type": "cert", "blob": "something secret", "user_id": self.user, **more}}

    def make(self, **more: Any) -> dict[str, Any]:
        found: dict[str, Any] = ok(self.owner.request("POST", CREDENTIALS, self.wish(**more)), 201)["credential"]
        return found

    def keys(self, access: str = "key", **more: Any) -> dict[str, Any]:
        blob = msgspec.json.encode({"access": access, "secret": "s"}).decode()
        return self.make(**{"type": "ec2", "project_id": self.project, "blob": blob, **more})


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
    made = stage.make(note="kept")
    path = f"{CREDENTIALS}/{made['id']}"
    assert made["links"]["self"].endswith(path)
    del made["links"]
    expected = {"type": "cert", "blob": "something secret", "user_id": stage.user, "project_id": None, "note": "kept"}
    assert {**expected, "id": made["id"]} == made
    for client in (stage.owner, stage.cloud.admin, stage.cloud.persona("reader", "system")):
        shown = ok(client.request("GET", path))["credential"]
        assert shown["blob"] == "something secret"
    changed = ok(stage.owner.request("PATCH", path, {"credential": {"blob": "another"}}))["credential"]
    assert (changed["blob"], changed["id"], changed["note"]) == ("another", made["id"], "kept")
    assert ok(stage.owner.request("GET", path))["credential"] == changed
    ok(stage.owner.request("DELETE", path), 204)
    for method in ("GET", "DELETE"):
        ok(stage.cloud.admin.request(method, path), 404)
        ok(stage.owner.request(method, path), 403)
    ok(stage.cloud.admin.request("PATCH", path, {"credential": {"blob": "x"}}), 404)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"type": None}, 400),
        ({"blob": None}, 400),
        ({"blob": {"access": "x"}}, 400),
        ({"user_id": None}, 403),
        ({"type": "ec2", "blob": '{"access": "x"}'}, 400),
        ({"type": "ec2", "project_id": None, "blob": "no JSON"}, 400),
        ({"type": "ec2", "project_id": None, "blob": "[]"}, 400),
        ({"type": "EC2", "project_id": None, "blob": "{}"}, 400),
        ({"type": "ec2", "project_id": None, "blob": '{"access": null}'}, 400),
        ({"type": "ec2", "project_id": None, "blob": '{"access": 7}'}, 400),
        ({"project_id": "0" * 32}, 404),
    ],
)
def test_credentials_that_cannot_be(stage: Stage, change: dict[str, Any], status: int) -> None:
    body = stage.wish(**change)
    if status == 403:
        body["credential"]["user_id"] = stage.cloud.started.admin_id
    ok(stage.owner.request("POST", CREDENTIALS, body), status)
    assert ok(stage.owner.request("GET", CREDENTIALS))["credentials"] == []


def test_of_a_user_who_is_not_there(stage: Stage) -> None:
    ok(stage.cloud.admin.request("POST", CREDENTIALS, stage.wish(user_id="0" * 32)), 404)


def test_who_sees_which(stage: Stage) -> None:
    mine = stage.make()
    other = Stage(stage.cloud, stage.cloud.user("other"), stage.project)
    stage.cloud.grant(other.user, "reader", f"projects/{stage.project}")
    theirs = other.make(type="totp")
    everybody = (stage.cloud.admin, stage.cloud.persona("reader", "system"))
    for client in everybody:
        found = ok(client.request("GET", CREDENTIALS))["credentials"]
        assert {one["id"] for one in found} == {mine["id"], theirs["id"]}
        found = ok(client.request("GET", f"{CREDENTIALS}?user_id={other.user}"))["credentials"]
        assert [one["id"] for one in found] == [theirs["id"]]
        assert ok(client.request("GET", f"{CREDENTIALS}?type=cert"))["credentials"] == [mine]
    for query in ("", f"?user_id={stage.user}"):
        assert ok(stage.owner.request("GET", CREDENTIALS + query))["credentials"] == [mine]
    assert ok(stage.owner.request("GET", f"{CREDENTIALS}?user_id={other.user}"))["credentials"] == []
    path = f"{CREDENTIALS}/{mine['id']}"
    for client in (other.owner, stage.cloud.persona("manager", "domain", "default")):
        ok(client.request("GET", path), 403)
        ok(client.request("PATCH", path, {"credential": {"blob": "x"}}), 403)
        ok(client.request("DELETE", path), 403)
        ok(client.request("POST", CREDENTIALS, stage.wish()), 403)
    reader = everybody[1]
    ok(reader.request("PATCH", path, {"credential": {"blob": "x"}}), 403)
    ok(reader.request("DELETE", path), 403)
    ok(stage.cloud.admin.request("DELETE", path), 204)


def test_what_cannot_be_changed(stage: Stage) -> None:
    made = stage.make()
    path = f"{CREDENTIALS}/{made['id']}"
    for change in ({}, {"type": "x", "blob": "y"}, {"user_id": "x", "blob": "y"}, {"id": made["id"], "blob": "y"}):
        ok(stage.owner.request("PATCH", path, {"credential": change}), 400)


def test_an_ec2_credential_is_known_by_its_key(stage: Stage) -> None:
    made = stage.keys("the key")
    assert made["id"] == hashlib.sha256(b"the key").hexdigest()
    blob = '{"access": "the key", "secret": "other"}'
    ok(stage.owner.request("POST", CREDENTIALS, stage.wish(type="ec2", project_id=stage.project, blob=blob)), 409)
    path = f"{CREDENTIALS}/{made['id']}"
    changed = ok(stage.owner.request("PATCH", path, {"credential": {"blob": '{"access": "k2"}'}}))["credential"]
    assert changed["id"] == made["id"]
    for bad in ("x", "{}", '{"access": "k", "trust_id": "t"}', '{"access": "k", "app_cred_id": "t"}'):
        ok(stage.owner.request("PATCH", path, {"credential": {"blob": bad}}), 400)


def test_what_is_kept_is_sealed(stage: Stage) -> None:
    made = stage.make(blob="a very secret thing")

    def raw(tx: Any) -> str:
        return repr(tx.all(sa.select(table)))

    kept = stage.cloud.served.store.read_here(raw)
    assert made["id"] in kept
    assert "a very secret thing" not in kept


def test_keys_rotate(stage: Stage, tmp_path: Path) -> None:
    """Every secret is sealed anew at each rotation, and can be read afterwards, by any process."""
    made = [stage.make(blob=f"secret {number}") for number in range(3)]
    store = stage.cloud.served.store
    other = Secrets(tmp_path / "keys")

    def hashes(tx: Any) -> set[str]:
        return {row.key_hash for row in tx.all(sa.select(table.c.key_hash))}

    seen: set[str] = set()
    for _ in range(4):
        before = store.read_here(hashes)
        assert len(before) == 1
        assert not before & seen
        seen |= before
        assert store.write_here(other.rotate) == 3
        for number, one in enumerate(made):
            shown = ok(stage.owner.request("GET", f"{CREDENTIALS}/{one['id']}"))["credential"]
            assert shown["blob"] == f"secret {number}"
    assert store.read_here(lambda tx: other.box(tx).primary_hash) in store.read_here(hashes)


def test_a_rotation_that_fails_changes_nothing(stage: Stage, tmp_path: Path) -> None:
    made = stage.make(blob="kept")
    other = Secrets(tmp_path / "keys")

    def fail(tx: Any) -> None:
        other.rotate(tx)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stage.cloud.served.store.write_here(fail)
    later = stage.make(blob="later")
    for one, blob in ((made, "kept"), (later, "later")):
        assert ok(stage.owner.request("GET", f"{CREDENTIALS}/{one['id']}"))["credential"]["blob"] == blob
    sealed = stage.cloud.served.store.write_here(lambda tx: other.seal(tx, "x")["sealed"])
    assert stage.cloud.served.store.read_here(lambda tx: Secrets(tmp_path / "keys").box(tx).open(sealed)) == "x"


@pytest.mark.parametrize("gone", ["users", "projects"])
def test_it_goes_with_user_and_project(stage: Stage, gone: str) -> None:
    made = stage.keys()
    key = stage.user if gone == "users" else stage.project
    ok(stage.cloud.admin.request("DELETE", f"/v3/{gone}/{key}"), 204)
    ok(stage.cloud.admin.request("GET", f"{CREDENTIALS}/{made['id']}"), 404)


def test_ec2_keys(stage: Stage) -> None:
    made = ok(stage.owner.request("POST", stage.ec2, {"tenant_id": stage.project}), 201)["credential"]
    path = f"{stage.ec2}/{made['access']}"
    assert made["links"]["self"].endswith(path)
    assert (made["user_id"], made["tenant_id"], made["trust_id"]) == (stage.user, stage.project, None)
    assert len(made["access"]) == len(made["secret"]) == 32
    assert ok(stage.owner.request("GET", path))["credential"] == made
    assert ok(stage.owner.request("GET", stage.ec2))["credentials"] == [made]
    key = hashlib.sha256(made["access"].encode()).hexdigest()
    whole = ok(stage.owner.request("GET", f"{CREDENTIALS}/{key}"))["credential"]
    assert (whole["type"], whole["project_id"]) == ("ec2", stage.project)
    assert msgspec.json.decode(whole["blob"])["secret"] == made["secret"]
    ok(stage.owner.request("DELETE", path), 204)
    for method in ("GET", "DELETE"):
        ok(stage.owner.request(method, path), 404)


def test_who_has_ec2_keys(stage: Stage) -> None:
    made = ok(stage.cloud.admin.request("POST", stage.ec2, {"tenant_id": stage.project}), 201)["credential"]
    path = f"{stage.ec2}/{made['access']}"
    system = stage.cloud.persona("reader", "system")
    reader = Stage(stage.cloud, stage.cloud.user("reader"), stage.project)
    stage.cloud.grant(reader.user, "reader", f"projects/{stage.project}")
    ok(reader.owner.request("POST", reader.ec2, {"tenant_id": stage.project}), 403)
    ok(reader.owner.request("GET", reader.ec2))
    ok(reader.owner.request("GET", f"{reader.ec2}/{made['access']}"), 403)
    ok(system.request("GET", path))
    ok(system.request("GET", stage.ec2))
    ok(system.request("GET", f"{reader.ec2}/{made['access']}"), 404)
    for client in (reader.owner, stage.cloud.persona("admin", "domain", "default")):
        ok(client.request("GET", stage.ec2), 403)
        ok(client.request("GET", path), 403)
        ok(client.request("DELETE", path), 403)
        ok(client.request("POST", stage.ec2, {"tenant_id": stage.project}), 403)
    ok(system.request("DELETE", path), 403)
    ok(stage.owner.request("POST", stage.ec2, {"tenant_id": "0" * 32}), 404)
    ok(stage.owner.request("POST", stage.ec2, {}), 404)
    ok(stage.cloud.admin.request("GET", "/v3/users/nobody/credentials/OS-EC2"), 404)
    ok(stage.cloud.admin.request("DELETE", path), 204)


def test_no_tokens_for_signatures(stage: Stage) -> None:
    service = stage.cloud.persona("service", "project", stage.project)
    for path in ("/v3/ec2tokens", "/v3/s3tokens"):
        ok(service.request("POST", path, {"credentials": {}}), 503)
        ok(stage.owner.request("POST", path, {"credentials": {}}), 403)
        ok(stage.cloud.served.client().request("POST", path, {"credentials": {}}), 401)
        ok(service.request("GET", path), 405)


def test_tokens_by_delegation_see_none(stage: Stage) -> None:
    made = stage.keys()
    body = {"application_credential": {"name": "robot", "unrestricted": True}}
    path = f"/v3/users/{stage.user}/application_credentials"
    robot = ok(stage.owner.request("POST", path, body), 201)["application_credential"]
    shown = {"id": robot["id"], "secret": robot["secret"]}
    identity = {"methods": ["application_credential"], "application_credential": shown}
    trustee = stage.cloud.user("trustee")
    wish = {
        "trustor_user_id": stage.user,
        "trustee_user_id": trustee,
        "project_id": stage.project,
        "impersonation": True,
        "roles": [{"name": "member"}],
    }
    trust = ok(stage.owner.request("POST", "/v3/OS-TRUST/trusts", {"trust": wish}), 201)["trust"]
    by_trust = {
        "identity": {"methods": ["token"], "token": {"id": stage.cloud.token(trustee)}},
        "scope": {"OS-TRUST:trust": {"id": trust["id"]}},
    }
    for login in ({"identity": identity}, by_trust):
        response = stage.cloud.login(login)
        ok(response, 201)
        client = stage.cloud.served.client(response.headers["x-subject-token"])
        assert ok(client.request("GET", CREDENTIALS))["credentials"] == []
        ok(client.request("POST", CREDENTIALS, stage.wish()), 403)
        ok(client.request("PATCH", f"{CREDENTIALS}/{made['id']}", {"credential": {"blob": '{"access": "x"}'}}), 403)
        for method in ("GET", "DELETE"):
            ok(client.request(method, f"{CREDENTIALS}/{made['id']}"), 403)
            ok(client.request(method, f"{stage.ec2}/key"), 403)
        ok(client.request("GET", stage.ec2), 403)
        ok(client.request("POST", stage.ec2, {"tenant_id": stage.project}), 403)
