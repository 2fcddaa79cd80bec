"""Hypervisors through the edge: what they show in which version, pages, searches and sums."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from pileus.agent.boot import booted_at
from pileus.services.compute.rules.uptime import uptime
from tests.api.compute_cloud import FACTS, Cloud, cloud, fault, ok

UNKNOWN = "11111111-2222-3333-4444-555555555555"

SUMS = {
    "vcpus": 8,
    "memory_mb": 16384,
    "local_gb": 200,
    "vcpus_used": 4,
    "memory_mb_used": 512 + 2048,
    "local_gb_used": 20,
    "free_ram_mb": 16384 - 512 - 2048,
    "free_disk_gb": 180,
    "running_vms": 2,
}
"""Of a host that keeps 512 MiB for itself and has two servers of 2 VCPU, 1024 MiB and 10 GiB."""


@pytest.fixture(name="cloud")
def one_cloud(database_url: str) -> Iterator[Cloud]:
    with cloud(database_url) as made:
        yield made


def hypervisors(cloud: Cloud, path: str = "", version: str = "2.104") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ok(cloud.ask("GET", f"/os-hypervisors{path}", version=version))["hypervisors"]
    return found


def names(cloud: Cloud, path: str = "", version: str = "2.104") -> list[str]:
    return [one["hypervisor_hostname"] for one in hypervisors(cloud, path, version)]


def test_list(cloud: Cloud) -> None:
    assert hypervisors(cloud) == []
    first = cloud.add_host("zeta")
    second = cloud.add_host("alpha")
    ok(cloud.ask("PUT", f"/os-services/{second}", {"status": "disabled", "forced_down": True}))
    assert hypervisors(cloud) == [
        {"id": first, "hypervisor_hostname": "zeta", "state": "up", "status": "enabled"},
        {"id": second, "hypervisor_hostname": "alpha", "state": "down", "status": "disabled"},
    ]


def test_newest_shape(cloud: Cloud) -> None:
    host_id = cloud.add_host("alpha")
    ok(cloud.ask("PUT", f"/os-services/{host_id}", {"status": "disabled", "disabled_reason": "new fans"}))
    expected = {
        "id": host_id,
        "hypervisor_hostname": "alpha",
        "state": "up",
        "status": "disabled",
        "hypervisor_type": "QEMU",
        "hypervisor_version": 7002000,
        "host_ip": None,
        "service": {"id": host_id, "host": "alpha", "disabled_reason": "new fans"},
        "uptime": None,
    }
    for version in ("2.88", "2.104"):
        assert hypervisors(cloud, "/detail", version) == [expected]
        assert ok(cloud.ask("GET", f"/os-hypervisors/{host_id}", version=version)) == {"hypervisor": expected}


def test_sums_until_2_87(cloud: Cloud) -> None:
    host_id = cloud.add_host("alpha")
    cloud.add_server(host_id, "alpha")
    cloud.add_server(host_id, "alpha")
    shown = ok(cloud.ask("GET", f"/os-hypervisors/{host_id}", version="2.87"))["hypervisor"]
    assert {name: shown[name] for name in SUMS} == SUMS
    assert shown["current_workload"] == 0
    assert "uptime" not in shown
    assert shown.keys() == hypervisors(cloud, "/detail", "2.87")[0].keys()


def test_servers_on_their_way_are_workload(cloud: Cloud) -> None:
    host_id = cloud.add_host("alpha")
    cloud.add_server(host_id, "alpha")
    cloud.add_server(host_id, "alpha", launched_at=None, state="")
    cloud.add_server(host_id, "alpha", deleting_at=cloud.clock.now())
    [shown] = hypervisors(cloud, "/detail", "2.87")
    assert shown["current_workload"] == 2
    assert shown["running_vms"] == 3


def test_cpu_info(cloud: Cloud) -> None:
    cloud.add_host("alpha")
    text = hypervisors(cloud, "/detail", "2.27")[0]["cpu_info"]
    info = hypervisors(cloud, "/detail", "2.28")[0]["cpu_info"]
    assert isinstance(text, str)
    assert json.loads(text) == info
    assert (info["arch"], info["model"]) == ("x86_64", "EPYC")
    assert "cpu_info" not in hypervisors(cloud, "/detail", "2.88")[0]


def test_numbers_until_2_52(cloud: Cloud) -> None:
    host_id = cloud.add_host("alpha")
    cloud.add_host("beta")
    [first, second] = hypervisors(cloud, "/detail", "2.52")
    assert isinstance(first["id"], int)
    assert first["id"] != second["id"]
    assert isinstance(first["service"]["id"], int)
    assert ok(cloud.ask("GET", f"/os-hypervisors/{second['id']}", version="2.52"))["hypervisor"] == second
    fault(cloud.ask("GET", "/os-hypervisors/99", version="2.52"), 404)
    fault(cloud.ask("GET", f"/os-hypervisors/{host_id}", version="2.52"), 404)
    fault(cloud.ask("GET", "/os-hypervisors/1", version="2.53"), 400)
    fault(cloud.ask("GET", f"/os-hypervisors/{UNKNOWN}", version="2.53"), 404)


@pytest.mark.parametrize("path", ["", "/detail"])
def test_pages(cloud: Cloud, path: str) -> None:
    for name in ("c", "a", "b"):
        cloud.add_host(name)
    answer = ok(cloud.ask("GET", f"/os-hypervisors{path}?limit=2"))
    [link] = answer["hypervisors_links"]
    assert link["rel"] == "next"
    marker = answer["hypervisors"][-1]["id"]
    assert link["href"] == f"http://testserver/compute/v2.1/os-hypervisors{path}?limit=2&marker={marker}"
    rest = ok(cloud.ask("GET", f"/os-hypervisors{path}?limit=2&marker={marker}"))
    assert "hypervisors_links" not in rest
    found = [one["hypervisor_hostname"] for one in answer["hypervisors"] + rest["hypervisors"]]
    assert sorted(found) == ["a", "b", "c"]
    assert len(names(cloud, f"{path}?limit=0")) == 3
    assert len(names(cloud, f"{path}?limit={'9' * 5000}")) == 3


def test_pages_came_with_2_33(cloud: Cloud) -> None:
    for name in ("a", "b"):
        cloud.add_host(name)
    assert len(names(cloud, "?limit=1", "2.32")) == 2
    [found] = hypervisors(cloud, "?limit=1", "2.33")
    assert len(names(cloud, f"?marker={found['id']}", "2.33")) == 1


@pytest.mark.parametrize("query", ["limit=-1", "limit=x", f"marker={UNKNOWN}", "with_servers=perhaps", "color=blue"])
def test_bad_queries(cloud: Cloud, query: str) -> None:
    cloud.add_host("alpha")
    fault(cloud.ask("GET", f"/os-hypervisors?{query}", version="2.53"), 400)
    fault(cloud.ask("GET", f"/os-hypervisors/detail?{query}", version="2.53"), 400)


def test_pattern(cloud: Cloud) -> None:
    for name in ("rack1-a", "rack1-b", "rack2-a"):
        cloud.add_host(name)
    assert names(cloud, "?hypervisor_hostname_pattern=rack1", "2.53") == ["rack1-a", "rack1-b"]
    assert names(cloud, "/detail?hypervisor_hostname_pattern=-a", "2.53") == ["rack1-a", "rack2-a"]
    assert len(names(cloud, "?hypervisor_hostname_pattern=rack1", "2.52")) == 3
    fault(cloud.ask("GET", "/os-hypervisors?hypervisor_hostname_pattern=rack3"), 404)
    fault(cloud.ask("GET", "/os-hypervisors?hypervisor_hostname_pattern=rack1&limit=1"), 400)
    fault(cloud.ask("GET", f"/os-hypervisors?hypervisor_hostname_pattern=rack1&marker={UNKNOWN}"), 400)


def test_search_until_2_52(cloud: Cloud) -> None:
    for name in ("rack1-a", "rack1-b", "rack2-a"):
        cloud.add_host(name)
    assert names(cloud, "/rack1/search", "2.52") == ["rack1-a", "rack1-b"]
    fault(cloud.ask("GET", "/os-hypervisors/rack3/search", version="2.52"), 404)
    fault(cloud.ask("GET", "/os-hypervisors/rack1/search", version="2.53"), 404)


def test_servers(cloud: Cloud) -> None:
    full = cloud.add_host("full")
    empty = cloud.add_host("empty")
    one = cloud.add_server(full, "full", "one")
    two = cloud.add_server(full, "full", "two")
    cloud.add_server(None, None, "nowhere")
    cloud.add_server(full, "full", "gone", deleted_at=cloud.clock.now())
    expected = [{"name": "one", "uuid": one}, {"name": "two", "uuid": two}]
    assert [h.get("servers") for h in hypervisors(cloud, "?with_servers=true", "2.53")] == [expected, None]
    assert [h.get("servers") for h in hypervisors(cloud, "?with_servers=true", "2.75")] == [expected, []]
    assert [h.get("servers") for h in hypervisors(cloud, "/detail?with_servers=1", "2.104")] == [expected, []]
    assert [h.get("servers") for h in hypervisors(cloud, "?with_servers=false", "2.104")] == [None, None]
    shown = ok(cloud.ask("GET", f"/os-hypervisors/{full}?with_servers=true"))["hypervisor"]
    assert shown["servers"] == expected
    shown = ok(cloud.ask("GET", f"/os-hypervisors/{empty}?with_servers=true", version="2.74"))["hypervisor"]
    assert "servers" not in shown
    assert "servers" not in ok(cloud.ask("GET", f"/os-hypervisors/{full}"))["hypervisor"]
    found = hypervisors(cloud, "/full/servers", "2.52")
    assert [h.get("servers") for h in found] == [expected]
    fault(cloud.ask("GET", "/os-hypervisors/full/servers", version="2.53"), 404)


def test_statistics(cloud: Cloud) -> None:
    first = cloud.add_host("first")
    second = cloud.add_host("second")
    third = cloud.add_host("third")
    for host_id, name in ((first, "first"), (first, "first"), (second, "second"), (second, "second"), (third, "third")):
        cloud.add_server(host_id, name)
    ok(cloud.ask("PUT", f"/os-services/{third}", {"status": "disabled"}))
    found = ok(cloud.ask("GET", "/os-hypervisors/statistics", version="2.87"))["hypervisor_statistics"]
    assert {name: found[name] for name in SUMS} == {name: 2 * value for name, value in SUMS.items()}
    assert found["count"] == 2
    fault(cloud.ask("GET", "/os-hypervisors/statistics", version="2.88"), 404)


def test_statistics_of_nothing(cloud: Cloud) -> None:
    found = ok(cloud.ask("GET", "/os-hypervisors/statistics", version="2.1"))["hypervisor_statistics"]
    assert set(found.values()) == {0}
    assert found.keys() == {*SUMS, "count", "current_workload", "disk_available_least"}


def test_uptime(cloud: Cloud) -> None:
    host_id = cloud.add_host("alpha")
    fault(cloud.ask("GET", f"/os-hypervisors/{host_id}/uptime", version="2.53"), 501)
    fault(cloud.ask("GET", f"/os-hypervisors/{UNKNOWN}/uptime", version="2.53"), 404)
    fault(cloud.ask("GET", "/os-hypervisors/1/uptime", version="2.53"), 400)
    fault(cloud.ask("GET", f"/os-hypervisors/{host_id}/uptime", version="2.88"), 404)
    booted = int(cloud.clock.now().timestamp()) - 93 * 86400 - 2 * 3600 - 300
    host_id = cloud.add_host("beta", msgspec.structs.replace(FACTS, booted_at=booted))
    shown = ok(cloud.ask("GET", f"/os-hypervisors/{host_id}/uptime", version="2.87"))["hypervisor"]
    since = " 00:00:02 up 93 days,  2:05"
    assert shown == {"id": host_id, "hypervisor_hostname": "beta", "state": "up", "status": "enabled", "uptime": since}
    assert ok(cloud.ask("GET", f"/os-hypervisors/{host_id}", version="2.88"))["hypervisor"]["uptime"] == since
    ok(cloud.ask("PUT", f"/os-services/{host_id}", {"forced_down": True}))
    fault(cloud.ask("GET", f"/os-hypervisors/{host_id}/uptime", version="2.87"), 400)
    assert ok(cloud.ask("GET", f"/os-hypervisors/{host_id}", version="2.88"))["hypervisor"]["uptime"] is None


def test_uptime_is_told_in_its_own_words() -> None:
    now = datetime(2030, 1, 1, 12, tzinfo=UTC)
    since = [uptime(now, int(now.timestamp()) - seconds) for seconds in (-5, 59, 3600, 86400 + 60)]
    assert [one.partition("up ")[2] for one in since] == ["0 min", "0 min", " 1:00", "1 day, 1 min"]
    found = booted_at()
    assert found is None or found < time.time()


@pytest.mark.parametrize(
    ("path", "version"),
    [
        ("", "2.104"),
        ("/detail", "2.104"),
        (f"/{UNKNOWN}", "2.104"),
        ("/statistics", "2.87"),
        (f"/{UNKNOWN}/uptime", "2.87"),
        ("/a/search", "2.52"),
        ("/a/servers", "2.52"),
    ],
)
def test_only_admins(cloud: Cloud, path: str, version: str) -> None:
    for token in ("reader:p1", "member:p1", "manager:p1"):
        fault(cloud.ask("GET", f"/os-hypervisors{path}", version=version, token=token), 403)
