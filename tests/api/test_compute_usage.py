"""Usage of projects, and the log of usage audits, through the edge."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pileus.services.compute.rules.usage import Period, last_month, moment
from tests.api.compute_cloud import Cloud, cloud, fault, ok

FLAVOR = {"name": "small", "vcpus": 2, "ram": 1024, "disk": 10, "ephemeral": 2}
USAGE = "/os-simple-tenant-usage"


@pytest.fixture(name="cloud")
def one_cloud(database_url: str) -> Iterator[Cloud]:
    with cloud(database_url) as made:
        yield made


def span(cloud: Cloud, before: int, after: int = 0) -> str:
    """Query parameters of a period, in hours before and after now."""
    start, end = (cloud.clock.now() + timedelta(hours=each) for each in (-before, after))
    return f"start={start:%Y-%m-%dT%H:%M:%S}&end={end:%Y-%m-%dT%H:%M:%S.%f}"


def test_servers_count_for_the_hours_that_they_ran(cloud: Cloud) -> None:
    now = cloud.clock.now()
    server_id = cloud.add_server(None, None, flavor=FLAVOR, launched_at=now - timedelta(hours=4))
    cloud.add_server(
        None, None, flavor=FLAVOR, launched_at=now - timedelta(hours=3), deleted_at=now - timedelta(hours=1)
    )
    cloud.add_server(None, None, flavor=FLAVOR, launched_at=None)
    found = ok(cloud.ask("GET", f"{USAGE}/p1?{span(cloud, 2)}"))["tenant_usage"]
    assert found["total_hours"] == pytest.approx(3, abs=0.01)
    assert found["total_vcpus_usage"] == pytest.approx(6, abs=0.01)
    assert found["total_memory_mb_usage"] == pytest.approx(3072, abs=2)
    assert found["total_local_gb_usage"] == pytest.approx(36, abs=0.1)
    first, second = found["server_usages"]
    assert (first["instance_id"], first["state"], first["ended_at"]) == (server_id, "active", None)
    assert first["hours"] == pytest.approx(2, abs=0.01)
    assert (second["state"], second["uptime"]) == ("terminated", 7200)
    assert len(found) == 8


def test_all_projects_are_for_admins(cloud: Cloud) -> None:
    cloud.add_server(None, None, flavor=FLAVOR)
    cloud.add_server(None, None, flavor=FLAVOR, project_id="p2")
    found = ok(cloud.ask("GET", f"{USAGE}?{span(cloud, 1)}"))["tenant_usages"]
    assert [one["tenant_id"] for one in found] == ["p1", "p2"]
    assert "server_usages" not in found[0]
    detailed = ok(cloud.ask("GET", f"{USAGE}?detailed=1&{span(cloud, 1)}"))["tenant_usages"]
    assert len(detailed[0]["server_usages"]) == 1
    fault(cloud.ask("GET", USAGE, token="manager:p1"), 403)
    assert ok(cloud.ask("GET", f"{USAGE}/p1?{span(cloud, 1)}", token="reader:p1"))["tenant_usage"]["tenant_id"] == "p1"
    fault(cloud.ask("GET", f"{USAGE}/p2?{span(cloud, 1)}", token="reader:p1"), 403)
    assert ok(cloud.ask("GET", f"{USAGE}/p3?{span(cloud, 1)}"))["tenant_usage"] == {}


def pages(cloud: Cloud, path: str, key: str) -> list[Any]:
    """All pages that the links lead to."""
    found, query = [], f"{path}?limit=2&{span(cloud, 2)}"
    while True:
        body = ok(cloud.ask("GET", query))
        found.append(body[key])
        if f"{key}_links" not in body:
            return found
        [link] = body[f"{key}_links"]
        query = link["href"].partition("/v2.1")[2]


def test_usage_comes_in_pages_of_servers(cloud: Cloud) -> None:
    for _ in range(3):
        cloud.add_server(None, None, flavor=FLAVOR)
    counts = [len(one["server_usages"]) for one in pages(cloud, f"{USAGE}/p1", "tenant_usage")]
    assert counts == [2, 1]
    assert len(pages(cloud, USAGE, "tenant_usages")) == 2
    old = ok(cloud.ask("GET", f"{USAGE}/p1?limit=2&{span(cloud, 2)}", version="2.39"))
    assert list(old) == ["tenant_usage"]
    assert len(old["tenant_usage"]["server_usages"]) == 3
    fault(cloud.ask("GET", f"{USAGE}?marker=unknown&{span(cloud, 2)}"), 400)
    fault(cloud.ask("GET", f"{USAGE}?limit=-1&{span(cloud, 2)}"), 400)


def test_periods_that_cannot_be_are_refused(cloud: Cloud) -> None:
    for query in ("start=yesterday", "end=soon", span(cloud, -2), span(cloud, 0)):
        fault(cloud.ask("GET", f"{USAGE}/p1?{query}"), 400)
        fault(cloud.ask("GET", f"{USAGE}?{query}"), 400)
    fault(cloud.ask("GET", f"{USAGE}/p1?{span(cloud, 1)}&detailed=1"), 400)


def test_the_audit_log_says_that_nothing_ran(cloud: Cloud) -> None:
    path = "/os-instance_usage_audit_log"
    found = ok(cloud.ask("GET", path))["instance_usage_audit_logs"]
    assert found["overall_status"] == "ALL hosts done. 0 errors."
    cloud.add_host("alpha")
    found = ok(cloud.ask("GET", f"{path}/2030-03-31 12:00:00"))["instance_usage_audit_log"]
    assert found == {
        "period_beginning": "2030-02-01 00:00:00",
        "period_ending": "2030-03-01 00:00:00",
        "num_hosts": 1,
        "num_hosts_done": 0,
        "num_hosts_running": 0,
        "num_hosts_not_run": 1,
        "hosts_not_run": ["alpha"],
        "total_instances": 0,
        "total_errors": 0,
        "overall_status": "0 of 1 hosts done. 0 errors.",
        "log": {},
    }
    for wrong in ("yesterday", "2030-03-31", "0001-01-01 00:00:00"):
        fault(cloud.ask("GET", f"{path}/{wrong}"), 400)
    ok(cloud.ask("GET", f"{path}/2030-03-31 12:00:00.000001"))
    fault(cloud.ask("GET", path, token="manager:p1"), 403)
    fault(cloud.ask("GET", f"{path}/2030-03-31 12:00:00", token="manager:p1"), 403)


def test_audit_periods_are_months() -> None:
    new_year = datetime(2030, 1, 1, tzinfo=UTC)
    assert last_month(new_year) == Period(datetime(2029, 11, 1, tzinfo=UTC), datetime(2029, 12, 1, tzinfo=UTC))
    assert last_month(new_year + timedelta(seconds=1)).stop == new_year
    assert moment("2030-01-01 00:00:00.5") == new_year + timedelta(seconds=0.5)
    with pytest.raises(ValueError, match="not of the form"):
        moment("2030-01-01")
