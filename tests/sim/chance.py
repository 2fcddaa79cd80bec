"""What goes wrong in a simulated cloud, and when: drawn from a seed."""

from __future__ import annotations

import random
from collections import Counter
from typing import Literal

Fate = Literal["", "fails before", "fails after", "dies before", "dies after"]


class Death(BaseException):
    """The process that this is raised in ends here: nothing that it kept in memory is there any more."""


class Chance:
    """Decides at each step what becomes of it.

    `trouble` is the share of steps (0 to 1) that go wrong while `storm` holds; `deaths` the share of those that end a
    process.
    """

    def __init__(self, seed: int, *, trouble: float = 0.06, deaths: float = 0.35) -> None:
        self.random = random.Random(seed)
        self.storm = False
        self.trouble = trouble
        self.deaths = deaths
        self.met: Counter[str] = Counter()
        """What went wrong how often: place and fate."""

    def at(self, place: str) -> Fate:
        """What becomes of a step."""
        if not self.storm or self.random.random() >= self.trouble:
            return ""
        verb = "dies" if self.random.random() < self.deaths else "fails"
        fate: Fate = f"{verb} {self.random.choice(('before', 'after'))}"  # type: ignore[assignment] # one of the four
        self.met[f"{place} {fate}"] += 1
        return fate

    def often(self, share: float) -> bool:
        """Whether something happens that happens in a share of cases."""
        return self.random.random() < share
