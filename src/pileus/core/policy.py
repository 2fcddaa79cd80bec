"""Who may do what: rules in the language that operators know, with defaults beside the routes.

The language is that of `policy.yaml` files (oslo.policy administrator guide, "Policy language")::

    rule := "" | "@" | "!" | check | "not" rule | rule "and" rule | rule "or" rule | "(" rule ")"
    check := "role:NAME" | "rule:NAME" | ATTRIBUTE ":" VALUE | LITERAL ":" "%(" KEY ")s"

`ATTRIBUTE` is of the caller's credentials (`project_id`, `user_id`, `domain_id`, `system_scope`, …), `VALUE` is text or
`%(KEY)s`, a key of the target.  `True`, `None` and quoted text are literals.  A check that names a key that the target
has not is false.  A rule that is empty or `@` is always true, `!` never.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pileus.core.errors import Forbidden

Check = Callable[[Mapping[str, Any], Mapping[str, Any], "Policy"], bool]
"""Decides from target and credentials; the engine is given for `rule:` references."""


class Rule(NamedTuple):
    """A rule with its default and one line on what it guards."""

    name: str
    check: str
    description: str = ""


class PolicyError(ValueError):
    """A rule that cannot be read. The message names the rule and the place."""


_TOKEN = re.compile(r"""\s*(?:(\()|(\))|((?:'[^']*'|"[^"]*"|%\([^)]*\)s|[^\s()'"])+))""")
_KEY = re.compile(r"%\(([^)]*)\)s")


def _tokens(text: str) -> list[str]:
    found, place = [], 0
    text = text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise PolicyError(f"cannot read the policy rule {text!r} at character {place}")
        found.append(match.group().strip())
        place = match.end()
    return found


@cache
def compile_rule(text: str) -> Check:
    """A rule of its text. Raises PolicyError."""
    tokens = _tokens(text)
    if not tokens:
        return _always
    check, rest = _either(tokens, text)
    if rest:
        raise PolicyError(f"unexpected {rest[0]!r} in the policy rule {text!r}")
    return check


def _always(target: Mapping[str, Any], creds: Mapping[str, Any], policy: Policy) -> bool:
    return True


def _never(target: Mapping[str, Any], creds: Mapping[str, Any], policy: Policy) -> bool:
    return False


def _either(tokens: list[str], text: str) -> tuple[Check, list[str]]:
    first, rest = _both(tokens, text)
    arms = [first]
    while rest and rest[0].lower() == "or":
        arm, rest = _both(rest[1:], text)
        arms.append(arm)
    if len(arms) == 1:
        return first, rest
    return lambda target, creds, policy: any(arm(target, creds, policy) for arm in arms), rest


def _both(tokens: list[str], text: str) -> tuple[Check, list[str]]:
    first, rest = _single(tokens, text)
    arms = [first]
    while rest and rest[0].lower() == "and":
        arm, rest = _single(rest[1:], text)
        arms.append(arm)
    if len(arms) == 1:
        return first, rest
    return lambda target, creds, policy: all(arm(target, creds, policy) for arm in arms), rest


def _single(tokens: list[str], text: str) -> tuple[Check, list[str]]:
    if not tokens:
        raise PolicyError(f"the policy rule {text!r} ends too early")
    head, rest = tokens[0], tokens[1:]
    if head.lower() == "not":
        inner, rest = _single(rest, text)
        return lambda target, creds, policy: not inner(target, creds, policy), rest
    if head == "(":
        inner, rest = _either(rest, text)
        if not rest or rest[0] != ")":
            raise PolicyError(f"a parenthesis is not closed in the policy rule {text!r}")
        return inner, rest[1:]
    return _leaf(head, text), rest


def _leaf(word: str, text: str) -> Check:
    if word == "@":
        return _always
    if word == "!":
        return _never
    kind, colon, value = word.partition(":")
    if not colon:
        raise PolicyError(f"{word!r} in the policy rule {text!r} is not of the form KIND:VALUE")
    if kind == "rule":
        return lambda target, creds, policy: policy.passes(value, target, creds)
    if kind == "role":
        return _role(value)
    return _attribute(kind, value)


def _role(value: str) -> Check:
    wanted = value.lower()
    if _KEY.search(value):
        return lambda target, creds, policy: str(_fill(value, target)).lower() in creds["roles"]
    return lambda target, creds, policy: wanted in creds["roles"]


def _fill(value: str, target: Mapping[str, Any]) -> str | None:
    """The value with the target's keys in it; None when the target has not got one of them."""
    try:
        return _KEY.sub(lambda match: str(target[match.group(1)]), value)
    except KeyError:
        return None


def _attribute(kind: str, value: str) -> Check:
    try:
        literal = str(ast.literal_eval(kind))
    except (ValueError, SyntaxError):
        pass
    else:
        return lambda target, creds, policy: _fill(value, target) == literal
    plain = value.strip("'\"")
    if value == "None":
        return lambda target, creds, policy: kind in creds and creds[kind] is None
    key = _KEY.fullmatch(value)
    if key is not None:
        name = key.group(1)

        def same(target: Mapping[str, Any], creds: Mapping[str, Any], policy: Policy) -> bool:
            mine = creds.get(kind)
            return mine is not None and name in target and str(mine) == str(target[name])

        return same

    def equal(target: Mapping[str, Any], creds: Mapping[str, Any], policy: Policy) -> bool:
        mine = creds.get(kind)
        return mine is not None and str(mine) == _fill(plain, target)

    return equal


class Policy:
    """The rules in force: defaults, and what an operator's `policy.yaml` overrides."""

    def __init__(self, rules: Iterable[Rule] = (), overrides: Path | None = None) -> None:
        self.rules: dict[str, Rule] = {}
        self._checks: dict[str, Check] = {}
        self._overridden: set[str] = set()
        self.add(rules)
        if overrides is not None and overrides.exists():
            self.override(yaml.safe_load(overrides.read_text()) or {})

    def add(self, rules: Iterable[Rule]) -> None:
        """Take in default rules. Raises PolicyError for one that cannot be read or is there already."""
        for rule in rules:
            if rule.name in self.rules and self.rules[rule.name].check != rule.check:
                raise PolicyError(f"the policy rule {rule.name} is declared twice")
            self.rules[rule.name] = rule
            check = compile_rule(rule.check)
            if rule.name not in self._overridden:
                self._checks[rule.name] = check

    def override(self, rules: Mapping[str, str]) -> None:
        """Replace the checks of rules by name, added before or after. Raises PolicyError for one it cannot read."""
        for name, check in rules.items():
            if not isinstance(check, str):
                raise PolicyError(f"the policy rule {name} is not text")
            self._checks[name] = compile_rule(check)
            self._overridden.add(name)

    def passes(self, name: str, target: Mapping[str, Any], creds: Mapping[str, Any]) -> bool:
        """Whether the rule lets the caller act on the target. A rule that nobody declared lets nobody."""
        check = self._checks.get(name)
        return check is not None and check(target, creds, self)

    def enforce(self, name: str, target: Mapping[str, Any], creds: Mapping[str, Any]) -> None:
        """Raise Forbidden unless the rule lets the caller act on the target."""
        if not self.passes(name, target, creds):
            raise Forbidden(f"Policy doesn't allow {name} to be performed.")
