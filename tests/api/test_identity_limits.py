"""Registered limits, limits of projects and domains, and the models that bind them together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pileus.services.identity.rules.limit import STRICT_TWO_LEVEL, Model
from tests.api.edge import Client, Response
from tests.effort import examples
from tests.services.identity.cloud import Cloud, make_cloud, ok


@pytest.fixture
def cloud(database_url: str, tmp_path: Path) -> Iterator[Cloud]:
    with make_cloud(database_url, tmp_path) as made:
        yield made


@pytest.fixture
def strict(database_url: str, tmp_path: Path) -> Iterator[Cloud]:
    with make_cloud(database_url, tmp_path, {Model: STRICT_TWO_LEVEL}) as made:
        yield made


def compute(cloud: Cloud) -> str:
    return str(ok(cloud.admin.request("GET", "/v3/services?type=compute"))["services"][0]["id"])


def register(cloud: Cloud, name: str = "servers", default: int = 10, **more: Any) -> dict[str, Any]:
    wanted = {"service_id": compute(cloud), "resource_name": name, "default_limit": default, **more}
    made = ok(cloud.admin.request("POST", "/v3/registered_limits", {"registered_limits": [wanted]}), 201)
    assert set(made) == {"registered_limits"}
    return dict(made["registered_limits"][0])


def wanted(cloud: Cloud, amount: int = 5, name: str = "servers", **owner: Any) -> dict[str, Any]:
    return {"service_id": compute(cloud), "resource_name": name, "resource_limit": amount, **owner}


def create(client: Client, *limits: dict[str, Any]) -> Response:
    return client.request("POST", "/v3/limits", {"limits": list(limits)})


def limit(cloud: Cloud, amount: int = 5, name: str = "servers", **owner: Any) -> dict[str, Any]:
    return dict(ok(create(cloud.admin, wanted(cloud, amount, name, **owner)), 201)["limits"][0])


def test_a_registered_limit_from_first_to_last(cloud: Cloud) -> None:
    admin = cloud.admin
    made = register(cloud, region_id="RegionOne", description="servers here")
    path = f"/v3/registered_limits/{made['id']}"
    assert made["links"]["self"].endswith(path)
    assert ok(admin.request("GET", path))["registered_limit"] == made
    everywhere = register(cloud)
    assert everywhere["region_id"] is None
    both = ok(admin.request("GET", "/v3/registered_limits?resource_name=servers"))["registered_limits"]
    assert {one["id"] for one in both} == {made["id"], everywhere["id"]}
    here = ok(admin.request("GET", "/v3/registered_limits?region_id=RegionOne"))["registered_limits"]
    assert here == [made]
    changed = ok(admin.request("PATCH", path, {"registered_limit": {"default_limit": -1, "description": None}}))
    assert changed["registered_limit"] == {**made, "default_limit": -1, "description": None}
    ok(admin.request("PATCH", path, {"registered_limit": {"region_id": None}}), 409)
    ok(admin.request("PATCH", path, {"registered_limit": {"region_id": "nowhere"}}), 400)
    ok(admin.request("PATCH", path, {"registered_limit": {}}), 400)
    ok(admin.request("DELETE", path), 204)
    ok(admin.request("GET", path), 404)
    ok(admin.request("PATCH", path, {"registered_limit": {"default_limit": 1}}), 404)


def test_what_cannot_be_registered(cloud: Cloud) -> None:
    register(cloud)
    good = {"service_id": compute(cloud), "resource_name": "cores", "default_limit": 1}
    for bad, status in (
        ([], 400),
        ([{**good, "service_id": "none"}], 400),
        ([{**good, "region_id": "none"}], 400),
        ([{**good, "default_limit": -2}], 400),
        ([{**good, "default_limit": 2**31}], 400),
        ([{**good, "default_limit": "1"}], 400),
        ([{**good, "more": 1}], 400),
        ([good, {**good, "resource_name": "servers"}], 409),
        ([good, good], 409),
    ):
        ok(cloud.admin.request("POST", "/v3/registered_limits", {"registered_limits": bad}), status)
    assert len(ok(cloud.admin.request("GET", "/v3/registered_limits"))["registered_limits"]) == 1


def test_limits_of_projects_and_domains(cloud: Cloud) -> None:
    admin, project = cloud.admin, cloud.project("p")
    registered = register(cloud)
    ours = limit(cloud, 7, project_id=project)
    theirs = limit(cloud, 20, domain_id="default")
    assert (ours["project_id"], ours["domain_id"]) == (project, None)
    assert (theirs["project_id"], theirs["domain_id"]) == (None, "default")
    path = f"/v3/limits/{ours['id']}"
    assert ours["links"]["self"].endswith(path)
    assert ok(admin.request("GET", path))["limit"] == ours
    for query, found in (
        ("", [ours, theirs]),
        (f"?project_id={project}", [ours]),
        (f"?domain_id={project}", []),
        ("?domain_id=default", [theirs]),
        ("?resource_name=cores", []),
        (f"?service_id={compute(cloud)}&resource_name=servers", [ours, theirs]),
    ):
        listed = ok(admin.request("GET", f"/v3/limits{query}"))["limits"]
        assert sorted(listed, key=lambda one: str(one["id"])) == sorted(found, key=lambda one: str(one["id"]))
    changed = ok(admin.request("PATCH", path, {"limit": {"resource_limit": 0}}))["limit"]
    assert changed == {**ours, "resource_limit": 0}
    for body in ({}, {"resource_limit": -2}, {"project_id": project}):
        ok(admin.request("PATCH", path, {"limit": body}), 400)
    place = f"/v3/registered_limits/{registered['id']}"
    ok(admin.request("DELETE", place), 403)
    ok(admin.request("PATCH", place, {"registered_limit": {"default_limit": 1}}), 403)
    ok(admin.request("DELETE", path), 204)
    ok(admin.request("GET", path), 404)


def test_limits_that_cannot_be(cloud: Cloud) -> None:
    project = cloud.project("p")
    register(cloud)
    limit(cloud, project_id=project)
    for bad, status in (
        (wanted(cloud, project_id=project), 409),
        (wanted(cloud, name="cores", project_id=project), 403),
        (wanted(cloud, region_id="RegionOne", project_id=project), 403),
        (wanted(cloud, region_id="none", project_id=project), 400),
        (wanted(cloud, project_id="none"), 400),
        (wanted(cloud, domain_id=project), 400),
        (wanted(cloud, project_id=project, domain_id="default"), 400),
        (wanted(cloud), 400),
        (wanted(cloud, project_id=None), 400),
    ):
        ok(create(cloud.admin, bad), status)


def test_a_projects_limits_go_with_it(cloud: Cloud) -> None:
    project = cloud.project("p")
    registered = register(cloud)
    limit(cloud, project_id=project)
    ok(cloud.admin.request("DELETE", f"/v3/projects/{project}"), 204)
    assert ok(cloud.admin.request("GET", "/v3/limits"))["limits"] == []
    ok(cloud.admin.request("DELETE", f"/v3/registered_limits/{registered['id']}"), 204)


def test_who_sees_which_limits(cloud: Cloud) -> None:
    elsewhere = cloud.domain("d")
    mine, other = cloud.project("p"), cloud.project("q", domain_id=elsewhere)
    register(cloud)
    own, foreign = limit(cloud, project_id=mine), limit(cloud, project_id=other)
    common = limit(cloud, domain_id=elsewhere)
    everything = {own["id"], foreign["id"], common["id"]}
    for client, seen in (
        (cloud.persona("reader", "system", None), everything),
        (cloud.persona("admin", "domain", "default"), everything),
        (cloud.persona("service", "project", mine), everything),
        (cloud.persona("reader", "project", mine), {own["id"]}),
        (cloud.persona("manager", "domain", "default"), {own["id"]}),
        (cloud.persona("reader", "domain", elsewhere), {foreign["id"], common["id"]}),
    ):
        assert {one["id"] for one in ok(client.request("GET", "/v3/limits"))["limits"]} == seen
        shown = {key: client.request("GET", f"/v3/limits/{key}").status for key in everything}
        if seen != everything:
            assert {key for key, status in shown.items() if status == 200} == seen
        ok(client.request("GET", "/v3/limits/model"))
        ok(client.request("GET", "/v3/registered_limits"))
    ok(cloud.persona("member", "project", mine).request("GET", "/v3/limits/none"), 403)
    ok(cloud.admin.request("GET", "/v3/limits/none"), 404)


def test_only_the_clouds_administrators_set_limits(cloud: Cloud) -> None:
    project = cloud.project("p")
    registered = register(cloud)
    own = limit(cloud, project_id=project)
    for client in (
        cloud.persona("reader", "system", None),
        cloud.persona("admin", "domain", "default"),
        cloud.persona("manager", "project", project),
    ):
        ok(create(client, wanted(cloud, project_id=project)), 403)
        ok(client.request("PATCH", f"/v3/limits/{own['id']}", {"limit": {"resource_limit": 1}}), 403)
        ok(client.request("DELETE", f"/v3/limits/{own['id']}"), 403)
        path = f"/v3/registered_limits/{registered['id']}"
        ok(client.request("PATCH", path, {"registered_limit": {"default_limit": 1}}), 403)
        ok(client.request("DELETE", path), 403)
        body = {"registered_limits": [{"service_id": "x", "resource_name": "y", "default_limit": 1}]}
        ok(client.request("POST", "/v3/registered_limits", body), 403)


def test_the_model_is_shown(cloud: Cloud) -> None:
    assert ok(cloud.admin.request("GET", "/v3/limits/model"))["model"]["name"] == "flat"


def test_under_the_strict_model_no_project_passes_its_domain(strict: Cloud) -> None:
    admin, project = strict.admin, strict.project("p")
    assert ok(admin.request("GET", "/v3/limits/model"))["model"]["name"] == "strict_two_level"
    register(strict, default=10)
    ok(create(admin, wanted(strict, 11, project_id=project)), 403)
    ok(create(admin, wanted(strict, -1, project_id=project)), 403)
    both = [wanted(strict, 30, project_id=project), wanted(strict, 20, domain_id="default")]
    ok(create(admin, *both), 403)
    assert ok(admin.request("GET", "/v3/limits"))["limits"] == []
    both[0]["resource_limit"] = 20
    child, domain = ok(create(admin, *both), 201)["limits"]
    ok(admin.request("PATCH", f"/v3/limits/{domain['id']}", {"limit": {"resource_limit": 19}}), 403)
    ok(admin.request("DELETE", f"/v3/limits/{domain['id']}"), 403)
    ok(admin.request("PATCH", f"/v3/limits/{child['id']}", {"limit": {"resource_limit": 9}}))
    ok(admin.request("DELETE", f"/v3/limits/{domain['id']}"), 204)


def test_the_strict_model_has_no_third_level(strict: Cloud) -> None:
    parent = strict.project("p")
    body = {"project": {"name": "child", "parent_id": parent}}
    ok(strict.admin.request("POST", "/v3/projects", body), 403)


_AMOUNT = st.integers(-1, 4)
_STEP = st.tuples(st.sampled_from(["d1", "d2", "a", "b", "c"]), st.sampled_from(["set", "drop"]), _AMOUNT)
_DOMAIN = {"a": "d1", "b": "d1", "c": "d2"}


def _lawful(held: dict[str, int], default: int) -> bool:
    """The model, as plainly as it can be said: no project may have more than its domain."""

    def much(amount: int) -> float:
        return float("inf") if amount == -1 else amount

    return all(much(held[one]) <= much(held.get(domain, default)) for one, domain in _DOMAIN.items() if one in held)


def test_the_strict_model_holds_whatever_is_asked(strict: Cloud) -> None:
    keys = {"d1": strict.domain("d1"), "d2": strict.domain("d2")}
    keys |= {name: strict.project(name, domain_id=keys[domain]) for name, domain in _DOMAIN.items()}
    admin, counter = strict.admin, iter(range(10**6))

    @given(default=_AMOUNT, steps=st.lists(_STEP, max_size=12))
    @settings(max_examples=examples(25), deadline=None)
    def play(default: int, steps: list[tuple[str, str, int]]) -> None:
        name = f"resource-{next(counter)}"
        register(strict, name, default)
        held: dict[str, int] = {}
        made: dict[str, str] = {}
        for owner, verb, amount in steps:
            after = {**held, owner: amount} if verb == "set" else {k: v for k, v in held.items() if k != owner}
            if verb == "drop" and owner not in held:
                continue
            if verb == "drop":
                answer = admin.request("DELETE", f"/v3/limits/{made[owner]}")
            elif owner in held:
                body = {"limit": {"resource_limit": amount}}
                answer = admin.request("PATCH", f"/v3/limits/{made[owner]}", body)
            else:
                kind = "domain_id" if owner in ("d1", "d2") else "project_id"
                answer = create(admin, wanted(strict, amount, name, **{kind: keys[owner]}))
            assert (answer.status < 300) == _lawful(after, default), (held, owner, verb, amount, answer)
            if answer.status == 201:
                made[owner] = answer.json["limits"][0]["id"]
            held = after if answer.status < 300 else held

    play()
