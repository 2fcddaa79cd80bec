"""A small cloud in one process: the real edge and loops, and hosts that only say that they do as they are told."""

from __future__ import annotations

import asyncio
import functools
import itertools
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import msgspec

from pileus.contracts.hypervisor import GuestSpec, HypervisorFacts, SnapshotSpec
from pileus.contracts.link import Answer, Assignment, Hello, Observation, Report, Watch, Welcome
from pileus.core.api import Service
from pileus.core.config import Config
from pileus.core.context import Auth
from pileus.core.http import Edge
from pileus.core.policy import Policy
from pileus.core.reconcile import Loops
from pileus.core.store import Tx
from pileus.drivers.hypervisor.fake.disk import write_empty
from pileus.drivers.images.fake import FakeImageStore
from pileus.services.compute import service as compute
from pileus.services.fleet import interface as fleet
from pileus.services.fleet import service as fleet_service
from pileus.services.image import interface as image_interface
from pileus.services.image import service as image
from pileus.services.image.resources.image.table import image as image_table
from pileus.services.network import service as network
from tests.api.edge import Client, Response, make_edge

PROJECT = "a" * 32
OTHER = "b" * 32
NEWEST = {"openstack-api-version": "compute 2.104"}
IMAGE = "11111111-2222-4333-8444-555555555555"


def at(version: str) -> dict[str, str]:
    """The header that asks for a microversion."""
    return {"openstack-api-version": f"compute {version}"}


@functools.cache
def empty_disk() -> bytes:
    """A disk in the format qcow2."""
    with TemporaryDirectory() as place:
        target = Path(place) / "disk"
        write_empty(target, "qcow2")
        return target.read_bytes()


def image_row(image_id: str) -> dict[str, Any]:
    """An image of 64 MiB that everybody sees."""
    now = datetime.now(UTC)
    return {
        "id": image_id,
        "name": "tiny",
        "owner": PROJECT,
        "status": "active",
        "visibility": "public",
        "protected": False,
        "os_hidden": False,
        "container_format": "bare",
        "disk_format": "qcow2",
        "min_ram": 0,
        "min_disk": 0,
        "size": 1 << 20,
        "virtual_size": 64 << 20,
        "os_hash_algo": "sha512",
        "os_hash_value": "0" * 128,
        "store": "file",
        "location": image_id,
        "created_at": now,
        "updated_at": now,
    }


