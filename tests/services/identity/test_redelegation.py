"""Whatever is passed on, and however often, is never more than what was given."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pileus.core.errors import BadRequest, Forbidden
from pileus.services.identity.rules.expiry import earliest, parse
from pileus.services.identity.rules.redelegation import DEEPEST, Terms, check, depth, intact

NOW = datetime(2030, 1, 1, tzinfo=UTC)
TIMES = st.none() | st.integers(1, 4).map(lambda hours: NOW + timedelta(hours=hours))
TERMS = st.builds(
    Terms,
    project_id=st.sampled_from(["p", "q", None]),
    role_ids=st.frozensets(st.sampled_from("abc")),
    impersonation=st.booleans(),
    expires_at=TIMES,
    remaining_uses=st.none() | st.integers(1, 3),
    redelegation_count=st.integers(0, DEEPEST + 1),
)


@given(st.lists(TERMS, min_size=1, max_size=4))
def test_a_chain_only_shrinks(chain: list[Terms]) -> None:
    """`chain`, the one that is used first: if it is lawful, no link gives more than any link above it."""
    if not intact(chain):
        return
    for place, child in enumerate(chain):
        for parent in chain[place + 1 :]:
            assert child.role_ids <= parent.role_ids
            assert child.project_id == parent.project_id
            assert parent.impersonation or not child.impersonation
            assert parent.remaining_uses is None
            assert 0 < parent.redelegation_count <= DEEPEST
            if parent.expires_at is not None:
                assert child.expires_at is not None
                assert child.expires_at <= parent.expires_at


@given(TERMS, TERMS)
def test_what_is_refused_is_more_or_not_to_be_passed_on(parent: Terms, child: Terms) -> None:
    ends = parent.expires_at is None or (child.expires_at is not None and child.expires_at <= parent.expires_at)
    lawful = (
        0 < parent.redelegation_count <= DEEPEST
        and child.remaining_uses is None
        and parent.remaining_uses is None
        and child.project_id == parent.project_id
        and child.role_ids <= parent.role_ids
        and (parent.impersonation or not child.impersonation)
        and ends
    )
    if lawful:
        check([parent], child)
    else:
        with pytest.raises(Forbidden):
            check([parent], child)


@given(st.booleans(), st.none() | st.integers(0, 5), st.none() | st.integers(1, 3), st.none() | st.integers(1, DEEPEST))
def test_every_step_is_one_fewer(allowed: bool, requested: int | None, uses: int | None, parent: int | None) -> None:
    try:
        found = depth(allowed, requested, uses, parent)
    except (Forbidden, BadRequest):
        assert allowed
        assert requested != 0
        return
    assert 0 <= found <= DEEPEST
    if not allowed:
        assert found == 0
    if parent is not None:
        assert found < parent
    if found:
        assert uses is None
        assert requested in (None, found)


def test_a_trust_by_itself_is_lawful() -> None:
    alone = Terms("p", frozenset("a"), True, None, 3, 0)
    check([], alone)
    assert intact([alone])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, None),
        ("2030-01-01T00:00:01Z", NOW + timedelta(seconds=1)),
        ("2030-01-01T00:00:01", NOW + timedelta(seconds=1)),
        ("2030-01-01 00:00:01.5", NOW + timedelta(seconds=1.5)),
        ("2030-01-01T01:00Z", NOW + timedelta(hours=1)),
        ("9999-12-31T23:59:59.999999Z", datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
    ],
)
def test_times(text: str | None, found: datetime | None) -> None:
    assert parse(text, NOW) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Z",
        "bad.123Z",
        "2030-01-01T00:00:00Z",
        "2029-12-31T23:59:59Z",
        "2030-13-01T00:00:00Z",
        "2030-02-30T00:00:00Z",
        "2030-01-01T25:00:00Z",
        "2030-01-01T01:00:00+00:00Z",
        "2030-01-01T01:00:00+02:00",
        "2030-W01-1T01:00:00",
        "2030-01-01",
        "\u0662\u0660\u0663\u0660-01-01T01:00:00Z",
    ],
)
def test_what_is_no_time_to_come(text: str) -> None:
    with pytest.raises(BadRequest):
        parse(text, NOW)


def test_the_earliest() -> None:
    assert earliest(None, NOW + timedelta(1), NOW) == NOW
    assert earliest(None, None) is None
    assert earliest() is None
