"""Host aggregates through the edge: their hosts, their metadata, and the rule that a host is in one zone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pileus.services.compute.resources.aggregate import zones
from pileus.services.placement import interface as placement
from tests.api.compute_cloud import Cloud, cloud, fault, ok
from tests.api.edge import Response


@pytest.fixture(name="cloud")
def one_cloud(database_url: str) -> Iterator[Cloud]:
    with cloud(database_url) as made:
        yield made


def make(cloud: Cloud, name: str, zone: str | None = None) -> int:
    body = {"name": name} if zone is None else {"name": name, "availability_zone": zone}
    return int(ok(cloud.ask("POST", "/os-aggregates", {"aggregate": body}))["aggregate"]["id"])


def act(cloud: Cloud, number: int | str, verb: str, body: dict[str, Any], **more: Any) -> Response:
    return cloud.ask("POST", f"/os-aggregates/{number}/action", {verb: body}, **more)


def add(cloud: Cloud, number: int | str, host: str) -> Response:
    return act(cloud, number, "add_host", {"host": host})


def remove(cloud: Cloud, number: int | str, host: str) -> Response:
    return act(cloud, number, "remove_host", {"host": host})


def describe(cloud: Cloud, number: int, values: dict[str, Any]) -> Response:
    return act(cloud, number, "set_metadata", {"metadata": values})


def show(cloud: Cloud, number: int, version: str = "2.104") -> dict[str, Any]:
    found: dict[str, Any] = ok(cloud.ask("GET", f"/os-aggregates/{number}", version=version))["aggregate"]
    return found


def zones_of(cloud: Cloud) -> dict[str, str]:
    return cloud.served.store.read_here(zones)


def provider_aggregates(cloud: Cloud, host_id: str) -> frozenset[str]:
    [found] = cloud.served.store.read_here(lambda tx: placement.snapshot(tx, [host_id]))
    return found.aggregates


def test_create_shows_neither_hosts_nor_metadata(cloud: Cloud) -> None:
    body = {"aggregate": {"name": "fast", "availability_zone": "east"}}
    made = ok(cloud.ask("POST", "/os-aggregates", body))["aggregate"]
    uuid = made.pop("uuid")
    assert len(uuid) == 36
    assert made == {
        "id": made["id"],
        "name": "fast",
        "availability_zone": "east",
        "created_at": "2030-01-01T00:00:00.000000",
        "updated_at": None,
        "deleted": False,
        "deleted_at": None,
    }
    full = {**made, "uuid": uuid, "hosts": [], "metadata": {"availability_zone": "east"}}
    assert show(cloud, made["id"]) == full
    assert ok(cloud.ask("GET", "/os-aggregates")) == {"aggregates": [full]}


def test_uuid_came_with_2_41(cloud: Cloud) -> None:
    number = make(cloud, "fast")
    assert "uuid" not in show(cloud, number, "2.40")
    assert "uuid" in show(cloud, number, "2.41")
    body = {"aggregate": {"name": "slow", "availability_zone": None}}
    made = ok(cloud.ask("POST", "/os-aggregates", body, version="2.1"))["aggregate"]
    assert "uuid" not in made
    assert made["availability_zone"] is None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"aggregate": {}},
        {"aggregate": {"name": ""}},
        {"aggregate": {"name": " fast"}},
        {"aggregate": {"name": "x" * 256}},
        {"aggregate": {"name": 7}},
        {"aggregate": {"name": "fast", "availability_zone": ""}},
        {"aggregate": {"name": "fast", "availability_zone": "a:b"}},
        {"aggregate": {"name": "fast", "color": "blue"}},
        {"aggregate": {"name": "fast"}, "color": "blue"},
    ],
)
def test_create_refuses(cloud: Cloud, body: dict[str, Any]) -> None:
    fault(cloud.ask("POST", "/os-aggregates", body), 400)
    assert ok(cloud.ask("GET", "/os-aggregates")) == {"aggregates": []}


def test_names_are_taken_once(cloud: Cloud) -> None:
    make(cloud, "fast")
    slow = make(cloud, "slow")
    fault(cloud.ask("POST", "/os-aggregates", {"aggregate": {"name": "fast"}}), 409)
    fault(cloud.ask("PUT", f"/os-aggregates/{slow}", {"aggregate": {"name": "fast"}}), 409)
    ok(cloud.ask("PUT", f"/os-aggregates/{slow}", {"aggregate": {"name": "slow"}}))


def test_unknown_ones(cloud: Cloud) -> None:
    for number, status in (("99", 404), ("fast", 400)):
        path = f"/os-aggregates/{number}"
        fault(cloud.ask("GET", path), status)
        fault(cloud.ask("PUT", path, {"aggregate": {"name": "fast"}}), status)
        fault(cloud.ask("DELETE", path), status)
        fault(act(cloud, number, "set_metadata", {"metadata": {}}), status)
        fault(remove(cloud, number, "alpha"), status)
    cloud.add_host("alpha")
    fault(add(cloud, "99", "alpha"), 404)


def test_update(cloud: Cloud) -> None:
    number = make(cloud, "fast")
    body = {"aggregate": {"name": " very fast ", "availability_zone": "east"}}
    found = ok(cloud.ask("PUT", f"/os-aggregates/{number}", body))["aggregate"]
    assert found == show(cloud, number)
    assert (found["name"], found["availability_zone"], found["metadata"]) == (
        "very fast",
        "east",
        {"availability_zone": "east"},
    )
    assert found["updated_at"] is not None
    refused: list[dict[str, Any]] = [{}, {"availability_zone": None}, {"availability_zone": ""}, {"name": " "}]
    for wrong in [*refused, {"hosts": []}]:
        fault(cloud.ask("PUT", f"/os-aggregates/{number}", {"aggregate": wrong}), 400)
    assert show(cloud, number) == found


def test_metadata(cloud: Cloud) -> None:
    number = make(cloud, "fast")
    found = ok(describe(cloud, number, {"disk": "ssd", "rack": "1", "availability_zone": "east"}))["aggregate"]
    assert found["metadata"] == {"disk": "ssd", "rack": "1", "availability_zone": "east"}
    assert found["availability_zone"] == "east"
    found = ok(describe(cloud, number, {"disk": "nvme", "rack": None, "floor": None}))["aggregate"]
    assert found["metadata"] == {"disk": "nvme", "availability_zone": "east"}
    assert found["updated_at"] is not None
    for wrong in ({"disk": 7}, {"disk": "x" * 256}, {"a/b": "c"}, {"availability_zone": None}):
        fault(describe(cloud, number, wrong), 400)
    assert show(cloud, number) == found


def test_hosts(cloud: Cloud) -> None:
    host_id = cloud.add_host("beta")
    cloud.add_host("alpha")
    number = make(cloud, "fast")
    uuid = show(cloud, number)["uuid"]
    assert ok(add(cloud, number, "beta"))["aggregate"]["hosts"] == ["beta"]
    assert ok(add(cloud, number, "alpha"))["aggregate"]["hosts"] == ["alpha", "beta"]
    assert provider_aggregates(cloud, host_id) == {uuid}
    fault(add(cloud, number, "beta"), 409)
    fault(add(cloud, number, "gamma"), 404)
    fault(add(cloud, number, "not a host"), 400)
    fault(cloud.ask("DELETE", f"/os-aggregates/{number}"), 400)
    assert ok(remove(cloud, number, "beta"))["aggregate"]["hosts"] == ["alpha"]
    assert provider_aggregates(cloud, host_id) == frozenset()
    fault(remove(cloud, number, "beta"), 404)
    ok(remove(cloud, number, "alpha"))
    assert ok(cloud.ask("DELETE", f"/os-aggregates/{number}")) is None
    fault(cloud.ask("GET", f"/os-aggregates/{number}"), 404)


def test_placement_keeps_other_aggregates(cloud: Cloud) -> None:
    host_id = cloud.add_host("alpha")
    other = "99999999-9999-9999-9999-999999999999"
    cloud.served.store.write_here(lambda tx: placement.set_aggregates(tx, host_id, [other]))
    first, second = make(cloud, "first"), make(cloud, "second")
    ok(add(cloud, first, "alpha"))
    ok(add(cloud, second, "alpha"))
    ok(remove(cloud, first, "alpha"))
    assert provider_aggregates(cloud, host_id) == {other, show(cloud, second)["uuid"]}


def test_a_deleted_number_is_not_given_again(cloud: Cloud) -> None:
    number = make(cloud, "fast")
    ok(describe(cloud, number, {"disk": "ssd"}))
    ok(cloud.ask("DELETE", f"/os-aggregates/{number}"))
    again = make(cloud, "fast")
    assert again > number
    assert show(cloud, again)["metadata"] == {}


def test_a_host_is_in_one_zone(cloud: Cloud) -> None:
    cloud.add_host("alpha")
    cloud.add_host("beta")
    east, west, bare = make(cloud, "east", "east"), make(cloud, "west", "west"), make(cloud, "bare")
    for number in (east, bare):
        ok(add(cloud, number, "alpha"))
    assert zones_of(cloud) == {"alpha": "east"}
    fault(add(cloud, west, "alpha"), 409)
    fault(describe(cloud, bare, {"availability_zone": "west"}), 400)
    fault(cloud.ask("PUT", f"/os-aggregates/{bare}", {"aggregate": {"availability_zone": "west"}}), 400)
    assert zones_of(cloud) == {"alpha": "east"}
    ok(describe(cloud, bare, {"availability_zone": "east"}))
    ok(remove(cloud, east, "alpha"))
    assert zones_of(cloud) == {"alpha": "east"}
    ok(add(cloud, west, "beta"))
    ok(describe(cloud, bare, {"availability_zone": "south"}))
    assert zones_of(cloud) == {"alpha": "south", "beta": "west"}


def test_two_zones_at_once(cloud: Cloud) -> None:
    for round_ in range(10):
        host = f"host-{round_}"
        cloud.add_host(host)
        numbers = [make(cloud, f"{zone}-{round_}", zone) for zone in ("east", "west")]
        client = cloud.served.client("admin:ops")
        body = {"add_host": {"host": host}}
        paths = [f"/compute/v2.1/os-aggregates/{number}/action" for number in numbers]
        answers = [one.result(60) for one in [client.submit("POST", path, body) for path in paths]]
        assert sorted(one.status for one in answers) == [200, 409], answers


def test_a_host_with_servers_stays_in_its_zone(cloud: Cloud) -> None:
    host_id = cloud.add_host("alpha")
    cloud.add_server(host_id, "alpha")
    nova, east, bare = make(cloud, "nova", "nova"), make(cloud, "east", "east"), make(cloud, "bare")
    fault(add(cloud, east, "alpha"), 409)
    ok(add(cloud, bare, "alpha"))
    fault(describe(cloud, bare, {"availability_zone": "east"}), 400)
    ok(describe(cloud, bare, {"disk": "ssd"}))
    ok(remove(cloud, bare, "alpha"))
    ok(add(cloud, nova, "alpha"))
    fault(describe(cloud, nova, {"availability_zone": "east"}), 400)
    assert zones_of(cloud) == {"alpha": "nova"}


def test_a_host_with_servers_does_not_leave_its_zone(cloud: Cloud) -> None:
    host_id = cloud.add_host("alpha")
    east = make(cloud, "east", "east")
    ok(add(cloud, east, "alpha"))
    cloud.add_server(host_id, "alpha", deleted_at=cloud.clock.now())
    ok(describe(cloud, east, {"availability_zone": "west"}))
    cloud.add_server(host_id, "alpha")
    fault(remove(cloud, east, "alpha"), 409)
    fault(describe(cloud, east, {"availability_zone": "east"}), 400)
    assert zones_of(cloud) == {"alpha": "west"}


def test_exactly_one_action(cloud: Cloud) -> None:
    number = make(cloud, "fast")
    path = f"/os-aggregates/{number}/action"
    fault(cloud.ask("POST", path, {}), 400)
    fault(cloud.ask("POST", path, {"sing": {}}), 400)
    fault(cloud.ask("POST", path, {"add_host": {"host": "a"}, "remove_host": {"host": "a"}}), 400)


@pytest.mark.parametrize("token", ["reader:p1", "member:p1", "manager:p1"])
def test_only_admins(cloud: Cloud, token: str) -> None:
    cloud.add_host("alpha")
    number = make(cloud, "fast")
    path = f"/os-aggregates/{number}"
    fault(cloud.ask("GET", "/os-aggregates", token=token), 403)
    fault(cloud.ask("GET", path, token=token), 403)
    fault(cloud.ask("POST", "/os-aggregates", {"aggregate": {"name": "mine"}}, token=token), 403)
    fault(cloud.ask("PUT", path, {"aggregate": {"name": "mine"}}, token=token), 403)
    fault(cloud.ask("DELETE", path, token=token), 403)
    verbs: dict[str, dict[str, Any]] = {"add_host": {"host": "alpha"}, "remove_host": {"host": "alpha"}}
    for verb, body in {**verbs, "set_metadata": {"metadata": {"a": "b"}}}.items():
        fault(act(cloud, number, verb, body, token=token), 403)
    assert show(cloud, number)["hosts"] == []
