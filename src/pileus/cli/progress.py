"""Steps that take time, shown to whoever waits: each with what it does now, and at its end how long it took.

On a terminal a running step has one line that is rewritten; elsewhere each step prints one plain line at its start
and one at its end.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

CLEAR_LINE = "\r\x1b[2K"


class Step:
    """A step under way."""

    def __init__(self, progress: Progress, title: str) -> None:
        self._progress = progress
        self.title = title
        self.outcome = ""
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long the step has taken so far."""
        return time.monotonic() - self.started

    def say(self, detail: str) -> None:
        """Show what the step does now, for as long as it does; only a terminal shows it."""
        self._progress.show(f"  … {self.title}  {detail}")

    def result(self, text: str) -> None:
        """What to say of the step at its end, beside its time."""
        self.outcome = text


class Progress:
    """Prints steps to one stream, by default standard error; safe to use from several threads."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._lock = threading.Lock()

    def show(self, line: str) -> None:
        """Rewrite the line of the running step; nothing where lines cannot be rewritten."""
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            with self._lock:
                print(CLEAR_LINE + line[:width], end="", file=self._stream, flush=True)

    def line(self, text: str) -> None:
        """Print a line that stays."""
        with self._lock:
            print((CLEAR_LINE if self._terminal else "") + text, file=self._stream, flush=True)

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Show a step while the block runs, and its time when it ends; a failure is shown and raised on."""
        step = Step(self, title)
        if self._terminal:
            step.say("")
        else:
            self.line(f"  … {title}")
        try:
            yield step
        except BaseException:
            self.line(f"  ✗ {title}  failed after {step.seconds:.1f} s")
            raise
        outcome = f"  {step.outcome}" if step.outcome else ""
        self.line(f"  ✓ {title}{outcome}  {step.seconds:.1f} s")
