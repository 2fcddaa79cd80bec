"""How much generated tests try: little on every run, much on a long one (`./pileus test --long`)."""

from __future__ import annotations

import os

LONG = "PILEUS_TEST_LONG" in os.environ

SERVED = "PILEUS_TEST_DATABASE" in os.environ
"""Whether the run is for PostgreSQL."""


def times(usual: int, most: int) -> int:
    """How often something is tried in this run."""
    return most if LONG else usual


def examples(count: int) -> int:
    """Of a property that holds on either engine: a third on PostgreSQL, as the same run tries all of them on SQLite."""
    return count // 3 if SERVED else count
