"""One log: a line for each event, with the request's id where there is one.  Nothing secret is written to it."""

from __future__ import annotations

import contextvars
import logging
import sys
import time

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="-")
"""The id of the request that the current task works for."""


class _Format(logging.Formatter):
    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        record.request_id = request_id.get()
        return super().format(record)


def start(process: str, level: str = "INFO") -> None:
    """Send the log of this process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _Format(
            f"%(asctime)s.%(msecs)03dZ {process} %(levelname)s %(name)s [%(request_id)s] %(message)s",
            "%Y-%m-%dT%H:%M:%S",
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
