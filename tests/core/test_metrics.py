"""Figures in Prometheus' text format, and what probes say to whom."""

from __future__ import annotations

import asyncio
import re
import threading
from typing import Any

import pytest

from pileus.core.errors import Unavailable
from pileus.core.metrics import Counter, Family, Gauge, Histogram, Joint, process, render
from pileus.core.probe import Probe

LINE = re.compile(r'[a-z_]+(\{([a-z_]+="([^"\\]|\\.)*",?)+\})? [0-9.e+-]+')


def test_the_text_is_as_the_format_has_it() -> None:
    served = Counter("served_total", "What was\nserved.", ("path",))
    served.add(('a"\\\n',))
    served.add(('a"\\\n',), 2)
    took = Histogram("took_seconds", "Time.", ("path",), (0.5, 1.0))
    for value in (0.5, 0.75, 3.0):
        took.observe(value, ("b",))
    there = Gauge("there", "How many.", lambda: [((), 0.25)])
    assert render([served, took, there]).decode() == (
        "# HELP served_total What was\\nserved.\n# TYPE served_total counter\n"
        'served_total{path="a\\"\\\\\\n"} 3\n'
        "# HELP took_seconds Time.\n# TYPE took_seconds histogram\n"
        'took_seconds_bucket{path="b",le="0.5"} 1\ntook_seconds_bucket{path="b",le="1"} 2\n'
        'took_seconds_bucket{path="b",le="+Inf"} 3\ntook_seconds_sum{path="b"} 4.25\ntook_seconds_count{path="b"} 3\n'
        "# HELP there How many.\n# TYPE there gauge\nthere 0.25\n"
    )


def test_nothing_is_lost_between_threads() -> None:
    took = Histogram("took_seconds", "Time.")

    def observe() -> None:
        for _ in range(5000):
            took.observe(0.001)

    threads = [threading.Thread(target=observe) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "took_seconds_count 20000\n" in render([took]).decode()


def test_families_of_one_name_are_one() -> None:
    parts = [Counter("served_total", "Served.", ("by",)) for _ in range(2)]
    for number, part in enumerate(parts):
        part.add((str(number),))
    text = render([Joint(parts)]).decode()
    assert text.count("# TYPE served_total counter") == 1
    assert text.endswith('served_total{by="0"} 1\nserved_total{by="1"} 1\n')


def test_a_process_tells_of_itself() -> None:
    lines = render(process()).decode().splitlines()
    assert all(LINE.fullmatch(line) for line in lines if not line.startswith("#"))
    values = dict(line.split(" ") for line in lines if not line.startswith("#"))
    assert float(values["process_resident_memory_bytes"]) > 1 << 20
    assert 3 <= float(values["process_open_fds"]) <= float(values["process_max_fds"])
    assert float(values["process_cpu_seconds_total"]) > 0


# -- probes --------------------------------------------------------------------------------------------------------


class Asked:
    """A probe before an application that says so, whose readiness and callers a test decides."""

    def __init__(self) -> None:
        self.reason = ""
        self.probe = Probe(self.application, self.unready, self.figures, self.admits)

    async def application(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": b"application"})

    async def unready(self) -> str:
        return self.reason

    async def figures(self) -> bytes:
        return render([self.family])

    async def admits(self, headers: dict[bytes, bytes]) -> bool:
        return headers.get(b"x-auth-token") == b"admin"

    family: Family = Gauge("there", "How many.", lambda: [((), 1)])

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
        """Status and body."""
        sent: list[dict[str, Any]] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request"}

        given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        path, _, query = path.partition("?")
        scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": given}
        asyncio.run(self.probe(scope, receive, send))
        return sent[0]["status"], sent[1]["body"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    monkeypatch.setattr("pileus.core.probe.FRESH", -1.0)
    return Asked()


def test_health_is_for_everybody_and_says_yes_or_no(asked: Asked) -> None:
    assert asked.get("/healthz") == (200, b"ok\n")
    assert asked.get("/readyz") == asked.get("/healthz?ready") == (200, b"ready\n")
    assert asked.get("/healthz", "HEAD") == (200, b"")
    asked.reason = "the store at 10.0.0.1 does not answer"
    assert asked.get("/healthz") == (200, b"ok\n")
    assert asked.get("/readyz") == asked.get("/healthz?ready") == (503, b"not ready\n")
    assert asked.get("/healthz", "POST")[0] == 405


def test_figures_are_for_those_who_are_admitted(asked: Asked) -> None:
    assert asked.get("/metrics")[0] == 401
    assert asked.get("/metrics", x_auth_token="member")[0] == 401
    assert asked.get("/metrics", x_auth_token="admin") == (
        200,
        b"# HELP there How many.\n# TYPE there gauge\nthere 1\n",
    )


def test_all_else_is_the_applications(asked: Asked) -> None:
    assert asked.get("/metrics/") == asked.get("/") == (299, b"application")
    assert Probe(None, asked.unready, asked.figures, asked.admits)._application is None
    asked.probe = Probe(None, asked.unready, asked.figures, asked.admits)
    assert asked.get("/identity/v3") == (404, b"not found\n")


def test_figures_that_cannot_be_had_are_no_secret_fault(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> bytes:
        raise Unavailable("postgresql at 10.0.0.1 is away")

    monkeypatch.setattr(asked.probe, "_figures", fail)
    assert asked.get("/metrics", x_auth_token="admin") == (503, b"no figures now\n")
