"""One log: a line for each event, with the request's id where there is one.  Nothing secret is written to it.

It goes to standard error.  Where that is the journal (JOURNAL_STREAM, systemd.exec(5)) each line begins with its
priority (sd-daemon(3)) and has no time of its own; elsewhere the supervisor keeps it in a file and puts that aside when
it is large.
"""

from __future__ import annotations

import contextvars
import logging
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="-")
"""The id of the request that the current task works for."""

requests = logging.getLogger("pileus.request")
"""A line for each request that was answered."""

SECRET = re.compile(r"(?i)(token|secret|passw|signature|sig$|credential|verifier|nonce|(^|_)key$|auth|code$)")
"""Names of queries' parameters whose values are nobody's business."""

_PRIORITY = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}
"""Levels as syslog counts them (RFC 5424, section 6.2.1)."""

_BREAKS = {number: f"\\x{number:02x}" for number in (*range(9), *range(10, 32), 127, 0x85)} | {
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}
"""What a client could forge lines or move a terminal's cursor with."""


class _Format(logging.Formatter):
    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        record.request_id = request_id.get()
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        record.message = record.message.translate(_BREAKS)
        return super().formatMessage(record)


class _JournalFormat(_Format):
    def format(self, record: logging.LogRecord) -> str:
        mark = f"<{_PRIORITY.get(record.levelname, 6)}>"
        return "\n".join(mark + line for line in super().format(record).splitlines())


def start(process: str, level: str = "INFO", levels: Iterable[str] = ()) -> None:
    """Send the log of this process to standard error; `levels` are of single loggers, as LOGGER=LEVEL."""
    handler = logging.StreamHandler(sys.stderr)
    if to_journal(os.environ):
        handler.setFormatter(_JournalFormat(f"{process} %(name)s [%(request_id)s] %(message)s"))
    else:
        form = f"%(asctime)s.%(msecs)03dZ {process} %(levelname)s %(name)s [%(request_id)s] %(message)s"
        handler.setFormatter(_Format(form, "%Y-%m-%dT%H:%M:%S"))
    logging.raiseExceptions = False  # a log that cannot be written must not stop, or flood, who writes it
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for one in levels:
        name, _, own = one.partition("=")
        logging.getLogger(None if name == "root" else name).setLevel(own)


def to_journal(environment: Mapping[str, str]) -> bool:
    """Whether standard error is the journal: the variable names its device and inode, and children inherit it."""
    device, colon, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return bool(colon) and (device, inode) == (str(found.st_dev), str(found.st_ino))


def shown_path(path: str, query: bytes) -> str:
    """A request's path and query, without the values of parameters that may be secret."""
    # The one place where the API has a secret in a path: what a console is reached with.
    path = re.sub(r"(/os-console-auth-tokens/)[^/]+", r"\1***", path)
    if not query:
        return path
    pairs = []
    for pair in query.decode("latin-1")[:2000].split("&"):
        name, equals, value = pair.partition("=")
        hidden = bool(value) and bool(SECRET.search(name))
        pairs.append(f"{name}{equals}{'***' if hidden else value}")
    return f"{path}?{'&'.join(pairs)}"
