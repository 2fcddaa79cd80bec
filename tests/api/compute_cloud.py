"""A small cloud for tests of what Compute shows of its hosts: hosts that said hello over the link, and their stock."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from pileus.contracts.hypervisor import HypervisorFacts
from pileus.contracts.link import Heartbeat
from pileus.core.seams import ManualClock, Seams
from pileus.core.store import Tx
from pileus.services.compute.resources.server.table import server
from pileus.services.compute.service import service
from pileus.services.fleet import interface as fleet
from pileus.services.fleet.service import link_service
from pileus.services.placement import interface as placement
from tests.api.edge import Response, Served, make_edge

ROOT = "/compute/v2.1"

FACTS = HypervisorFacts(
    type="QEMU",
    version=7002000,
    accelerator="tcg",
    vcpus=8,
    memory_mib=16384,
    disk_gib=200,
    architecture="x86_64",
    cpu_model="EPYC",
)

STOCK = {
    "VCPU": placement.Inventory(total=8, allocation_ratio=4.0),
    "MEMORY_MB": placement.Inventory(total=16384, reserved=512),
    "DISK_GB": placement.Inventory(total=200),
}
"""What a host of those FACTS offers."""


def ok(response: Response, status: int = 200) -> Any:
    """The body of an answer that must have this status."""
    assert response.status == status, response
    return response.json


def fault(response: Response, status: int) -> str:
    """The message of a refusal that must have this status."""
    assert response.status == status, response
    [(_, body)] = response.json.items()
    assert body["code"] == status
    return str(body["message"])


@dataclass
class Cloud:
    """The edge, the clock, and what the process knows of its hosts."""

    served: Served
    clock: ManualClock
    fleet: fleet.Fleet

    def ask(
        self, method: str, path: str, json: Any = None, *, version: str = "2.104", token: str = "admin:ops"
    ) -> Response:
        """Send a request to Compute at a microversion."""
        headers = {"openstack-api-version": f"compute {version}"}
        return self.served.client(token).request(method, ROOT + path, json=json, headers=headers)

    def add_host(self, name: str, facts: HypervisorFacts = FACTS) -> str:
        """Let a host say hello, and offer what it has; its id. The clock moves on by a second."""
        hello = {"host": name, "facts": facts, "network": "bridge", "version": "0.1.0"}
        host_id = str(ok(self.served.client().request("POST", "/hello", json=hello))["host_id"])

        def offer(tx: Tx) -> None:
            placement.ensure_provider(tx, host_id, name)
            placement.set_inventory(tx, host_id, STOCK)

        self.served.store.write_here(offer)
        self.clock.advance(1)
        return host_id

    def beat(self, host_id: str) -> None:
        """Let a host's heart beat."""
        self.fleet.beat(host_id, Heartbeat(free_disk_gib=150))

    def add_server(self, host_id: str | None, host: str | None, name: str = "one", **values: Any) -> str:
        """A server that runs on a host, and holds 2 VCPU, 1024 MiB and 10 GiB there; its id."""
        server_id = str(uuid.UUID(int=self.served.store.seams.random.getrandbits(128), version=4))
        row = {
            "id": server_id,
            "project_id": "p1",
            "user_id": "p1-user",
            "name": name,
            "hostname": name,
            "image": {},
            "flavor_id": "1",
            "flavor": {},
            "config_drive": False,
            "metadata": {},
            "disk_config": "MANUAL",
            "reservation_id": "r-1",
            "launch_index": 0,
            "target": {},
            "scheduler_hints": {},
            "power": "running",
            "state": "running",
            "host_id": host_id,
            "host": host,
            "launched_at": self.clock.now(),
            "created_at": self.clock.now(),
        }

        def write(tx: Tx) -> None:
            tx.execute(sa.insert(server).values({**row, **values}))
            if host_id is not None:
                held = {"VCPU": 2, "MEMORY_MB": 1024, "DISK_GB": 10}
                placement.claim(tx, server_id, host_id, held, project_id="p1", user_id="p1-user")

        self.served.store.write_here(write)
        self.clock.advance(1)
        return server_id


@contextmanager
def cloud(place: Path | str) -> Iterator[Cloud]:
    """A cloud without hosts. `place` is as for `make_edge`."""
    clock = ManualClock()
    known = fleet.Fleet(clock)
    with make_edge(
        place, service(), link_service(), provided={fleet.Fleet: known}, seams=Seams(clock, seed=1)
    ) as served:
        served.store.write_here(fleet.begin)
        yield Cloud(served, clock, known)
