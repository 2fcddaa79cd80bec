"""The policy language: what it accepts, and what rules decide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pileus.core.errors import Forbidden
from pileus.core.policy import Policy, PolicyError, Rule, compile_rule

MEMBER = {"roles": frozenset({"member", "reader"}), "user_id": "u1", "project_id": "p1", "system_scope": None}
ADMIN = {"roles": frozenset({"admin"}), "user_id": "root", "project_id": "p0", "system_scope": "all"}


@pytest.mark.parametrize(
    ("rule", "target", "member", "admin"),
    [
        ("", {}, True, True),
        ("@", {}, True, True),
        ("!", {}, False, False),
        ("role:member", {}, True, False),
        ("role:MEMBER", {}, True, False),
        ("not role:member", {}, False, True),
        ("role:admin or project_id:%(project_id)s", {"project_id": "p1"}, True, True),
        ("role:admin or project_id:%(project_id)s", {"project_id": "p2"}, False, True),
        ("role:member and project_id:%(project_id)s", {"project_id": "p1"}, True, False),
        ("project_id:%(project_id)s", {}, False, False),
        ("system_scope:all", {}, False, True),
        ("(role:reader and user_id:%(user.id)s) or role:admin", {"user.id": "u1"}, True, True),
        ("role:reader and not (role:member or role:admin)", {}, False, False),
        ("'p1':%(project_id)s", {"project_id": "p1"}, True, True),
        ("None:%(domain_id)s", {"domain_id": None}, True, True),
        ("True:%(shared)s", {"shared": True}, True, True),
        ("rule:base", {}, True, False),
        ("rule:nobody_declared_this", {}, False, False),
    ],
)
def test_rules_decide(rule: str, target: dict[str, Any], member: bool, admin: bool) -> None:
    policy = Policy([Rule("base", "role:reader"), Rule("it", rule)])
    assert policy.passes("it", target, MEMBER) is member
    assert policy.passes("it", target, ADMIN) is admin


@pytest.mark.parametrize("rule", ["role", "(role:a", "role:a)", "role:a or", "and role:a", "not", "role:a role:b"])
def test_nonsense_is_refused_when_it_is_read(rule: str) -> None:
    with pytest.raises(PolicyError):
        compile_rule(rule)


def test_an_operator_overrides_by_name(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text('"it": "role:member"\n')
    policy = Policy([Rule("it", "!")], file)
    assert policy.passes("it", {}, MEMBER)
    with pytest.raises(Forbidden, match="it"):
        policy.enforce("it", {}, ADMIN)


def test_a_rule_is_declared_once() -> None:
    policy = Policy([Rule("it", "!")])
    policy.add([Rule("it", "!")])
    with pytest.raises(PolicyError, match="twice"):
        policy.add([Rule("it", "@")])


def test_an_override_stands_whenever_its_rule_is_added(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text('"a": "!"\n')
    policy = Policy(overrides=path)
    policy.add([Rule("a", "@"), Rule("b", "@")])
    assert not policy.passes("a", {}, MEMBER)
    assert policy.passes("b", {}, MEMBER)


def test_an_attribute_can_be_none() -> None:
    policy = Policy([Rule("unscoped", "domain_id:None"), Rule("scoped", "not domain_id:None")])
    assert policy.passes("unscoped", {}, {"domain_id": None})
    assert policy.passes("scoped", {}, {"domain_id": "d"})
    assert not policy.passes("scoped", {}, {"domain_id": None})
    assert not policy.passes("unscoped", {}, {})
