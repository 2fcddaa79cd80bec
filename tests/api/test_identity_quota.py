"""Identity's limits as the quotas of other services."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pileus.core.errors import QuotaExceeded
from pileus.core.quota import UNLIMITED, Quota
from pileus.core.store import Store
from pileus.services.compute.resources.quota import QUOTA as COMPUTE
from pileus.services.identity.interface import LimitModel, UnifiedLimits
from pileus.services.identity.rules.limit import FLAT, STRICT_TWO_LEVEL
from tests.effort import examples
from tests.services.identity.cloud import Cloud, make_cloud, ok


@pytest.fixture
def cloud(database_url: str, tmp_path: Path) -> Iterator[Cloud]:
    with make_cloud(database_url, tmp_path) as made:
        yield made


@pytest.fixture
def strict(database_url: str, tmp_path: Path) -> Iterator[Cloud]:
    with make_cloud(database_url, tmp_path, {LimitModel: STRICT_TWO_LEVEL}) as made:
        yield made


def quota(model: LimitModel = FLAT) -> Quota:
    found = Quota("compute", {"instances": 10, "key_pairs": 100}, names={"instances": "servers"})
    found.source = UnifiedLimits(model, "RegionOne")
    return found


def compute(cloud: Cloud) -> str:
    return str(ok(cloud.admin.request("GET", "/v3/services?type=compute"))["services"][0]["id"])


def register(cloud: Cloud, name: str, default: int, **more: Any) -> str:
    one = {"service_id": compute(cloud), "resource_name": name, "default_limit": default, **more}
    made = ok(cloud.admin.request("POST", "/v3/registered_limits", {"registered_limits": [one]}), 201)
    return str(made["registered_limits"][0]["id"])


def limit(cloud: Cloud, name: str, amount: int, **more: Any) -> str:
    one = {"service_id": compute(cloud), "resource_name": name, "resource_limit": amount, **more}
    return str(ok(cloud.admin.request("POST", "/v3/limits", {"limits": [one]}), 201)["limits"][0]["id"])


def take(store: Store, of: Quota, project: str, amount: int) -> bool:
    """Whether a project may have so many instances more; if so, it has."""
    try:
        store.write_here(partial(of.take, project_id=project, amounts={"instances": amount}))
    except QuotaExceeded:
        return False
    return True


def test_limits_are_identitys(cloud: Cloud) -> None:
    store, project, other, of = cloud.served.store, cloud.project("p"), cloud.project("q"), quota()

    def limits(key: str) -> dict[str, int]:
        return store.read_here(lambda tx: of.limits(tx, key))

    assert limits(project) == {"instances": 10, "key_pairs": 100}  # what is built in, while nothing is registered
    register(cloud, "servers", 3)
    register(cloud, "instances", 99)  # a name that the source does not know this resource by
    limit(cloud, "servers", 5, project_id=project)
    assert limits(project) == {"instances": 5, "key_pairs": 100}
    assert limits(other) == {"instances": 3, "key_pairs": 100}
    assert store.read_here(of.defaults) == {"instances": 3, "key_pairs": 100}
    register(cloud, "servers", 4, region_id="RegionOne")
    assert limits(other)["instances"] == 4  # this region's goes before the one for all
    assert limits(project)["instances"] == 4
    store.write_here(lambda tx: of.set(tx, other, {"instances": 1}))
    assert limits(other)["instances"] == 4  # what the service itself keeps sleeps
    assert take(store, of, other, 4)
    assert not take(store, of, other, 1)
    of.source = None
    assert limits(other)["instances"] == 10
    assert take(store, of, other, 6)  # usage is the same, wherever limits are kept
    assert not take(store, of, other, 1)


def test_a_negative_limit_is_none(cloud: Cloud) -> None:
    of = quota()
    register(cloud, "servers", UNLIMITED)
    assert take(cloud.served.store, of, cloud.project("p"), 10_000)


def test_the_names_of_computes_limits_are_upstreams() -> None:
    assert COMPUTE.names["instances"] == "servers"
    assert COMPUTE.names["cores"] == "class:VCPU"
    assert COMPUTE.names["ram"] == "class:MEMORY_MB"
    assert set(COMPUTE.names) == set(COMPUTE.builtin)


_OWNERS = {"a": "d", "b": "d", "c": "e"}
_STEP = st.tuples(st.sampled_from(sorted(_OWNERS)), st.integers(-3, 4))
_LIMITS = st.dictionaries(st.sampled_from(("a", "b", "c", "d", "e")), st.integers(0, 6))


def test_projects_of_a_domain_stay_together_within_its_limit(strict: Cloud) -> None:
    store, of, admin = strict.served.store, quota(STRICT_TWO_LEVEL), strict.admin
    keys = {"d": strict.domain("d"), "e": strict.domain("e")}
    keys |= {name: strict.project(name, domain_id=keys[domain]) for name, domain in _OWNERS.items()}

    @given(default=st.integers(0, 6), limits=_LIMITS, steps=st.lists(_STEP, max_size=15))
    @settings(max_examples=examples(30), deadline=None)
    def play(default: int, limits: dict[str, int], steps: list[tuple[str, int]]) -> None:
        for owner, domain in _OWNERS.items():
            if owner in limits:
                limits[owner] = min(limits[owner], limits.get(domain, default))
        registered = register(strict, "servers", default)
        made = [
            limit(strict, "servers", limits[owner], **{"project_id" if owner in _OWNERS else "domain_id": keys[owner]})
            for owner in sorted(limits, key=lambda owner: owner in _OWNERS)
        ]
        used = dict.fromkeys(_OWNERS, 0)
        for owner, amount in steps:
            domain = _OWNERS[owner]
            if used[owner] + amount < 0:
                continue
            together = sum(used[one] for one in _OWNERS if _OWNERS[one] == domain) + amount
            own = used[owner] + amount <= limits.get(owner, default)
            lawful = amount <= 0 or (own and together <= limits.get(domain, default))
            assert take(store, of, keys[owner], amount) == lawful
            used[owner] += amount if lawful else 0
        for owner, amount in used.items():
            store.write_here(partial(of.give_back, project_id=keys[owner], amounts={"instances": amount}))
        for key in reversed(made):
            ok(admin.request("DELETE", f"/v3/limits/{key}"), 204)
        ok(admin.request("DELETE", f"/v3/registered_limits/{registered}"), 204)

    play()


def test_a_domains_last_unit_goes_to_one_project(strict: Cloud) -> None:
    store, of = strict.served.store, quota(STRICT_TWO_LEVEL)
    register(strict, "servers", 3)
    projects = [strict.project(f"p{number}") for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda project: take(store, of, project, 1), projects))
    assert sum(taken) == 3
