"""The language of Placement's query parameters.

Source: Placement API reference, "List resource providers" and "List allocation candidates".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from pileus.core.errors import BadQuery, BadRequest
from pileus.services.placement.rules import identifier
from pileus.services.placement.versions import Grammar

_MOST = 2**63 - 1
"""The largest amount that the store can compare."""


class Traits(msgspec.Struct, frozen=True):
    """Of each set in `required` one must be there; of `forbidden` none."""

    required: tuple[frozenset[str], ...] = ()
    forbidden: frozenset[str] = frozenset()

    def hold(self, traits: Iterable[str]) -> bool:
        """Whether these traits are as they must be."""
        if not self.required and not self.forbidden:
            return True
        present = frozenset(traits)
        return present.isdisjoint(self.forbidden) and not any(present.isdisjoint(one) for one in self.required)

    @property
    def names(self) -> set[str]:
        """All that are named."""
        return set().union(*self.required, self.forbidden)

    @property
    def clashes(self) -> list[frozenset[str]]:
        """The required sets of which all are forbidden."""
        return [one for one in self.required if one <= self.forbidden]


class Aggregates(msgspec.Struct, frozen=True):
    """Of each set in `required` one must be there; of `forbidden` none."""

    required: tuple[frozenset[str], ...] = ()
    forbidden: frozenset[str] = frozenset()

    def admit(self, aggregates: frozenset[str]) -> bool:
        """Whether one provider is in what it must be in."""
        return not any(aggregates.isdisjoint(one) for one in self.required)

    def hold(self, own: frozenset[str], root: frozenset[str] | None = None) -> bool:
        """Whether a provider is where it must be, by itself or by the root of the tree that is looked at."""
        if not self.required and not self.forbidden:
            return True
        if root is None:
            return own.isdisjoint(self.forbidden) and self.admit(own)
        clean = own.isdisjoint(self.forbidden) and root.isdisjoint(self.forbidden)
        return clean and (self.admit(own) or self.admit(root))


def resources(text: str) -> dict[str, int]:
    """Amounts by resource class of `VCPU:2,MEMORY_MB:1024`. Raises BadRequest."""
    found: dict[str, int] = {}
    for part in text.split(","):
        name, colon, amount = part.partition(":")
        if not colon or ":" in amount:
            raise BadRequest(
                "Badly formed resources parameter. Expected resources query string parameter in form: "
                f"?resources=VCPU:2,MEMORY_MB:1024. Got: {part.strip() if text.strip() else 'empty string'}."
            )
        try:
            found[name] = int(amount) if amount.isascii() else 0
        except ValueError:
            raise BadRequest(f"Requested resource {name} expected positive integer amount. Got: {amount}.") from None
        if not 1 <= found[name] <= _MOST:
            raise BadRequest(f"Requested resource {name} requires amount >= 1. Got: {amount}.")
    return found


def traits(values: Sequence[str], grammar: Grammar) -> Traits:
    """What the values of a `required` parameter demand. Before 1.39 only the last one counts. Raises BadQuery."""
    required: list[frozenset[str]] = []
    forbidden: set[str] = set()
    for value in values if grammar.any_traits else values[-1:]:
        if value.startswith("in:"):
            required.append(_any_of(value, grammar))
            continue
        for part in value.split(","):
            word = part.strip()
            bare = word.lstrip("!")
            if not bare or (word != bare and not grammar.forbidden_traits):
                form = "HW_CPU_X86_VMX,!CUSTOM_MAGIC" if grammar.forbidden_traits else "HW_CPU_X86_VMX,CUSTOM_MAGIC"
                raise BadQuery(f"Expected 'required' parameter value of the form: {form}. Got: {value}")
            if word == bare:
                required.append(frozenset({word}))
            else:
                forbidden.add(bare)
    return Traits(tuple(required), frozenset(forbidden))


def _any_of(value: str, grammar: Grammar) -> frozenset[str]:
    form = "The format 'in:HW_CPU_X86_VMX,CUSTOM_MAGIC'"
    if not grammar.any_traits:
        raise BadQuery(f"{form} only supported since microversion 1.39. Got: {value}")
    words = [word.strip() for word in value[3:].split(",")]
    if not all(words):
        raise BadQuery(
            "Expected 'required' parameter value of the form: in:HW_CPU_X86_VMX,CUSTOM_MAGIC. "
            f"Got an empty trait in: {value}"
        )
    if any(word.startswith("!") for word in words):
        raise BadQuery(f"{form} does not support forbidden traits. Got: {value}")
    return frozenset(words)


def aggregates(values: Sequence[str], grammar: Grammar, name: str = "member_of") -> Aggregates:
    """What the values of a `member_of` parameter demand. Raises BadRequest."""
    if len(values) > 1 and not grammar.repeated_aggregates:
        raise BadRequest(f"Multiple {name} parameters are not supported")
    required: list[frozenset[str]] = []
    forbidden: set[str] = set()
    for value in values:
        bare = value.removeprefix("!")
        several = bare.startswith("in:")
        words = bare[3:].split(",") if several else [bare]
        if "," in bare and not several:
            raise BadRequest(
                "Multiple values for 'member_of' must be prefixed with the 'in:' or '!in:' keyword using the valid "
                f"microversion. Got: {value}"
            )
        uuids = frozenset(_aggregate(word) for word in words)
        if bare == value:
            required.append(uuids)
        elif grammar.forbidden_aggregates:
            forbidden |= uuids
        else:
            raise BadRequest(f"Forbidden {name} parameters are not supported in the specified microversion")
    return Aggregates(tuple(required), frozenset(forbidden))


def _aggregate(text: str) -> str:
    found = identifier.known(text)
    if found is None:
        raise BadQuery(f"Expected 'member_of' parameter to contain valid UUID(s). Got: {text}")
    return found


def tree(text: str) -> str:
    """The uuid in an `in_tree` parameter. Raises BadQuery."""
    found = identifier.known(text.strip())
    if found is None:
        raise BadQuery(f"Expected 'in_tree' parameter to be a format of uuid. Got: {text}")
    return found
