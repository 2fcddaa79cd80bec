"""How a cloud of many simulated hosts fares over the real link.

    .venv/bin/python -m bench.scale [--hosts 1000,10000] [--servers N]

Prints for each size: how long the hosts take to join, how long a server takes to get its host and to be ACTIVE, how
many are ACTIVE in a second, the cost of the first and of the last creates, listing all of them in pages of 1,000, and
what control plane and agents take while nothing happens.  Agents, control plane and client share the machine's cores.
Every loop is bounded; it talks to loopback alone.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.cloud import TICK, Cloud
from bench.operation import Bench

COMPUTE = "/compute/v2.1"
PARALLEL = 16
IDLE = 20.0
"""Seconds of doing nothing."""
ALONE = 30
"""Servers that are made one after the other."""


class Fleet(Bench):
    """A cloud of many hosts."""

    def offered(self, hosts: int, limit: float = 600.0) -> None:
        """Wait until all hosts can be given work: until each has a provider with what it offers."""
        began, count = time.monotonic(), 0
        version = {"openstack-api-version": "placement 1.4"}
        while time.monotonic() - began < limit:
            found = self.cloud.call("GET", "/placement/resource_providers?resources=VCPU:1", None, **version)
            count = len(found["resource_providers"])
            if count == hosts:
                return
            time.sleep(1.0)
        raise RuntimeError(f"{count} of {hosts} hosts joined in {limit:.0f} s")

    def claims(self, count: int = ALONE) -> tuple[float, float]:
        """Median ms from POST until a server has its host, and until it is ACTIVE, one server after the other."""
        placed, active = [], []
        for number in range(count):
            began = time.perf_counter()
            server = self.make_server(f"claim-{number}")
            deadline, known = time.monotonic() + 60, False
            while time.monotonic() < deadline:
                found = self.cloud.call("GET", f"{COMPUTE}/servers/{server}")["server"]
                spent = (time.perf_counter() - began) * 1000
                if not known and found["OS-EXT-SRV-ATTR:host"]:
                    placed.append(spent)
                    known = True
                if found["status"] == "ACTIVE":
                    active.append(spent)
                    break
                time.sleep(0.004)
            else:
                raise RuntimeError(f"server {server} is not ACTIVE after 60 s")
        return statistics.median(placed), statistics.median(active)

    def create(self, count: int, first: int) -> float:
        """Servers per second from the first POST until all are ACTIVE."""
        began = time.perf_counter()
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(lambda number: self.make_server(f"s-{first + number}"), range(count)))
        while time.perf_counter() - began < 1800:
            building = self.cloud.call("GET", f"{COMPUTE}/servers?status=BUILD&limit=1")["servers"]
            if not building:
                return count / (time.perf_counter() - began)
            time.sleep(0.1)
        raise RuntimeError("there are servers in BUILD after half an hour")

    def pages(self) -> tuple[float, int]:
        """Seconds of listing all servers in pages of 1,000, and how many there are."""
        began, count, marker = time.perf_counter(), 0, ""
        while True:
            found = self.cloud.call("GET", f"{COMPUTE}/servers?limit=1000{marker}")["servers"]
            count += len(found)
            if len(found) < 1000:
                return time.perf_counter() - began, count
            marker = f"&marker={found[-1]['id']}"

    def one_at_a_time(self, first: int, count: int = ALONE) -> float:
        """Median ms of a POST of a server, one after the other."""
        spent = []
        for number in range(count):
            began = time.perf_counter()
            self.make_server(f"alone-{first + number}")
            spent.append((time.perf_counter() - began) * 1000)
        return statistics.median(spent)


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def idle(pid: int) -> tuple[float, float]:
    """A process's share of a core, in percent, and its PSS in MiB."""
    before = cpu(pid)
    time.sleep(IDLE)
    share = (cpu(pid) - before) / IDLE * 100
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return share, next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def role(cloud: Cloud, name: str) -> int:
    """The process of a cloud that is its control plane or its agents."""
    return next(
        pid for pid in cloud.processes() if name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    )


def say(text: str) -> None:
    """A line of the report."""
    print(f"  {text}", flush=True)


def crowd(fleet: Fleet, count: int, first: int, most: str = "") -> None:
    """Make many servers at once, and say how it went."""
    pids = [role(fleet.cloud, name) for name in ("control", "agent")]
    before = [cpu(pid) for pid in pids]
    rate = fleet.create(count, first)
    control, agent = ((cpu(pid) - at) * 1000 / count for pid, at in zip(pids, before, strict=True))
    each = f"{control:.1f} ms CPU of control and {agent:.1f} of agents each"
    say(f"{count:,} servers at concurrency {PARALLEL}: {rate:.1f} ACTIVE/s{most}; {each}")


def measure(hosts: int, servers: int) -> None:
    """All figures of one size."""
    print(f"\n{hosts:,} hosts", flush=True)
    began = time.monotonic()
    cloud = Cloud(hosts)
    try:
        fleet = Fleet(cloud, 0)
        up = time.monotonic() - began
        fleet.offered(hosts)
        offered = time.monotonic() - began
        say(f"all hosts are heard {up:.1f} s after `up` began, and can be given work after {offered:.1f} s")
        fleet.prepare()
        for name in ("control", "agent"):
            share, memory = idle(role(cloud, name))
            say(f"{name}, idle: {share:.1f} % of a core, {memory:.0f} MiB PSS")
        fleet.one_at_a_time(0, 10)  # finds cold caches
        first = fleet.one_at_a_time(100)
        placed, active = fleet.claims()
        say(f"POST server until it has a host: {placed:.1f} ms; until it is ACTIVE: {active:.1f} ms")
        crowd(fleet, min(1000, servers), 100, " (at least 50 with 1,000 hosts)")
        if servers > 1000:
            crowd(fleet, servers - 1000, 2000)
        last = fleet.one_at_a_time(200)
        say(f"POST server: the first {first:.2f} ms, the last {last:.2f} ms ({last / first:.2f}; at most 1.5)")
        seconds, count = fleet.pages()
        say(f"{count:,} servers in pages of 1,000: {seconds:.2f} s (10,000: at most 1)")
        share, memory = idle(role(cloud, "control"))
        say(f"control with them, idle: {share:.1f} % of a core, {memory:.0f} MiB PSS")
    finally:
        cloud.close()
    say(f"{time.monotonic() - began:.0f} s in all")


def main() -> int:
    """Run the benchmark; exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", default="1000,10000", help="sizes, with commas between")
    parser.add_argument("--servers", type=int, default=10_000, help="servers of each size")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    for hosts in map(int, arguments.hosts.split(",")):
        measure(hosts, arguments.servers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