class Host:
    """A host that reports each guest to be as it is wanted. Tests say where it shall not."""

    def __init__(
        self, cloud: Cloud, name: str, *, vcpus: int = 8, memory_mib: int = 16384, disk_gib: int = 100
    ) -> None:
        self.cloud = cloud
        self.name = name
        self.facts = HypervisorFacts(
            type="QEMU",
            version=7002000,
            accelerator="tcg",
            vcpus=vcpus,
            memory_mib=memory_mib,
            disk_gib=disk_gib,
            cpu_model="max",
        )
        self.id = ""
        self.client = Client(cloud.link, cloud.served.loop)
        self.guests: dict[str, GuestSpec] = {}
        self.generations: dict[str, int] = {}
        self.held: dict[str, Assignment] = {}
        self.silent = False
        self.answers: dict[str, tuple[str, str, bool]] = {}
        """Guest id, or `*` for all, to what is said in place of the truth: state, detail, permanent."""
        self.console = "login: "
        self.measured: str | None = None
        """The answer to a call for diagnostics."""
        self.snapshots: dict[str, SnapshotSpec] = {}
        self.said: dict[str, Observation] = {}
        """What became of guests by themselves, and stays until they are to be something else."""
        self._telling = asyncio.Lock()
        """What is said is heard in that order."""
        self.faults: dict[str, str] = {}
        """Why acts cannot be applied, by act."""
        self.task: asyncio.Task[None] | None = None

    async def post(self, path: str, body: Any) -> Response:
        headers = {"x-auth-token": self.id or "new", "content-type": "application/json"}
        return await self.client._send("POST", path, headers, [msgspec.json.encode(body)])

    async def run(self) -> None:
        hello = Hello(host=self.name, facts=self.facts, network="fake", version="0")
        found = await self.post("/hello", hello)
        assert found.status == 200, found
        self.id = msgspec.json.decode(found.body, type=Welcome).host_id
        await self.beat()
        since: str | None = None
        while True:
            path = "/watch" if since is None else f"/watch?since={since}"
            found = await self.client._send("GET", path, {"x-auth-token": self.id}, [])
            watch = msgspec.json.decode(found.body, type=Watch)
            since = watch.revision
            for one in watch.assignments:
                self.held[f"{one.kind}/{one.id}"] = one
            for call in watch.calls:
                output = self.measured if call.verb == "diagnostics" else f"{self.console}{call.arguments['lines']}"
                await self.post("/answer", Answer(id=call.id, output=output, error="" if output else "it rests"))
            if not self.silent:
                await self.report()

    async def beat(self) -> None:
        await self.post("/heartbeat", {"free_disk_gib": 10})

    async def report(self) -> None:
        """Say of everything that was told that it is done."""
        told, self.held = self.held, {}
        for one in told.values():
            answered = one.id in self.answers or "snapshot" in self.answers
            if one.kind == "snapshot" and not one.tombstone and not answered:
                await self.send(one.id)
        async with self._telling:
            seen = [self.observe(one) for one in told.values()]
            if seen:
                await self.post("/report", Report(observations=seen))

    async def send(self, image_id: str) -> None:
        """Send the data of a snapshot; the control plane may not want it any more."""
        headers = {"x-auth-token": self.id, "content-type": "application/octet-stream"}
        await self.client._send("PUT", f"/snapshots/{image_id}/data", headers, [empty_disk()])

    def observe(self, one: Assignment) -> Observation:
        state, detail, permanent, nonce = "ready", "", False, 0
        acts: dict[str, int] = {}
        nics: list[str] = []
        said = self.said.get(one.id)
        if said is not None and said.generation == one.generation and not one.tombstone:
            return said
        if one.tombstone:
            state = "absent"
            self.guests.pop(one.id, None)
            self.snapshots.pop(one.id, None)
        elif one.kind == "snapshot":
            self.snapshots[one.id] = msgspec.json.decode(one.spec, type=SnapshotSpec)
            state, detail, permanent = self.answers.get(one.id, self.answers.get("snapshot", (state, "", False)))
        elif one.kind == "guest":
            spec = msgspec.json.decode(one.spec, type=GuestSpec)
            self.guests[one.id] = spec
            self.generations[one.id] = one.generation
            state, nonce = spec.power, spec.reboot_nonce
            acts, nics = dict(spec.acts), [nic.port_id for nic in spec.nics]
            state, detail, permanent = self.answers.get(one.id, self.answers.get("*", (state, detail, permanent)))
        return Observation(
            kind=one.kind,
            id=one.id,
            generation=one.generation,
            state=state,
            detail=detail,
            permanent=permanent,
            reboot_nonce=nonce,
            acts=acts,
            faults={name: text for name, text in self.faults.items() if name in acts},
            nics=nics,
        )

    def say(self, guest_id: str, state: str, **more: Any) -> None:
        """Report a state of a guest that nobody asked for."""
        seen = Observation(kind="guest", id=guest_id, generation=self.generations[guest_id], state=state, **more)
        self.said[guest_id] = seen

        async def tell() -> Response:
            async with self._telling:
                return await self.post("/report", Report(observations=[seen]))

        assert self.cloud.served.run(tell()).status == 204


