"""What is wrong with a body, in the words of JSON Schema, which clients of some services look for.

A flaw is what msgspec says of a value (`Expected `int` >= 1 - at `$.total``).  `explain` names the value itself and the
keyword of JSON Schema that it breaks.  Source: JSON Schema, "A Vocabulary for Structural Validation".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

_TYPES = {"int": "integer", "float": "number", "str": "string", "bool": "boolean"}
_PLACE = re.compile(r" - at `(?:(key)` in `)?([^`]*)`$")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_RANGE = re.compile(r"Expected `\w+` (>=|<=|>|<) (\S+)")
_LENGTH = re.compile(r"Expected `(str|array|object)` of length (>=|<=) (\d+)")
_PATTERN = re.compile(r"Expected `str` matching regex '(.*)'")
_TYPE = re.compile(r"Expected `([^`]+)`, got `[^`]+`")
_FIELD = re.compile(r"Object (contains unknown|missing required) field `(.*)`")
_UUID = "[0-9a-fA-F]{8}-"


class Flaw(NamedTuple):
    """What is wrong, the keyword of JSON Schema that says so (empty where none is known), and at which property."""

    text: str
    keyword: str
    place: str = ""


def explain(error: str, raw: Any) -> Flaw:
    """A flaw of what msgspec says of a decoded body."""
    place = _PLACE.search(error)
    what = error[: place.start()] if place else error
    path = place[2] if place else "$"
    values = list(_keys(raw, path) if place and place[1] else _values(raw, path))
    if place and place[1] and (match := _PATTERN.fullmatch(what)):
        pattern = re.compile(match[1])
        key = _culprit(values, lambda one: not pattern.search(one))
        return Flaw(f"{key} does not match any of the regexes: '{match[1]}'", "additionalProperties")
    for reader in (_field, _length, _range, _pattern, _type):
        found = reader(what, values)
        if found is not None:
            return found._replace(place=path[2:] if path.startswith("$.") else "")
    return Flaw(error, "")


def _values(raw: Any, path: str) -> Iterator[Any]:
    """The values at a path in which `[...]` stands for any key."""
    found = [raw]
    for name, index in _STEP.findall(path):
        inner: list[Any] = []
        for one in found:
            if index == "...":
                inner += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
            elif index and isinstance(one, list) and int(index) < len(one):
                inner.append(one[int(index)])
            elif name and isinstance(one, dict) and name in one:
                inner.append(one[name])
        found = inner
    yield from found


def _keys(raw: Any, path: str) -> Iterator[Any]:
    for one in _values(raw, path):
        if isinstance(one, dict):
            yield from one


def _culprit(values: list[Any], broken: Callable[[Any], bool]) -> str:
    """The first value that breaks the rule, as it is written."""
    found = next((one for one in values if broken(one)), None)
    return repr(found)[:200]


def _field(what: str, values: list[Any]) -> Flaw | None:
    match = _FIELD.fullmatch(what)
    if match is None:  # windows of fields say it in these words already
        known = {"is a required property": "required", "unexpected)": "additionalProperties"}
        return next((Flaw(what, keyword) for ending, keyword in known.items() if what.endswith(ending)), None)
    if match[1] == "contains unknown":
        return Flaw(f"Additional properties are not allowed ('{match[2]}' was unexpected)", "additionalProperties")
    return Flaw(f"'{match[2]}' is a required property", "required")


def _length(what: str, values: list[Any]) -> Flaw | None:
    match = _LENGTH.fullmatch(what)
    if match is None:
        return None
    least, limit = match[2] == ">=", int(match[3])
    kind = {"str": "Length", "array": "Items", "object": "Properties"}[match[1]]

    def broken(value: Any) -> bool:
        return isinstance(value, str | list | dict) and (len(value) < limit if least else len(value) > limit)

    words = {
        "Length": "is too short" if least else "is too long",
        "Items": "is too short" if least else "is too long",
        "Properties": "does not have enough properties" if least else "has too many properties",
    }[kind]
    return Flaw(f"{_culprit(values, broken)} {words}", ("min" if least else "max") + kind)


def _range(what: str, values: list[Any]) -> Flaw | None:
    match = _RANGE.fullmatch(what)
    if match is None:
        return None
    least, limit = match[1].startswith(">"), float(match[2])

    def broken(value: Any) -> bool:
        return isinstance(value, int | float) and (value < limit if least else value > limit)

    words = "less than the minimum of" if least else "greater than the maximum of"
    return Flaw(f"{_culprit(values, broken)} is {words} {match[2]}", "minimum" if least else "maximum")


def _pattern(what: str, values: list[Any]) -> Flaw | None:
    match = _PATTERN.fullmatch(what)
    if match is None:
        return None
    pattern = re.compile(match[1])
    value = _culprit(values, lambda one: isinstance(one, str) and not pattern.search(one))
    if _UUID in match[1]:
        return Flaw(f"{value} is not a 'uuid'", "format")
    return Flaw(f"{value} does not match '{match[1]}'", "pattern")


def _type(what: str, values: list[Any]) -> Flaw | None:
    match = _TYPE.fullmatch(what)
    if match is None:
        return None
    names = [_TYPES.get(name.strip(), name.strip()) for name in match[1].split("|")]
    kinds: dict[str, Any] = {"string": str, "array": list, "object": dict, "boolean": bool, "number": (int, float)}

    def broken(value: Any) -> bool:
        return not any(value is None if name == "null" else isinstance(value, kinds.get(name, int)) for name in names)

    return Flaw(f"{_culprit(values, broken)} is not of type {', '.join(map(repr, names))}", "type")
