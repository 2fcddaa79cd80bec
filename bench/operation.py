"""What each operation costs, on a cloud of one simulated host: `./pileus up --fake 1`.

    .venv/bin/python -m bench.operation [--rounds N] [--json FILE]

Prints for each operation the median, the 95th percentile, the CPU time of all processes of the cloud per operation, and
the ratio to upstream's figure and to the most that Pileus may take.  Every loop is bounded; it talks to loopback alone.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.cloud import HEADING, Cloud, Figure, machine, measure, row, yardstick


class Bench:
    """The operations that are measured."""

    def __init__(self, cloud: Cloud, rounds: int) -> None:
        self.cloud = cloud
        self.rounds = rounds
        self.figures: list[Figure] = []
        self.sticks: list[float] = []
        self.flavor = ""
        self.image = ""
        self.network = ""

    def add(
        self, name: str, act: Callable[[int], Any], upstream: float | None, most: float | None, share: int = 1
    ) -> None:
        """Measure one operation and print its row."""
        self.sticks += [yardstick() for _ in range(3)]
        figure = measure(self.cloud, name, act, max(5, self.rounds // share), upstream, most)
        self.figures.append(figure)
        print(row(figure), flush=True)

    def prepare(self) -> None:
        """What servers need: room, a flavor, an image, a network."""
        call = self.cloud.call
        project = call("GET", "/identity/v3/auth/projects")["projects"][0]["id"]
        wide = {"instances": -1, "cores": -1, "ram": -1}
        call("PUT", f"/compute/v2.1/os-quota-sets/{project}", {"quota_set": wide})
        quota = {"network": -1, "subnet": -1, "port": -1}
        call("PUT", f"/network/v2.0/quotas/{project}", {"quota": quota})
        flavor = {"name": "bench", "vcpus": 1, "ram": 64, "disk": 0}
        self.flavor = call("POST", "/compute/v2.1/flavors", {"flavor": flavor})["flavor"]["id"]
        image = {"name": "bench", "disk_format": "raw", "container_format": "bare"}
        self.image = call("POST", "/image/v2/images", image)["id"]
        connection = self.cloud.connection()
        headers = {"x-auth-token": self.cloud.token, "content-type": "application/octet-stream"}
        connection.request("PUT", f"/image/v2/images/{self.image}/file", bytes(1 << 20), headers)
        connection.getresponse().read()
        self.network = self.make_network("bench", "10.0.0.0/16")

    def make_network(self, name: str, cidr: str) -> str:
        """POST a network and a subnet in it; the network's id."""
        call = self.cloud.call
        network = call("POST", "/network/v2.0/networks", {"network": {"name": name}})["network"]["id"]
        subnet = {"network_id": network, "ip_version": 4, "cidr": cidr}
        call("POST", "/network/v2.0/subnets", {"subnet": subnet})
        return str(network)

    def make_server(self, name: str) -> str:
        """POST a server; its id."""
        server = {
            "name": name,
            "imageRef": self.image,
            "flavorRef": self.flavor,
            "networks": [{"uuid": self.network}],
        }
        return str(self.cloud.call("POST", "/compute/v2.1/servers", {"server": server})["server"]["id"])

    def wait(self, server_id: str) -> None:
        """Wait until a server is ACTIVE, at most 30 s."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            status = self.cloud.call("GET", f"/compute/v2.1/servers/{server_id}")["server"]["status"]
            if status == "ACTIVE":
                return
            if status == "ERROR":
                raise RuntimeError(f"server {server_id} is in ERROR")
            time.sleep(0.004)  # a poll costs what it waits for a part of its time
        raise RuntimeError(f"server {server_id} is not ACTIVE after 30 s")

    def create_and_wait(self, place: int) -> None:
        """One server, until it is ACTIVE."""
        self.wait(self.make_server(f"one-{place}"))

    def clear(self) -> None:
        """Delete all servers, and wait until they are gone, at most 60 s."""
        deadline = time.monotonic() + 60
        while servers := self.cloud.call("GET", "/compute/v2.1/servers")["servers"]:
            for server in servers:
                try:
                    self.cloud.call("DELETE", f"/compute/v2.1/servers/{server['id']}")
                except RuntimeError:
                    continue  # gone meanwhile
            time.sleep(0.1)
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(servers)} servers do not go away")

    def many(self, count: int, parallel: int) -> float:
        """Servers per second from the first POST until all are ACTIVE."""
        began = time.perf_counter()
        with ThreadPoolExecutor(parallel) as pool:
            list(pool.map(lambda place: self.make_server(f"many-{place}"), range(count)))
        deadline = time.monotonic() + 120
        found: list[Any] = []
        while time.monotonic() < deadline:
            found = self.cloud.call("GET", "/compute/v2.1/servers?status=ACTIVE&limit=1000")["servers"]
            if len(found) == count:
                return count / (time.perf_counter() - began)
            time.sleep(0.02)
        raise RuntimeError(f"{len(found)} of {count} servers are ACTIVE after 120 s")

    def run(self) -> dict[str, Any]:
        """All operations; further figures by name."""
        call = self.cloud.call
        print(HEADING)
        idle = self.cloud.pss()
        token = self.cloud.token
        headers = {"x-subject-token": token}
        self.add("validate a token", lambda _: call("GET", "/identity/v3/auth/tokens", None, **headers), 8.6, 1)
        self.prepare()
        self.add("GET /servers/detail, none", lambda _: call("GET", "/compute/v2.1/servers/detail"), 39, 2)
        self.add("POST network + subnet", lambda _: self.make_network(secrets.token_hex(4), "10.1.0.0/24"), 215, 12, 4)
        port = {"port": {"network_id": self.network}}
        self.add("POST port", lambda _: call("POST", "/network/v2.0/ports", port), 252, 8, 2)
        self.add("POST server → ACTIVE", self.create_and_wait, 1168, 60, 4)
        self.clear()
        before = self.cloud.cpu()
        rate = self.many(100, 16)
        cpu = (self.cloud.cpu() - before) / 100
        print(
            f"100 servers at concurrency 16 → all ACTIVE: {rate:.1f}/s, {cpu:.1f} ms CPU each (upstream 0.57/s; ≥ 40/s)"
        )
        self.add("GET /servers/detail, 100", lambda _: call("GET", "/compute/v2.1/servers/detail"), 690, 15, 2)
        self.clear()
        print(machine(self.sticks))
        print(f"idle: {len(self.cloud.processes())} processes, {idle:.0f} MiB PSS (upstream 35 and 2,556; at most 150)")
        return {"servers_per_second": rate, "server_cpu_ms": cpu, "idle_pss_mib": idle}


def main() -> int:
    """Run the benchmark; exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="rounds of the quick operations")
    parser.add_argument("--json", type=Path, help="also write the figures to a file")
    arguments = parser.parse_args()
    cloud = Cloud(1)
    try:
        bench = Bench(cloud, arguments.rounds)
        more = bench.run()
        if arguments.json:
            found = {"figures": [figure._asdict() for figure in bench.figures], **more}
            arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    finally:
        cloud.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
