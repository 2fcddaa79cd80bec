"""Services on hosts through the edge: list, enable, disable, force down, in the old way and the new."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from pileus.contracts.network import RouterSpec
from pileus.core.store import Tx
from pileus.services.compute.resources.quota import QUOTA
from pileus.services.compute.resources.server.table import server
from pileus.services.fleet import interface as fleet
from pileus.services.placement import interface as placement
from tests.api.compute_cloud import Cloud, cloud, fault, ok

UNKNOWN = "11111111-2222-3333-4444-555555555555"


@pytest.fixture(name="cloud")
def one_cloud(database_url: str) -> Iterator[Cloud]:
    with cloud(database_url) as made:
        yield made


def services(cloud: Cloud, query: str = "", version: str = "2.104") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ok(cloud.ask("GET", f"/os-services{query}", version=version))["services"]
    return found


def test_each_host_has_a_service(cloud: Cloud) -> None:
    assert services(cloud) == []
    first = cloud.add_host("alpha")
    second = cloud.add_host("beta")
    found = services(cloud)
    assert [one["id"] for one in found] == [first, second]
    assert found[0] == {
        "id": first,
        "binary": "nova-compute",
        "host": "alpha",
        "zone": "nova",
        "status": "enabled",
        "state": "up",
        "updated_at": "2030-01-01T00:00:00.000000",
        "disabled_reason": None,
        "forced_down": False,
    }


def test_old_versions_have_numbers(cloud: Cloud) -> None:
    cloud.add_host("alpha")
    [found] = services(cloud, version="2.10")
    assert isinstance(found["id"], int)
    assert "forced_down" not in found
    [found] = services(cloud, version="2.52")
    assert isinstance(found["id"], int)
    assert found["forced_down"] is False


def test_filters(cloud: Cloud) -> None:
    cloud.add_host("alpha")
    cloud.add_host("beta")
    assert [one["host"] for one in services(cloud, "?host=beta")] == ["beta"]
    assert services(cloud, "?host=gamma") == []
    assert len(services(cloud, "?binary=nova-compute")) == 2
    assert services(cloud, "?binary=nova-scheduler") == []
    assert len(services(cloud, "?color=blue", version="2.74")) == 2
    assert "color" in fault(cloud.ask("GET", "/os-services?color=blue", version="2.75"), 400)


def test_a_silent_host_is_down(cloud: Cloud) -> None:
    host_id = cloud.add_host("alpha")
    cloud.beat(host_id)
    assert services(cloud)[0]["state"] == "up"
    cloud.clock.advance(20)
    assert services(cloud)[0]["state"] == "down"


def test_update(cloud: Cloud) -> None:
    host_id = cloud.add_host("alpha")
    path = f"/os-services/{host_id}"
    disable = {"status": "disabled", "disabled_reason": "new fans"}
    found = ok(cloud.ask("PUT", path, disable))["service"]
    assert (found["id"], found["status"], found["disabled_reason"], found["state"]) == (
        host_id,
        "disabled",
        "new fans",
        "up",
    )
    assert services(cloud) == [found]
    found = ok(cloud.ask("PUT", path, {"status": "enabled"}))["service"]
    assert (found["status"], found["disabled_reason"]) == ("enabled", None)
    found = ok(cloud.ask("PUT", path, {"forced_down": True}))["service"]
    assert (found["state"], found["forced_down"], found["status"]) == ("down", True, "enabled")
    found = ok(cloud.ask("PUT", path, {"forced_down": "off"}))["service"]
    assert (found["state"], found["forced_down"]) == ("up", False)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"disabled_reason": "why"}, 400),
        ({"status": "enabled", "disabled_reason": "why"}, 400),
        ({"status": "asleep"}, 400),
        ({"status": "disabled", "disabled_reason": ""}, 400),
        ({"status": "disabled", "disabled_reason": "x" * 256}, 400),
        ({"forced_down": "perhaps"}, 400),
        ({"forced_down": 1}, 400),
        ({"host": "alpha", "binary": "nova-compute"}, 400),
    ],
)
def test_update_refuses(cloud: Cloud, body: dict[str, Any], status: int) -> None:
    host_id = cloud.add_host("alpha")
    before = services(cloud)
    fault(cloud.ask("PUT", f"/os-services/{host_id}", body), status)
    assert services(cloud) == before


def test_update_of_what_is_not_there(cloud: Cloud) -> None:
    cloud.add_host("alpha")
    fault(cloud.ask("PUT", f"/os-services/{UNKNOWN}", {"status": "disabled"}), 404)
    fault(cloud.ask("PUT", "/os-services/1", {"status": "disabled"}), 400)


def end(cloud: Cloud, server_id: str) -> None:
    """Let a server be deleted."""

    def write(tx: Tx) -> None:
        tx.execute(sa.update(server).where(server.c.id == server_id).values(deleted_at=cloud.clock.now()))
        placement.release_many(tx, [server_id])

    cloud.served.store.write_here(write)


def test_delete(cloud: Cloud) -> None:
    first, second = cloud.add_host("alpha"), cloud.add_host("beta")
    path = f"/os-services/{first}"
    made = ok(cloud.ask("POST", "/os-aggregates", {"aggregate": {"name": "a"}}))["aggregate"]
    ok(cloud.ask("POST", f"/os-aggregates/{made['id']}/action", {"add_host": {"host": "alpha"}}))
    assert "up" in fault(cloud.ask("DELETE", path), 409)
    cloud.beat(first)
    cloud.clock.advance(20)
    staying = cloud.add_server(first, "alpha")
    assert "hosting instances" in fault(cloud.ask("DELETE", path), 409)
    going = cloud.add_server(first, "alpha", deleting_at=cloud.clock.now(), flavor={"vcpus": 2, "ram": 1024})
    cloud.served.store.write_here(lambda tx: QUOTA.take(tx, "p1", {"instances": 1, "cores": 2, "ram": 1024}))
    end(cloud, staying)
    assert cloud.ask("DELETE", path).status == 204
    assert [one["id"] for one in services(cloud)] == [second]
    assert ok(cloud.ask("GET", f"/os-aggregates/{made['id']}"))["aggregate"]["hosts"] == []
    fault(cloud.ask("GET", f"/servers/{going}"), 404)
    assert [one["hypervisor_hostname"] for one in ok(cloud.ask("GET", "/os-hypervisors"))["hypervisors"]] == ["beta"]
    fault(cloud.ask("DELETE", path), 404)
    again = cloud.add_host("alpha")
    assert again != first
    assert {one["host"] for one in services(cloud)} == {"alpha", "beta"}


def test_delete_in_old_versions_and_of_what_is_not_there(cloud: Cloud) -> None:
    host_id = cloud.add_host("alpha")
    cloud.beat(host_id)
    cloud.clock.advance(20)
    fault(cloud.ask("DELETE", "/os-services/1"), 400)
    fault(cloud.ask("DELETE", f"/os-services/{UNKNOWN}"), 404)
    fault(cloud.ask("DELETE", f"/os-services/{host_id}", version="2.52"), 400)
    fault(cloud.ask("DELETE", "/os-services/7", version="2.52"), 404)
    fault(cloud.ask("DELETE", f"/os-services/{host_id}", token="member:p1"), 403)
    assert cloud.ask("DELETE", "/os-services/1", version="2.1").status == 204
    assert services(cloud) == []


def test_a_host_that_is_to_hold_a_router_stays(cloud: Cloud) -> None:
    host_id = cloud.add_host("alpha")
    cloud.beat(host_id)
    cloud.clock.advance(20)
    router = fleet.Spec(host_id, "router", "r1", RouterSpec(id="r1", interfaces=()))
    cloud.served.store.write_here(lambda tx: fleet.assign(tx, [router]))
    assert "router r1" in fault(cloud.ask("DELETE", f"/os-services/{host_id}"), 409)
    cloud.served.store.write_here(lambda tx: fleet.tombstone(tx, "router", ["r1"]))
    assert cloud.ask("DELETE", f"/os-services/{host_id}").status == 204


def test_old_verbs(cloud: Cloud) -> None:
    cloud.add_host("alpha")
    cloud.add_host("beta")
    body = {"host": "beta", "binary": "nova-compute"}
    answer = ok(cloud.ask("PUT", "/os-services/disable", body, version="2.1"))
    assert answer == {"service": {**body, "status": "disabled"}}
    assert [one["status"] for one in services(cloud)] == ["enabled", "disabled"]
    reason = {**body, "disabled_reason": "new fans"}
    answer = ok(cloud.ask("PUT", "/os-services/disable-log-reason", reason, version="2.1"))
    assert answer == {"service": {**reason, "status": "disabled"}}
    assert services(cloud)[1]["disabled_reason"] == "new fans"
    answer = ok(cloud.ask("PUT", "/os-services/enable", body, version="2.52"))
    assert answer == {"service": {**body, "status": "enabled"}}
    assert services(cloud)[1]["disabled_reason"] is None
    down = {**body, "forced_down": True}
    assert ok(cloud.ask("PUT", "/os-services/force-down", down, version="2.11")) == {"service": down}
    assert [one["state"] for one in services(cloud)] == ["up", "down"]


@pytest.mark.parametrize(
    ("verb", "version", "change", "status"),
    [
        ("force-down", "2.10", {}, 404),
        ("force-down", "2.11", {}, 400),
        ("disable", "2.10", {"forced_down": True}, 400),
        ("disable-log-reason", "2.1", {}, 400),
        ("disable", "2.1", {"binary": "nova-scheduler"}, 400),
        ("disable", "2.1", {"host": "gamma"}, 404),
        ("disable", "2.1", {"color": "blue"}, 400),
        ("sing", "2.1", {}, 404),
    ],
)
def test_old_verbs_refuse(cloud: Cloud, verb: str, version: str, change: dict[str, Any], status: int) -> None:
    cloud.add_host("alpha")
    before = services(cloud)
    body = {"host": "alpha", "binary": "nova-compute", **change}
    fault(cloud.ask("PUT", f"/os-services/{verb}", body, version=version), status)
    assert services(cloud) == before


@pytest.mark.parametrize("token", ["reader:p1", "member:p1", "manager:p1"])
def test_only_admins(cloud: Cloud, token: str) -> None:
    host_id = cloud.add_host("alpha")
    fault(cloud.ask("GET", "/os-services", token=token), 403)
    fault(cloud.ask("PUT", f"/os-services/{host_id}", {"status": "disabled"}, token=token), 403)
    body = {"host": "alpha", "binary": "nova-compute"}
    fault(cloud.ask("PUT", "/os-services/disable", body, version="2.1", token=token), 403)
    assert services(cloud)[0]["status"] == "enabled"
