"""Identity's rules: the codec of tokens, passwords, names, roles, trees and URL templates."""

from __future__ import annotations

import base64
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.fernet import Fernet
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pileus.services.identity.rules import hierarchy, name, password, role, template
from pileus.services.identity.rules.token import (
    LONGEST,
    METHODS,
    BadToken,
    DelegationKind,
    Keyring,
    Kind,
    Payload,
    audit_id,
)

RING = Keyring([Fernet.generate_key(), Fernet.generate_key()])
IDS = st.one_of(st.uuids().map(lambda one: one.hex), st.just("default"))
AUDIT_IDS = st.binary(min_size=16, max_size=16).map(audit_id)
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1)).map(lambda one: one.replace(tzinfo=UTC))  # noqa: DTZ001 - the zone follows


@st.composite
def payloads(draw: st.DrawFn) -> Payload:
    kinds: tuple[Kind, ...] = ("unscoped", "project", "domain", "system")
    kind = draw(st.sampled_from(kinds))
    delegations: tuple[DelegationKind | None, ...] = (None, "trust", "application_credential", "access_token")
    delegation = draw(st.sampled_from(delegations))
    return Payload(
        user_id=draw(IDS),
        user_generation=draw(st.integers(0, 2**31)),
        methods=tuple(one for one in METHODS if draw(st.booleans())),
        kind=kind,
        scope_id=draw(IDS) if kind in ("project", "domain") else None,
        scope_generation=draw(st.integers(0, 2**31)),
        delegation=delegation,
        delegation_id=None if delegation is None else draw(IDS),
        delegation_generation=draw(st.integers(0, 2**31)),
        issued_at=draw(MOMENTS),
        expires_at=draw(MOMENTS).replace(microsecond=0),
        audit_id=draw(AUDIT_IDS),
        parent_audit_id=draw(st.none() | AUDIT_IDS),
    )


@given(payloads())
def test_a_token_gives_back_its_payload_and_is_short(payload: Payload) -> None:
    text = RING.seal(payload)
    assert len(text) <= LONGEST
    assert RING.open(text) == payload


@given(payloads(), st.data())
@settings(max_examples=50)
def test_a_token_that_was_touched_is_none(payload: Payload, data: st.DataObject) -> None:
    text = RING.seal(payload)
    raw = bytearray(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BadToken):
        RING.open(base64.urlsafe_b64encode(bytes(raw)).rstrip(b"=").decode())


@given(st.text(max_size=300))
def test_other_text_is_no_token(text: str) -> None:
    with pytest.raises(BadToken):
        RING.open(text)


def test_tokens_outlive_a_rotation_but_not_their_key() -> None:
    old, new = Fernet.generate_key(), Fernet.generate_key()
    now = datetime(2030, 1, 1, tzinfo=UTC)
    payload = Payload(
        user_id="a" * 32,
        user_generation=0,
        methods=("password",),
        issued_at=now,
        expires_at=now + timedelta(hours=1),
        audit_id=audit_id(bytes(16)),
    )
    text = Keyring([old]).seal(payload)
    assert Keyring([new, old]).open(text) == payload
    with pytest.raises(BadToken):
        Keyring([new]).open(text)


def test_a_payload_that_is_too_long_is_refused() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    with pytest.raises(ValueError, match="longer than 255"):
        RING.seal(
            Payload(
                user_id="x" * 64,
                user_generation=0,
                methods=(),
                kind="project",
                scope_id="y" * 64,
                issued_at=now,
                expires_at=now,
                audit_id=audit_id(bytes(16)),
            )
        )


def test_passwords() -> None:
    hashed = password.digest("correct horse")
    assert password.matches(hashed, "correct horse")
    assert not password.matches(hashed, "Correct horse")
    assert not password.matches(hashed, None)
    assert not password.matches(None, "correct horse")
    assert not password.matches("not a hash", "correct horse")
    assert not password.stale(hashed)
    assert password.stale(hashed.replace("m=64,", "m=32,"))


def test_a_hash_is_as_strong_as_it_is_recommended() -> None:
    """In a process of its own, since in this one hashes are made cheap."""
    script = "from pileus.services.identity.rules.password import digest; print(digest('correct horse'))"
    made = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE, text=True)
    assert made.stdout.startswith("$argon2id$v=19$m=65536,t=3,p=4$")


def test_nobody_costs_as_much_as_somebody() -> None:
    """The hash that stands for unknown users has the parameters of real ones, so comparing takes as long."""
    real, nobody = password.digest("x").split("$"), password._nobody().split("$")
    assert real[:4] == nobody[:4]
    assert [len(part) for part in real] == [len(part) for part in nobody]


def test_names_are_compared_without_case_composition_and_edges() -> None:
    assert name.key(" Ünï ") == name.key("ÜNI\u0308".lower())
    assert name.key("Straße") == name.key("STRASSE")
    assert name.key("a b") != name.key("ab")


@pytest.mark.parametrize(
    "trick", ["adm\u200bin", "\u202eadmin", "\uff21dmin", "ad\ufe0fmin", "a\u00addmin", "\u3164admin"]
)
def test_names_that_look_the_same_are_the_same(trick: str) -> None:
    assert name.key(trick) == name.key("admin")
    assert name.key("\u0430dmin") != name.key("admin")


@given(st.text(min_size=1, max_size=255))
@example("\ufdfa" * 255)
def test_the_key_of_a_name_fits_and_is_stable(text: str) -> None:
    key = name.key(text)
    assert len(key) <= name.KEY_LENGTH
    assert name.key(key) == key


def test_implied_roles_are_found_once_even_in_circles() -> None:
    implications = {"a": ["b"], "b": ["c", "a"], "x": ["y"]}
    assert role.implied_by(["a"], implications) == {"a": None, "b": "a", "c": "b"}
    assert role.implied_by([], implications) == {}


def test_trees() -> None:
    parents = {"d": None, "a": "d", "b": "a", "c": "a"}
    assert hierarchy.parents_as_ids("b", parents) == {"a": {"d": None}}
    assert hierarchy.parents_as_ids("d", parents) is None
    assert hierarchy.subtree_as_ids("d", parents) == {"a": {"b": None, "c": None}}
    assert hierarchy.subtree_as_ids("b", parents) is None
    assert hierarchy.chain("b", parents) == ["b", "a", "d"]
    assert hierarchy.chain("x", {"x": "y", "y": "x"}) == ["x", "y"]


@pytest.mark.parametrize(
    ("url", "lawful"),
    [
        ("http://x/$(project_id)s", True),
        ("http://x/%(tenant_id)s/%(user_id)s", True),
        ("http://x/$(admin_token)s", False),
        ("http://x/$(project_id)", False),
        ("/relative", False),
    ],
)
def test_urls_ask_only_for_what_may_be_told(url: str, lawful: bool) -> None:
    assert template.lawful(url) is lawful


def test_urls_are_filled() -> None:
    assert template.fill("http://x/$(project_id)s", {"project_id": "p"}) == "http://x/p"
    assert template.fill("http://x/$(project_id)s", {"project_id": None}) is None
    assert template.fill("http://x/100%25", {}) == "http://x/100%25"
