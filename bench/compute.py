"""What Compute and Network cost on a cloud of one simulated host; with `--against`, beside another state of the code.

    .venv/bin/python -m bench.compute [--rounds N] [--against REVISION]

The operations take turns, and so do the two clouds, so that each sees the same machine; what finds cold caches is not
counted, and nothing is begun while work of another is under way.  Each median comes with the interval that holds it in
95 of 100 runs (of the order statistics: no distribution is assumed).  CPU is that of all processes of the cloud, for a
server with what follows from it.  Every loop is bounded; it talks to loopback alone.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from bench.cloud import ROOT, Cloud, machine, together, yardstick
from bench.operation import Bench

COMPUTE, NETWORK = "/compute/v2.1", "/network/v2.0"

REST = 0.05
"""Seconds after an operation that leaves work behind, for that work."""


class Act(NamedTuple):
    """An operation, and what is known of it."""

    name: str
    upstream: float | None
    most: float
    run: Callable[[int], Any]
    share: int = 1
    """Of how many rounds it takes part in one."""
    burst: int = 10
    """How often it runs in its turn."""
    cold: int = 3
    """How many of those are not counted, as they find cold caches."""
    settle: Callable[[], Any] = lambda: None
    """Waits, out of the count, until nothing of it is under way."""


class Subject(Bench):
    """A cloud that is measured, with what its operations need."""

    def prepare_all(self) -> list[Act]:
        """Make a hundred servers, 384 networks and a thousand ports; the operations."""
        self.prepare()
        self.many(100, 16)
        for number in range(383):
            self.cloud.call("POST", f"{NETWORK}/networks", {"network": {"name": f"n{number}"}})
        for start in range(0, 900, 100):
            bulk = [{"network_id": self.network, "name": f"p{start + number}"} for number in range(100)]
            self.cloud.call("POST", f"{NETWORK}/ports", {"ports": bulk})
        one = self.cloud.call("GET", f"{COMPUTE}/servers?limit=1")["servers"][0]["id"]
        call = self.cloud.call
        ports = f"{NETWORK}/ports?limit=1000"
        self.made: list[str] = []
        return [
            Act("GET /servers/{id}", 80, 2, lambda _: call("GET", f"{COMPUTE}/servers/{one}")),
            Act("GET /servers, 100 servers", 294, 8, lambda _: call("GET", f"{COMPUTE}/servers?limit=100")),
            Act("POST server (the call)", 112, 8, self.post, 4, 3, 1, self.settle),
            Act("POST server → ACTIVE, with a port", 2330, 50, self.create_and_wait, 4, 3, 1, self.settle),
            Act("DELETE server → 404", 780, 40, self.delete, 4, 6, 1, self.settle),
            Act("list 384 networks", 579, 12, lambda _: call("GET", f"{NETWORK}/networks"), 4, 2, 1),
            Act("list 1,000 ports", 1131, 40, lambda _: call("GET", ports), 4, 2, 1),
        ]

    def post(self, number: int) -> None:
        """A server that is not waited for."""
        self.made.append(self.make_server(f"post-{number}"))

    def create_and_wait(self, number: int) -> None:
        """A server, until it is ACTIVE."""
        server = self.make_server(f"one-{number}")
        self.wait(server)
        self.made.append(server)

    def delete(self, number: int) -> None:
        """One of those, until it is gone, at most 30 s."""
        server = self.made.pop()
        self.cloud.call("DELETE", f"{COMPUTE}/servers/{server}")
        deadline = time.monotonic() + 30
        while self.there(server):
            if time.monotonic() > deadline:
                raise RuntimeError(f"server {server} does not go away")
            time.sleep(0.004)

    def settle(self) -> None:
        """Wait until the last of those is ACTIVE, and what follows from it is done."""
        if self.made:
            self.wait(self.made[-1])
        time.sleep(REST)

    def there(self, server: str) -> bool:
        """Whether a server is shown."""
        try:
            self.cloud.call("GET", f"{COMPUTE}/servers/{server}")
        except RuntimeError as fault:
            if ": 404 " in str(fault):
                return False
            raise
        return True


def interval(times: list[float]) -> tuple[float, float]:
    """Bounds of the median, of times in order: the order statistics that hold it with 95 % (binomial, normal limit)."""
    count = len(times)
    reach = 0.98 * count**0.5
    return times[max(0, round(count / 2 - reach) - 1)], times[min(count - 1, round(count / 2 + reach))]


class Measured(NamedTuple):
    """Times in milliseconds, and CPU milliseconds for each."""

    times: list[float]
    cpu: float

    def text(self) -> str:
        """Median, its interval, CPU."""
        times = sorted(self.times)
        low, high = interval(times)
        return f"{statistics.median(times):8.2f} ({low:7.2f} to {high:7.2f}) {self.cpu:7.2f}"


def take_turns(
    subjects: list[Subject], acts: list[list[Act]], rounds: int
) -> tuple[list[dict[str, Measured]], list[float]]:
    """Every operation of every cloud, in turns; and how long a yardstick of work took between them."""
    times: list[dict[str, list[float]]] = [{} for _ in subjects]
    cpu: list[dict[str, float]] = [{} for _ in subjects]
    sticks = []
    for number in range(-3, rounds):
        sticks.append(yardstick())
        order = range(len(subjects)) if number % 2 else reversed(range(len(subjects)))
        for place in order:
            for act in acts[place]:
                if number % act.share and number >= 0:
                    continue
                for turn in range(act.burst):
                    before, began = subjects[place].cloud.cpu(), time.perf_counter()
                    act.run(number)
                    spent = (time.perf_counter() - began) * 1000
                    act.settle()  # its CPU counts
                    if number >= 0 and turn >= act.cold:
                        times[place].setdefault(act.name, []).append(spent)
                        used = subjects[place].cloud.cpu() - before
                        cpu[place][act.name] = cpu[place].get(act.name, 0.0) + used
    measured = [
        {name: Measured(found, cpu[place][name] / len(found)) for name, found in times[place].items()}
        for place in range(len(subjects))
    ]
    return measured, sticks


def show(names: list[str], acts: list[Act], found: list[dict[str, Measured]]) -> None:
    """The table."""
    heads = " ".join(f"{f'{name}: p50 ms, interval, CPU ms':>37}" for name in names)
    print(f"{'operation':36} {heads}  {'upstream':>8} {'at most':>8}")
    for act in acts:
        columns = " ".join(one[act.name].text() for one in found)
        p50 = statistics.median(found[0][act.name].times)
        mark = " " if p50 <= act.most else "!"
        upstream = f"{act.upstream:8.0f}" if act.upstream else f"{'':8}"
        print(f"{act.name:36} {columns}  {upstream} {act.most:8.0f}{mark}", flush=True)


def at_once(subject: Subject, acts: list[Act], rounds: int) -> None:
    """Sixteen clients in one process beside the cloud."""
    for act in acts[:3]:
        p50, rate, cpu = together(subject.cloud, act.run, rounds)
        print(f"{act.name}, 16 at once: p50 {p50:.2f} ms, {rate:,.0f}/s, {cpu:.2f} ms CPU each", flush=True)
    subject.clear()
    before = subject.cloud.cpu()
    rate = subject.many(100, 16)
    cpu = (subject.cloud.cpu() - before) / 100
    print(f"100 servers at concurrency 16 → all ACTIVE: {rate:.1f}/s, {cpu:.1f} ms CPU each (upstream 0.57/s; ≥ 60/s)")


def main() -> int:
    """Run the benchmark; exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="rounds of the quick operations")
    parser.add_argument("--against", metavar="REVISION", help="measure this state of the code beside the work tree's")
    arguments = parser.parse_args()
    with ExitStack() as held:
        names, roots = ["A"], [ROOT]
        if arguments.against:
            other = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="pileus-bench-")))
            subprocess.run(["git", "clone", "-q", str(ROOT), str(other / "b")], check=True)
            subprocess.run(["git", "-C", str(other / "b"), "checkout", "-q", arguments.against], check=True)
            names, roots = ["A", "B"], [ROOT, other / "b"]
        subjects = []
        for root in roots:
            subjects.append(Subject(Cloud(1, root), arguments.rounds))
            held.callback(subjects[-1].cloud.close)
        acts = [subject.prepare_all() for subject in subjects]
        measured, sticks = take_turns(subjects, acts, arguments.rounds)
        show(names, acts[0], measured)
        print(machine(sticks))
        at_once(subjects[0], acts[0], arguments.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
