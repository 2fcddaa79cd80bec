"""The language of Placement's query parameters.

Source: Placement API reference, "List resource providers" and "List allocation candidates".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from pileus.core.errors import BadRequest
from pileus.services.placement.rules import identifier
from pileus.services.placement.versions import Grammar


class Traits(msgspec.Struct, frozen=True):
    """Of each set in `required` one must be there; of `forbidden` none."""

    required: tuple[frozenset[str], ...] = ()
    forbidden: frozenset[str] = frozenset()

    def hold(self, traits: Iterable[str]) -> bool:
        """Whether these traits are as they must be."""
        present = set(traits)
        return not present & self.forbidden and all(present & one for one in self.required)

    @property
    def names(self) -> set[str]:
        """All that are named."""
        return set().union(*self.required, self.forbidden)


class Aggregates(msgspec.Struct, frozen=True):
    """Of each set in `required` one must be there; of `forbidden` none."""

    required: tuple[frozenset[str], ...] = ()
    forbidden: frozenset[str] = frozenset()

    def hold(self, own: Iterable[str], root: Iterable[str] = ()) -> bool:
        """Whether a provider is where it must be, by itself or by its root."""
        present = set(own) | set(root)
        return not present & self.forbidden and all(present & one for one in self.required)


def resources(text: str) -> dict[str, int]:
    """Amounts by resource class of `VCPU:2,MEMORY_MB:1024`. Raises BadRequest."""
    found: dict[str, int] = {}
    for part in text.split(","):
        name, colon, amount = part.partition(":")
        if not (name and colon and amount.isascii() and amount.isdigit()):
            raise BadRequest(
                "Badly formed resources parameter. Expected resources query string parameter in form: "
                f"?resources=VCPU:2,MEMORY_MB:1024. Got: {text or 'empty string'}."
            )
        found[name] = int(amount)
        if not 1 <= found[name] < 2**63:
            raise BadRequest(f"Requested resource {name} requires amount >= 1. Got: {amount}.")
    return found


def traits(values: Sequence[str], grammar: Grammar, name: str = "required") -> Traits:
    """What the values of a `required` parameter demand. Raises BadRequest."""
    required: list[frozenset[str]] = []
    forbidden: set[str] = set()
    for value in values if grammar.any_traits else values[-1:]:
        if value.startswith("in:"):
            required.append(frozenset(_any_of(value, grammar, name)))
            continue
        for part in value.split(","):
            word = part.strip()
            bare = word.lstrip("!")
            if not bare or (word != bare and not grammar.forbidden_traits):
                raise BadRequest(
                    f"Invalid query string parameters: Expected '{name}' parameter value of the form: "
                    f"HW_CPU_X86_VMX,CUSTOM_MAGIC. Got: {value}"
                )
            if word == bare:
                required.append(frozenset({word}))
            else:
                forbidden.add(bare)
    clash = [one for one in required if one <= forbidden]
    if clash:
        raise BadRequest(
            f"Conflicting required and forbidden traits found in the following traits keys: {name}: "
            f"({', '.join(sorted(set().union(*clash)))})"
        )
    return Traits(tuple(required), frozenset(forbidden))


def _any_of(value: str, grammar: Grammar, name: str) -> list[str]:
    words = [word.strip() for word in value[3:].split(",")]
    if not grammar.any_traits or not all(words) or any(word.startswith("!") for word in words):
        raise BadRequest(
            f"Invalid query string parameters: '{name}' with 'in:' takes trait names alone, from microversion 1.39 on. "
            f"Got: {value}"
        )
    return words


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
            raise BadRequest(f"Multiple values for '{name}' must be prefixed with 'in:' or '!in:'. Got: {value}")
        if bare != value and not grammar.forbidden_aggregates:
            raise BadRequest(f"Forbidden {name} parameters are not supported in the specified microversion")
        uuids = frozenset(identifier.normal(word) for word in words)
        if bare == value:
            required.append(uuids)
        else:
            forbidden |= uuids
    return Aggregates(tuple(required), frozenset(forbidden))
