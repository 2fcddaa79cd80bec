"""Identity: what limits logins and passwords."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pileus.services.identity.interface import Compliance, Throttle
from pileus.services.identity.rules import password as passwords
from tests.api.edge import Response
from tests.api.whole import PASSWORD, whole_cloud
from tests.services.identity.cloud import Cloud, make_cloud, ok

DAY = 86_400
FIRST, SECOND, THIRD = "first password 1", "second password 2", "third password 3"


def quick(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes cost nothing here: what is tested is which of them are compared."""
    monkeypatch.setattr(passwords, "digest", quick)
    monkeypatch.setattr(passwords, "matches", lambda hashed, password: hashed == quick(password or ""))
    monkeypatch.setattr(passwords, "stale", lambda hashed: False)


@pytest.fixture
def place(database_url: str, tmp_path: Path) -> tuple[str, Path]:
    return database_url, tmp_path


def login(cloud: Cloud, user_id: str, password: str) -> Response:
    user = {"id": user_id, "password": password}
    return cloud.login({"identity": {"methods": ["password"], "password": {"user": user}}})


def change(cloud: Cloud, user_id: str, old: str, new: str) -> Response:
    body = {"user": {"original_password": old, "password": new}}
    return cloud.served.client().request("POST", f"/v3/users/{user_id}/password", body)


def show(cloud: Cloud, user_id: str) -> dict[str, Any]:
    found: dict[str, Any] = ok(cloud.admin.request("GET", f"/v3/users/{user_id}"))["user"]
    return found


def patch(cloud: Cloud, user_id: str, **changes: Any) -> None:
    ok(cloud.admin.request("PATCH", f"/v3/users/{user_id}", {"user": changes}))


@pytest.fixture
def plain(place: tuple[str, Path]) -> Iterator[Cloud]:
    with make_cloud(*place) as cloud:
        yield cloud


def with_rules(place: tuple[str, Path], **rules: Any) -> Any:
    return make_cloud(*place, provided={Compliance: Compliance(**rules), Throttle: Throttle(0)})


def test_failures_make_logins_wait_whether_or_not_there_is_such_a_user(plain: Cloud) -> None:
    user_id = plain.user("u", password=FIRST)
    for one in (user_id, "nobody"):
        for _ in range(5):
            ok(login(plain, one, "wrong"), 401)
        refused = login(plain, one, FIRST)
        ok(refused, 429)
        assert refused.headers["retry-after"] == "2"
        ok(change(plain, one, FIRST, SECOND), 429)
        plain.clock.advance(1.5)
        ok(login(plain, one, "wrong"), 401)
        assert login(plain, one, "wrong").headers["retry-after"] == "3"
        plain.clock.advance(3)
    ok(login(plain, user_id, FIRST), 201)
    ok(login(plain, user_id, "wrong"), 401)
    ok(login(plain, user_id, FIRST), 201)


def test_failures_are_counted_by_what_names_a_user_and_no_more(plain: Cloud) -> None:
    plain.user("u", password=FIRST)
    other = plain.domain("theirs")
    plain.user("u", other, SECOND)

    def status(domain: str, password: str) -> int:
        user = {"name": "u", "domain": {"id": domain}, "password": password}
        return plain.login({"identity": {"methods": ["password"], "password": {"user": user}}}).status

    for _ in range(5):
        assert status("default", "wrong") == 401
        assert status(other, SECOND) == 201
    assert status("default", FIRST) == 429
    assert status(other, SECOND) == 201


def test_of_who_fails_no_more_is_kept_than_a_hash(place: tuple[str, Path]) -> None:
    throttle = Throttle(5)
    with make_cloud(*place, provided={Throttle: throttle}) as cloud:
        ok(login(cloud, "x" * 50_000, "wrong"), 401)
    assert [len(named) for named, _ in throttle._counts] == [64]


