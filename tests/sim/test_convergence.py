"""Whatever happens in whatever order, a host ends with exactly what it is assigned.

`PILEUS_SEED` plays one seed more.  The seed decides what is done and when; how long it takes is the machine's.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pileus.contracts.hypervisor import GuestSpec
from pileus.contracts.link import KINDS
from pileus.contracts.network import NetworkSpec, NetworkState, PortSpec, RouterSpec, SecurityGroupSpec
from tests.agent.control import Control, Machine, play, until
from tests.agent.spec import KIND, group, guest, network, port, router

Object = NetworkSpec | PortSpec | SecurityGroupSpec | RouterSpec | GuestSpec

SEEDS = [1, 2, 3, 4, *([int(os.environ["PILEUS_SEED"])] if "PILEUS_SEED" in os.environ else [])]


def test_every_order_of_arrival_and_of_departure(database_url: str, tmp_path: Path) -> None:
    """All orders of five kinds, side by side on one host, each step in a transaction of its own."""

    async def one(control: Control, number: int, order: tuple[int, ...]) -> None:
        net, grp, prt, gst, rtr = (f"{letter}{number}" for letter in "nspgr")
        specs: list[Object] = [
            group(grp),
            network(net),
            port(prt, net, grp, guest_id=gst),
            router(rtr, net),
            guest(gst, prt),
        ]
        for place in order:
            control.assign(specs[place])
            await asyncio.sleep(0.005)
        await until(
            lambda: all(control.state(f"{KIND[type(spec)]}/{spec.id}") in ("ready", "running") for spec in specs),
            lambda: f"order {order}: {[control.state(f'{KIND[type(spec)]}/{spec.id}') for spec in specs]}",
            120,
        )
        for place in reversed(order):
            control.tombstone(f"{KIND[type(specs[place])]}/{specs[place].id}")
            await asyncio.sleep(0.005)

    async def scenario(control: Control, machine: Machine) -> None:
        orders = list(itertools.permutations(range(5)))  # a snapshot needs all of them, and has tests of its own
        for start in range(0, len(orders), 30):
            await asyncio.gather(
                *(one(control, start + place, o) for place, o in enumerate(orders[start : start + 30]))
            )
        await control.empties()
        assert machine.left() == []

    play(scenario, database_url, tmp_path)


class Play:
    """A control plane that wants one thing after another of two hosts, while parts of the cloud die.

    It keeps the control plane's rules: a network stays while a port or a router needs it, a group while a port has it.
    """

    def __init__(self, seed: int, control: Control, machines: tuple[Machine, ...]) -> None:
        self.random = random.Random(seed)
        self.control = control
        self.machines = machines
        self.wanted: dict[str, dict[str, Object]] = {machine.name: {} for machine in machines}
        self.gone: dict[str, list[list[Object]]] = {machine.name: [] for machine in machines}
        self.off: set[str] = set()
        """Guests that turned themselves off, perhaps."""
        self.number = 0
        self.told: list[str] = []

    # -- what may happen ---------------------------------------------------------------------------------------------

    async def step(self) -> None:
        """One thing, then a moment."""
        moves: list[tuple[int, Callable[[Machine], Coroutine[Any, Any, None]]]] = [
            (8, self.create),
            (4, self.change),
            (5, self.remove),
            (2, self.revive),
            (2, self.regroup),
            (2, self.route),
            (2, self.sweep),
            (3, self.happen),
            (2, self.reboot),
            (2, self.cut),
            (1, self.restart),
            (2, self.deafen),
        ]
        (move,) = self.random.choices([move for _, move in moves], [weight for weight, _ in moves])
        machine = self.random.choice(self.machines)
        self.told.append(f"{move.__name__} {machine.name}")
        await move(machine)
        await asyncio.sleep(self.random.choice([0, 0, 0.002, 0.02]))

    def assign(self, machine: Machine, *specs: Object) -> None:
        """In one transaction or in several, in any order."""
        shuffled = self.random.sample(specs, len(specs))
        for spec in specs:
            self.wanted[machine.name][f"{KIND[type(spec)]}/{spec.id}"] = spec
        if self.random.random() < 0.5:
            self.control.assign(*shuffled, host=machine.name)
        else:
            for spec in shuffled:
                self.control.assign(spec, host=machine.name)

    def release(self, machine: Machine, *keys: str) -> None:
        """Away with them, from this host."""
        keys = tuple(self.random.sample(keys, len(keys)))
        for key in keys:
            del self.wanted[machine.name][key]
        self.control.tombstone(*keys, host=machine.name)

    def some(self, machine: Machine, kind: str) -> Any:
        found = [spec for key, spec in self.wanted[machine.name].items() if key.startswith(f"{kind}/")]
        return self.random.choice(found) if found else None

    def fabric(self, machine: Machine, specs: list[Object]) -> list[Object]:
        """The networks and groups that these ports need and the host does not have."""
        wanted = self.wanted[machine.name]
        needed: dict[str, Object] = {}
        for spec in specs:
            if isinstance(spec, PortSpec):
                needed[f"network/{spec.network_id}"] = network(spec.network_id)
                needed |= {f"security_group/{one}": group(one) for one in spec.security_groups}
        return [spec for key, spec in needed.items() if key not in wanted]

    async def create(self, machine: Machine) -> None:
        self.number += 1
        name = f"g{self.number}"
        ports = [
            port(
                f"p{self.number}-{place}",
                self.random.choice(["n1", "n2", "n3"]),
                *self.random.sample(["s1", "s2"], self.random.randint(0, 2)),
                guest_id=self.random.choice([None, name]),
            )
            for place in range(self.random.randint(0, 2))
        ]
        specs: list[Object] = [*ports, guest(name, *(one.id for one in ports))]
        self.assign(machine, *self.fabric(machine, specs), *specs)

    async def change(self, machine: Machine) -> None:
        if (found := self.some(machine, "guest")) is None:
            return
        changes: dict[str, Any] = self.random.choice(
            [
                {"power": self.random.choice(["running", "stopped", "paused", "suspended"])},
                {"reboot_nonce": found.reboot_nonce + 1, "power": "running"},
                {"memory_mib": found.memory_mib + 1},
                {"acts": {"nmi": found.acts.get("nmi", 0) + 1}},
            ]
        )
        self.assign(machine, msgspec.structs.replace(found, **changes))

    async def remove(self, machine: Machine) -> None:
        if (found := self.some(machine, "guest")) is None:
            return
        wanted = self.wanted[machine.name]
        keys = [f"guest/{found.id}", *(f"port/{nic.port_id}" for nic in found.nics)]
        self.gone[machine.name].append([wanted[key] for key in keys])
        self.release(machine, *keys)

    async def revive(self, machine: Machine) -> None:
        """A guest comes back by its old name, perhaps before it was gone."""
        if self.gone[machine.name]:
            specs = self.gone[machine.name].pop()
            self.assign(machine, *self.fabric(machine, specs), *specs)

    async def regroup(self, machine: Machine) -> None:
        if (found := self.some(machine, "security_group")) is not None:
            self.assign(machine, group(found.id, f"10.{self.random.randint(0, 255)}.0.0/16"))

    async def route(self, machine: Machine) -> None:
        """A router comes, changes or goes."""
        networks = [key.partition("/")[2] for key in self.wanted[machine.name] if key.startswith("network/")]
        key = f"router/{machine.name}"
        if key in self.wanted[machine.name] and self.random.random() < 0.4:
            self.release(machine, key)
        elif networks:
            self.assign(
                machine, router(machine.name, *self.random.sample(networks, self.random.randint(1, len(networks))))
            )

    async def sweep(self, machine: Machine) -> None:
        """Networks and groups that nothing needs go."""
        wanted, used = self.wanted[machine.name], set[str]()
        for spec in wanted.values():
            if isinstance(spec, PortSpec):
                used |= {f"network/{spec.network_id}", *(f"security_group/{one}" for one in spec.security_groups)}
            if isinstance(spec, RouterSpec):
                used |= {f"network/{leg.network_id}" for leg in spec.interfaces}
        idle = [key for key in wanted if key.startswith(("network/", "security_group/")) and key not in used]
        if idle:
            self.release(machine, *idle)

    async def happen(self, machine: Machine) -> None:
        """A guest's process dies, or the guest turns itself off."""
        if (found := self.some(machine, "guest")) is None:
            return
        if self.random.random() < 0.5:
            machine.hypervisor.crash(found.id)
        else:
            self.off.add(found.id)
            machine.hypervisor.power_off(found.id)

    async def reboot(self, machine: Machine) -> None:
        """The agent is killed, and stays away for a while."""
        await machine.kill()
        await asyncio.sleep(self.random.choice([0, 0.01]))
        machine.boot()

    async def cut(self, machine: Machine) -> None:
        self.control.cut()

    async def restart(self, machine: Machine) -> None:
        await self.control.stop()
        await asyncio.sleep(self.random.choice([0, 0.02]))
        await self.control.start()

    async def deafen(self, machine: Machine) -> None:
        """Messages are lost on their way there, or their answers on the way back, for a while."""
        bound = self.random.choice(["/report", "/watch", "/hello", "/"])
        way = self.random.choice(["lost", "unanswered"])
        setattr(machine.link, way, lambda path: path.startswith(bound))
        await asyncio.sleep(0.03)
        setattr(machine.link, way, lambda path: False)

    # -- what must hold in the end -----------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Nothing more happens; wait until all is as it is wanted, and see that it is."""
        await until(lambda: not self.complaints(), lambda: "\n".join(self.complaints()), 30)

    def complaints(self) -> list[str]:
        """What is not as it should be."""
        rows = self.control.rows_by_host()
        found = []
        for machine in self.machines:
            wanted = self.wanted[machine.name]
            here = rows.get(machine.name, {})
            found += [f"{machine.name}: row {key}" for key in here.keys() ^ wanted.keys()]
            found += [f"{machine.name}: {key} is {row}" for key, row in here.items() if not _observed(row)]
            found += [f"{machine.name}: {what}" for what in self._differences(machine)]
        return found

    def _differences(self, machine: Machine) -> list[str]:
        kinds: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
        for key, spec in self.wanted[machine.name].items():
            kinds[key.partition("/")[0]][spec.id] = spec
        found = []
        states = {}
        for network_id, spec in kinds["network"].items():
            ports = tuple(one for _, one in sorted(kinds["port"].items()) if one.network_id == network_id)
            names = {name for one in ports for name in one.security_groups}
            groups = {name: kinds["security_group"][name] for name in names}
            states[network_id] = NetworkState(network=spec, ports=ports, groups=groups)
        if machine.network.networks != states:
            found.append(f"networks {machine.network.networks} and not {states}")
        if machine.network.routers != kinds["router"]:
            found.append(f"routers {machine.network.routers}")
        guests = machine.guests
        if set(guests) != set(kinds["guest"]) or set(machine.disks()) != set(guests):
            found.append(f"guests {sorted(guests)} and disks {machine.disks()}")
        for guest_id, spec in kinds["guest"].items():
            lawful = {spec.power, "shutdown"} if guest_id in self.off else {spec.power}
            if guests.get(guest_id) not in lawful:
                found.append(f"guest {guest_id} is {guests.get(guest_id)}")
        return found


def _observed(row: Any) -> bool:
    states = ("running", "stopped", "paused", "suspended", "shutdown") if row.kind == "guest" else ("ready",)
    return row.observed_generation == row.generation and row.state in states


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cloud_that_is_disturbed_ends_as_it_is_wanted(
    database_url: str, tmp_path: Path, seed: int, record_property: Callable[[str, object], None]
) -> None:
    print(f"PILEUS_SEED={seed}")
    record_property("seed", seed)

    async def scenario(control: Control, *machines: Machine) -> None:
        scene = Play(seed, control, machines)
        try:
            for _ in range(3):
                for _ in range(40):
                    await scene.step()
                await scene.settle()
            for machine in machines:
                scene.release(machine, *scene.wanted[machine.name])
            await control.empties()
            assert [machine.left() for machine in machines] == [[], []]
        except BaseException:
            print("\n".join(scene.told))
            raise

    play(scenario, database_url, tmp_path, hosts=2, failures=0.1, seed=seed)
