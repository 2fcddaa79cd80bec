"""A packet filter as a value, and the nft commands (nft(8)) that make it or change one into another.

Replacing a table of a thousand ports takes a second; changing what differs takes milliseconds.  So the filter in
force is remembered as a value, and the next one is applied as the difference, in one transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

TABLE = "pileus"

_FILLED = 65536
"""Members of a set that rules fill."""


@dataclass(frozen=True)
class Elements:
    """A set, or a map when its members have values. `type` is nft's, e.g. `ifname : verdict`."""

    type: str
    members: Mapping[str, str] = field(default_factory=dict)
    """Member to its value; the value is empty in a set."""
    interval: bool = False
    kept: str = ""
    """For a set that rules fill while packets pass: how long a member stays, e.g. `60s`, or `counted` for as long as
    it counts something.  Its members are the kernel's, none of ours."""

    @property
    def word(self) -> str:
        return "map" if ":" in self.type else "set"

    def declaration(self) -> str:
        more = " flags interval;" if self.interval else ""
        if self.kept:
            more = f" size {_FILLED}; flags dynamic;" + ("" if self.kept == "counted" else f" timeout {self.kept};")
        return f"{{ type {self.type};{more} }}"


@dataclass(frozen=True)
class Ruleset:
    """Chains and sets by (family, name), all in the table `pileus` of their family.

    `hooks` are the chains that the kernel calls: (family, name) to the line that says where.  They come first in no
    order, so a rule may name any other chain or set.
    """

    hooks: Mapping[tuple[str, str], str]
    chains: Mapping[tuple[str, str], tuple[str, ...]]
    sets: Mapping[tuple[str, str], Elements]

    @property
    def families(self) -> list[str]:
        return sorted({family for family, _ in (*self.chains, *self.sets)})


def replacement(ruleset: Ruleset) -> str:
    """Commands that put this filter in the place of whatever is there, without a moment between the two."""
    lines: list[str] = []
    for family in ruleset.families:
        # `add` makes `delete` lawful when there is no such table yet.
        lines += [f"add table {family} {TABLE}", f"delete table {family} {TABLE}", f"add table {family} {TABLE}"]
    empty = Ruleset({}, {}, {})
    return "\n".join((*lines, *_difference(empty, ruleset))) + "\n"


def change(old: Ruleset, new: Ruleset) -> str:
    """Commands that turn one filter into the other; empty when nothing differs. Both have the same tables."""
    lines = list(_difference(old, new))
    return "\n".join(lines) + "\n" if lines else ""


def _difference(old: Ruleset, new: Ruleset) -> Iterator[str]:
    """What is named must exist, and what goes must not be named: declare, unlink, rewrite, link, delete."""
    remade = {key for key in new.sets if key in old.sets and old.sets[key].declaration() != new.sets[key].declaration()}
    if remade:
        raise ValueError(f"a set cannot change its type: {sorted(remade)}")
    for (family, name), elements in new.sets.items():
        if (family, name) not in old.sets:
            yield f"add {elements.word} {family} {TABLE} {name} {elements.declaration()}"
    for (family, name), line in ((key, new.hooks.get(key, "")) for key in new.chains if key not in old.chains):
        yield f"add chain {family} {TABLE} {name}" + (f" {{ {line} }}" if line else "")
    for key, elements in old.sets.items():
        after = new.sets[key].members if key in new.sets else {}
        gone = [member for member, value in elements.members.items() if after.get(member) != value]
        yield from _members("delete", key, elements.word, dict.fromkeys(gone, ""))
    for key, rules in new.chains.items():
        if old.chains.get(key) != rules:
            yield from _rules(key, rules, flush=key in old.chains)
    for key, elements in new.sets.items():
        before = old.sets[key].members if key in old.sets else {}
        come = {member: value for member, value in elements.members.items() if before.get(member) != value}
        yield from _members("add", key, elements.word, come)
    yield from _deletions(old, new)


def _rules(key: tuple[str, str], rules: tuple[str, ...], *, flush: bool) -> Iterator[str]:
    family, name = key
    if flush:
        yield f"flush chain {family} {TABLE} {name}"
    for rule in rules:
        yield f"add rule {family} {TABLE} {name} {rule}"


def _deletions(old: Ruleset, new: Ruleset) -> Iterator[str]:
    gone = [key for key in old.chains if key not in new.chains]
    for family, name in gone:
        yield f"flush chain {family} {TABLE} {name}"
    for family, name in gone:
        yield f"delete chain {family} {TABLE} {name}"
    for (family, name), elements in old.sets.items():
        if (family, name) not in new.sets:
            yield f"delete {elements.word} {family} {TABLE} {name}"


def _members(verb: str, key: tuple[str, str], word: str, members: Mapping[str, str]) -> Iterator[str]:
    if not members:
        return
    family, name = key
    text = ", ".join(f"{member} : {value}" if value else member for member, value in members.items())
    # nft 1.0 knows elements of a map and of a set by the same word.
    yield f"{verb} element {family} {TABLE} {name} {{ {text} }}"
