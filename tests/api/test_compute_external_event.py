"""Events that other services tell of servers, through the edge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from pileus.core.store import Tx, change
from tests.api.compute_cloud import Cloud, cloud, fault, ok

UNKNOWN = "11111111-2222-4333-8444-555555555555"
PATH = "/os-server-external-events"


@pytest.fixture(name="cloud")
def one_cloud(database_url: str) -> Iterator[Cloud]:
    with cloud(database_url) as made:
        yield made


def tell(cloud: Cloud, *events: dict[str, Any], status: int = 200, version: str = "2.104") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ok(cloud.ask("POST", PATH, {"events": events}, version=version), status)["events"]
    return found


def looked_at(cloud: Cloud) -> int:
    """How often a server was to be looked at."""

    def count(tx: Tx) -> int:
        return int(tx.scalar(sa.select(sa.func.count()).where(change.c.topic == "compute.intent")))

    return cloud.served.run(cloud.served.store.read(count))


def test_an_event_makes_the_loops_look(cloud: Cloud) -> None:
    server_id = cloud.add_server(cloud.add_host("alpha"), "alpha")
    before = looked_at(cloud)
    event = {"name": "network-changed", "server_uuid": server_id}
    assert tell(cloud, event, {**event, "tag": "a-port", "status": "in-progress"}) == [
        {**event, "status": "completed", "code": 200},
        {**event, "status": "completed", "code": 200, "tag": "a-port"},
    ]
    assert looked_at(cloud) == before + 1


def test_each_event_that_is_refused_says_why(cloud: Cloud) -> None:
    placed = cloud.add_server(cloud.add_host("alpha"), "alpha")
    waiting = cloud.add_server(None, None)
    found = tell(
        cloud,
        {"name": "network-vif-plugged", "server_uuid": placed},
        {"name": "network-vif-plugged", "server_uuid": waiting},
        {"name": "network-vif-plugged", "server_uuid": UNKNOWN},
        {"name": "volume-extended", "server_uuid": placed},
        status=207,
    )
    assert [(one["code"], one["status"]) for one in found] == [
        (200, "completed"),
        (422, "failed"),
        (404, "failed"),
        (400, "failed"),
    ]


@pytest.mark.parametrize(
    ("name", "before", "since"),
    [
        ("volume-extended", "2.50", "2.51"),
        ("power-update", "2.75", "2.76"),
        ("accelerator-request-bound", "2.81", "2.82"),
        ("volume-reimaged", "2.92", "2.93"),
    ],
)
def test_events_have_their_versions(cloud: Cloud, name: str, before: str, since: str) -> None:
    server_id = cloud.add_server(cloud.add_host("alpha"), "alpha")
    event = {"name": name, "server_uuid": server_id, "tag": "a tag"}
    fault(cloud.ask("POST", PATH, {"events": [event]}, version=before), 400)
    assert tell(cloud, event, version=since)[0]["code"] == 200


def test_what_is_no_event_is_refused(cloud: Cloud) -> None:
    event = {"name": "network-changed", "server_uuid": UNKNOWN}
    wrong: list[Any] = [
        {"name": "rain"},
        {"server_uuid": "no uuid"},
        {"status": "good"},
        {"more": 1},
        {"tag": "x" * 256},
    ]
    for each in wrong:
        fault(cloud.ask("POST", PATH, {"events": [{**event, **each}]}), 400)
    fault(cloud.ask("POST", PATH, {"events": []}), 400)
    fault(cloud.ask("POST", PATH, {}), 400)


def test_events_are_told_by_services_and_admins(cloud: Cloud) -> None:
    body = {"events": [{"name": "network-changed", "server_uuid": UNKNOWN}]}
    fault(cloud.ask("POST", PATH, body, token="manager:p1"), 403)
    assert cloud.ask("POST", PATH, body, token="service:services").status == 207
