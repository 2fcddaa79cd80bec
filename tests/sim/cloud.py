"""A whole cloud in one thread, step by step: real services, loops, edges and agents over drivers that are simulated.

The clock is moved by hand, ids and chance come from the seed, and each step of a loop, of an agent or of a request
may fail, or end its process, before or after it did what it does.  A new life of the control plane begins with what
is in the store, and of an agent with what is on its host: as after SIGKILL.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa

from pileus.app.control_plane import Control
from pileus.app.service import declare_tables
from pileus.contracts.hypervisor import HypervisorFacts
from pileus.core import changes
from pileus.core.config import Config
from pileus.core.context import Auth
from pileus.core.http import Edge
from pileus.core.reconcile import DONE, Again, Broken, Controller, Failed
from pileus.core.seams import ManualClock, Seams
from pileus.core.store import Change, Store, Tx, Work
from pileus.services.fleet import interface as fleet
from pileus.services.fleet.resources import link as fleet_link
from pileus.services.image.resources.image.table import image as image_table
from tests.api.edge import named_caller
from tests.services.compute.cloud import IMAGE, NEWEST, PROJECT, image_row
from tests.sim.chance import Chance, Death
from tests.sim.host import SimulatedHost, ask

T = TypeVar("T")

HOST = HypervisorFacts(
    type="QEMU", version=7_002_000, accelerator="fake", vcpus=4, memory_mib=8192, disk_gib=200, cpu_model="simulated"
)
"""A small host, so that there is sometimes no room."""

FLAVORS = {"1": (512, 1, 1), "2": (1024, 2, 2), "3": (4096, 3, 5)}
"""Memory in MiB, processors and disk in GiB, by id."""


class FaultyStore(Store):
    """A store whose transactions end the process before or after they are committed."""

    def __init__(self, url: str, seams: Seams, chance: Chance) -> None:
        super().__init__(url, seams)
        # What dies here is a process and never the machine, so that nothing need reach the disk.
        sa.event.listen(self.engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous=OFF"))
        self.chance = chance
        self.dead = False

    async def write(self, work: Work[T]) -> T:
        if self.dead:
            raise Death
        fate = self.chance.at("store")
        if fate == "dies before":
            self.dead = True
            raise Death
        done = await super().write(work)
        if fate == "dies after":
            self.dead = True
            raise Death
        return done


class Life:
    """One life of the control plane: what is in its memory."""

    def __init__(self, config: Config, store: FaultyStore) -> None:
        self.store = store
        store.write_here(fleet.begin)
        self.control = Control(config, store)
        self.edge = Edge(
            self.control.public, store, self.control.policy, named_caller, self.control.provided, public_url=None
        )
        self.link = Edge([self.control.link], store, self.control.policy, _host, self.control.provided)
        self.controllers: dict[str, Controller] = {one.name: one for one in self.control.controllers}
        self.signalled: dict[str, dict[str, None]] = {name: {} for name in self.controllers}
        self.due: dict[tuple[str, str], float] = {}
        self.broken: dict[tuple[str, str], str] = {}

    def signal(self, found: Sequence[Change]) -> None:
        """What a commit says."""
        for one in found:
            for name, controller in self.controllers.items():
                if one.topic in controller.topics:
                    self.signalled[name][one.key] = None


class Cloud:
    """The control plane and its hosts."""

    def __init__(self, template: Path, directory: Path, seed: int, hosts: int = 2, **settings: Any) -> None:
        directory.mkdir()
        self.chance = Chance(seed)
        self.clock = ManualClock()
        shutil.copytree(template / "control", directory / "control")
        source, target = sqlite3.connect(template / "pileus.sqlite"), sqlite3.connect(directory / "pileus.sqlite")
        source.backup(target)
        source.close()
        target.close()
        self.config = Config(state=directory, database=f"sqlite:///{directory / 'pileus.sqlite'}", **settings)
        self.store = FaultyStore(self.config.database_url, Seams(self.clock, seed), self.chance)
        self.deaths = 0
        self.life = self._begin()
        self.hosts = [
            SimulatedHost(f"host-{number}", directory, self.clock, self.chance, HOST, self._reach)
            for number in range(1, hosts + 1)
        ]

    def close(self) -> None:
        """End it all."""
        for host in self.hosts:
            host.hypervisor.close()
        self.store.close()

    def _begin(self) -> Life:
        self.store.dead = False
        self.store.observers.clear()
        life = Life(self.config, self.store)
        life.control.fleet.attach(self.store)
        self.store.observers.append(life.signal)
        return life

    def _reach(self) -> Edge | None:
        """Whom agents reach."""
        return None if self.store.dead else self.life.link

    def reborn(self) -> None:
        """Let the control plane come back if it died."""
        if self.store.dead:
            self.deaths += 1
            self.life = self._begin()
            for host in self.hosts:
                host.agent._obeying.clear()

    # -- its steps -----------------------------------------------------------------------------------------------

    async def request(self, method: str, path: str, body: Any = None, who: str = f"admin:{PROJECT}") -> tuple[int, Any]:
        """A request of a user; status 0 when the control plane died before it answered."""
        data = b"" if body is None else msgspec.json.encode(body)
        headers = {"x-auth-token": who, "content-type": "application/json", **NEWEST}
        status, answer = await ask(self.life.edge, method, path, data, headers)
        if self.store.dead:
            status = 0
        self.reborn()
        return status, msgspec.json.decode(answer) if status and answer else None

    async def loop(self, name: str, *, listing: bool) -> None:
        """A turn of one control loop: what was signalled, what is due, and with `listing` what its timer names."""
        life, controller = self.life, self.life.controllers[name]
        now = self.clock.monotonic()
        due = [key for (one, key), at in life.due.items() if one == name and at <= now]
        keys = {**life.signalled[name], **dict.fromkeys(due)}
        life.signalled[name] = {}
        if listing:
            keys |= dict.fromkeys(self.store.read_here(lambda tx: list(controller.keys(tx))))
        waiting = list(keys)
        while waiting and not self.store.dead:
            batch, waiting = waiting[: controller.batch], waiting[controller.batch :]
            fate = self.chance.at(f"loop {name}")
            try:
                if fate == "dies before":
                    raise Death
                outcomes = {} if fate == "fails before" else dict(await controller.reconcile(self.store, batch))
                if fate == "dies after":
                    raise Death
                if fate == "fails after":  # the same once more: whoever asked was not told that it is done
                    outcomes = dict(await controller.reconcile(self.store, batch))
            except Death:
                self.store.dead = True
                break
            for key in batch:
                outcome = Failed() if fate == "fails before" else outcomes.get(key, DONE)
                life.due.pop((name, key), None)
                if isinstance(outcome, Again):
                    life.due[name, key] = now + max(outcome.after, 0.1)
                if isinstance(outcome, Broken):
                    life.broken[name, key] = outcome.why
        self.reborn()

    async def loops(self, *, listing: bool) -> None:
        """A turn of each."""
        for name in list(self.life.controllers):
            await self.loop(name, listing=listing)

    async def host(self, host: SimulatedHost) -> None:
        """Everything that an agent does, once."""
        await host.turn()
        self.reborn()

    async def round(self) -> None:
        """A second in which everything gets its turn."""
        self.clock.advance(1.0)
        await self.loops(listing=True)
        for host in self.hosts:
            await self.host(host)
        await self.loops(listing=False)

    def position(self) -> changes.Cursor:
        """How far the change log has come."""
        return self.store.read_here(changes.head)

    async def settle(self, rounds: int = 150) -> bool:
        """Without any trouble, give everything its turn until nothing moves; whether that came about."""
        self.chance.storm = False
        still = 0
        for _ in range(rounds):
            before = self.position()
            await self.round()
            quiet = self.position() == before and all(host.agent.quiet for host in self.hosts)
            waiting = any(key[0] == "compute.scheduler" for key in self.life.due)
            still = still + 1 if quiet and not waiting else 0
            if still == 3:
                return True
        return False


def _host(tx: Tx, token: str, headers: Any) -> Auth:
    return Auth(user_id=token, roles=frozenset({"host"}))


async def make_template(directory: Path) -> None:
    """What each simulated cloud begins with: tables, keys, flavors, an image, an external network."""
    fleet_link.WAIT = fleet_link.LONGEST = 0.0
    (directory / "control").mkdir(parents=True)
    declare_tables()
    config = Config(state=directory, database=f"sqlite:///{directory / 'pileus.sqlite'}")
    store = FaultyStore(config.database_url, Seams(ManualClock(), 0), Chance(0))
    store.create()
    life = Life(config, store)
    store.write_here(lambda tx: tx.execute(image_table.insert().values(image_row(IMAGE))).rowcount)

    async def post(path: str, body: Any) -> Any:
        data = msgspec.json.encode(body)
        headers = {"x-auth-token": f"admin:{PROJECT}", "content-type": "application/json", **NEWEST}
        status, answer = await ask(life.edge, "POST", path, data, headers)
        assert status < 300, (path, status, answer)
        return msgspec.json.decode(answer)

    for flavor_id, (ram, vcpus, disk) in FLAVORS.items():
        flavor = {"id": flavor_id, "name": f"f{flavor_id}", "ram": ram, "vcpus": vcpus, "disk": disk}
        await post("/compute/v2.1/flavors", {"flavor": flavor})
    public = {"name": "public", "router:external": True}
    made = await post("/network/v2.0/networks", {"network": public})
    subnet = {"network_id": made["network"]["id"], "cidr": "172.24.4.0/24", "ip_version": 4, "enable_dhcp": False}
    await post("/network/v2.0/subnets", {"subnet": subnet})
    store.close()
