"""Text filters: upstream matches many by regular expression; the part of it that people use becomes SQL's LIKE.

A text matches anywhere in the value; `^` and `$` tie it to the ends, `.` is any character and `.*` any text.  A
backslash takes the next character as it is.  Everything else of the language of regular expressions counts as plain
text: an expression of a tenant's is never run.
"""

from __future__ import annotations

ESCAPE = "\\"


def like(text: str) -> str:
    """The pattern for LIKE, with a backslash for its escape character."""
    start, end = text.startswith("^"), text.endswith("$") and not text.endswith("\\$")
    inner = text[1:] if start else text
    inner = inner[:-1] if end and inner else inner
    found, place = [], 0
    while place < len(inner):
        letter = inner[place]
        if letter == "\\" and place + 1 < len(inner):
            place += 1
            found.append(_plain(inner[place]))
        elif letter == "." and inner[place + 1 : place + 2] in ("*", "+"):
            found.append("%" if inner[place + 1] == "*" else "_%")
            place += 1
        elif letter == ".":
            found.append("_")
        else:
            found.append(_plain(letter))
        place += 1
    return ("" if start else "%") + "".join(found) + ("" if end else "%")


def _plain(letter: str) -> str:
    return ESCAPE + letter if letter in ("%", "_", ESCAPE) else letter
