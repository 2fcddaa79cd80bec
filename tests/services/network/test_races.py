"""Two control processes at once: nothing is given twice, and nobody is refused what is still there."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any

import pytest

from pileus.services.network import interface
from tests.api.edge import Response
from tests.services.network.cloud import Cloud
from tests.services.network.test_loops import boot

ROUNDS = 8
CLIENTS = 16


class Race:
    """Two clouds on one database, as two processes have it."""

    def __init__(self, url: str, *, loops: bool = False) -> None:
        self.clouds = [Cloud(url, loops=loops).__enter__(), Cloud(url, loops=loops).__enter__()]

    @property
    def one(self) -> Cloud:
        return self.clouds[0]

    def run(self, ask: Callable[[Cloud, int], Future[Response]], clients: int = CLIENTS) -> list[Response]:
        """The answers to requests that were sent at once, by turns to each process."""
        return [one.result(60) for one in [ask(self.clouds[number % 2], number) for number in range(clients)]]


@pytest.fixture
def race(database_url: str) -> Iterator[Race]:
    race = Race(database_url)
    yield race
    for cloud in race.clouds:
        cloud.__exit__()


def post(cloud: Cloud, path: str, **values: Any) -> Future[Response]:
    return cloud.member.submit("POST", f"/network/v2.0{path}", values)


def outcome(answers: list[Response]) -> Counter[str]:
    return Counter(
        "201" if one.status == 201 else f"{one.status} {one.json['NeutronError']['type']}" for one in answers
    )


def test_the_last_addresses(race: Race) -> None:
    net = race.one.make("network")
    free = 5
    race.one.make(
        "subnet",
        network_id=net["id"],
        cidr="10.0.0.0/24",
        enable_dhcp=False,
        allocation_pools=[{"start": "10.0.0.10", "end": f"10.0.0.{9 + free}"}],
    )
    for _ in range(ROUNDS):
        answers = race.run(lambda cloud, number: post(cloud, "/ports", port={"network_id": net["id"]}))
        assert outcome(answers) == {"201": free, "409 IpAddressGenerationFailure": CLIENTS - free}
        made = [one.json["port"] for one in answers if one.status == 201]
        assert {one["fixed_ips"][0]["ip_address"] for one in made} == {f"10.0.0.{10 + one}" for one in range(free)}
        for one in made:
            assert race.one.ask("DELETE", f"/ports/{one['id']}").status == 204
    assert race.one.get("/quotas/p1/details")["quota"]["port"]["used"] == 0


def test_one_address(race: Race) -> None:
    net, _ = race.one.net()
    wanted = {"network_id": net["id"], "fixed_ips": [{"ip_address": "10.0.0.77"}]}
    for _ in range(ROUNDS):
        answers = race.run(lambda cloud, number: post(cloud, "/ports", port=wanted))
        assert outcome(answers) == {"201": 1, "409 IpAddressInUse": CLIENTS - 1}
        [made] = [one.json["port"]["id"] for one in answers if one.status == 201]
        assert race.one.ask("DELETE", f"/ports/{made}").status == 204


def test_the_last_unit_of_quota(race: Race) -> None:
    assert race.one.ask("PUT", "/quotas/p1", {"quota": {"network": 3}}, by=race.one.admin).status == 200
    for _ in range(ROUNDS):
        answers = race.run(lambda cloud, number: post(cloud, "/networks", network={"name": str(number)}))
        assert outcome(answers) == {"201": 3, "409 OverQuota": CLIENTS - 3}
        for one in answers:
            if one.status == 201:
                assert race.one.ask("DELETE", f"/networks/{one.json['network']['id']}").status == 204


def test_subnets_that_would_overlap(race: Race) -> None:
    for _ in range(ROUNDS):
        net = race.one.make("network")

        def ask(cloud: Cloud, number: int, network_id: str = net["id"]) -> Future[Response]:
            return post(cloud, "/subnets", subnet={"network_id": network_id, "cidr": f"10.0.{number}.0/16"})

        assert outcome(race.run(ask, 4))["201"] == 1
        assert len(race.one.get(f"/subnets?network_id={net['id']}")["subnets"]) == 1
        assert len(race.one.get(f"/ports?network_id={net['id']}")["ports"]) == 1


def test_one_default_group(race: Race) -> None:
    for number in range(ROUNDS):
        clients = [cloud.served.client(f"member:fresh{number}") for cloud in race.clouds]
        waiting = [clients[one % 2].submit("GET", "/network/v2.0/security-groups") for one in range(4)]
        assert {one.result(60).status for one in waiting} == {200}
        assert len(race.one.get("/security-groups", by=clients[0])["security_groups"]) == 1


def test_a_port_on_a_network_that_goes(race: Race) -> None:
    for _ in range(ROUNDS):
        net, _ = race.one.net()

        def ask(cloud: Cloud, number: int, network_id: str = net["id"]) -> Future[Response]:
            if number == 1:
                return cloud.member.submit("DELETE", f"/network/v2.0/networks/{network_id}")
            return post(cloud, "/ports", port={"network_id": network_id})

        first, gone = race.run(ask, 2)
        if gone.status == 204:
            assert first.status in (404, 409, 201), first
            assert race.one.get(f"/ports?network_id={net['id']}")["ports"] == []
        else:
            assert (first.status, gone.status) == (201, 409)
            assert len(race.one.get(f"/ports?network_id={net['id']}")["ports"]) == 2


def test_one_leg_in_a_subnet(race: Race) -> None:
    for _ in range(ROUNDS):
        _, subnet = race.one.net()
        body = {"subnet_id": subnet["id"]}
        paths = [f"/routers/{race.one.make('router')['id']}" for _ in range(4)]

        def ask(cloud: Cloud, number: int, paths: list[str] = paths, body: Any = body) -> Future[Response]:
            return cloud.member.submit("PUT", f"/network/v2.0{paths[number]}/add_router_interface", body)

        answers = race.run(ask, 4)
        assert sorted(one.status for one in answers) == [200, 409, 409, 409]
        for path, answer in zip(paths, answers, strict=True):
            if answer.status == 200:
                assert race.one.ask("PUT", f"{path}/remove_router_interface", body).status == 200
            assert race.one.ask("DELETE", path).status == 204


def holds(cloud: Cloud, host_id: str, wanted: set[tuple[str, str]]) -> bool:
    return cloud.everything(host_id) == wanted


def knows(cloud: Cloud, host_id: str, group_id: str, members: set[str]) -> bool:
    return set(cloud.held(host_id, "security_group")[group_id].members) == members


@pytest.mark.parametrize("seed", [1, 2])
def test_loops_of_two_processes_come_to_one_end(database_url: str, seed: int) -> None:
    chance, race = random.Random(seed), Race(database_url, loops=True)
    try:
        hosts = [race.one.host("one"), race.one.host("two")]
        nets = [race.one.net(f"10.{number}.0.0/24")[0] for number in range(2)]
        place: dict[str, tuple[str, str, str]] = {}
        for step in range(60):
            cloud = race.clouds[step % 2]
            if place and chance.random() < 0.5:
                device = chance.choice(sorted(place))
                network_id, port_id, _ = place.pop(device)
                if chance.random() < 0.3:
                    host_id = chance.choice(hosts)
                    cloud.write(partial(interface.bind_ports, device_ids=[device], host_id=host_id))
                    place[device] = (network_id, port_id, host_id)
                else:
                    cloud.write(partial(interface.release_ports, device_ids=[device]))
                continue
            net, host_id = chance.choice(nets), chance.choice(hosts)
            place[f"s{step}"] = (net["id"], boot(cloud, f"s{step}", net, host_id), host_id)
        default = race.one.get("/security-groups")["security_groups"][0]["id"]
        for host_id in hosts:
            here = [one for one in place.values() if one[2] == host_id]
            wanted = {("port", one[1]) for one in here} | {("network", one[0]) for one in here}
            wanted |= {("security_group", default)} if here else set()
            race.one.wait(partial(holds, race.one, host_id, wanted), 20)
        ports = race.one.get("/ports?device_owner=compute:nova")["ports"]
        members = {each["ip_address"] for one in ports for each in one["fixed_ips"]}
        for host_id in {one[2] for one in place.values()}:
            race.one.wait(partial(knows, race.one, host_id, default, members), 20)
    finally:
        for cloud in race.clouds:
            cloud.__exit__()
