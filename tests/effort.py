"""How much generated tests try: little on every run, much on a long one (`./pileus test --long`)."""

from __future__ import annotations

import os

LONG = "PILEUS_TEST_LONG" in os.environ


def times(usual: int, most: int) -> int:
    """How often something is tried in this run."""
    return most if LONG else usual
