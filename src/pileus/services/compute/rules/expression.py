"""Regular expressions of tenants, in time that they cannot stretch.

The language is what POSIX's extended expressions, Python's and the databases' have in common: any character but
`\\ ^ $ . [ ] | ( ) { } * + ?`, classes (also `[[:digit:]]` and `\\d \\w \\s`), anchors, groups, alternatives and
repetition.  There are no back references and no looking around, so a finite automaton decides (Thompson 1968): each
character of a value is looked at once.  Its states are made as they are needed, and what that costs is counted
against a budget.  Upper and lower case are the same, as in the databases that upstream runs on most.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

LENGTH = 255
"""Characters of an expression."""
NODES = 1000
"""Nodes of its automaton: repetition counts multiply them."""
REPEAT = 255
"""The largest count of a repetition, RE_DUP_MAX of POSIX."""
BUDGET = 1_000_000
"""Steps of one search through all values: some 0.2 s."""

_CLASSES: dict[str, Callable[[str], bool]] = {
    "alpha": str.isalpha,
    "digit": str.isdigit,
    "alnum": str.isalnum,
    "upper": str.isupper,
    "lower": str.islower,
    "space": str.isspace,
    "blank": lambda letter: letter in " \t",
    "punct": lambda letter: letter.isprintable() and not letter.isalnum() and not letter.isspace(),
    "xdigit": lambda letter: letter in "0123456789abcdefABCDEF",
}
_SHORT: dict[str, Callable[[str], bool]] = {
    "d": str.isdigit,
    "s": str.isspace,
    "w": lambda letter: letter.isalnum() or letter == "_",
}


class ExpressionError(ValueError):
    """An expression cannot be understood, or asks for too much; the message says why."""


class _Letters(NamedTuple):
    """A set of characters."""

    ranges: tuple[tuple[str, str], ...] = ()
    classes: tuple[Callable[[str], bool], ...] = ()
    negated: bool = False

    def has(self, letter: str) -> bool:
        """Whether a character is in the set, in either case."""
        either = {letter, letter.lower(), letter.upper()}
        found = any(low <= one <= high for one in either for low, high in self.ranges)
        return (found or any(one(each) for one in self.classes for each in either)) != self.negated


_ANY = _Letters(negated=True)

_Tree = tuple[Any, ...]
"""("letters", set), ("start",), ("end",), ("all", trees), ("any", trees) or ("repeat", tree, low, high or None)."""


class _Parser:
    """Reads an expression by recursive descent."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.place = 0

    def whole(self) -> _Tree:
        tree = self._alternatives()
        if self.place < len(self.text):
            self._fail("unbalanced parenthesis")
        return tree

    def _fail(self, why: str) -> NoReturn:
        raise ExpressionError(f"{self.text!r} is not a regular expression that can be used here: {why}")

    def _peek(self, ahead: int = 0) -> str:
        place = self.place + ahead
        return self.text[place] if place < len(self.text) else ""

    def _next(self) -> str:
        letter = self._peek()
        if not letter:
            self._fail("it ends too early")
        self.place += 1
        return letter

    def _alternatives(self) -> _Tree:
        arms = [self._sequence()]
        while self._peek() == "|":
            self.place += 1
            arms.append(self._sequence())
        return arms[0] if len(arms) == 1 else ("any", arms)

    def _sequence(self) -> _Tree:
        parts: list[_Tree] = []
        while self._peek() and self._peek() not in "|)":
            parts.append(self._repeated(self._atom()))
        return ("all", parts)

    def _repeated(self, tree: _Tree) -> _Tree:
        repeated = False
        while (sign := self._peek()) and sign in "*+?{":
            if sign == "?" and repeated:  # as few as possible: the same, where only whether it matches counts
                self.place += 1
                continue
            low, high = self._bounds()
            tree, repeated = ("repeat", tree, low, high), True
        return tree

    def _bounds(self) -> tuple[int, int | None]:
        sign = self._next()
        if sign != "{":
            return (1 if sign == "+" else 0), (1 if sign == "?" else None)
        end = self.text.find("}", self.place)
        low, comma, high = self.text[self.place : end].partition(",")
        if end < 0 or not low.isdecimal() or not (high.isdecimal() or not high):
            self._fail("braces hold one or two numbers")
        self.place = end + 1
        most = int(high) if high else None if comma else int(low)
        if int(low) > REPEAT or (most is not None and not int(low) <= most <= REPEAT):
            self._fail(f"a count is out of order, or larger than {REPEAT}")
        return int(low), most

    def _atom(self) -> _Tree:
        letter = self._next()
        if letter == "(":
            return self._group()
        if letter in "*+?{":
            self._fail(f"nothing stands before {letter!r} that could be repeated")
        if letter == "[":
            return ("letters", self._bracket())
        if letter in "^$":
            return ("start",) if letter == "^" else ("end",)
        if letter == ".":
            return ("letters", _ANY)
        return ("letters", self._escape() if letter == "\\" else _Letters(((letter, letter),)))

    def _group(self) -> _Tree:
        if self._peek() == "?":
            if self._peek(1) != ":":
                self._fail("groups that begin with (? are not known, but for (?:")
            self.place += 2
        tree = self._alternatives()
        if self._peek() != ")":
            self._fail("a parenthesis is not closed")
        self.place += 1
        return tree

    def _escape(self) -> _Letters:
        letter = self._next()
        if letter.lower() in _SHORT:
            return _Letters(classes=(_SHORT[letter.lower()],), negated=letter.isupper())
        if letter.isalnum():
            self._fail(f"\\{letter} is not known")
        return _Letters(((letter, letter),))

    def _bracket(self) -> _Letters:
        negated = self._peek() == "^"
        self.place += negated
        ranges: list[tuple[str, str]] = []
        classes: list[Callable[[str], bool]] = []
        first = True
        while (letter := self._next()) != "]" or first:
            first = False
            if letter == "[" and self._peek() == ":":
                classes.append(self._class())
                continue
            if letter == "\\":
                found = self._escape()
                if found.classes and found.negated:
                    self._fail("a class in brackets cannot be the opposite of one")
                classes += found.classes
                letter = found.ranges[0][0] if found.ranges else ""
            if letter:
                ranges.append((letter, self._upper_end(letter)))
        return _Letters(tuple(ranges), tuple(classes), negated)

    def _upper_end(self, letter: str) -> str:
        if self._peek() != "-" or self._peek(1) in ("]", ""):
            return letter
        self.place += 1
        end = self._next()
        end = self._next() if end == "\\" else end
        if end < letter:
            self._fail(f"the range {letter}-{end} is out of order")
        return end

    def _class(self) -> Callable[[str], bool]:
        end = self.text.find(":]", self.place)
        name = self.text[self.place + 1 : end]
        if end < 0 or name not in _CLASSES:
            self._fail(f"there is no class {name!r}")
        self.place = end + 2
        return _CLASSES[name]