class Cloud:
    """Services on one edge, their loops, and a link edge for hosts. A context manager."""

    def __init__(self, place: str, *, policy: Mapping[str, str] | None = None, **settings: Any) -> None:
        self.config = Config(state=Path("/nonexistent"), **settings)
        services: list[Service] = [compute.service(), network.service(), image.service()]
        provided: dict[type[Any], Any] = {Config: self.config}
        self.served = make_edge(place, *services, provided=provided, overrides=policy)
        self.store = self.served.store
        self.fleet = fleet.Fleet(self.store.seams.clock)
        provided[fleet.Fleet] = self.fleet
        self.store.write_here(fleet.begin)

        def host(tx: Tx, token: str, headers: Mapping[bytes, bytes]) -> Auth:
            return Auth(user_id=token, roles=frozenset({"host"}))

        provided[image_interface.ImageStores] = image_interface.ImageStores({"file": FakeImageStore()}, "file")
        more = [image_interface.host_resource, image_interface.snapshot_resource, *compute.host_resources()]
        self.link = Edge([fleet_service.link_service(more)], self.store, Policy(), host, provided)
        self.loops = self._loops()
        self.hosts: list[Host] = []
        self.admin = self.served.client(f"admin:{PROJECT}")
        self.member = self.served.client(f"member:{PROJECT}")
        self.reader = self.served.client(f"reader:{PROJECT}")
        self.stranger = self.served.client(f"member:{OTHER}")
        self._number = itertools.count(1)

    def __enter__(self) -> Self:
        self.served.run(self._start())
        return self

    def _loops(self) -> Loops:
        controllers = [*compute.controllers(self.fleet, self.config), *network.controllers(self.fleet)]
        return Loops(self.store, controllers)

    def pause(self) -> None:
        """End the loops, whatever they are at."""
        self.served.run(self.loops.stop())

    def resume(self) -> None:
        """Begin new loops, that know nothing of what happened before."""
        self.loops = self._loops()
        self.served.run(self.loops.start())

    async def _start(self) -> None:
        self.fleet.attach(self.store)
        await self.loops.start()

    def __exit__(self, *_: object) -> None:
        self.served.run(self._stop())
        self.served.__exit__()

    async def _stop(self) -> None:
        tasks = {host.task for host in self.hosts if host.task is not None}
        while tasks:  # a cancellation that meets a result is swallowed by asyncio.wait_for until Python 3.12
            for task in tasks:
                task.cancel()
            _, tasks = await asyncio.wait(tasks, timeout=1)
        await self.loops.stop()

    def host(self, name: str, **facts: int) -> Host:
        """A host that joins the cloud; returns when it offers what it has."""
        host = Host(self, name, **facts)
        self.hosts.append(host)

        async def begin() -> None:
            host.task = asyncio.create_task(host.run())

        self.served.run(begin())
        self.wait(lambda: self._offers(name))
        return host

    def _offers(self, name: str) -> bool:
        found = self.admin.request("GET", "/compute/v2.1/os-hypervisors/detail").json["hypervisors"]
        return any(one["hypervisor_hostname"] == name and one["vcpus"] for one in found)

    def wait(self, ready: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < deadline, "it did not come about in time"
            time.sleep(0.005)

    # -- what servers are made of ------------------------------------------------------------------------------------

    def image(self, image_id: str = IMAGE, **values: Any) -> str:
        """An image that can be booted, as if its data had been uploaded."""
        row: dict[str, Any] = image_row(image_id) | values
        self.store.write_here(lambda tx: tx.execute(image_table.insert().values(row)).rowcount)
        return image_id

    def network(self, name: str = "net", cidr: str = "10.0.0.0/24", client: Client | None = None) -> str:
        """The id of a new network with a subnet."""
        client = client or self.member
        found = client.request("POST", "/network/v2.0/networks", json={"network": {"name": name}})
        assert found.status == 201, found
        network_id = str(found.json["network"]["id"])
        body = {"network_id": network_id, "cidr": cidr, "ip_version": 4, "dns_nameservers": ["9.9.9.9"]}
        found = client.request("POST", "/network/v2.0/subnets", json={"subnet": body})
        assert found.status == 201, found
        return network_id

    def flavor(self, flavor_id: str = "1", **values: Any) -> str:
        body = {"name": f"flavor-{flavor_id}", "id": flavor_id, "ram": 512, "vcpus": 1, "disk": 1} | values
        found = self.admin.request("POST", "/compute/v2.1/flavors", json={"flavor": body})
        assert found.status == 200, found
        return flavor_id

    def create(self, client: Client | None = None, headers: Mapping[str, str] = NEWEST, **values: Any) -> Response:
        """POST /servers with what is usual."""
        number = next(self._number)
        body = {"name": f"server-{number}", "flavorRef": "1", "imageRef": IMAGE, "networks": "none"} | values
        return (client or self.member).request("POST", "/compute/v2.1/servers", json={"server": body}, headers=headers)

    def made(self, **values: Any) -> str:
        """The id of a new server."""
        found = self.create(**values)
        assert found.status == 202, found
        return str(found.json["server"]["id"])

    def show(self, server_id: str, client: Client | None = None, version: str = "2.104") -> dict[str, Any]:
        found = (client or self.admin).request("GET", f"/compute/v2.1/servers/{server_id}", headers=at(version))
        assert found.status == 200, found
        server: dict[str, Any] = found.json["server"]
        return server

    def status(self, server_id: str) -> str:
        """The server's status; `gone` when there is no such server any more."""
        found = self.admin.request("GET", f"/compute/v2.1/servers/{server_id}")
        return "gone" if found.status == 404 else str(found.json["server"]["status"])

    def reach(self, server_id: str, status: str) -> dict[str, Any]:
        """Wait for a status; the server then."""
        self.wait(lambda: self.status(server_id) == status)
        return {} if status == "gone" else self.show(server_id)

    def act(self, server_id: str, name: str, body: Any = None, client: Client | None = None) -> Response:
        """POST …/action."""
        path = f"/compute/v2.1/servers/{server_id}/action"
        return (client or self.member).request("POST", path, json={name: body}, headers=NEWEST)
