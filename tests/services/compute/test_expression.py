"""Regular expressions: what they match is what Python's match, and no expression takes longer than it may."""

from __future__ import annotations

import re
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pileus.services.compute.rules.expression import Expression, ExpressionError
from pileus.services.compute.rules.pattern import ESCAPE, like


@pytest.mark.parametrize(
    ("text", "yes", "no"),
    [
        ("web", ["web", "my-web-1", "WEB"], ["we"]),
        (r"^.*\-instance\-[0-9]+$", ["tempest-instance-12"], ["tempest-instance-", "tempest-instance-1x"]),
        ("^(web|db)[0-9]{2,3}$", ["web01", "db123"], ["web1", "db1234", "xweb01"]),
        ("a|^b", ["xa", "bx"], ["xb"]),
        ("^$", [""], ["x"]),
        ("(^a|b$)c?", ["ax", "xb"], ["bx"]),
        ("[^a-c]", ["d", "abcd"], ["", "abc", "ABC"]),
        ("[]x]", ["]", "x"], ["y"]),
        ("[a-]", ["-", "a"], ["b"]),
        (r"[\]\d-]", ["]", "7", "-"], ["x"]),
        ("^[[:alpha:]_]+[[:digit:]]$", ["ab_1"], ["1", "a b1"]),
        (r"\d\s\w\.\W", ["1 a.!"], ["1 a.b"]),
        ("(a*)*b", ["b", "aab"], ["aa"]),
        ("^(?:ab){2}$", ["abab"], ["ab", "ababab"]),
        ("a{0}b", ["b"], ["a"]),
        ("x*?y+?", ["xy"], ["x"]),
        ("()|a", ["", "z"], []),
        ("^ä", ["ÄB"], ["a"]),
    ],
)
def test_search(text: str, yes: list[str], no: list[str]) -> None:
    for value in yes:
        assert Expression(text).search(value), value
    for value in no:
        assert not Expression(text).search(value), value


@pytest.mark.parametrize(
    "text",
    [
        *("(", ")", "a)", "[", "[a", "[z-a]", "*", "a|*", "(+)", "a{", "a{2,1}", "a{x}", "a{999}", "\\", r"\1", r"\b"),
        *("(?=a)", "(?i)a", "[[:nothing:]]", r"[\D]", "a" * 256, "(" * 200, "((a{99}){99}){99}"),
    ],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        Expression(text)


atoms = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", "^", "$", r"\.", "(a|b)", "(?:ab|)", "(b*)"])
parts = st.tuples(atoms, st.sampled_from(["", "", "*", "+", "?", "{2}", "{0,2}", "{1,}"])).filter(
    lambda pair: not (pair[0] in "^$" and pair[1])
)
expressions = st.lists(st.lists(parts, max_size=4), min_size=1, max_size=3).map(
    lambda arms: "|".join("".join(atom + count for atom, count in arm) for arm in arms)
)


@given(expressions, st.text("ab.", max_size=8))
def test_search_agrees_with_python(text: str, value: str) -> None:
    assert Expression(text).search(value) == bool(re.search(text, value))


@pytest.mark.parametrize(
    "text", ["(a*)*(a*)*(a*)*c", "(a|b)*a(a|b){30}c", "(.*a){20}b", "a?" * 60 + "a" * 60, "((a|aa)+)+$"]
)
def test_nobody_can_stretch_it(text: str) -> None:
    values = [f"{number:b}".replace("0", "a").replace("1", "b") * 16 for number in range(2**12, 2**12 + 500)]
    began = time.process_time()
    expression = Expression(text)
    with suppress(ExpressionError):
        for value in values:
            expression.search(value[:255])
    assert time.process_time() - began < 1


def test_the_budget_is_for_all_values_together() -> None:
    expression = Expression("(a|b)*a(a|b){30}c", budget=10_000)
    values = [f"{number:b}".replace("0", "a").replace("1", "b") * 16 for number in range(1000)]
    with pytest.raises(ExpressionError, match="too long"):
        [expression.search(value) for value in values]


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("web", "%web%"),
        ("^web.*1$", "web%1"),
        ("a.+b", "%a_%b%"),
        ("50%_", r"%50\%\_%"),
        (r"a\.b\$", "%a.b$%"),
        ("[ab]", None),
        ("a|b", None),
        ("ab*", None),
        (r"\d", None),
        ("a^", None),
        ("a.*?", None),
        ("\\", None),
    ],
)
def test_what_like_can_say(text: str, pattern: str | None) -> None:
    assert ESCAPE == "\\"
    assert like(text) == pattern
