"""Models of enforcement: how the limits of projects relate to those of their domains.

Source: Keystone administration guide, "Unified Limits"; Identity API v3, "Get Enforcement Model".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

UNLIMITED = -1


class Model(NamedTuple):
    """A model of enforcement. `levels` is how many levels of domain and projects it allows; None: it does not care."""

    name: str
    description: str
    levels: int | None


FLAT = Model("flat", "Each project has its limits, wherever in a hierarchy it is.", None)

STRICT_TWO_LEVEL = Model(
    "strict_two_level",
    "A domain and the projects directly in it: no project's limit passes the domain's, nor do all of them together.",
    2,
)

MODELS = {model.name: model for model in (FLAT, STRICT_TWO_LEVEL)}


def beyond(ceiling: int, limits: Iterable[int]) -> list[int]:
    """Which limits of projects pass that of their domain."""
    if ceiling == UNLIMITED:
        return []
    return [limit for limit in limits if limit == UNLIMITED or limit > ceiling]
