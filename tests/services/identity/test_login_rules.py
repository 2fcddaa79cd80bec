"""What limits logins: the operator's rules for passwords and accounts, and the waiting after failures."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pileus.core.errors import BadRequest, TooManyRequests
from pileus.services.identity.rules.compliance import Compliance, expired, factors_suffice
from pileus.services.identity.rules.throttle import LONGEST, Throttle

NOW = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
METHODS = ("password", "token")


def test_nothing_is_asked_unless_it_is_configured() -> None:
    nothing = Compliance()
    nothing.check_form("")
    nothing.check_age(NOW, NOW)
    assert nothing.expiry({}, NOW, reset=True) is None
    assert not nothing.locked({}, 10**6, NOW, NOW)
    assert not nothing.inactive({}, NOW - 1000 * DAY, NOW)


def test_the_form_of_a_password() -> None:
    asked = Compliance(password_regex=r"^(?=.*\d).{7,}$", password_regex_description="seven characters and a digit")
    asked.check_form("secret77")
    with pytest.raises(BadRequest, match="seven characters and a digit"):
        asked.check_form("secret")


def test_expiry() -> None:
    asked = Compliance(password_expires_days=30, change_password_upon_first_use=True)
    assert asked.expiry({}, NOW, reset=False) == NOW + 30 * DAY
    assert asked.expiry({}, NOW, reset=True) == NOW
    first = {"ignore_change_password_upon_first_use": True}
    assert asked.expiry(first, NOW, reset=True) == NOW + 30 * DAY
    ever = {"ignore_password_expiry": True}
    assert asked.expiry(ever, NOW, reset=False) is None
    assert expired({}, NOW, NOW)
    assert not expired({}, NOW + DAY, NOW)
    assert not expired({}, None, NOW)
    assert not expired(ever, NOW, NOW)


def test_lockout() -> None:
    asked = Compliance(lockout_failure_attempts=3, lockout_duration=60)
    minute = timedelta(seconds=60)
    assert not asked.locked({}, 2, NOW, NOW)
    assert asked.locked({}, 3, NOW, NOW + minute / 2)
    assert not asked.locked({}, 3, NOW, NOW + minute)
    assert not asked.locked({"ignore_lockout_failure_attempts": True}, 9, NOW, NOW)
    assert Compliance(lockout_failure_attempts=3, lockout_duration=0).locked({}, 3, NOW, NOW + 1000 * DAY)


def test_age_and_inactivity() -> None:
    asked = Compliance(minimum_password_age=2, disable_user_account_days_inactive=90)
    with pytest.raises(BadRequest, match="2 of which are left"):
        asked.check_age(NOW, NOW)
    asked.check_age(NOW, NOW + 2 * DAY)
    asked.check_age(None, NOW)
    assert asked.inactive({}, NOW, NOW + 90 * DAY)
    assert not asked.inactive({}, NOW, NOW + 89 * DAY)
    assert not asked.inactive({"ignore_user_inactivity": True}, NOW, NOW + 900 * DAY)


@pytest.mark.parametrize(
    ("options", "methods", "suffice"),
    [
        ({}, ["password"], True),
        ({"multi_factor_auth_rules": [["password", "token"]]}, ["password"], False),
        ({"multi_factor_auth_rules": [["password", "token"]]}, ["password", "token"], True),
        ({"multi_factor_auth_rules": [["password", "token"], ["token"]]}, ["token"], True),
        ({"multi_factor_auth_rules": [["password", "token"]], "multi_factor_auth_enabled": False}, ["password"], True),
        ({"multi_factor_auth_rules": [["password", "totp"]]}, ["password"], True),
        ({"multi_factor_auth_rules": [["password", "totp"]]}, ["token"], False),
        ({"multi_factor_auth_rules": [["totp"]]}, ["token"], True),
        ({"multi_factor_auth_rules": []}, ["token"], True),
    ],
)
def test_several_factors(options: dict[str, object], methods: list[str], suffice: bool) -> None:
    assert factors_suffice(options, methods, METHODS) is suffice


def test_failures_make_the_next_login_wait_ever_longer() -> None:
    throttle, key, now = Throttle(3), ("user", "192.0.2.1"), 0.0
    for _ in range(2):
        throttle.fail(key, now)
        throttle.check(key, now)
    waits = []
    for _ in range(12):
        throttle.fail(key, now)
        with pytest.raises(TooManyRequests) as found:
            throttle.check(key, now)
        waits.append(int(found.value.headers["retry-after"]))
        now += waits[-1]
        throttle.check(key, now)
    assert waits == sorted(waits)
    assert waits[0] == 2
    assert waits[-1] == LONGEST + 1
    throttle.check(("user", "192.0.2.2"), 0.0)
    throttle.check(("other", "192.0.2.1"), 0.0)
    throttle.succeed(key)
    assert throttle.fail(key, now) == 1


def test_failures_are_forgotten_after_an_hour_and_when_there_are_too_many() -> None:
    throttle = Throttle(1, size=2)
    assert throttle.fail(("a", ""), 0.0) == 1
    assert throttle.fail(("a", ""), 3599.0) == 2
    assert throttle.fail(("a", ""), 3599.0 + 3601) == 1
    throttle.fail(("b", ""), 0.0)
    throttle.fail(("c", ""), 0.0)
    assert throttle.fail(("a", ""), 0.0) == 1


def waits(throttle: Throttle, who: str, now: float) -> int:
    """Seconds after which there is no wait any more, as those are told who must."""
    try:
        throttle.check((who, ""), now)
    except TooManyRequests as fault:
        return int(fault.headers["retry-after"]) - 1 or 1
    return 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.floats(0, 1000)), max_size=60))
def test_only_those_who_failed_wait_and_never_longer_than_the_longest(acts: list[tuple[str, bool, float]]) -> None:
    throttle, now, failed = Throttle(2), 0.0, dict.fromkeys("abc", 0)
    for who, right, pause in acts:
        now += pause
        wait = waits(throttle, who, now)
        assert 0 <= wait <= LONGEST
        assert not wait or failed[who] >= 2
        if wait:
            continue
        if right:
            throttle.succeed((who, ""))
            failed[who] = 0
        else:
            failed[who] = throttle.fail((who, ""), now)


def test_nobody_waits_when_it_is_switched_off() -> None:
    throttle = Throttle(0)
    for _ in range(100):
        throttle.fail(("a", ""), 0.0)
        throttle.check(("a", ""), 0.0)
