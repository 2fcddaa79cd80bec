"""How much there is, how much of it may be held, and whether an amount fits.

Source: Placement API reference, "Resource provider inventories"; Placement usage guide.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

LARGEST = 2**31 - 1


class Inventory(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a provider offers of one resource class."""

    total: int
    reserved: int = 0
    """What the provider keeps for itself."""
    min_unit: int = 1
    max_unit: int = LARGEST
    step_size: int = 1
    allocation_ratio: float = 1.0
    """How many times over it may be held."""

    @property
    def capacity(self) -> int:
        """The most that may be held."""
        return int((self.total - self.reserved) * self.allocation_ratio)

    def admits(self, amount: int) -> bool:
        """Whether an amount is one that may be held at all."""
        return self.min_unit <= amount <= self.max_unit and amount % self.step_size == 0


class Room(Inventory, frozen=True, kw_only=True, gc=False):
    """What a provider offers of one resource class, and how much of it is held."""

    used: int = 0

    @property
    def free(self) -> int:
        """How much more may be held; negative after an inventory shrank."""
        return self.capacity - self.used

    def fits(self, amount: int) -> bool:
        """Whether an amount more may be held."""
        return self.admits(amount) and amount <= self.free


class Capacity(msgspec.Struct, kw_only=True, gc=False):
    """A provider as a scheduler sees it."""

    uuid: str
    name: str
    generation: int
    root: str
    parent: str | None
    rooms: dict[str, Room]
    """By resource class."""
    traits: frozenset[str] = frozenset()
    aggregates: frozenset[str] = frozenset()

    def fits(self, resources: Mapping[str, int]) -> bool:
        """Whether all of these amounts fit, each for itself."""
        return all(name in self.rooms and self.rooms[name].fits(amount) for name, amount in resources.items())
