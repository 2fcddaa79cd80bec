"""Limits through the edge: whose, of what, and in which versions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pileus.services.compute.resources.quota import QUOTA
from tests.api.compute_cloud import Cloud, cloud, fault, ok

ALWAYS = {
    "maxTotalInstances": 10,
    "maxTotalCores": 20,
    "maxTotalRAMSize": 51200,
    "maxTotalKeypairs": 100,
    "maxServerMeta": 128,
    "maxServerGroups": 10,
    "maxServerGroupMembers": 10,
    "totalInstancesUsed": 0,
    "totalCoresUsed": 0,
    "totalRAMUsed": 0,
    "totalServerGroupsUsed": 0,
}
NETWORKING = {
    "maxTotalFloatingIps": -1,
    "maxSecurityGroups": -1,
    "maxSecurityGroupRules": -1,
    "totalFloatingIpsUsed": 0,
    "totalSecurityGroupsUsed": 0,
}
IMAGE = {"maxImageMeta": 128}
FILES = {"maxPersonality": 5, "maxPersonalitySize": 10240}


@pytest.fixture(name="cloud")
def one_cloud(database_url: str) -> Iterator[Cloud]:
    with cloud(database_url) as made:
        yield made


def absolute(cloud: Cloud, query: str = "", **more: Any) -> dict[str, int]:
    answer = ok(cloud.ask("GET", f"/limits{query}", **{"token": "reader:p1", **more}))
    assert answer["limits"].keys() == {"rate", "absolute"}
    assert answer["limits"]["rate"] == []
    found: dict[str, int] = answer["limits"]["absolute"]
    return found


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("2.1", ALWAYS | NETWORKING | IMAGE | FILES),
        ("2.35", ALWAYS | NETWORKING | IMAGE | FILES),
        ("2.36", ALWAYS | IMAGE | FILES),
        ("2.38", ALWAYS | IMAGE | FILES),
        ("2.39", ALWAYS | FILES),
        ("2.56", ALWAYS | FILES),
        ("2.57", ALWAYS),
        ("2.104", ALWAYS),
    ],
)
def test_windows(cloud: Cloud, version: str, expected: dict[str, int]) -> None:
    assert absolute(cloud, version=version) == expected


def test_usage_and_own_limits(cloud: Cloud) -> None:
    def use(tx: Any) -> None:
        QUOTA.set(tx, "p1", {"cores": 7, "instances": -1})
        QUOTA.take(tx, "p1", {"instances": 2, "cores": 3, "ram": 1024, "server_groups": 1})

    cloud.served.store.write_here(use)
    found = absolute(cloud)
    assert found == ALWAYS | {
        "maxTotalCores": 7,
        "maxTotalInstances": -1,
        "totalInstancesUsed": 2,
        "totalCoresUsed": 3,
        "totalRAMUsed": 1024,
        "totalServerGroupsUsed": 1,
    }
    assert absolute(cloud, token="reader:p2") == ALWAYS


def test_limits_of_another_project_are_for_admins(cloud: Cloud) -> None:
    cloud.served.store.write_here(lambda tx: QUOTA.set(tx, "p1", {"cores": 7}))
    assert absolute(cloud, "?tenant_id=p1", token="admin:ops")["maxTotalCores"] == 7
    assert absolute(cloud, token="admin:ops")["maxTotalCores"] == 20
    fault(cloud.ask("GET", "/limits?tenant_id=p1", token="member:p2"), 403)


def test_parameters(cloud: Cloud) -> None:
    assert absolute(cloud, "?reserved=1", version="2.1")["maxTotalCores"] == 20
    assert absolute(cloud, "?color=blue", version="2.74")["maxTotalCores"] == 20
    fault(cloud.ask("GET", "/limits?color=blue", version="2.75"), 400)


def test_the_defaults_are_a_class(cloud: Cloud) -> None:
    wanted = {"quota_class_set": {"instances": 3}}
    assert cloud.ask("PUT", "/os-quota-class-sets/default", wanted, token="member:p1").status == 403
    found = ok(cloud.ask("PUT", "/os-quota-class-sets/default", wanted))
    assert found["quota_class_set"]["instances"] == 3
    assert ok(cloud.ask("GET", "/limits", token="member:p1"))["limits"]["absolute"]["maxTotalInstances"] == 3
