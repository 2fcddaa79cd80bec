"""What is wrong with a body, in JSON Schema's words."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest

from pileus.core.errors import Malformed
from pileus.core.fields import Body, W, accept
from pileus.core.flaw import explain
from pileus.core.versions import parse


class Part(Body):
    total: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1
    name: Annotated[str, msgspec.Meta(pattern="^[A-Z]+$", min_length=2, max_length=3)] = "AA"


class Whole(Body):
    parts: Annotated[dict[Annotated[str, msgspec.Meta(pattern="^[a-z]+$")], Part], msgspec.Meta(min_length=1)]
    names: Annotated[list[str], msgspec.Meta(min_length=1)] | msgspec.UnsetType = msgspec.UNSET
    late: Annotated[int | msgspec.UnsetType, W(since="1.5")] = msgspec.UNSET


@pytest.mark.parametrize(
    ("raw", "text", "keyword"),
    [
        ({"parts": {"a": {}, "b": {"total": 0}}}, "0 is less than the minimum of 1", "minimum"),
        ({"parts": {"a": {"total": 101}}}, "101 is greater than the maximum of 100", "maximum"),
        ({"parts": {"a": {"total": "x"}}}, "'x' is not of type 'integer'", "type"),
        ({"parts": {"a": {"name": "ab"}}}, "'ab' does not match '^[A-Z]+$'", "pattern"),
        ({"parts": {"a": {"name": "A"}}}, "'A' is too short", "minLength"),
        ({"parts": {"a": {"name": "AAAA"}}}, "'AAAA' is too long", "maxLength"),
        ({"parts": {}}, "{} does not have enough properties", "minProperties"),
        ({"parts": {"a": {}}, "names": []}, "[] is too short", "minItems"),
        ({"parts": {"A": {}}}, "'A' does not match any of the regexes: '^[a-z]+$'", "additionalProperties"),
        ({"parts": {"a": {}}, "names": {}}, "{} is not of type 'array'", "type"),
        (
            {"parts": {"a": {"x": 1}}},
            "Additional properties are not allowed ('x' was unexpected)",
            "additionalProperties",
        ),
        ({}, "'parts' is a required property", "required"),
        (
            {"parts": {"a": {}}, "late": 1},
            "Additional properties are not allowed ('late' was unexpected)",
            "additionalProperties",
        ),
        ([], "[] is not of type 'object'", "type"),
    ],
)
def test_a_flaw_names_the_value_and_the_keyword(raw: Any, text: str, keyword: str) -> None:
    with pytest.raises(Malformed) as caught:
        accept(raw, Whole, parse("1.4"))
    assert caught.value.flaw is not None
    assert explain(caught.value.flaw, caught.value.given)[:2] == (text, keyword)


def test_what_is_not_known_is_said_as_it_is() -> None:
    assert explain("Something else", {}) == ("Something else", "", "")


def test_a_flaw_says_where_it_is() -> None:
    assert explain("Expected `int` >= 1 - at `$.total`", {"total": 0}).place == "total"
    assert explain("Expected `array`, got `object`", {}).place == ""
