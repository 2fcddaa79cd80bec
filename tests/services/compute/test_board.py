"""The copy of the hosts that the scheduler keeps is what the store holds, whatever was written by whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random

import pytest
import sqlalchemy as sa

from pileus.contracts.link import Heartbeat
from pileus.core.store import Tx
from pileus.services.compute.resources import board as module
from pileus.services.compute.resources.board import Board
from pileus.services.compute.resources.hypervisor import candidate
from pileus.services.compute.resources.server.table import server
from pileus.services.compute.rules import placing
from pileus.services.compute.rules.placing import Wish
from pileus.services.placement import interface as placement
from tests.api.compute_cloud import STOCK, Cloud, cloud, ok

HOSTS = tuple(f"h{number}" for number in range(5))
WISH = Wish(server_id="s", resources={"VCPU": 2, "MEMORY_MB": 1024, "DISK_GB": 10}, zone=None, host=None, forced=False)


@pytest.fixture(name="cloud")
def one_cloud(database_url: str) -> Iterator[Cloud]:
    with cloud(database_url) as made:
        yield made


def look(cloud: Cloud, board: Board) -> Mapping[str, placing.Host]:
    """The hosts as a board shows them."""
    return cloud.served.store.read_here(lambda tx: board.look(cloud.served.store, tx)).hosts.copy()


class Walk:
    """Writes by chance."""

    def __init__(self, cloud: Cloud, random: Random) -> None:
        self.cloud, self.random = cloud, random
        self.hosts = {name: cloud.add_host(name) for name in HOSTS[:4]}
        self.servers: list[str] = []
        self.aggregates = [
            ok(cloud.ask("POST", "/os-aggregates", {"aggregate": {"name": zone, "availability_zone": zone}}))
            for zone in ("east", "west")
        ]
        self.done: set[str] = set()

    def step(self) -> None:
        acts = (self.offer, self.switch, self.join, self.leave, self.zone, self.claim, self.release, self.end, self.age)
        act = self.random.choice(acts)
        if act(self.random.choice(HOSTS)):
            self.done.add(act.__name__)

    def offer(self, name: str) -> bool:
        if name not in self.hosts:
            self.hosts[name] = self.cloud.add_host(name)
        stock = STOCK | {"VCPU": placement.Inventory(total=self.random.randint(20, 30), allocation_ratio=4.0)}
        return self.cloud.served.store.write_here(lambda tx: placement.set_inventory(tx, self.hosts[name], stock))

    def service(self, name: str) -> str:
        found = ok(self.cloud.ask("GET", f"/os-services?host={name}&binary=nova-compute"))["services"]
        return str(found[0]["id"]) if found else "none"

    def switch(self, name: str) -> bool:
        body = self.random.choice(({"status": "disabled"}, {"status": "enabled"}, {"forced_down": True}))
        return self.cloud.ask("PUT", f"/os-services/{self.service(name)}", body).status == 200

    def act(self, body: object) -> bool:
        number = self.random.choice(self.aggregates)["aggregate"]["id"]
        return self.cloud.ask("POST", f"/os-aggregates/{number}/action", body).status == 200

    def join(self, name: str) -> bool:
        return self.act({"add_host": {"host": name}})

    def leave(self, name: str) -> bool:
        return self.act({"remove_host": {"host": name}})

    def zone(self, name: str) -> bool:
        return self.act({"set_metadata": {"metadata": {"availability_zone": self.random.choice(("east", "north"))}}})

    def claim(self, name: str) -> bool:
        if name in self.hosts:
            self.servers.append(self.cloud.add_server(self.hosts[name], name))
        return name in self.hosts

    def release(self, name: str) -> bool:
        if not self.servers:
            return False
        gone = self.servers.pop(self.random.randrange(len(self.servers)))

        def work(tx: Tx) -> None:
            placement.release(tx, gone)
            tx.execute(sa.delete(server).where(server.c.id == gone))

        self.cloud.served.store.write_here(work)
        return True

    def end(self, name: str) -> bool:
        gone = self.cloud.ask("DELETE", f"/os-services/{self.service(name)}").status == 204
        if gone:
            del self.hosts[name]
        return gone

    def age(self, name: str) -> bool:
        """Time goes by, and only one host is heard meanwhile."""
        self.cloud.clock.advance(self.random.choice((1, 40)))
        if name in self.hosts:
            self.cloud.fleet.beat(self.hosts[name], Heartbeat(free_disk_gib=1))
        return True


@pytest.mark.parametrize("seed", range(4))
def test_a_board_that_is_kept_is_as_a_new_one(cloud: Cloud, seed: int) -> None:
    random = Random(seed)
    walk, board = Walk(cloud, random), Board(cloud.fleet)
    for _ in range(120):
        walk.step()
        if random.random() < 0.6:
            assert look(cloud, board) == look(cloud, Board(cloud.fleet))
        if random.random() < 0.3:  # what is promised and does not come about is forgotten
            board.ranks.decide_all([WISH])
    assert len(walk.done) == 9


def test_a_look_that_failed_is_made_up_for(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(cloud.fleet)
    cloud.add_host("h0")
    assert len(look(cloud, board)) == 1
    cloud.add_host("h1")
    with monkeypatch.context() as patch:
        patch.setattr(module, "candidate", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            look(cloud, board)
    assert {host.name for host in look(cloud, board).values()} == {"h0", "h1"}


def test_only_hosts_that_changed_are_made_anew(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    if not cloud.served.store.embedded:
        pytest.skip("on a server another database's transaction may hold the log's cursor back: more is read then")
    ids = [cloud.add_host(name) for name in HOSTS]
    board, made = Board(cloud.fleet), []
    look(cloud, board)

    def noted(*source: object) -> object:
        made.append(source[0])
        return candidate(*source)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "candidate", noted)
    cloud.add_server(ids[3], HOSTS[3])
    look(cloud, board)
    assert [host.name for host in made] == [HOSTS[3]]  # type: ignore[attr-defined]
    look(cloud, board)
    assert len(made) == 1
