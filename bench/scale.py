"""How a cloud of many simulated hosts fares over the real link.

    .venv/bin/python -m bench.scale [--hosts 1000,10000] [--servers N]

Prints for each size: how long the hosts take to join, time to claim and servers ACTIVE per second, the cost of the
first and of the last creates, listing all of them in pages of 1,000, and what the control plane takes while nothing
happens.  Agents and control plane share the machine's cores.  Every loop is bounded; it talks to loopback alone.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.cloud import TICK, Cloud
from bench.operation import Bench

COMPUTE = "/compute/v2.1"
PARALLEL = 16
IDLE = 30.0
"""Seconds of doing nothing."""


class Fleet(Bench):
    """A cloud of many hosts."""

    def join(self, hosts: int, limit: float = 900.0) -> float:
        """Seconds until all hosts can be given work."""
        began, count = time.perf_counter(), 0
        old = {"x-openstack-nova-api-version": "2.87"}
        while time.perf_counter() - began < limit:
            found = self.cloud.call("GET", f"{COMPUTE}/os-hypervisors/statistics", None, **old)
            count = found["hypervisor_statistics"]["count"]
            if count == hosts:
                return time.perf_counter() - began
            time.sleep(1.0)
        raise RuntimeError(f"{count} of {hosts} hosts joined in {limit:.0f} s")

    def create(self, count: int, first: int) -> tuple[float, list[float]]:
        """Servers per second from the first POST until all are ACTIVE, and what each POST took in ms."""
        spent: list[float] = []

        def one(number: int) -> None:
            began = time.perf_counter()
            self.make_server(f"s-{first + number}")
            spent.append((time.perf_counter() - began) * 1000)

        began = time.perf_counter()
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(one, range(count)))
        while time.perf_counter() - began < 1800:
            building = self.cloud.call("GET", f"{COMPUTE}/servers?status=BUILD&limit=1")["servers"]
            if not building:
                return count / (time.perf_counter() - began), spent
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

    def one_at_a_time(self, first: int, count: int = 30) -> float:
        """Median ms of a POST of a server, one after the other."""
        spent = []
        for number in range(count):
            began = time.perf_counter()
            self.make_server(f"alone-{first + number}")
            spent.append((time.perf_counter() - began) * 1000)
        return statistics.median(spent)


def idle(pid: int) -> tuple[float, float]:
    """A process's share of a core, in percent, and its PSS in MiB."""

    def cpu() -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    before = cpu()
    time.sleep(IDLE)
    share = (cpu() - before) / IDLE * 100
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return share, next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def role(cloud: Cloud, name: str) -> int:
    """The process of a cloud that is its control plane or its agents."""
    return next(
        pid for pid in cloud.processes() if name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    )


def measure(hosts: int, servers: int) -> None:
    """All figures of one size."""
    print(f"\n{hosts:,} hosts", flush=True)
    cloud = Cloud(hosts)
    try:
        fleet = Fleet(cloud, 0)
        print(f"  all have joined after {fleet.join(hosts):.1f} s", flush=True)
        fleet.prepare()
        for name in ("control", "agent"):
            share, memory = idle(role(cloud, name))
            print(f"  {name}, idle: {share:.1f} % of a core, {memory:.0f} MiB PSS", flush=True)
        first = fleet.one_at_a_time(0)
        rate, _ = fleet.create(min(1000, servers), 100)
        print(
            f"  {min(1000, servers):,} servers at concurrency {PARALLEL}: {rate:.1f} ACTIVE/s (at least 50)", flush=True
        )
        if servers > 1000:
            rate, _ = fleet.create(servers - 1000, 2000)
            print(f"  {servers - 1000:,} more: {rate:.1f} ACTIVE/s", flush=True)
        last = fleet.one_at_a_time(1000)
        print(
            f"  POST server: the first {first:.2f} ms, the last {last:.2f} ms ({last / first:.2f}; at most 1.5)",
            flush=True,
        )
        seconds, count = fleet.pages()
        print(f"  {count:,} servers in pages of 1,000: {seconds:.2f} s (10,000: at most 1)", flush=True)
        share, memory = idle(role(cloud, "control"))
        print(f"  control with them, idle: {share:.1f} % of a core, {memory:.0f} MiB PSS", flush=True)
    finally:
        cloud.close()


def main() -> int:
    """Run the benchmark; exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", default="1000,10000", help="sizes, with commas between")
    parser.add_argument("--servers", type=int, default=10_000, help="servers of each size")
    arguments = parser.parse_args()
    for hosts in map(int, arguments.hosts.split(",")):
        measure(hosts, arguments.servers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