def test_failed_logins_are_logged_without_secrets(plain: Cloud, caplog: pytest.LogCaptureFixture) -> None:
    user_id = plain.user("u", password=FIRST)
    with caplog.at_level(logging.WARNING):
        ok(login(plain, user_id, "a typing mistake"), 401)
        ok(login(plain, "a password instead of an id", "x"), 401)
    assert f"failed login: {user_id} from ?, 1 in a row" in caplog.text
    assert "nobody known" in caplog.text
    assert "mistake" not in caplog.text
    assert "instead" not in caplog.text


def test_the_form_of_passwords(place: tuple[str, Path]) -> None:
    with with_rules(place, password_regex=r"^.{8,}$", password_regex_description="eight characters") as cloud:
        user_id = cloud.user("u", password=FIRST)
        wanted = {"user": {"name": "v", "password": "short"}}
        assert "eight characters" in ok(cloud.admin.request("POST", "/v3/users", wanted), 400)["error"]["message"]
        ok(cloud.admin.request("PATCH", f"/v3/users/{user_id}", {"user": {"password": "short"}}), 400)
        ok(change(cloud, user_id, FIRST, "short"), 400)
        ok(change(cloud, user_id, FIRST, SECOND), 204)


def test_a_password_expires(place: tuple[str, Path]) -> None:
    with with_rules(place, password_expires_days=1) as cloud:
        user_id, exempt = cloud.user("u", password=FIRST), cloud.user("v")
        patch(cloud, exempt, options={"ignore_password_expiry": True}, password=FIRST)
        assert show(cloud, user_id)["password_expires_at"] == "2030-01-02T00:00:00.000000"
        assert show(cloud, exempt)["password_expires_at"] is None
        token = ok(login(cloud, user_id, FIRST), 201)["token"]
        assert token["user"]["password_expires_at"] == "2030-01-02T00:00:00.000000"
        cloud.clock.advance(DAY)
        ok(login(cloud, exempt, FIRST), 201)
        refused = ok(login(cloud, user_id, FIRST), 401)
        assert f"The password is expired and needs to be changed for user: {user_id}." in refused["error"]["message"]
        assert "expired" not in ok(login(cloud, user_id, "wrong"), 401)["error"]["message"]
        ok(change(cloud, user_id, "wrong", SECOND), 401)
        ok(change(cloud, user_id, FIRST, SECOND), 204)
        ok(login(cloud, user_id, SECOND), 201)
        assert show(cloud, user_id)["password_expires_at"] == "2030-01-03T00:00:00.000000"


def test_users_are_found_by_when_their_passwords_expire(place: tuple[str, Path]) -> None:
    with with_rules(place, password_expires_days=1) as cloud:
        early = cloud.user("early", password=FIRST)
        cloud.user("never")
        cloud.clock.advance(DAY)
        late = cloud.user("late", password=FIRST)

        def found(*wanted: str) -> set[str]:
            query = "&".join(f"password_expires_at={one}" for one in wanted)
            return {one["id"] for one in ok(cloud.admin.request("GET", f"/v3/users?{query}"))["users"]}

        first, last = "2030-01-02T00:00:00Z", "2030-01-03T00:00:00Z"
        assert found(f"lt:{last}") == found(f"lte:{first}") == found(f"eq:{first}") == {early}
        assert found(f"gt:{first}") == found(f"gte:{last}") == found(f"neq:{first}") == {late}
        assert found(f"gte:{first}", f"lt:{last}") == {early}
        for wrong in ("", first, f"about:{first}", "lt:tomorrow", "lt:2030-01-02"):
            ok(cloud.admin.request("GET", f"/v3/users?password_expires_at={wrong}"), 400)


