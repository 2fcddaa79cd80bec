"""Hashes that clients tell of data which they do not send themselves.

Source: Image API reference, "Add location" and "Update image" (`validation_data`).
"""

from __future__ import annotations

import hashlib
from typing import Any

from pileus.core.errors import BadRequest, Conflict

ALGORITHMS = ("sha1", "sha256", "sha512", "md5")
"""Algorithms that a client may tell the hash of."""

ALGORITHM = "sha512"
"""The one that the cloud itself uses."""


def check(told: dict[str, Any]) -> None:
    """Raise BadRequest unless this is an algorithm with a hash of its length, or nothing."""
    unknown = told.keys() - {"os_hash_algo", "os_hash_value"}
    if unknown:
        raise BadRequest(f"validation_data: additional properties are not allowed: {', '.join(sorted(unknown))}")
    if not told:
        return
    if told.keys() != {"os_hash_algo", "os_hash_value"}:
        raise BadRequest("validation_data: os_hash_algo and os_hash_value are given together")
    if told["os_hash_algo"] not in ALGORITHMS:
        raise BadRequest(f"validation_data: os_hash_algo is not one of {', '.join(ALGORITHMS)}")
    fault = _fault(told["os_hash_value"], told["os_hash_algo"], "os_hash_value")
    if fault is not None:
        raise BadRequest(fault)


def agree(told: list[dict[str, Any]], known: dict[str, Any], status: str) -> dict[str, Any]:
    """What several places of one image's data say of it, as far as the image does not know it yet.

    `known` are the image's `checksum`, `os_hash_algo` and `os_hash_value`.  Raises Conflict where they contradict each
    other or the image, and for news of an image that has data.
    """
    found: dict[str, Any] = {}
    for one in told:
        for name, value in one.items():
            if name not in known:
                raise BadRequest(f"validation_data: additional properties are not allowed: {name}")
            if found.setdefault(name, value) != value:
                raise Conflict(f"Conflicting values for {name}")
    news = {}
    for name, value in found.items():
        if value == known[name]:
            continue
        if known[name]:
            raise Conflict(f"{name} is already set with a different value")
        news[name] = value
    if not news:
        return {}
    if status != "queued":
        raise Conflict(f"New value(s) for {', '.join(news)} may only be provided when image status is 'queued'")
    if news.get("os_hash_algo") != ALGORITHM:
        raise Conflict(f"os_hash_algo must be {ALGORITHM}, not {news.get('os_hash_algo')}")
    for name, algorithm in (("checksum", "md5"), ("os_hash_value", ALGORITHM)):
        if name in news or name == "os_hash_value":
            fault = _fault(news.get(name), algorithm, name)
            if fault is not None:
                raise Conflict(fault)
    return news


def _fault(value: Any, algorithm: str, name: str) -> str | None:
    """What is wrong with a hash, or None."""
    try:
        length = len(bytes.fromhex(value))
    except (TypeError, ValueError):
        return f"{name} ({value}) is not a valid hexadecimal value"
    wanted = hashlib.new(algorithm, usedforsecurity=False).digest_size
    if length != wanted:
        return f"{name}: ({value}) is not the correct size for {algorithm} (should be {wanted} bytes)"
    return None
