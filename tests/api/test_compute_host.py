"""Hosts as the oldest clients know them, through the edge."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.api.compute_cloud import Cloud, cloud, fault, ok


@pytest.fixture(name="cloud")
def one_cloud(database_url: str) -> Iterator[Cloud]:
    with cloud(database_url) as made:
        yield made


def listed(cloud: Cloud, query: str = "") -> list[tuple[str, str]]:
    found = ok(cloud.ask("GET", f"/os-hosts{query}", version="2.42"))["hosts"]
    return [(one["service"], one["zone"]) for one in found]


def test_hosts_are_listed_by_zone(cloud: Cloud) -> None:
    assert listed(cloud) == [("conductor", "internal"), ("scheduler", "internal")]
    cloud.add_host("alpha")
    assert listed(cloud, "?zone=") == [("conductor", "internal"), ("scheduler", "internal"), ("compute", "nova")]
    assert listed(cloud, "?zone=nova") == [("compute", "nova")]
    assert listed(cloud, "?zone=nowhere") == []


def test_a_host_shows_what_it_has_and_who_uses_it(cloud: Cloud) -> None:
    host_id = cloud.add_host("alpha")
    cloud.add_server(host_id, "alpha", flavor={"vcpus": 2, "ram": 1024, "disk": 10, "ephemeral": 1})
    found = [one["resource"] for one in ok(cloud.ask("GET", "/os-hosts/alpha", version="2.1"))["host"]]
    assert [one["project"] for one in found] == ["(total)", "(used_now)", "(used_max)", "p1"]
    assert found[0] == {"host": "alpha", "project": "(total)", "cpu": 8, "memory_mb": 16384, "disk_gb": 200}
    assert found[1] == {"host": "alpha", "project": "(used_now)", "cpu": 2, "memory_mb": 1536, "disk_gb": 10}
    assert found[3] == {"host": "alpha", "project": "p1", "cpu": 2, "memory_mb": 1024, "disk_gb": 11}
    assert "is not mapped" in fault(cloud.ask("GET", "/os-hosts/beta", version="2.1"), 404)


def test_a_host_is_disabled_and_enabled(cloud: Cloud) -> None:
    cloud.add_host("alpha")
    found = ok(cloud.ask("PUT", "/os-hosts/alpha", {"status": "Disable"}, version="2.42"))
    assert found == {"host": "alpha", "status": "disabled"}
    assert ("compute", "nova") not in listed(cloud)
    assert ok(cloud.ask("PUT", "/os-hosts/alpha", {"status": "enable"}, version="2.42"))["status"] == "enabled"
    assert ("compute", "nova") in listed(cloud)


def test_what_cannot_be_asked_of_a_host_is_refused(cloud: Cloud) -> None:
    cloud.add_host("alpha")
    for body in ({}, {"status": "maybe"}, {"status": "enable", "color": "red"}):
        fault(cloud.ask("PUT", "/os-hosts/alpha", body, version="2.42"), 400)
    fault(cloud.ask("PUT", "/os-hosts/alpha", {"maintenance_mode": "enable"}, version="2.42"), 501)
    fault(cloud.ask("PUT", "/os-hosts/beta", {"status": "enable"}, version="2.42"), 404)
    for verb in ("reboot", "shutdown", "startup"):
        fault(cloud.ask("GET", f"/os-hosts/alpha/{verb}", version="2.42"), 501)
        fault(cloud.ask("GET", f"/os-hosts/beta/{verb}", version="2.42"), 404)


def test_hosts_are_for_admins_and_for_old_versions(cloud: Cloud) -> None:
    for path in ("/os-hosts", "/os-hosts/alpha", "/os-hosts/alpha/reboot"):
        fault(cloud.ask("GET", path, version="2.42", token="manager:p1"), 403)
        fault(cloud.ask("GET", path, version="2.42", token="admin@system"), 403)
        fault(cloud.ask("GET", path, version="2.43"), 404)
    fault(cloud.ask("PUT", "/os-hosts/alpha", {"status": "enable"}, version="2.42", token="manager:p1"), 403)