def test_a_password_must_be_changed_before_its_first_use(place: tuple[str, Path]) -> None:
    with with_rules(place, change_password_upon_first_use=True) as cloud:
        user_id = cloud.user("u", password=FIRST)
        ok(login(cloud, user_id, FIRST), 401)
        ok(change(cloud, user_id, FIRST, SECOND), 204)
        ok(login(cloud, user_id, SECOND), 201)
        patch(cloud, user_id, password=THIRD)
        ok(login(cloud, user_id, THIRD), 401)
        patch(cloud, user_id, password=FIRST, options={"ignore_change_password_upon_first_use": True})
        ok(login(cloud, user_id, FIRST), 201)


def test_passwords_are_not_used_again(place: tuple[str, Path]) -> None:
    with with_rules(place, unique_last_password_count=2) as cloud:
        user_id = cloud.user("u", password=FIRST)
        ok(change(cloud, user_id, FIRST, FIRST), 400)
        ok(change(cloud, user_id, FIRST, SECOND), 204)
        ok(change(cloud, user_id, SECOND, SECOND), 400)
        ok(change(cloud, user_id, SECOND, FIRST), 400)
        ok(change(cloud, user_id, SECOND, THIRD), 204)
        ok(change(cloud, user_id, THIRD, FIRST), 204)
        patch(cloud, user_id, password=FIRST)


def test_a_password_is_used_for_some_time(place: tuple[str, Path]) -> None:
    with with_rules(place, minimum_password_age=1) as cloud:
        user_id = cloud.user("u", password=FIRST)
        ok(change(cloud, user_id, FIRST, SECOND), 204)
        ok(change(cloud, user_id, SECOND, THIRD), 400)
        cloud.clock.advance(DAY)
        ok(change(cloud, user_id, SECOND, THIRD), 204)
        patch(cloud, user_id, password=FIRST)
        ok(change(cloud, user_id, FIRST, SECOND), 204)


def test_a_user_is_locked_out(place: tuple[str, Path]) -> None:
    with with_rules(place, lockout_failure_attempts=2, lockout_duration=60) as cloud:
        user_id, exempt = cloud.user("u", password=FIRST), cloud.user("v", password=FIRST)
        patch(cloud, exempt, options={"ignore_lockout_failure_attempts": True})
        for one in (user_id, exempt):
            ok(login(cloud, one, "wrong"), 401)
            ok(login(cloud, one, FIRST), 201)
            for _ in range(2):
                ok(login(cloud, one, "wrong"), 401)
        ok(login(cloud, exempt, FIRST), 201)
        wrong = ok(login(cloud, "nobody", "wrong"), 401)
        assert ok(login(cloud, user_id, FIRST), 401) == wrong
        ok(change(cloud, user_id, FIRST, SECOND), 401)
        cloud.clock.advance(61)
        ok(login(cloud, user_id, "wrong"), 401)
        ok(login(cloud, user_id, FIRST), 201)
        for _ in range(2):
            ok(login(cloud, user_id, "wrong"), 401)
        patch(cloud, user_id, enabled=True)
        ok(login(cloud, user_id, FIRST), 201)


def test_a_user_who_is_away_for_long_is_disabled(place: tuple[str, Path]) -> None:
    with with_rules(place, disable_user_account_days_inactive=10) as cloud:
        user_id, exempt = cloud.user("u", password=FIRST), cloud.user("v", password=FIRST)
        patch(cloud, exempt, options={"ignore_user_inactivity": True})
        cloud.clock.advance(9 * DAY)
        ok(login(cloud, user_id, FIRST), 201)
        cloud.clock.advance(9 * DAY)
        assert show(cloud, user_id)["enabled"]
        cloud.clock.advance(DAY)
        assert not show(cloud, user_id)["enabled"]
        ok(login(cloud, user_id, FIRST), 401)
        ok(login(cloud, exempt, FIRST), 201)
        patch(cloud, user_id, enabled=True)
        ok(login(cloud, user_id, FIRST), 201)


