"""Text filters: upstream matches many by regular expression; those that people use most are SQL's LIKE as well.

A text matches anywhere in the value; `^` and `$` tie it to the ends, `.` is any character and `.*` any text.  A
backslash takes a sign as it is.
"""

from __future__ import annotations

ESCAPE = "\\"
_MORE = frozenset("[](){}|*+?^$")
"""Signs for which LIKE has no word."""


def like(text: str) -> str | None:
    """The pattern for LIKE, with a backslash for its escape character; None where LIKE cannot say it."""
    start, end = text.startswith("^"), text.endswith("$") and not text.endswith("\\$")
    inner = text[1:] if start else text
    inner = inner[:-1] if end and inner else inner
    found, place = [], 0
    while place < len(inner):
        letter = inner[place]
        if letter == "\\":
            place += 1
            letter = inner[place : place + 1]
            if not letter or letter.isalnum():
                return None
            found.append(_plain(letter))
        elif letter == "." and inner[place + 1 : place + 2] in ("*", "+"):
            found.append("%" if inner[place + 1] == "*" else "_%")
            place += 1
        elif letter == ".":
            found.append("_")
        elif letter in _MORE:
            return None
        else:
            found.append(_plain(letter))
        place += 1
    return ("" if start else "%") + "".join(found) + ("" if end else "%")


def plain(text: str) -> str:
    """The pattern for LIKE that finds a text as it is, anywhere."""
    return f"%{''.join(map(_plain, text))}%"


def _plain(letter: str) -> str:
    return ESCAPE + letter if letter in ("%", "_", ESCAPE) else letter
