"""Placement's candidates through the edge: the grammar of each version, limits, orders, trees, and what faults say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pileus.core.config import Config
from pileus.core.seams import Seams
from pileus.services.placement.service import service
from tests.api.edge import Served, make_edge
from tests.api.test_placement_allocations import candidates
from tests.api.test_placement_providers import A1, A2, P1, P2, P3, UNKNOWN, Caller, code, make

MANY = tuple(f"00000000-0000-0000-0000-0000000000{number}" for number in range(10, 30))


@pytest.fixture(name="cloud")
def one_cloud(database_url: str) -> Iterator[Served]:
    with make_edge(database_url, service()) as served:
        yield served


@pytest.fixture(name="call")
def one_caller(cloud: Served) -> Caller:
    return Caller(cloud.client("admin:ops"))


def know(call: Caller, uuid: str, *traits: str) -> None:
    generation = call("GET", f"/resource_providers/{uuid}").json["generation"]
    body = {"traits": list(traits), "resource_provider_generation": generation}
    assert call("PUT", f"/resource_providers/{uuid}/traits", body).status == 200


def group(call: Caller, uuid: str, *aggregates: str) -> None:
    assert call("PUT", f"/resource_providers/{uuid}/aggregates", list(aggregates), "1.18").status == 200


@pytest.mark.parametrize(
    ("query", "version", "words"),
    [
        ("resources1=VCPU:1", "1.24", "'resources1' was unexpected"),
        ("required=HW_CPU_X86_AVX", "1.17", "'resources' is a required property"),
        ("resources01=VCPU:1", "1.25", "'resources01' does not match any of the regexes"),
        ("resources=VCPU:x", "1.10", "expected positive integer amount"),
        ("resources=VCPU:0", "1.10", "amount >= 1"),
        ("resources=VCPU:1:2", "1.10", "Badly formed resources parameter"),
        ("resources=VCPU:1&limit=x", "1.16", "'x' does not match"),
        ("resources=VCPU:1&required=", "1.21", "HW_CPU_X86_VMX,CUSTOM_MAGIC"),
        ("resources=VCPU:1&required=", "1.22", "HW_CPU_X86_VMX,!CUSTOM_MAGIC"),
        ("resources=VCPU:1&required=!HW_CPU_X86_AVX", "1.21", "of the form"),
        ("resources=VCPU:1&required=HW_CPU_X86_AVX,!HW_CPU_X86_AVX", "1.22", "Conflicting required and forbidden"),
        ("resources=VCPU:1&required=in:HW_CPU_X86_AVX", "1.38", "only supported since microversion 1.39"),
        ("resources=VCPU:1&required=in:HW_CPU_X86_AVX,!HW_CPU_X86_SSE", "1.39", "does not support forbidden traits"),
        ("resources=VCPU:1&required=in:", "1.39", "empty trait"),
        (f"resources=VCPU:1&member_of={A1}&member_of={A2}", "1.23", "Multiple member_of parameters"),
        (f"resources=VCPU:1&member_of={A1},{A2}", "1.24", "must be prefixed"),
        (f"resources=VCPU:1&member_of=!{A1}", "1.31", "Forbidden member_of"),
        ("resources=VCPU:1&member_of=x", "1.24", "valid UUID"),
        ("resources=VCPU:1&in_tree=x", "1.31", "format of uuid"),
        ("required1=HW_CPU_X86_AVX&resources=VCPU:1", "1.25", "orphaned traits keys: required1"),
        (f"member_of1={A1}&resources=VCPU:1", "1.25", "orphaned member_of keys: member_of1"),
        (f"in_tree1={P1}&resources=VCPU:1", "1.31", "All request groups must specify resources"),
        ("", "1.25", "At least one request group"),
    ],
)
def test_the_grammar_of_each_version(call: Caller, query: str, version: str, words: str) -> None:
    answer = call("GET", f"/allocation_candidates?{query}", version=version)
    assert answer.status == 400
    assert words in answer.json["errors"][0]["detail"]


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("required=HW_CPU_X86_AVX", "missing_value"),
        ("resources=VCPU:1&required_A=HW_CPU_X86_AVX", "bad_value"),
        ("resources=VCPU:1&same_subtree=_A", "bad_value"),
        ("resources_A=VCPU:1&same_subtree=_A,", "bad_value"),
        ("resources=VCPU:1&root_required=HW_CPU_X86_AVX&root_required=HW_CPU_X86_SSE", "duplicate_key"),
        ("resources=VCPU:1&root_required=HW_CPU_X86_AVX,!HW_CPU_X86_AVX", "bad_value"),
    ],
)
def test_faults_of_a_query_have_codes(call: Caller, query: str, word: str) -> None:
    answer = call("GET", f"/allocation_candidates?{query}", version="1.36")
    assert (answer.status, code(answer)) == (400, f"placement.query.{word}")


def test_where_a_value_is_repeated_the_first_or_the_last_counts(call: Caller) -> None:
    for uuid in MANY[:3]:
        make(call, uuid, VCPU=2)
    know(call, MANY[0], "HW_CPU_X86_AVX")
    assert len(candidates(call, "resources=VCPU:1&limit=1&limit=3")) == 1
    assert len(candidates(call, "resources=VCPU:9&resources=VCPU:1")) == 3
    numbered = "resources1=VCPU:1&resources2=VCPU:1&group_policy"
    assert len(candidates(call, f"{numbered}=none&group_policy=isolate")) == 3
    assert not candidates(call, f"{numbered}=isolate&group_policy=none")
    traits = "required=!HW_CPU_X86_AVX&required=HW_CPU_X86_AVX"
    assert len(candidates(call, f"resources=VCPU:1&{traits}", "1.38")) == 1
    assert call("GET", f"/allocation_candidates?resources=VCPU:1&{traits}").status == 400
    assert len(candidates(call, "resources=VCPU:1&limit=99999999999999999999999")) == 3


def test_any_of_several_traits(call: Caller) -> None:
    for uuid, traits in ((P1, ["HW_CPU_X86_AVX"]), (P2, ["HW_CPU_X86_SSE"]), (P3, [])):
        make(call, uuid, VCPU=1)
        know(call, uuid, *traits)
    one = {"VCPU": 1}
    either = "required=in:HW_CPU_X86_AVX,HW_CPU_X86_SSE"
    assert candidates(call, f"resources=VCPU:1&{either}") == [{P1: one}, {P2: one}]
    assert candidates(call, f"resources=VCPU:1&{either}&required=!HW_CPU_X86_AVX") == [{P2: one}]
    assert candidates(call, f"resources1=VCPU:1&{either.replace('required', 'required1')}") == [{P1: one}, {P2: one}]


def test_before_trees_were_known_a_candidate_has_one_provider_of_each(call: Caller) -> None:
    make(call, P1, VCPU=2)
    make(call, P2, parent=P1, SRIOV_NET_VF=2, VCPU=2)
    assert candidates(call, "resources=SRIOV_NET_VF:1", "1.28") == [{P2: {"SRIOV_NET_VF": 1}}]
    assert candidates(call, "resources=SRIOV_NET_VF:1,VCPU:1", "1.28") == [{P2: {"SRIOV_NET_VF": 1, "VCPU": 1}}]
    assert len(candidates(call, "resources=SRIOV_NET_VF:1,VCPU:1", "1.29")) == 2
    answer = call("GET", "/allocation_candidates?resources=SRIOV_NET_VF:1", version="1.28")
    assert set(answer.json["provider_summaries"]) == {P2}
    answer = call("GET", "/allocation_candidates?resources=SRIOV_NET_VF:1", version="1.29")
    assert set(answer.json["provider_summaries"]) == {P1, P2}


def test_member_of_is_said_of_the_root_for_its_whole_tree(call: Caller) -> None:
    make(call, P1)
    make(call, P2, parent=P1, VCPU=2)
    group(call, P1, A1)
    group(call, P2, A2)
    assert len(candidates(call, f"resources=VCPU:1&member_of={A1}")) == 1
    assert not candidates(call, f"resources1=VCPU:1&member_of1={A1}")
    assert len(candidates(call, f"resources1=VCPU:1&member_of1=in:{A1},{A2}")) == 1
    assert not candidates(call, f"resources=VCPU:1&member_of={A1}&member_of={A2}")
    assert not candidates(call, f"resources=VCPU:1&member_of=!{A1}")
    assert len(candidates(call, f"resources1=VCPU:1&member_of1=!{A1}")) == 1
    assert not candidates(call, f"resources=VCPU:1&in_tree={UNKNOWN}")


def test_who_asks_for_a_group_without_resources_gets_it_in_the_mappings(call: Caller) -> None:
    make(call, P1, VCPU=2)
    make(call, P2, parent=P1)
    know(call, P2, "HW_NUMA_ROOT")
    make(call, P3, parent=P2, SRIOV_NET_VF=1)
    query = "resources_VF=SRIOV_NET_VF:1&required_NUMA=HW_NUMA_ROOT&same_subtree=_VF,_NUMA&group_policy=none"
    answer = call("GET", f"/allocation_candidates?{query}", version="1.36").json
    assert answer["allocation_requests"] == [
        {"allocations": {P3: {"resources": {"SRIOV_NET_VF": 1}}}, "mappings": {"_VF": [P3], "_NUMA": [P2]}}
    ]
    assert set(answer["provider_summaries"]) == {P1, P2, P3}


def test_an_order_by_chance_is_one_of_all(tmp_path: Path) -> None:
    config = Config(state=tmp_path, randomize_allocation_candidates=True)
    with make_edge(tmp_path, service(), provided={Config: config}, seams=Seams(seed=7)) as cloud:
        call = Caller(cloud.client("admin:ops"))
        for uuid in MANY:
            make(call, uuid, VCPU=2)
        orders = [[uuid for one in candidates(call, "resources=VCPU:1") for uuid in one] for _ in range(4)]
        assert all(sorted(order) == sorted(MANY) for order in orders)
        assert len({tuple(order) for order in orders}) > 1
        few = {uuid for _ in range(20) for one in candidates(call, "resources=VCPU:1&limit=2") for uuid in one}
        assert len(few) > 4
        answer = call("GET", "/allocation_candidates?resources=VCPU:1&limit=2").json
        assert len(answer["allocation_requests"]) == len(answer["provider_summaries"]) == 2


def test_faults_say_what_the_version_knows(cloud: Served, call: Caller) -> None:
    assert "code" not in call("GET", "/nothing", version="1.22").json["errors"][0]
    answer = call("GET", "/nothing", version="1.23")
    assert (answer.status, code(answer)) == (404, "placement.undefined_code")
    assert answer.headers["openstack-api-version"] == "placement 1.23"
    unknown = call("GET", "/resource_providers", version="1.99")
    error = unknown.json["errors"][0]
    assert (unknown.status, error["min_version"], error["max_version"]) == (406, "1.0", "1.39")
    headers = {"content-type": "text/plain", "openstack-api-version": "placement 1.1"}
    assert cloud.client("admin:ops").request("POST", "/placement/resource_classes", headers=headers).status == 404
    early = call("DELETE", f"/resource_providers/{P1}/inventories", version="1.4")
    assert early.status == 405
    bad = call("POST", "/resource_providers", {"name": "x" * 201}).json["errors"][0]["detail"]
    assert bad.startswith("JSON does not validate: 'xxx")
    assert bad.endswith("Failed validating 'maxLength' in schema['properties']['name']")


def test_tokens_of_no_project_are_refused(cloud: Served) -> None:
    for token in ("admin@system", "admin@domain:default", "reader:ops", "member:ops"):
        assert Caller(cloud.client(token))("GET", "/allocation_candidates?resources=VCPU:1").status == 403, token
    for token in ("admin:ops", "service:ops"):
        assert Caller(cloud.client(token))("GET", "/allocation_candidates?resources=VCPU:1").status == 200, token
