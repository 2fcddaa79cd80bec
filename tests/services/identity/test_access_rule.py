"""The patterns of access rules against a plain model: the expression that their definition spells out."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pileus.services.identity.rules.access_rule import AccessRule, matches, permits


def model(pattern: str, path: str) -> bool:
    """What a pattern means, as a regular expression: right, but not safe."""
    text = ""
    place = 0
    while place < len(pattern):
        rest = pattern[place:]
        named = re.match(r"\{[^{}]*\}", rest)
        if named is not None:
            text, place = text + "[^/]+", place + named.end()
        elif rest.startswith("**"):
            text, place = text + ".*", place + 2
        elif rest.startswith("*"):
            text, place = text + "[^/]+", place + 1
        else:
            text, place = text + re.escape(rest[0]), place + 1
    return re.fullmatch(text, path, re.DOTALL) is not None


PIECES = ["/", "a", "b", "ab", "*", "**", "{x}", "{", "}", ".", "[a]"]
PATTERNS = st.lists(st.sampled_from(PIECES), max_size=7).map("".join)
PATHS = st.text(alphabet="/ab.{}[]\n", max_size=9)


@settings(max_examples=1500, deadline=None)
@given(PATTERNS, PATHS)
def test_a_pattern_means_what_it_says(pattern: str, path: str) -> None:
    assert matches(pattern, path) is model(pattern, path)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES[:7]), max_size=6), st.randoms(use_true_random=False))
def test_a_path_that_was_made_of_a_pattern_fits_it(pieces: list[str], random: object) -> None:
    text = "".join(pieces)
    made = text.replace("**", "\0").replace("*", "ab").replace("{x}", "b.a").replace("\0", "/a//b/")
    assert matches(text, made)


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("/v2.1/servers", "/v2.1/servers", True),
        ("/v2.1/servers", "/v2.1/servers/", False),
        ("/v2.1/servers", "/v2x1/servers", False),
        ("/v2.1/servers/*/ips", "/v2.1/servers/1/ips", True),
        ("/v2.1/servers/*/ips", "/v2.1/servers//ips", False),
        ("/v2.1/servers/*/ips", "/v2.1/servers/1/2/ips", False),
        ("/v2.1/servers/{server_id}", "/v2.1/servers/1", True),
        ("/v2.1/servers/{server_id}", "/v2.1/servers/", False),
        ("/v2.1/servers/**", "/v2.1/servers/", True),
        ("/v2.1/servers/**", "/v2.1/servers", False),
        ("/v2.1/**/action", "/v2.1/servers/1/action", True),
        ("/v2.1/**/action", "/v2.1/servers/1/actions", False),
        ("/**", "/anything/at/all", True),
        ("/V2.1/servers", "/v2.1/servers", False),
        ("", "", True),
        ("", "/", False),
    ],
)
def test_examples(pattern: str, path: str, fits: bool) -> None:
    assert matches(pattern, path) is fits


def test_no_pattern_takes_long() -> None:
    """A pattern that would make a backtracking matcher try for years."""
    begun = time.process_time()
    assert not matches("**a" * 75, "/" + "a" * 70 + "b" * 4000)
    assert not matches("*a" * 110, "/" + "a" * 4000)
    assert time.process_time() - begun < 2


def test_no_rules_take_long() -> None:
    """As many rules as a credential may have, of as many wildcards as one may have, and the longest path."""
    patterns = [f"/{wild}c" for wild in ("**a" * 74, "*a" * 111, "*" * 223, "**a*" * 55)]
    rules = tuple(AccessRule(f"{n}", "compute", "GET", patterns[n % 4]) for n in range(128))
    path = "/" + "a" * 1023 + "b" * 1024
    begun = time.process_time()
    assert not permits(rules, "compute", "GET", (path, path))
    assert time.process_time() - begun < 0.5
    assert permits((AccessRule("1", "compute", "GET", "/**"),), "compute", "GET", (path,))
    assert not permits((AccessRule("1", "compute", "GET", "/**"),), "compute", "GET", (path + "b",))


def test_service_method_and_path_are_of_one_rule() -> None:
    rules = (AccessRule("1", "compute", "GET", "/servers"), AccessRule("2", "image", "POST", "/images"))
    assert permits(rules, "compute", "GET", ("/compute/servers", "/servers"))
    for service, method, path in (
        ("compute", "POST", "/servers"),
        ("image", "GET", "/servers"),
        ("compute", "POST", "/images"),
        ("network", "GET", "/servers"),
    ):
        assert not permits(rules, service, method, (path,))
    assert not permits((), "compute", "GET", ("/servers",))
