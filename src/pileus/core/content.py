"""What a client sends as text: JSON bodies and query strings, and how much of each is read."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import msgspec

from pileus.core.errors import BadQuery, BadRequest, Malformed

DEEPEST = 64
"""Objects and lists that a body may hold in each other; more could be read, but not everything could write it again."""

PAIRS = 1000
"""Pairs of a query string: hundreds of ids are named by one filter, as many as an address of 8 KiB holds."""

NAMES = 64
"""Different names of a query string: each of them may be a condition of its own."""


def body(data: bytes | bytearray) -> Any:
    """What a JSON body says. Raises BadRequest."""
    try:
        raw = msgspec.json.decode(data)
        if data.count(b"[") + data.count(b"{") > DEEPEST and _goes_deep(raw):
            raise RecursionError
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise Malformed("Malformed request body: it is not JSON, or goes too deep.") from None
    if b"\\u0000" in data and _holds_nul(raw):
        raise BadRequest("Malformed request body: it holds a NUL character.")
    return raw


def query(text: bytes) -> list[tuple[str, str]]:
    """The names and values of a query string, in order. Raises BadRequest."""
    try:
        pairs = parse_qsl(text.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=PAIRS)
    except UnicodeDecodeError:
        raise BadRequest("The query string is not UTF-8.") from None
    except ValueError:
        raise BadQuery(f"The query string has more than {PAIRS} parameters.") from None
    if len(pairs) > NAMES and len({name for name, _ in pairs}) > NAMES:
        raise BadQuery(f"The query string has parameters of more than {NAMES} different names.")
    return pairs


def _goes_deep(raw: Any) -> bool:
    """Whether more than `DEEPEST` objects and lists are in each other."""
    level = [raw] if isinstance(raw, dict | list) else []
    for _ in range(DEEPEST):
        parts = (part for one in level for part in (one.values() if isinstance(one, dict) else one))
        level = [part for part in parts if isinstance(part, dict | list)]
    return bool(level)


def _holds_nul(raw: Any) -> bool:
    if isinstance(raw, str):
        return "\x00" in raw
    if isinstance(raw, dict):
        return any(_holds_nul(part) for pair in raw.items() for part in pair)
    return isinstance(raw, list) and any(_holds_nul(part) for part in raw)
