"""The last one of anything is given once: two control planes on one PostgreSQL, sixteen clients, a thousand rounds.

In each round all clients ask at the same moment, half of them each control plane, for the last address of a subnet, the
last unit of a quota, or the last place on a host.  One gets it; then it is given back.
"""

from __future__ import annotations

import http.client
import os
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.race.pair import CLIENTS, Answer, Control, Pair, pair

ADDRESS_ROUNDS = 250
QUOTA_ROUNDS = 350
PLACE_ROUNDS = 385
SERVER_ROUNDS = 15

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("PILEUS_TEST_DATABASE" not in os.environ, reason="a race of processes needs PostgreSQL"),
]


@pytest.fixture(scope="module")
def race(databases: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with pair(databases, tmp_path_factory.mktemp("race")) as found:
        yield found


def winners(answers: list[Answer], lost: set[int]) -> list[Answer]:
    """Those who got it; everybody else must have been told so in one of the ways of losing."""
    won = [answer for answer in answers if answer[0] < 300]
    others = {answer[0] for answer in answers if answer[0] >= 300}
    assert others <= lost, answers
    return won


def test_the_last_address(race: Pair) -> None:
    network = race.one("POST", "/network/v2.0/networks", {"network": {"name": "one"}})["network"]["id"]
    pool = [{"start": "10.9.0.5", "end": "10.9.0.5"}]
    subnet = {"network_id": network, "ip_version": 4, "cidr": "10.9.0.0/24", "enable_dhcp": False}
    race.one("POST", "/network/v2.0/subnets", {"subnet": {**subnet, "allocation_pools": pool}})
    port = {"port": {"network_id": network}}
    for _ in range(ADDRESS_ROUNDS):
        won = winners(race.all(lambda control, _: control.call("POST", "/network/v2.0/ports", port)), {409})
        assert len(won) == 1
        assert won[0][1]["port"]["fixed_ips"][0]["ip_address"] == "10.9.0.5"
        race.one("DELETE", f"/network/v2.0/ports/{won[0][1]['port']['id']}")


def test_the_last_unit_of_a_quota(race: Pair) -> None:
    race.one("GET", "/network/v2.0/security-groups")  # from now on the project has its group `default`
    used = race.one("GET", f"/network/v2.0/quotas/{race.project}/details.json")["quota"]["security_group"]["used"]
    limit = {"quota": {"security_group": used + 1}}
    race.one("PUT", f"/network/v2.0/quotas/{race.project}", limit)
    group = {"security_group": {"name": "last"}}
    for _ in range(QUOTA_ROUNDS):
        won = winners(race.all(lambda control, _: control.call("POST", "/network/v2.0/security-groups", group)), {409})
        assert len(won) == 1
        race.one("DELETE", f"/network/v2.0/security-groups/{won[0][1]['security_group']['id']}")


def test_the_last_place_of_a_provider(race: Pair) -> None:
    provider = str(uuid.uuid4())
    race.one("POST", "/placement/resource_providers", {"name": "one place", "uuid": provider})
    inventory = {"resource_provider_generation": 0, "inventories": {"CUSTOM_PLACE": {"total": 1}}}
    race.one("PUT", "/placement/resource_classes/CUSTOM_PLACE")
    race.one("PUT", f"/placement/resource_providers/{provider}/inventories", inventory)
    for _ in range(PLACE_ROUNDS):
        consumers = [str(uuid.uuid4()) for _ in range(CLIENTS)]
        body = {
            "allocations": {provider: {"resources": {"CUSTOM_PLACE": 1}}},
            "project_id": race.project,
            "user_id": race.project,
            "consumer_generation": None,
            "consumer_type": "INSTANCE",
        }

        def ask(control: Control, number: int, names: list[str] = consumers, body: Any = body) -> Answer:
            return control.call("PUT", f"/placement/allocations/{names[number]}", body)

        answers = race.all(ask)
        assert len(winners(answers, {409})) == 1
        winner = next(number for number, answer in enumerate(answers) if answer[0] < 300)
        race.one("DELETE", f"/placement/allocations/{consumers[winner]}")


def test_the_last_place_on_a_host(race: Pair) -> None:
    host = race.host()
    memory = host.get("memory_mb") or next(
        one["inventories"]["MEMORY_MB"]["total"]
        for one in [race.one("GET", f"/placement/resource_providers/{host['id']}/inventories")]
    )
    wide = {"instances": -1, "cores": -1, "ram": -1}
    race.one("PUT", f"/compute/v2.1/os-quota-sets/{race.project}", {"quota_set": wide})
    flavor = {"name": "whole", "vcpus": 1, "ram": int(memory * 0.6), "disk": 0}
    flavor_id = race.one("POST", "/compute/v2.1/flavors", {"flavor": flavor})["flavor"]["id"]
    image = race.one("POST", "/image/v2/images", {"name": "i", "disk_format": "raw", "container_format": "bare"})["id"]
    connection = http.client.HTTPConnection("127.0.0.1", race.controls[0].port, timeout=30)
    headers = {"x-auth-token": race.controls[0].token, "content-type": "application/octet-stream"}
    connection.request("PUT", f"/image/v2/images/{image}/file", bytes(1024), headers)
    assert connection.getresponse().status == 204
    server = {"server": {"name": "s", "flavorRef": flavor_id, "imageRef": image, "networks": "none"}}
    for number in range(SERVER_ROUNDS):
        made = race.all(lambda control, _: control.call("POST", "/compute/v2.1/servers", server))
        assert {status for status, _ in made} == {202}, made
        deadline = time.monotonic() + 30
        while True:
            rows = race.one("GET", "/compute/v2.1/servers/detail")["servers"]
            states = [row["status"] for row in rows]
            if len(rows) == CLIENTS and set(states) <= {"ACTIVE", "ERROR"}:
                break
            assert time.monotonic() < deadline, f"round {number}: {len(rows)} servers, {Counter(states)}"
            time.sleep(0.05)
        assert states.count("ACTIVE") == 1
        for row in rows:
            race.one("DELETE", f"/compute/v2.1/servers/{row['id']}")
        deadline = time.monotonic() + 30
        while race.one("GET", "/compute/v2.1/servers")["servers"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
