"""Figures of a process, in the text format that Prometheus reads.

Source: Prometheus documentation, "Exposition formats", text format 0.0.4; names follow its "Metric and label naming".

A figure is counted where the work is done, by a list's element that grows, and put into words only when somebody asks.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

MEDIA = "text/plain; version=0.0.4; charset=utf-8"

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of durations."""

SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Upper bounds of group sizes."""

_BEGAN = time.time()
_OPEN = Path("/proc/self/fd")

Labels = tuple[str, ...]
Sample = tuple[str, Sequence[tuple[str, str]], float]
"""What follows the family's name, labels, and the value."""


class Family:
    """Figures of one name."""

    kind = "gauge"

    def __init__(self, name: str, meaning: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self.meaning = meaning
        self.labels = tuple(labels)

    def samples(self) -> Iterator[Sample]:
        """The figures as they are now."""
        raise NotImplementedError

    def lines(self) -> Iterator[str]:
        """The family in words."""
        yield f"# HELP {self.name} {_escaped(self.meaning, quote=False)}\n# TYPE {self.name} {self.kind}\n"
        for ending, labels, value in self.samples():
            named = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels)
            yield (
                f"{self.name}{ending}{{{named}}} {_number(value)}\n"
                if named
                else (f"{self.name}{ending} {_number(value)}\n")
            )


class Counter(Family):
    """Grows. Safe from several threads."""

    kind = "counter"

    def __init__(self, name: str, meaning: str, labels: Sequence[str] = ()) -> None:
        super().__init__(name, meaning, labels)
        self._lock = threading.Lock()
        self._values: dict[Labels, float] = {}

    def add(self, labels: Labels = (), amount: float = 1) -> None:
        """Let the figure of these labels grow."""
        with self._lock:
            self._values[labels] = self._values.get(labels, 0) + amount

    def samples(self) -> Iterator[Sample]:
        """One for each set of labels."""
        for labels, value in sorted(self._values.copy().items()):
            yield "", tuple(zip(self.labels, labels, strict=True)), value


class Histogram(Family):
    """How many of what was observed lie below each of some bounds, and their sum. Safe from several threads."""

    kind = "histogram"

    def __init__(self, name: str, meaning: str, labels: Sequence[str] = (), bounds: Sequence[float] = SECONDS) -> None:
        super().__init__(name, meaning, labels)
        self.bounds = tuple(bounds)
        self._lock = threading.Lock()
        self._series: dict[Labels, list[float]] = {}

    def observe(self, value: float, labels: Labels = ()) -> None:
        """Count one value."""
        place = bisect_left(self.bounds, value)
        with self._lock:
            series = self._series.get(labels)
            if series is None:
                series = self._series[labels] = [0] * (len(self.bounds) + 2)
            series[place] += 1
            series[-1] += value

    def samples(self) -> Iterator[Sample]:
        """For each set of labels the bounds, each with all below it, the sum and the count."""
        with self._lock:
            found = sorted((labels, tuple(series)) for labels, series in self._series.items())
        for labels, series in found:
            named = tuple(zip(self.labels, labels, strict=True))
            count = 0.0
            for bound, amount in zip((*map(_number, self.bounds), "+Inf"), series, strict=False):
                count += amount
                yield "_bucket", (*named, ("le", bound)), count
            yield "_sum", named, series[-1]
            yield "_count", named, count


class Gauge(Family):
    """Is read when it is asked for, by a function that gives labels and values."""

    def __init__(
        self,
        name: str,
        meaning: str,
        read: Callable[[], Iterable[tuple[Labels, float]]],
        labels: Sequence[str] = (),
        *,
        kind: str = "gauge",
    ) -> None:
        super().__init__(name, meaning, labels)
        self.kind = kind
        self._read = read

    def samples(self) -> Iterator[Sample]:
        """One for each set of labels."""
        for labels, value in self._read():
            yield "", tuple(zip(self.labels, labels, strict=True)), value


class Joint(Family):
    """Families of one name, counted in several places, whose labels tell them apart."""

    def __init__(self, parts: Sequence[Family]) -> None:
        super().__init__(parts[0].name, parts[0].meaning, parts[0].labels)
        self.kind = parts[0].kind
        self._parts = tuple(parts)

    def samples(self) -> Iterator[Sample]:
        """Those of all parts."""
        for part in self._parts:
            yield from part.samples()


def render(families: Iterable[Family]) -> bytes:
    """All figures, in the text format."""
    return "".join(line for family in families for line in family.lines()).encode()


def process() -> list[Family]:
    """Figures of this process, by the names that all client libraries of Prometheus give them; what only Linux tells
    is there on Linux alone."""
    found: list[Family] = [
        Gauge("process_cpu_seconds_total", "User and system time.", lambda: [((), _cpu())], kind="counter"),
        Gauge("process_start_time_seconds", "When the process began, since the epoch.", lambda: [((), _BEGAN)]),
    ]
    if Path("/proc/self/statm").exists():
        found += [
            Gauge("process_resident_memory_bytes", "Memory in use.", lambda: [((), _resident())]),
            Gauge("process_open_fds", "Open file descriptors.", lambda: [((), sum(1 for _ in _OPEN.iterdir()))]),
            Gauge("process_max_fds", "The most that may be open.", lambda: [((), os.sysconf("SC_OPEN_MAX"))]),
        ]
    return found


def _cpu() -> float:
    used = os.times()
    return used.user + used.system


def _resident() -> float:
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _escaped(text: str, *, quote: bool = True) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quote else text
