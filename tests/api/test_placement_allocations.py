"""Placement's allocations, usages and candidates through the edge, at the versions that changed them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pileus.services.placement.service import service
from tests.api.edge import Served, make_edge
from tests.api.test_placement_providers import A1, P1, P2, P3, UNKNOWN, Caller, code, make

C1, C2 = (f"c0000000-0000-0000-0000-00000000000{number}" for number in (1, 2))
OWNER = {"project_id": "p1", "user_id": "u1"}


@pytest.fixture(name="cloud")
def one_cloud(database_url: str) -> Iterator[Served]:
    with make_edge(database_url, service()) as served:
        yield served


@pytest.fixture(name="call")
def one_caller(cloud: Served) -> Caller:
    return Caller(cloud.client("admin:ops"))


def listed(**resources: int) -> list[Any]:
    return [{"resource_provider": {"uuid": P1}, "resources": resources}]


def keyed(uuid: str = P1, /, **resources: int) -> dict[str, Any]:
    return {uuid: {"resources": resources}}


def newest(generation: int | None, **resources: int) -> dict[str, Any]:
    allocations = keyed(P1, **resources) if resources else {}
    return {"allocations": allocations, "consumer_generation": generation, "consumer_type": "INSTANCE", **OWNER}


def usages(call: Caller, uuid: str = P1) -> dict[str, int]:
    found: dict[str, int] = call("GET", f"/resource_providers/{uuid}/usages").json["usages"]
    return found


BODIES = {
    "1.0": {"allocations": listed(VCPU=1)},
    "1.8": {"allocations": listed(VCPU=1), **OWNER},
    "1.12": {"allocations": keyed(VCPU=1), **OWNER},
    "1.28": {"allocations": keyed(VCPU=1), "consumer_generation": None, **OWNER},
    "1.34": {"allocations": keyed(VCPU=1), "consumer_generation": None, "mappings": {"": [P1]}, **OWNER},
    "1.38": {"allocations": keyed(VCPU=1), "consumer_generation": None, "consumer_type": "INSTANCE", **OWNER},
}
WINDOWS = {
    "1.0": ("1.0", "1.7"),
    "1.8": ("1.8", "1.11"),
    "1.12": ("1.12", "1.27"),
    "1.28": ("1.28", "1.33", "1.34", "1.37"),
    "1.34": ("1.34", "1.37"),
    "1.38": ("1.38", "1.39"),
}


@pytest.mark.parametrize(
    "version", ["1.0", "1.7", "1.8", "1.11", "1.12", "1.27", "1.28", "1.33", "1.34", "1.37", "1.39"]
)
@pytest.mark.parametrize("shape", BODIES)
def test_each_version_takes_its_own_shape_alone(call: Caller, version: str, shape: str) -> None:
    make(call, VCPU=4)
    answer = call("PUT", f"/allocations/{C1}", BODIES[shape], version)
    expected = version in WINDOWS[shape]
    assert answer.status == (204 if expected else 400), answer
    assert usages(call)["VCPU"] == int(expected)


def test_each_version_shows_its_own_shape(call: Caller) -> None:
    make(call, VCPU=4)
    assert call("PUT", f"/allocations/{C1}", newest(None, VCPU=2)).status == 204
    held = {P1: {"resources": {"VCPU": 2}, "generation": 2}}
    shapes: dict[str, dict[str, Any]] = {
        "1.0": {},
        "1.11": {},
        "1.12": OWNER,
        "1.27": OWNER,
        "1.28": OWNER | {"consumer_generation": 1},
        "1.38": OWNER | {"consumer_generation": 1, "consumer_type": "INSTANCE"},
    }
    for version, more in shapes.items():
        assert call("GET", f"/allocations/{C1}", version=version).json == {"allocations": held, **more}, version
    assert call("GET", f"/allocations/{C2}").json == {"allocations": {}}
    path = f"/resource_providers/{P1}/allocations"
    assert call("GET", path, version="1.27").json == {
        "allocations": {C1: {"resources": {"VCPU": 2}}},
        "resource_provider_generation": 2,
    }
    assert call("GET", path).json["allocations"][C1] == {"resources": {"VCPU": 2}, "consumer_generation": 1}
    assert call("GET", f"/resource_providers/{UNKNOWN}/allocations").status == 404


def test_consumers_have_generations(call: Caller) -> None:
    make(call, VCPU=4)
    path = f"/allocations/{C1}"
    answer = call("PUT", path, newest(1, VCPU=1))
    assert (answer.status, code(answer)) == (409, "placement.concurrent_update")
    assert call("PUT", path, newest(None, VCPU=1)).status == 204
    assert call("PUT", path, newest(None, VCPU=2)).status == 409
    assert call("PUT", path, newest(1, VCPU=2)).status == 204
    assert call("PUT", path, {"allocations": keyed(VCPU=3), **OWNER}, "1.12").status == 204
    assert call("GET", path).json["consumer_generation"] == 3
    assert call("GET", path).json["consumer_type"] == "INSTANCE"
    assert call("PUT", path, {"allocations": {}, **OWNER}, "1.27").status == 400
    assert call("PUT", path, newest(3)).status == 204
    assert call("GET", path).json == {"allocations": {}}
    assert usages(call) == {"VCPU": 0}
    assert call("PUT", path, newest(None)).status == 204


def test_what_does_not_fit_is_refused(call: Caller) -> None:
    make(call, VCPU=4)
    body = {"resource_provider_generation": 1, "total": 100, "min_unit": 10, "max_unit": 50, "step_size": 10}
    assert call("POST", f"/resource_providers/{P1}/inventories", body | {"resource_class": "DISK_GB"}).status == 201
    path = f"/allocations/{C1}"
    for resources, status in (
        ({"VCPU": 5}, 409),
        ({"DISK_GB": 5}, 409),
        ({"DISK_GB": 60}, 409),
        ({"DISK_GB": 15}, 409),
        ({"PCPU": 1}, 409),
        ({"VCPU": 1, "NONSENSE": 1}, 400),
        ({"VCPU": 0}, 400),
        ({"VCPU": "1"}, 400),
        ({"VCPU": 2**31}, 400),
        ({"no sense": 1}, 400),
        ({"VCPU": 4, "DISK_GB": 50}, 204),
    ):
        answer = call("PUT", path, newest(None, **resources))
        assert answer.status == status, (resources, answer)
    assert call("PUT", f"/allocations/{C2}", newest(None, VCPU=1)).status == 409
    elsewhere = newest(None) | {"allocations": keyed(UNKNOWN, VCPU=1)}
    assert call("PUT", f"/allocations/{C2}", elsewhere).status == 400
    assert call("PUT", "/allocations/x", newest(None, VCPU=1)).status == 400
    assert usages(call) == {"VCPU": 4, "DISK_GB": 50}


def test_an_inventory_that_shrank_keeps_what_is_held(call: Caller) -> None:
    make(call, VCPU=4)
    assert call("PUT", f"/allocations/{C1}", newest(None, VCPU=4)).status == 204
    generation = call("GET", f"/resource_providers/{P1}").json["generation"]
    path = f"/resource_providers/{P1}/inventories"
    assert call("PUT", f"{path}/VCPU", {"resource_provider_generation": generation, "total": 2}).status == 200
    assert call("PUT", f"/allocations/{C1}", newest(1, VCPU=3)).status == 204
    assert call("PUT", f"/allocations/{C1}", newest(2, VCPU=4)).status == 409
    assert call("DELETE", f"{path}/VCPU").status == 409
    answer = call("DELETE", path)
    assert (answer.status, code(answer)) == (409, "placement.inventory.inuse")
    answer = call("DELETE", f"/resource_providers/{P1}")
    assert (answer.status, code(answer)) == (409, "placement.resource_provider.inuse")
    assert call("DELETE", f"/allocations/{C1}").status == 204
    assert call("DELETE", f"/allocations/{C1}").status == 404
    assert call("DELETE", f"/resource_providers/{P1}").status == 204


def test_several_consumers_change_together(call: Caller) -> None:
    make(call, P1, VCPU=4)
    make(call, P2, VCPU=4)
    assert call("PUT", f"/allocations/{C1}", newest(None, VCPU=4)).status == 204
    move = {
        C1: newest(1),
        C2: newest(None) | {"allocations": keyed(P1, VCPU=4) | keyed(P2, VCPU=1)},
    }
    assert call("POST", "/allocations", move, "1.12").status == 404
    assert call("POST", "/allocations", move, "1.37").status == 400
    bad = move | {C2: newest(None) | {"allocations": keyed(P2, VCPU=5)}}
    assert call("POST", "/allocations", bad).status == 409
    assert usages(call) == {"VCPU": 4}
    assert call("POST", "/allocations", move).status == 204
    assert (usages(call, P1), usages(call, P2)) == ({"VCPU": 4}, {"VCPU": 1})
    assert call("GET", f"/allocations/{C1}").json == {"allocations": {}}
    old = {C1: {"allocations": keyed(P2, VCPU=1), **OWNER}, C2: {"allocations": {}, **OWNER}}
    assert call("POST", "/allocations", old, "1.13").status == 204
    assert (usages(call, P1), usages(call, P2)) == ({"VCPU": 0}, {"VCPU": 1})
    assert call("POST", "/allocations", {}).status == 400
    assert call("POST", "/allocations", {"x": old[C1]}, "1.13").status == 400


def test_usages_of_projects(cloud: Served, call: Caller) -> None:
    make(call, VCPU=8)
    call("PUT", f"/allocations/{C1}", newest(None, VCPU=2))
    call("PUT", f"/allocations/{C2}", BODIES["1.12"], "1.12")
    assert call("GET", "/usages?project_id=p1", version="1.9").json == {"usages": {"VCPU": 3}}
    assert call("GET", "/usages?project_id=p1").json["usages"] == {
        "INSTANCE": {"VCPU": 2, "consumer_count": 1},
        "unknown": {"VCPU": 1, "consumer_count": 1},
    }
    assert call("GET", "/usages?project_id=p1&consumer_type=all").json["usages"] == {
        "all": {"VCPU": 3, "consumer_count": 2}
    }
    assert set(call("GET", "/usages?project_id=p1&consumer_type=unknown").json["usages"]) == {"unknown"}
    assert call("GET", "/usages?project_id=p1&user_id=u2").json == {"usages": {}}
    assert call("GET", "/usages?project_id=p2").json == {"usages": {}}
    for query, version in (("", "1.9"), ("?project_id=p1&more=x", "1.9"), ("?project_id=p1&consumer_type=x", "1.37")):
        assert call("GET", f"/usages{query}", version=version).status == 400
    assert call("GET", "/usages?project_id=p1", version="1.8").status == 404
    assert Caller(cloud.client("reader:p1"))("GET", "/usages?project_id=p1").status == 200
    assert Caller(cloud.client("reader:p1"))("GET", "/usages?project_id=p2").status == 403
    assert call("GET", f"/resource_providers/{UNKNOWN}/usages").status == 404


def candidates(call: Caller, query: str, version: str = "1.39") -> list[dict[str, dict[str, int]]]:
    answer = call("GET", f"/allocation_candidates?{query}", version=version)
    assert answer.status == 200, answer
    return [
        {uuid: part["resources"] for uuid, part in one["allocations"].items()}
        for one in answer.json["allocation_requests"]
    ]


def test_candidates_of_single_providers(call: Caller) -> None:
    make(call, P1, VCPU=4, MEMORY_MB=100)
    make(call, P2, VCPU=2, MEMORY_MB=100)
    both = {"VCPU": 2, "MEMORY_MB": 50}
    assert candidates(call, "resources=VCPU:2,MEMORY_MB:50") == [{P1: both}, {P2: both}]
    assert candidates(call, "resources=VCPU:2,MEMORY_MB:50&limit=1") == [{P1: both}]
    assert candidates(call, "resources=VCPU:3") == [{P1: {"VCPU": 3}}]
    assert candidates(call, f"resources=VCPU:1&in_tree={P2}") == [{P2: {"VCPU": 1}}]
    call("PUT", f"/allocations/{C1}", newest(None, VCPU=3))
    assert candidates(call, "resources=VCPU:2") == [{P2: {"VCPU": 2}}]
    generation = call("GET", f"/resource_providers/{P2}").json["generation"]
    body = {"traits": ["HW_CPU_X86_AVX"], "resource_provider_generation": generation}
    assert call("PUT", f"/resource_providers/{P2}/traits", body).status == 200
    assert candidates(call, "resources=VCPU:1&required=HW_CPU_X86_AVX") == [{P2: {"VCPU": 1}}]
    assert candidates(call, "resources=VCPU:1&required=!HW_CPU_X86_AVX") == [{P1: {"VCPU": 1}}]
    assert candidates(call, "resources=VCPU:1&root_required=HW_CPU_X86_AVX") == [{P2: {"VCPU": 1}}]
    assert candidates(call, f"resources=VCPU:1&member_of={A1}") == []


def test_candidates_show_what_their_version_knows(call: Caller) -> None:
    make(call, P1, VCPU=4, MEMORY_MB=100)
    answer = call("GET", "/allocation_candidates?resources=VCPU:1", version="1.10").json
    assert answer == {
        "allocation_requests": [{"allocations": listed(VCPU=1)}],
        "provider_summaries": {P1: {"resources": {"VCPU": {"capacity": 4, "used": 0}}}},
    }
    answer = call("GET", "/allocation_candidates?resources=VCPU:1").json
    assert answer == {
        "allocation_requests": [{"allocations": keyed(VCPU=1), "mappings": {"": [P1]}}],
        "provider_summaries": {
            P1: {
                "resources": {"VCPU": {"capacity": 4, "used": 0}, "MEMORY_MB": {"capacity": 100, "used": 0}},
                "traits": [],
                "parent_provider_uuid": None,
                "root_provider_uuid": P1,
            }
        },
    }
    body = answer["allocation_requests"][0] | {"consumer_generation": None, "consumer_type": "INSTANCE", **OWNER}
    assert call("PUT", f"/allocations/{C1}", body).status == 204


def test_candidates_of_trees_and_sharing_providers(call: Caller) -> None:
    make(call, P1, VCPU=4)
    make(call, P2, parent=P1, SRIOV_NET_VF=2)
    make(call, P3, DISK_GB=100)
    whole = {P1: {"VCPU": 1}, P2: {"SRIOV_NET_VF": 1}}
    assert candidates(call, "resources=VCPU:1,SRIOV_NET_VF:1") == [whole]
    assert call("GET", "/allocation_candidates?resources=VCPU:1,SRIOV_NET_VF:1", version="1.28").json == {
        "allocation_requests": [],
        "provider_summaries": {},
    }
    assert candidates(call, "resources=VCPU:1,DISK_GB:10") == []
    traits = {"traits": ["MISC_SHARES_VIA_AGGREGATE"], "resource_provider_generation": 1}
    assert call("PUT", f"/resource_providers/{P3}/traits", traits).status == 200
    for uuid in (P1, P3):
        assert call("PUT", f"/resource_providers/{uuid}/aggregates", [A1], "1.18").status == 200
    assert candidates(call, "resources=VCPU:1,DISK_GB:10") == [{P1: {"VCPU": 1}, P3: {"DISK_GB": 10}}]
    assert candidates(call, "resources=DISK_GB:10") == [{P3: {"DISK_GB": 10}}]
    numbered = "resources=VCPU:1&resources1=SRIOV_NET_VF:1&resources2=SRIOV_NET_VF:1"
    assert candidates(call, f"{numbered}&group_policy=none") == [{P1: {"VCPU": 1}, P2: {"SRIOV_NET_VF": 2}}]
    assert candidates(call, f"{numbered}&group_policy=isolate") == []
    named = "resources_A=VCPU:1&resources_B=SRIOV_NET_VF:1&group_policy=none"
    assert candidates(call, f"{named}&same_subtree=_A,_B") == [whole]
    disk = "resources_A=SRIOV_NET_VF:1&resources_B=DISK_GB:1&group_policy=none"
    assert candidates(call, disk) == [{P2: {"SRIOV_NET_VF": 1}, P3: {"DISK_GB": 1}}]
    assert candidates(call, f"{disk}&same_subtree=_A,_B") == []
    assert candidates(call, "resources1=SRIOV_NET_VF:3") == []


@pytest.mark.parametrize(
    ("query", "version"),
    [
        ("", "1.39"),
        ("resources=", "1.39"),
        ("resources=VCPU", "1.39"),
        ("resources=NONSENSE:1", "1.39"),
        ("resources=VCPU:1&limit=0", "1.39"),
        ("resources=VCPU:1&limit=1", "1.15"),
        ("resources=VCPU:1&required=NONSENSE", "1.39"),
        ("resources=VCPU:1&required=HW_CPU_X86_AVX", "1.16"),
        (f"resources=VCPU:1&member_of={A1}", "1.20"),
        (f"resources=VCPU:1&in_tree={P1}", "1.30"),
        ("resources=VCPU:1&resources1=VCPU:1", "1.24"),
        ("resources=VCPU:1&resources_A=VCPU:1", "1.32"),
        ("resources1=VCPU:1&resources2=VCPU:1", "1.39"),
        ("resources=VCPU:1&group_policy=some", "1.39"),
        ("resources=VCPU:1&required1=HW_CPU_X86_AVX", "1.39"),
        ("resources=VCPU:1&root_required=HW_CPU_X86_AVX", "1.34"),
        ("resources=VCPU:1&same_subtree=_A", "1.39"),
        ("resources=VCPU:1&same_subtree=_A", "1.35"),
        ("resources=VCPU:1&more=x", "1.39"),
    ],
)
def test_bad_requests_for_candidates(call: Caller, query: str, version: str) -> None:
    assert call("GET", f"/allocation_candidates?{query}", version=version).status == 400
    assert call("GET", "/allocation_candidates?resources=VCPU:1", version="1.9").status == 404
