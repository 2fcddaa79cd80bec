"""Identity: trusts, their chains, and tokens that stand on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.api.edge import Client, Response
from tests.services.identity.cloud import PASSWORD, Cloud, make_cloud, ok

TRUSTS = "/v3/OS-TRUST/trusts"


@dataclass
class Stage:
    """A trustor who is a member of a project, and a trustee who is nothing."""

    cloud: Cloud
    trustor: str
    trustee: str
    project: str

    @property
    def giver(self) -> Client:
        return self.cloud.client(self.trustor, "project", self.project)

    @property
    def taker(self) -> Client:
        return self.cloud.client(self.trustee)

    def wish(self, **more: Any) -> dict[str, Any]:
        return {
            "trustor_user_id": self.trustor,
            "trustee_user_id": self.trustee,
            "project_id": self.project,
            "impersonation": False,
            "roles": [{"name": "member"}],
            **more,
        }

    def trust(self, **more: Any) -> dict[str, Any]:
        found: dict[str, Any] = ok(self.giver.request("POST", TRUSTS, {"trust": self.wish(**more)}), 201)["trust"]
        return found

    def login(self, trust_id: str, user_id: str | None = None) -> Response:
        """A token by a trust, made from an unscoped one of the trustee."""
        token = self.cloud.token(user_id or self.trustee)
        methods = {"methods": ["token"], "token": {"id": token}}
        return self.cloud.login({"identity": methods, "scope": {"OS-TRUST:trust": {"id": trust_id}}})

    def acting(self, trust_id: str, user_id: str | None = None) -> Client:
        return self.cloud.acting(self.login(trust_id, user_id))


@pytest.fixture
def cloud(database_url: str, tmp_path: Path) -> Iterator[Cloud]:
    with make_cloud(database_url, tmp_path) as made:
        yield made


@pytest.fixture
def stage(cloud: Cloud) -> Stage:
    made = Stage(cloud, cloud.user("trustor"), cloud.user("trustee", password=PASSWORD), cloud.project("p"))
    cloud.grant(made.trustor, "member", f"projects/{made.project}")
    return made


def test_a_trust_from_its_making_to_its_end(stage: Stage) -> None:
    made = stage.trust(impersonation=True, expires_at="2030-01-01T01:00:00Z", note="kept")
    assert made["note"] == "kept"
    assert made["expires_at"] == "2030-01-01T01:00:00.000000Z"
    assert made["redelegation_count"] == 0
    assert made["remaining_uses"] is made["deleted_at"] is made["redelegated_trust_id"] is None
    assert [role["name"] for role in made["roles"]] == ["member"]
    path = f"{TRUSTS}/{made['id']}"
    assert made["links"]["self"].endswith(path)
    assert made["roles_links"] == {"self": f"http://testserver{path}/roles", "next": None, "previous": None}
    for client in (stage.giver, stage.taker, stage.cloud.admin, stage.cloud.persona("reader", "system")):
        assert ok(client.request("GET", path))["trust"] == made
    member = stage.cloud.role("member")
    listed = ok(stage.taker.request("GET", f"{path}/roles"))
    assert [role["id"] for role in listed["roles"]] == [member]
    assert ok(stage.taker.request("GET", f"{path}/roles/{member}"))["role"]["name"] == "member"
    assert stage.taker.request("HEAD", f"{path}/roles/{member}").status == 200
    ok(stage.taker.request("GET", f"{path}/roles/{stage.cloud.role('reader')}"), 404)
    for method in ("PUT", "PATCH"):
        ok(stage.giver.request(method, path, {"trust": {}}), 405)
    ok(stage.taker.request("DELETE", path), 403)
    ok(stage.giver.request("DELETE", path), 204)
    for method in ("GET", "DELETE"):
        ok(stage.giver.request(method, path), 404)
    ok(stage.giver.request("GET", f"{path}/roles"), 404)
    assert ok(stage.cloud.admin.request("GET", TRUSTS))["trusts"] == []


def test_who_sees_which_trusts(stage: Stage) -> None:
    made = stage.trust()
    plain = {key: value for key, value in made.items() if key not in ("roles", "roles_links")}
    mine, to_me = f"?trustor_user_id={stage.trustor}", f"?trustee_user_id={stage.trustee}"
    admin, system = stage.cloud.admin, stage.cloud.persona("reader", "system")
    domain = stage.cloud.persona("admin", "domain", "default")
    stranger = stage.cloud.persona("manager", "project", stage.project)
    for client in (admin, system):
        for query in ("", mine, to_me):
            assert ok(client.request("GET", TRUSTS + query))["trusts"] == [plain]
    assert ok(stage.giver.request("GET", TRUSTS + mine))["trusts"] == [plain]
    assert ok(stage.taker.request("GET", TRUSTS + to_me))["trusts"] == [plain]
    assert ok(stage.taker.request("GET", f"{TRUSTS}?trustor_user_id={stage.trustee}"))["trusts"] == []
    for client, query in (
        (stage.giver, ""),
        (stage.giver, to_me),
        (stage.taker, mine),
        (stranger, mine),
        (domain, ""),
        (domain, mine),
    ):
        ok(client.request("GET", TRUSTS + query), 403)
    for client in (stranger, domain):
        ok(client.request("GET", f"{TRUSTS}/{made['id']}"), 403)
        ok(client.request("GET", f"{TRUSTS}/{made['id']}/roles"), 403)
        ok(client.request("DELETE", f"{TRUSTS}/{made['id']}"), 403)
    ok(stranger.request("GET", f"{TRUSTS}/nothing"), 404)
    ok(admin.request("DELETE", f"{TRUSTS}/{made['id']}"), 204)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"impersonation": None}, 400),
        ({"trustee_user_id": None}, 400),
        ({"expires_at": "bad.123Z"}, 400),
        ({"expires_at": ""}, 400),
        ({"expires_at": "Z"}, 400),
        ({"expires_at": "2029-12-31T23:59:59Z"}, 400),
        ({"remaining_uses": 0}, 400),
        ({"remaining_uses": -1}, 400),
        ({"remaining_uses": "one"}, 400),
        ({"remaining_uses": 7.5}, 400),
        ({"remaining_uses": 2, "allow_redelegation": True}, 400),
        ({"redelegation_count": -1}, 400),
        ({"redelegation_count": 4, "allow_redelegation": True}, 403),
        ({"roles": [{"fake": "x"}]}, 400),
        ({"roles": [{}]}, 400),
        ({"roles": []}, 403),
        ({"roles": [{"name": "no such role"}]}, 404),
        ({"roles": [{"id": "0" * 32}]}, 404),
        ({"roles": [{"name": "manager"}]}, 404),
        ({"roles": [{"name": "member"}, {"name": "admin"}]}, 404),
        ({"project_id": "0" * 32}, 404),
        ({"project_id": None}, 404),
        ({"trustee_user_id": "0" * 32}, 404),
        ({"redelegated_trust_id": "0" * 32}, 403),
    ],
)
def test_trusts_that_cannot_be(stage: Stage, change: dict[str, Any], status: int) -> None:
    ok(stage.giver.request("POST", TRUSTS, {"trust": stage.wish(**change)}), status)
    assert ok(stage.cloud.admin.request("GET", TRUSTS))["trusts"] == []


def test_only_the_trustor_makes_a_trust(stage: Stage) -> None:
    body = {"trust": stage.wish()}
    ok(stage.cloud.client(stage.trustor).request("POST", TRUSTS, body), 201)
    for client in (stage.taker, stage.cloud.admin):
        ok(client.request("POST", TRUSTS, body), 403)
    stage.cloud.grant(stage.trustor, "admin", "system")
    stage.cloud.grant(stage.trustor, "admin", "domains/default")
    ok(stage.cloud.client(stage.trustor, "system").request("POST", TRUSTS, body), 403)
    ok(stage.cloud.client(stage.trustor, "domain", "default").request("POST", TRUSTS, body), 403)


def test_a_role_name_that_is_not_unique(stage: Stage) -> None:
    domain_id = stage.cloud.domain("d")
    ok(stage.cloud.admin.request("POST", "/v3/roles", {"role": {"name": "Member", "domain_id": domain_id}}), 201)
    ok(stage.giver.request("POST", TRUSTS, {"trust": stage.wish()}), 400)
    roles = [{"id": stage.cloud.role("member")}]
    ok(stage.giver.request("POST", TRUSTS, {"trust": stage.wish(roles=roles)}), 201)


def test_a_token_by_a_trust(stage: Stage) -> None:
    for impersonation in (False, True):
        trust = stage.trust(impersonation=impersonation, roles=[{"name": "reader"}])
        response = stage.login(trust["id"])
        token = ok(response, 201)["token"]
        assert token["OS-TRUST:trust"] == {
            "id": trust["id"],
            "impersonation": impersonation,
            "trustor_user": {"id": stage.trustor},
            "trustee_user": {"id": stage.trustee},
        }
        assert token["user"]["id"] == (stage.trustor if impersonation else stage.trustee)
        assert token["user"]["name"] == ("trustor" if impersonation else "trustee")
        assert token["project"]["id"] == stage.project
        assert [role["name"] for role in token["roles"]] == ["reader"]
        header = {"x-subject-token": response.headers["x-subject-token"]}
        assert ok(stage.cloud.admin.request("GET", "/v3/auth/tokens", headers=header))["token"] == token


def test_a_trust_by_password(stage: Stage) -> None:
    trust = stage.trust()
    user = {"id": stage.trustee, "password": PASSWORD}
    body = {"identity": {"methods": ["password"], "password": {"user": user}}}
    found = ok(stage.cloud.login({**body, "scope": {"OS-TRUST:trust": {"id": trust["id"]}}}), 201)["token"]
    assert found["methods"] == ["password"]
    assert found["OS-TRUST:trust"]["id"] == trust["id"]


def test_who_may_not_use_a_trust(stage: Stage) -> None:
    trust = stage.trust()
    ok(stage.login(trust["id"], stage.trustor), 403)
    ok(stage.login(trust["id"], stage.cloud.user("third")), 403)
    ok(stage.login("0" * 32), 401)
    nowhere = stage.trust(project_id=None, roles=[])
    ok(stage.login(nowhere["id"]), 401)


def test_what_a_token_by_a_trust_cannot_do(stage: Stage) -> None:
    client = stage.acting(stage.trust(impersonation=True)["id"])
    project = {"project": {"id": stage.project}}
    for scope in (project, "unscoped"):
        body = {"identity": {"methods": ["token"], "token": {"id": client.token}}, "scope": scope}
        ok(stage.cloud.login(body), 403)
    ok(client.request("POST", TRUSTS, {"trust": stage.wish()}), 403)
    ok(client.request("GET", f"{TRUSTS}?trustor_user_id={stage.trustor}"))


def test_uses_are_counted(stage: Stage) -> None:
    trust = stage.trust(remaining_uses=2)
    first = stage.acting(trust["id"])
    assert ok(stage.giver.request("GET", f"{TRUSTS}/{trust['id']}"))["trust"]["remaining_uses"] == 1
    ok(stage.login(trust["id"], stage.trustor), 403)
    second = stage.acting(trust["id"])
    ok(stage.login(trust["id"]), 401)
    ok(stage.giver.request("GET", f"{TRUSTS}/{trust['id']}"), 404)
    listed = ok(stage.giver.request("GET", f"{TRUSTS}?trustor_user_id={stage.trustor}"))["trusts"]
    assert [one["remaining_uses"] for one in listed] == [0]
    assert stage.cloud.alive(first)
    assert stage.cloud.alive(second)


def test_the_last_use_is_one(stage: Stage) -> None:
    """Of requests that come together, one gets the last use."""
    trust = stage.trust(remaining_uses=1)
    token = stage.cloud.token(stage.trustee)
    auth = {
        "identity": {"methods": ["token"], "token": {"id": token}},
        "scope": {"OS-TRUST:trust": {"id": trust["id"]}},
    }
    anybody = stage.cloud.served.client()
    waiting = [anybody.submit("POST", "/v3/auth/tokens", {"auth": auth}) for _ in range(6)]
    statuses = sorted(one.result(60).status for one in waiting)
    assert statuses[0] == 201
    assert set(statuses[1:]) <= {401, 403}


def test_a_failed_use_is_not_counted(stage: Stage) -> None:
    trust = stage.trust(remaining_uses=1)
    ok(stage.cloud.admin.request("PATCH", f"/v3/projects/{stage.project}", {"project": {"enabled": False}}))
    assert stage.login(trust["id"]).status in (401, 403)
    ok(stage.cloud.admin.request("PATCH", f"/v3/projects/{stage.project}", {"project": {"enabled": True}}))
    stage.acting(trust["id"])


def test_a_trust_ends(stage: Stage) -> None:
    trust = stage.trust(expires_at="2030-01-01T00:10:00Z")
    response = stage.login(trust["id"])
    assert ok(response, 201)["token"]["expires_at"] == "2030-01-01T00:10:00.000000Z"
    client = stage.cloud.served.client(response.headers["x-subject-token"])
    stage.cloud.clock.advance(599)
    assert stage.cloud.alive(client)
    stage.cloud.clock.advance(1)
    assert not stage.cloud.alive(client)
    ok(stage.login(trust["id"]), 401)
    ok(stage.giver.request("GET", f"{TRUSTS}/{trust['id']}"), 404)


def test_what_voids_tokens_by_a_trust(stage: Stage) -> None:
    """Each act makes the token void, and the trust worth nothing as long as it lasts."""
    cloud = stage.cloud
    member = f"/v3/projects/{stage.project}/users/{stage.trustor}/roles/{cloud.role('member')}"

    def patch(path: str, **changes: Any) -> None:
        noun = path.partition("/")[0].removesuffix("s")
        ok(cloud.admin.request("PATCH", f"/v3/{path}", {noun: changes}))

    def stand() -> tuple[str, Client]:
        trust_id = stage.trust(impersonation=True)["id"]
        return trust_id, stage.acting(trust_id)

    for path in (f"users/{stage.trustor}", f"users/{stage.trustee}", f"projects/{stage.project}"):
        trust_id, client = stand()
        patch(path, enabled=False)
        assert not stage.cloud.alive(client), path
        patch(path, enabled=True)
        assert not stage.cloud.alive(client), path
        stage.acting(trust_id)
    trust_id, client = stand()
    patch(f"users/{stage.trustor}", password="another secret")
    assert not stage.cloud.alive(client)
    trust_id, client = stand()
    ok(cloud.admin.request("DELETE", member), 204)
    cloud.grant(stage.trustor, "reader", f"projects/{stage.project}")
    assert not stage.cloud.alive(client)
    ok(stage.login(trust_id), 403)
    cloud.grant(stage.trustor, "member", f"projects/{stage.project}")
    stage.acting(trust_id)
    trust_id, client = stand()
    ok(stage.giver.request("DELETE", f"{TRUSTS}/{trust_id}"), 204)
    assert not stage.cloud.alive(client)
    ok(stage.login(trust_id), 401)


@pytest.mark.parametrize("gone", ["trustor", "trustee", "project"])
def test_a_trust_goes_with_what_it_is_about(stage: Stage, gone: str) -> None:
    trust = stage.trust()
    client = stage.acting(trust["id"])
    path = {"trustor": f"users/{stage.trustor}", "trustee": f"users/{stage.trustee}"}
    ok(stage.cloud.admin.request("DELETE", f"/v3/{path.get(gone, f'projects/{stage.project}')}"), 204)
    assert not stage.cloud.alive(client)
    ok(stage.cloud.admin.request("GET", f"{TRUSTS}/{trust['id']}"), 404)
    assert ok(stage.cloud.admin.request("GET", TRUSTS))["trusts"] == []


def test_a_role_that_is_gone_voids_the_trust(stage: Stage) -> None:
    role = ok(stage.cloud.admin.request("POST", "/v3/roles", {"role": {"name": "extra"}}), 201)["role"]["id"]
    stage.cloud.grant(stage.trustor, "extra", f"projects/{stage.project}")
    trust = stage.trust(roles=[{"id": role}, {"name": "member"}])
    client = stage.acting(trust["id"])
    ok(stage.cloud.admin.request("DELETE", f"/v3/roles/{role}"), 204)
    assert not stage.cloud.alive(client)
    ok(stage.login(trust["id"]), 403)
    shown = ok(stage.giver.request("GET", f"{TRUSTS}/{trust['id']}"))["trust"]
    assert [one["name"] for one in shown["roles"]] == ["member"]


def redelegate(stage: Stage, client: Client, trustee: str, **more: Any) -> Response:
    return client.request("POST", TRUSTS, {"trust": stage.wish(impersonation=True, trustee_user_id=trustee, **more)})


def test_redelegation(stage: Stage) -> None:
    third, fourth = stage.cloud.user("third"), stage.cloud.user("fourth")
    both: dict[str, Any] = {"roles": [{"name": "member"}, {"name": "reader"}], "allow_redelegation": True}
    first = stage.trust(impersonation=True, redelegation_count=2, **both)
    assert first["redelegation_count"] == 2
    second = ok(redelegate(stage, stage.acting(first["id"]), third, **both), 201)["trust"]
    assert (second["redelegation_count"], second["redelegated_trust_id"]) == (1, first["id"])
    client = stage.acting(second["id"], third)
    last = ok(redelegate(stage, client, fourth, roles=[{"name": "reader"}]), 201)["trust"]
    assert last["redelegation_count"] == 0
    response = stage.login(last["id"], fourth)
    token = ok(response, 201)["token"]
    assert token["user"]["id"] == stage.trustor
    assert token["OS-TRUST:trust"]["redelegated_trust_id"] == second["id"]
    assert token["OS-TRUST:trust"]["redelegation_count"] == 0
    assert [role["name"] for role in token["roles"]] == ["reader"]
    end = stage.cloud.served.client(response.headers["x-subject-token"])
    ok(redelegate(stage, end, stage.cloud.user("fifth")), 403)
    ok(stage.giver.request("GET", f"{TRUSTS}/{last['id']}"))
    ok(stage.giver.request("DELETE", f"{TRUSTS}/{first['id']}"), 204)
    for trust, user_id in ((second, third), (last, fourth)):
        ok(stage.giver.request("GET", f"{TRUSTS}/{trust['id']}"), 404)
        ok(stage.login(trust["id"], user_id), 401)
    for one in (client, end):
        assert not stage.cloud.alive(one)


def test_what_cannot_be_redelegated(stage: Stage) -> None:
    third, other = stage.cloud.user("third"), stage.cloud.project("other")
    stage.cloud.grant(stage.trustor, "member", f"projects/{other}")
    plain = stage.trust(impersonation=True)
    ok(redelegate(stage, stage.acting(plain["id"]), third), 403)
    first = stage.trust(
        impersonation=True,
        allow_redelegation=True,
        roles=[{"name": "reader"}],
        expires_at="2030-01-01T01:00:00Z",
    )
    assert first["redelegation_count"] == 3
    client = stage.acting(first["id"])
    good: dict[str, Any] = {"roles": [{"name": "reader"}]}
    for change in (
        {"roles": [{"name": "member"}]},
        {"expires_at": "2030-01-01T01:00:01Z"},
        {"remaining_uses": 1},
        {"project_id": other},
        {"allow_redelegation": True, "redelegation_count": 1},
        {"redelegated_trust_id": plain["id"]},
    ):
        ok(redelegate(stage, client, third, **{**good, **change}), 403)
    made = ok(redelegate(stage, client, third, **good), 201)["trust"]
    assert made["expires_at"] == first["expires_at"]
    silent = stage.trust(allow_redelegation=True)
    body = stage.wish(trustor_user_id=stage.trustee, trustee_user_id=third, impersonation=True)
    ok(stage.acting(silent["id"]).request("POST", TRUSTS, {"trust": body}), 404)
    stage.cloud.grant(stage.trustee, "member", f"projects/{stage.project}")
    ok(stage.acting(silent["id"]).request("POST", TRUSTS, {"trust": body}), 403)
    ok(stage.acting(silent["id"]).request("POST", TRUSTS, {"trust": {**body, "impersonation": False}}), 201)


def test_a_link_of_the_chain_that_breaks(stage: Stage) -> None:
    third = stage.cloud.user("third")
    first = stage.trust(impersonation=True, allow_redelegation=True)
    second = ok(redelegate(stage, stage.acting(first["id"]), third), 201)["trust"]
    client = stage.acting(second["id"], third)
    ok(stage.cloud.admin.request("PATCH", f"/v3/users/{stage.trustee}", {"user": {"enabled": False}}))
    assert not stage.cloud.alive(client)
    ok(stage.login(second["id"], third), 403)
    ok(stage.cloud.admin.request("PATCH", f"/v3/users/{stage.trustee}", {"user": {"enabled": True}}))
    assert stage.cloud.alive(stage.acting(second["id"], third))
