"""Until when something is delegated: times as the Identity API reads them.

Source: Identity API v3, `expires_at` of trusts and application credentials.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from pileus.core.errors import BadRequest

_FORM = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?")


def parse(text: str | None, now: datetime) -> datetime | None:
    """A time in UTC, with or without the letter Z behind it; None for ever.

    Raises BadRequest for what is no time, and for one that is not in the future.
    """
    if text is None:
        return None
    bare = text.removesuffix("Z")
    try:
        if not _FORM.fullmatch(bare):
            raise ValueError(bare)
        found = datetime.fromisoformat(bare).replace(tzinfo=UTC)
    except ValueError:
        raise BadRequest("The 'expires_at' must be a time of the form 2026-01-31T12:00:00.000000Z, in UTC.") from None
    if found <= now:
        raise BadRequest("The 'expires_at' must not be before now.")
    return found


def earliest(*times: datetime | None) -> datetime | None:
    """The first of some times, None where each is None."""
    return min((one for one in times if one is not None), default=None)
