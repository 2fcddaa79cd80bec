"""Availability zones through the edge: for everybody in brief, for admins with their hosts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.compute_cloud import Cloud, cloud, fault, ok


@pytest.fixture(name="cloud")
def one_cloud(database_url: str) -> Iterator[Cloud]:
    with cloud(database_url) as made:
        yield made


def zones(cloud: Cloud, path: str = "", **more: Any) -> list[dict[str, Any]]:
    answer = ok(cloud.ask("GET", f"/os-availability-zone{path}", **more))
    assert list(answer) == ["availabilityZoneInfo"]
    found: list[dict[str, Any]] = answer["availabilityZoneInfo"]
    return found


@pytest.mark.parametrize("token", ["reader:p1", "member:p1", "admin:ops"])
def test_everybody_sees_zones_without_hosts(cloud: Cloud, token: str) -> None:
    cloud.add_host("alpha")
    expected = [{"zoneName": "nova", "zoneState": {"available": True}, "hosts": None}]
    assert zones(cloud, token=token) == expected
    assert zones(cloud, token=token, version="2.1") == expected


def test_admins_see_hosts(cloud: Cloud) -> None:
    alpha = cloud.add_host("alpha")
    cloud.add_host("beta")
    cloud.add_host("gamma")
    ok(cloud.ask("PUT", f"/os-services/{alpha}", {"forced_down": True}))
    ok(cloud.ask("PUT", "/os-services/disable", {"host": "gamma", "binary": "nova-compute"}, version="2.1"))
    [zone] = zones(cloud, "/detail")
    assert zone == {
        "zoneName": "nova",
        "zoneState": {"available": True},
        "hosts": {
            "alpha": {"nova-compute": {"available": False, "active": True, "updated_at": "2030-01-01T00:00:00.000000"}},
            "beta": {"nova-compute": {"available": True, "active": True, "updated_at": "2030-01-01T00:00:01.000000"}},
        },
    }


def test_a_zone_of_disabled_hosts_is_not_available(cloud: Cloud) -> None:
    host_id = cloud.add_host("alpha")
    ok(cloud.ask("PUT", f"/os-services/{host_id}", {"status": "disabled"}))
    assert zones(cloud) == [{"zoneName": "nova", "zoneState": {"available": False}, "hosts": None}]


def test_hosts_are_for_admins(cloud: Cloud) -> None:
    fault(cloud.ask("GET", "/os-availability-zone/detail", token="member:p1"), 403)


def test_unknown_parameters_are_refused_in_the_end(cloud: Cloud) -> None:
    ok(cloud.ask("GET", "/os-availability-zone?color=blue", version="2.101"))
    fault(cloud.ask("GET", "/os-availability-zone?color=blue", version="2.102"), 400)
    fault(cloud.ask("GET", "/os-availability-zone/detail?color=blue", version="2.102"), 400)