class _Node(NamedTuple):
    """A node of the automaton: it takes one of `letters`, is an anchor, or a fork."""

    kind: str
    letters: _Letters
    after: tuple[int, ...]


class Expression:
    """An expression, to be searched for in values. Raises ExpressionError when it cannot be understood."""

    def __init__(self, text: str, budget: int = BUDGET) -> None:
        if len(text) > LENGTH:
            raise ExpressionError(f"a regular expression has at most {LENGTH} characters")
        self._left = budget
        self._nodes = [_Node("found", _ANY, ())]
        try:
            self._first = self._build(_Parser(text).whole(), 0)
        except RecursionError:
            raise ExpressionError("a regular expression goes too deep") from None
        self._begin = self._close({self._first}, start=True)
        self._again = self._close({self._first}, start=False)
        self._steps: dict[tuple[frozenset[int], str], frozenset[int]] = {}
        self._ways: dict[tuple[int, str], tuple[int, ...]] = {}

    def search(self, value: str) -> bool:
        """Whether a part of a value matches. Raises ExpressionError when the budget is used up."""
        state = self._begin
        for letter in value:
            if 0 in state:
                return True
            self._spend(1)
            found = self._steps.get((state, letter))
            state = self._step(state, letter) if found is None else found
        return 0 in state or 0 in self._close(set(state), start=not value, end=True)

    def _spend(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise ExpressionError("the regular expression takes too long: use a simpler one, or further filters")

    def _step(self, state: frozenset[int], letter: str) -> frozenset[int]:
        self._spend(6 * len(state) + 16)
        reached = set(self._again)
        for number in state:
            reached.update(self._after(number, letter))
        found = self._steps[state, letter] = self._close(reached, start=False)
        return found

    def _after(self, number: int, letter: str) -> tuple[int, ...]:
        """Where a node leads when a character comes."""
        found = self._ways.get((number, letter))
        if found is None:
            node = self._nodes[number]
            takes = node.kind == "letters" and node.letters.has(letter)
            found = self._ways[number, letter] = node.after if takes else ()
        return found

    def _close(self, reached: set[int], *, start: bool, end: bool = False) -> frozenset[int]:
        """The nodes that wait for a character (or for the end, or that are the goal), reached through all others."""
        found: set[int] = set()
        waiting, seen = list(reached), set(reached)
        while waiting:
            number = waiting.pop()
            node = self._nodes[number]
            if node.kind == "fork" or (node.kind == "start" and start) or (node.kind == "end" and end):
                fresh = set(node.after) - seen
                waiting += fresh
                seen |= fresh
            elif node.kind != "start":
                found.add(number)
        self._spend(len(seen))
        return frozenset(found)

    def _add(self, kind: str, *after: int, letters: _Letters = _ANY) -> int:
        if len(self._nodes) >= NODES:
            raise ExpressionError("the regular expression is too large: its repetitions multiply")
        self._nodes.append(_Node(kind, letters, after))
        return len(self._nodes) - 1

    def _build(self, tree: _Tree, after: int) -> int:
        """The node where a tree begins that goes on to another."""
        kind = tree[0]
        if kind == "all":
            for part in reversed(tree[1]):
                after = self._build(part, after)
            return after
        if kind == "any":
            return self._add("fork", *[self._build(arm, after) for arm in tree[1]])
        if kind == "repeat":
            return self._repeat(tree, after)
        return self._add(kind, after, letters=tree[1] if kind == "letters" else _ANY)

    def _repeat(self, repeat: _Tree, after: int) -> int:
        _, tree, low, high = repeat
        entry = after
        if high is None:
            entry = self._add("fork", after)
            self._nodes[entry] = _Node("fork", _ANY, (self._build(tree, entry), after))
        for _ in range(low, high or low):
            entry = self._add("fork", self._build(tree, entry), after)
        for _ in range(low):
            entry = self._build(tree, entry)
        return entry
