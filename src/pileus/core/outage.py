"""What callers are told when the engine of the store does not answer."""

from __future__ import annotations

import logging
import sqlite3

from sqlalchemy.exc import DBAPIError

from pileus.core.errors import Unavailable

log = logging.getLogger(__name__)

_KINDS = {
    sqlite3.SQLITE_FULL: "The disk of the store is full: nothing is changed until there is room, reading goes on.",
    sqlite3.SQLITE_READONLY: "The store is read-only: nothing is changed until that is mended, reading goes on.",
    sqlite3.SQLITE_IOERR: "The disk of the store fails, or is read-only: nothing is changed until it is mended.",
}
"""What callers are told of an engine that cannot write."""


def unavailable(error: DBAPIError) -> Unavailable:
    """For the log what the engine says; for callers, who may be anybody, nothing of where it is and who asks it."""
    log.error("the store does not answer: %s", error.orig)
    code = getattr(error.orig, "sqlite_errorcode", None)
    # An extended code has its kind in the low byte (https://www.sqlite.org/rescode.html).
    kind = None if code is None else _KINDS.get(code & 0xFF)
    return Unavailable(kind or "The store does not answer; trying again later may help.")