def test_who_must_show_two_factors(plain: Cloud) -> None:
    user_id = plain.user("u", password=FIRST)
    patch(plain, user_id, options={"multi_factor_auth_rules": [["password", "token"]]})
    ok(login(plain, user_id, FIRST), 401)
    token = plain.token(user_id)
    both = {"methods": ["password", "token"], "password": {"user": {"id": user_id, "password": FIRST}}}
    ok(plain.login({"identity": {**both, "token": {"id": token}}}), 201)
    patch(plain, user_id, options={"multi_factor_auth_enabled": False})
    ok(login(plain, user_id, FIRST), 201)
    patch(plain, user_id, options={"multi_factor_auth_enabled": None, "multi_factor_auth_rules": [["totp"]]})
    ok(login(plain, user_id, FIRST), 201)
    wrong = {"user": {"options": {"multi_factor_auth_rules": "password"}}}
    ok(plain.admin.request("PATCH", f"/v3/users/{user_id}", wrong), 400)


def test_a_locked_password_is_changed_by_administrators_only(plain: Cloud) -> None:
    user_id = plain.user("u", password=FIRST)
    patch(plain, user_id, options={"lock_password": True})
    assert "locked" in ok(change(plain, user_id, FIRST, SECOND), 400)["error"]["message"]
    ok(change(plain, user_id, "wrong", SECOND), 401)
    patch(plain, user_id, password=SECOND)
    ok(login(plain, user_id, SECOND), 201)


def test_bodies_and_passwords_have_bounds(plain: Cloud) -> None:
    user_id = plain.user("u", password=FIRST)
    ok(login(plain, user_id, "x" * 5000), 401)
    ok(change(plain, user_id, FIRST, "x" * 4097), 403)
    ok(change(plain, user_id, FIRST, "x" * 4096), 204)
    ok(login(plain, user_id, "x" * 200_000), 413)
    ok(login(plain, user_id, "nul\x00nul"), 400)


def test_a_name_longer_than_any_is_nobodys_and_costs_no_time(plain: Cloud) -> None:
    longest, marks = "\u00e9" * 255, "a" + "\u0301" * 7000 + "\u0316" * 7000
    plain.user(longest, password=FIRST)

    def status(name: str, domain: str = "Default", scope: str = "") -> int:
        user = {"name": name, "domain": {"name": domain}, "password": FIRST}
        asked = {"identity": {"methods": ["password"], "password": {"user": user}}}
        return plain.login({**asked, **({"scope": {"domain": {"name": scope}}} if scope else {})}).status

    begun = time.process_time()
    assert status(longest.upper()) == 201
    assert status(longest + "e") == status(marks) == status(longest, marks) == status(longest, scope=marks) == 401
    assert time.process_time() - begun < 0.5


def test_users_of_a_provider_are_none(plain: Cloud) -> None:
    for name in ("idp_id", "protocol_id", "unique_id"):
        assert ok(plain.admin.request("GET", f"/v3/users?{name}=x"))["users"] == []


def test_a_name_that_looks_like_anothers_is_taken(plain: Cloud) -> None:
    for name in ("ADMIN", "adm\u200bin", "\uff41dmin", " admin "):
        ok(plain.admin.request("POST", "/v3/users", {"user": {"name": name}}), 409)


def test_as_shipped_guesses_lock_a_user_out_for_a_while_but_not_the_first_administrator(tmp_path: Path) -> None:
    with whole_cloud(tmp_path) as whole:
        wanted = {"user": {"name": "alice", "password": "right", "domain_id": "default"}}
        assert whole.admin.request("POST", "/identity/v3/users", wanted).status == 201

        def status(name: str, password: str) -> int:
            user = {"name": name, "domain": {"id": "default"}, "password": password}
            auth = {"identity": {"methods": ["password"], "password": {"user": user}}}
            return whole.served.client().request("POST", "/identity/v3/auth/tokens", {"auth": auth}).status

        for name in ("alice", "admin"):
            assert [status(name, "wrong") for _ in range(8)] == [401] * 8
        assert status("alice", "right") == 401
        assert status("admin", PASSWORD) == 201
