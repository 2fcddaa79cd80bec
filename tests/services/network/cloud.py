"""Network on the real edge, with its loops, and hosts that the tests speak for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec
import sqlalchemy as sa

from pileus.contracts.hypervisor import HypervisorFacts
from pileus.contracts.network import NetworkSpec, PortSpec, RouterSpec, SecurityGroupSpec
from pileus.core.context import Context, Query, Request
from pileus.core.reconcile import Loops
from pileus.core.store import Tx
from pileus.services.fleet import interface as fleet
from pileus.services.fleet.resources.assignment import assignment
from pileus.services.fleet.resources.host import host
from pileus.services.network import service as network
from tests.api.edge import Client, Response, make_edge, named_caller

T = TypeVar("T")

SPECS: dict[str, type[msgspec.Struct]] = {
    "network": NetworkSpec,
    "port": PortSpec,
    "router": RouterSpec,
    "security_group": SecurityGroupSpec,
}

FACTS = HypervisorFacts(
    type="QEMU",
    version=7002000,
    accelerator="tcg",
    vcpus=4,
    memory_mib=8192,
    disk_gib=100,
    cpu_model="max",
)


class Cloud:
    """Network, its loops and some hosts. A context manager."""

    def __init__(self, place: Path | str, *, loops: bool = True) -> None:
        provided: dict[type[Any], Any] = {}
        overrides = {"network:attach_external_network": "role:admin"}
        self.served = make_edge(place, network.service(), provided=provided, overrides=overrides)
        self.store = self.served.store
        self.fleet = provided[fleet.Fleet] = fleet.Fleet(self.store.seams.clock)
        self.loops = Loops(self.store, network.controllers(self.fleet)) if loops else None
        self.admin = self.served.client("admin:adm")
        self.member = self.served.client("member:p1")
        self.reader = self.served.client("reader:p1")
        self.manager = self.served.client("manager:p1")
        self.stranger = self.served.client("member:p2")

    def __enter__(self) -> Self:
        if self.loops is not None:
            self.served.run(self.loops.start())
        return self

    def __exit__(self, *_: object) -> None:
        if self.loops is not None:
            self.served.run(self.loops.stop())
        self.served.__exit__()

    # -- requests ----------------------------------------------------------------------------------------------------

    def ask(
        self, method: str, path: str, json: Any = None, *, by: Client | None = None, revision: int | None = None
    ) -> Response:
        """A request below /network/v2.0, by the member of p1; `revision` is what If-Match names."""
        headers = None if revision is None else {"if-match": f"revision_number={revision}"}
        return (by or self.member).request(method, f"/network/v2.0{path}", json=json, headers=headers)

    def make(self, noun: str, *, by: Client | None = None, **values: Any) -> Any:
        """Make something, and check that it was made."""
        found = self.ask("POST", f"/{noun.replace('_', '-') if 'group' in noun else noun}s", {noun: values}, by=by)
        assert found.status == 201, found
        return found.json[noun]

    def get(self, path: str, *, by: Client | None = None) -> Any:
        """Get something, and check that it is there."""
        found = self.ask("GET", path, by=by)
        assert found.status == 200, found
        return found.json

    def refused(
        self, status: int, kind: str, method: str, path: str, json: Any = None, *, by: Client | None = None
    ) -> str:
        """Ask for something, and check how it is refused; the message."""
        found = self.ask(method, path, json, by=by)
        assert (found.status, found.json["NeutronError"]["type"]) == (status, kind), found
        assert found.json["NeutronError"]["detail"] == ""
        return str(found.json["NeutronError"]["message"])

    def net(self, cidr: str | None = "10.0.0.0/24", *, by: Client | None = None, **values: Any) -> tuple[Any, Any]:
        """A network and a subnet in it."""
        net = self.make("network", by=by, **values)
        version = 6 if cidr and ":" in cidr else 4
        subnet = cidr and self.make("subnet", by=by, network_id=net["id"], cidr=cidr, ip_version=version)
        return net, subnet

    def public(self) -> tuple[Any, Any]:
        """An external network, and its subnet."""
        net = self.make("network", by=self.admin, name="public", **{"router:external": True})
        subnet = self.make(
            "subnet", by=self.admin, network_id=net["id"], cidr="172.24.4.0/24", ip_version=4, enable_dhcp=False
        )
        return net, subnet

    def leg(self, router: Any, subnet: Any) -> Any:
        """A leg of a router in a subnet."""
        found = self.ask("PUT", f"/routers/{router['id']}/add_router_interface", {"subnet_id": subnet["id"]})
        assert found.status == 200, found
        return found.json

    # -- the interface -----------------------------------------------------------------------------------------------

    def write(self, work: Callable[[Tx], T]) -> T:
        """Run something in a transaction."""
        return self.store.write_here(work)

    def within(self, work: Callable[[Context], T], token: str = "member:p1") -> T:
        """Run something as a caller, in a transaction."""

        def run(tx: Tx) -> T:
            request = Request(
                store=self.store,
                policy=self.served.edge.policy,
                auth=named_caller(tx, token, {}),
                request_id="req-test",
                operation="",
                version=None,
                url="",
                path="",
                query=Query([]),
                headers={},
                provided={},
            )
            return work(request.bind(tx))

        return self.store.write_here(run)

    # -- hosts -------------------------------------------------------------------------------------------------------

    def host(self, name: str) -> str:
        """A host that is up; its id."""

        def put(tx: Tx) -> str:
            host_id = f"host-{name}"
            values = {
                "id": host_id,
                "name": name,
                "facts": msgspec.to_builtins(FACTS),
                "network_filter": "fake",
                "version": "0",
                "created_at": tx.now,
                "seen_at": tx.now,
            }
            tx.execute(sa.insert(host).values(values))
            tx.changed("fleet.host", host_id)
            return host_id

        return self.write(put)

    def held(self, host_id: str, kind: str) -> dict[str, Any]:
        """What a host is told to hold of a kind: specs by id."""
        query = sa.select(assignment).where(
            assignment.c.host_id == host_id, assignment.c.kind == kind, assignment.c.tombstone.is_(False)
        )
        rows = self.store.read_here(lambda tx: tx.all(query))
        return {row.id: msgspec.json.decode(row.spec, type=SPECS[kind]) for row in rows}

    def everything(self, host_id: str) -> set[tuple[str, str]]:
        """All that a host is told to hold."""
        return {(kind, one) for kind in SPECS for one in self.held(host_id, kind)}

    def generations(self) -> dict[tuple[str, str, str], int]:
        """The generation of each assignment."""
        rows = self.store.read_here(lambda tx: tx.all(sa.select(assignment)))
        return {(row.host_id, row.kind, row.id): row.generation for row in rows}

    def say(self, host_id: str, state: str = "ready", *, only: Collection[str] = (), permanent: bool = False) -> None:
        """Let a host report what it was told; what it was to let go of is gone."""

        def put(tx: Tx) -> None:
            for row in tx.all(sa.select(assignment).where(assignment.c.host_id == host_id)):
                if only and row.id not in only:
                    continue
                same = (assignment.c.kind == row.kind, assignment.c.id == row.id, assignment.c.host_id == host_id)
                if row.tombstone:
                    tx.execute(sa.delete(assignment).where(*same))
                else:
                    values = {"state": state, "observed_generation": row.generation, "permanent": permanent}
                    tx.execute(sa.update(assignment).where(*same).values(values))
                tx.changed(f"fleet.{row.kind}", row.id)

        self.write(put)
        self.settle()

    def settle(self, seconds: float = 30.0) -> None:
        """Wait until the loops have nothing to do."""
        assert self.loops is not None
        deadline = time.monotonic() + seconds
        quiet = 0
        while quiet < 3:
            assert time.monotonic() < deadline, "the loops do not come to rest"
            quiet = quiet + 1 if self.served.run(self._idle()) else 0

    def wait(self, ready: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < deadline, "it did not come about in time"
            time.sleep(0.01)

    async def _idle(self) -> bool:
        assert self.loops is not None
        await asyncio.sleep(0.002)
        return all(queue.idle() for queue in self.loops.queues.values())
