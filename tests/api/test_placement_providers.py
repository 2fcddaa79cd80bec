"""Placement through the edge: versions, providers, inventories, aggregates, traits, classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pileus.services.placement.service import service
from tests.api.edge import Client, Response, Served, make_edge

P1, P2, P3 = (f"00000000-0000-0000-0000-00000000000{number}" for number in (1, 2, 3))
A1, A2 = (f"a0000000-0000-0000-0000-00000000000{number}" for number in (1, 2))
UNKNOWN = "11111111-2222-3333-4444-555555555555"


@pytest.fixture(name="cloud")
def one_cloud(database_url: str) -> Iterator[Served]:
    with make_edge(database_url, service()) as served:
        yield served


class Caller:
    """A client of Placement at a microversion."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def __call__(self, method: str, path: str, json: Any = None, version: str = "1.39") -> Response:
        headers = {"OpenStack-API-Version": f"placement {version}"}
        return self.client.request(method, f"/placement{path}", json=json, headers=headers)


@pytest.fixture(name="call")
def one_caller(cloud: Served) -> Caller:
    return Caller(cloud.client("admin:ops"))


def make(call: Caller, uuid: str = P1, name: str | None = None, parent: str | None = None, **totals: int) -> None:
    body: dict[str, Any] = {"uuid": uuid, "name": name or uuid, "parent_provider_uuid": parent}
    assert call("POST", "/resource_providers", body).status == 200
    if totals:
        inventories = {class_name: {"total": total} for class_name, total in totals.items()}
        body = {"resource_provider_generation": 0, "inventories": inventories}
        assert call("PUT", f"/resource_providers/{uuid}/inventories", body).status == 200


def uuids(answer: Response) -> list[str]:
    assert answer.status == 200, answer
    return [one["uuid"] for one in answer.json["resource_providers"]]


def code(answer: Response) -> str:
    return str(answer.json["errors"][0]["code"])


def test_versions_are_negotiated(cloud: Served) -> None:
    public = cloud.client()
    for path in ("/placement", "/placement/"):
        answer = public.request("GET", path)
        assert answer.status == 200
        (found,) = answer.json["versions"]
        assert (found["id"], found["min_version"], found["max_version"]) == ("v1.0", "1.0", "1.39")
    admin = cloud.client("admin:ops")
    for wanted, used in ((None, "1.0"), ("1.5", "1.5"), ("latest", "1.39")):
        headers = {"OpenStack-API-Version": f"placement {wanted}"} if wanted else {}
        answer = admin.request("GET", "/placement/resource_providers", headers=headers)
        assert answer.status == 200
        assert answer.headers["openstack-api-version"] == f"placement {used}"
        assert ("last-modified" in answer.headers) == (used == "1.39")
    for wanted, status in (("1.40", 406), ("2.0", 406), ("x", 400)):
        headers = {"OpenStack-API-Version": f"placement {wanted}"}
        assert admin.request("GET", "/placement/resource_providers", headers=headers).status == status


def test_it_is_for_administrators_and_services(cloud: Served) -> None:
    for token, status in (("member:p1", 403), ("manager:p1", 403), ("service:p1", 200), ("admin:p1", 200)):
        assert Caller(cloud.client(token))("GET", "/resource_providers").status == status
        body = {"name": token.replace(":", "-")}
        assert Caller(cloud.client(token))("POST", "/resource_providers", body).status == status
    assert cloud.client().request("GET", "/placement/resource_providers").status == 401


def test_a_provider_is_made_shown_and_changed(call: Caller) -> None:
    answer = call("POST", "/resource_providers", {"name": "one"}, "1.19")
    assert (answer.status, answer.body) == (201, b"")
    assert answer.headers["location"].startswith("http://testserver/placement/resource_providers/")
    made = call("POST", "/resource_providers", {"name": "two", "uuid": P1.replace("-", "").upper()})
    assert made.status == 200
    links = ["self", "inventories", "usages", "aggregates", "traits", "allocations"]
    base = f"/placement/resource_providers/{P1}"
    assert made.json == {
        "uuid": P1,
        "name": "two",
        "generation": 0,
        "parent_provider_uuid": None,
        "root_provider_uuid": P1,
        "links": [{"rel": rel, "href": base if rel == "self" else f"{base}/{rel}"} for rel in links],
    }
    shown = call("GET", f"/resource_providers/{P1}")
    assert shown.json == made.json
    assert shown.headers["cache-control"] == "no-cache"
    old = call("GET", f"/resource_providers/{P1}", version="1.0").json
    assert set(old) == {"uuid", "name", "generation", "links"}
    assert [link["rel"] for link in old["links"]] == ["self", "inventories", "usages"]
    changed = call("PUT", f"/resource_providers/{P1}", {"name": "three"})
    assert (changed.status, changed.json["name"], changed.json["generation"]) == (200, "three", 0)
    assert call("DELETE", f"/resource_providers/{P1}").status == 204
    assert call("GET", f"/resource_providers/{P1}").status == 404
    assert call("DELETE", f"/resource_providers/{P1}").status == 404


@pytest.mark.parametrize(
    ("body", "version", "status"),
    [
        ({}, "1.39", 400),
        ({"name": 5}, "1.39", 400),
        ({"name": "x" * 201}, "1.39", 400),
        ({"name": "x", "uuid": "y"}, "1.39", 400),
        ({"name": "x", "more": 1}, "1.39", 400),
        ({"name": "x", "parent_provider_uuid": P1}, "1.13", 400),
        ({"name": "x", "parent_provider_uuid": UNKNOWN}, "1.14", 400),
        ({"name": P1}, "1.39", 409),
        ({"name": "x", "uuid": P1}, "1.39", 409),
    ],
)
def test_bad_providers(call: Caller, body: Any, version: str, status: int) -> None:
    make(call)
    answer = call("POST", "/resource_providers", body, version)
    assert answer.status == status
    if version == "1.39":
        assert code(answer) == ("placement.duplicate_name" if status == 409 else "placement.undefined_code")
    else:
        assert "code" not in answer.json["errors"][0]
    assert uuids(call("GET", "/resource_providers")) == [P1]


def test_trees(call: Caller) -> None:
    make(call, P1)
    make(call, P2, parent=P1)
    make(call, P3, parent=P2)
    assert call("GET", f"/resource_providers/{P3}").json["root_provider_uuid"] == P1
    assert set(uuids(call("GET", f"/resource_providers?in_tree={P2}"))) == {P1, P2, P3}
    answer = call("DELETE", f"/resource_providers/{P1}")
    assert (answer.status, code(answer)) == (409, "placement.resource_provider.cannot_delete_parent")
    path = f"/resource_providers/{P2}"
    assert call("PUT", path, {"name": "b", "parent_provider_uuid": None}, "1.36").status == 400
    assert call("PUT", path, {"name": "b", "parent_provider_uuid": P3}).status == 400
    assert call("PUT", path, {"name": "b", "parent_provider_uuid": UNKNOWN}).status == 400
    assert call("PUT", path, {"name": "b", "parent_provider_uuid": None}).json["root_provider_uuid"] == P2
    assert call("GET", f"/resource_providers/{P3}").json["root_provider_uuid"] == P2
    assert call("PUT", path, {"name": "b", "parent_provider_uuid": P1}, "1.14").json["root_provider_uuid"] == P1
    assert call("GET", f"/resource_providers/{P3}").json["root_provider_uuid"] == P1


def test_lists_filter(call: Caller) -> None:
    make(call, P1, "one", VCPU=4, DISK_GB=10)
    make(call, P2, "two", VCPU=2)
    generation = call("GET", f"/resource_providers/{P1}").json["generation"]
    body = {"resource_provider_generation": generation, "traits": ["HW_CPU_X86_AVX", "HW_CPU_X86_SSE"]}
    assert call("PUT", f"/resource_providers/{P1}/traits", body).status == 200
    body = {"resource_provider_generation": generation + 1, "aggregates": [A1]}
    assert call("PUT", f"/resource_providers/{P1}/aggregates", body).status == 200
    for query, found in {
        "": {P1, P2},
        "?name=one": {P1},
        f"?uuid={P2}": {P2},
        f"?uuid={UNKNOWN}": set(),
        "?resources=VCPU:3": {P1},
        "?resources=VCPU:2,DISK_GB:10": {P1},
        "?resources=VCPU:5": set(),
        "?required=HW_CPU_X86_AVX": {P1},
        "?required=!HW_CPU_X86_AVX": {P2},
        "?required=HW_CPU_X86_AVX&required=in:HW_CPU_X86_SSE,HW_CPU_X86_MMX": {P1},
        "?required=in:HW_CPU_X86_MMX,HW_CPU_X86_VMX": set(),
        f"?member_of={A1}": {P1},
        f"?member_of=in:{A1},{A2}": {P1},
        f"?member_of=!{A1}": {P2},
        f"?member_of=!in:{A1},{A2}": {P2},
        f"?member_of={A1}&member_of={A2}": set(),
        f"?in_tree={P2}": {P2},
        f"?in_tree={UNKNOWN}": set(),
    }.items():
        assert set(uuids(call("GET", f"/resource_providers{query}"))) == found, query
    for query, version in (
        ("?more=x", "1.39"),
        ("?uuid=x", "1.39"),
        ("?in_tree=x", "1.39"),
        ("?in_tree=" + P1, "1.13"),
        ("?resources=VCPU:1", "1.3"),
        ("?resources=", "1.39"),
        ("?resources=VCPU", "1.39"),
        ("?resources=VCPU:0", "1.39"),
        ("?resources=VCPU:x", "1.39"),
        ("?resources=NONSENSE:1", "1.39"),
        ("?required=NONSENSE", "1.39"),
        ("?required=", "1.39"),
        ("?required=!HW_CPU_X86_AVX", "1.21"),
        ("?required=in:HW_CPU_X86_AVX", "1.38"),
        ("?required=in:!HW_CPU_X86_AVX", "1.39"),
        ("?required=HW_CPU_X86_AVX,!HW_CPU_X86_AVX", "1.39"),
        ("?required=HW_CPU_X86_AVX", "1.17"),
        ("?member_of=x", "1.39"),
        (f"?member_of={A1}", "1.2"),
        (f"?member_of={A1},{A2}", "1.39"),
        (f"?member_of=!{A1}", "1.31"),
        (f"?member_of={A1}&member_of={A2}", "1.23"),
    ):
        assert call("GET", f"/resource_providers{query}", version=version).status == 400, query


def test_inventories(call: Caller) -> None:
    make(call)
    path = f"/resource_providers/{P1}/inventories"
    assert call("GET", path).json == {"inventories": {}, "resource_provider_generation": 0}
    made = call("POST", path, {"resource_class": "VCPU", "total": 8, "allocation_ratio": 16.0})
    vcpu = {
        "total": 8,
        "reserved": 0,
        "min_unit": 1,
        "max_unit": 2**31 - 1,
        "step_size": 1,
        "allocation_ratio": 16.0,
    }
    assert (made.status, made.json) == (201, vcpu | {"resource_provider_generation": 1})
    assert made.headers["location"] == f"http://testserver/placement{path}/VCPU"
    assert call("POST", path, {"resource_class": "VCPU", "total": 8}).status == 409
    assert call("GET", f"{path}/VCPU").json == vcpu | {"resource_provider_generation": 1}
    body = {"resource_provider_generation": 1, "inventories": {"VCPU": {"total": 4}, "DISK_GB": {"total": 10}}}
    answer = call("PUT", path, body)
    assert answer.json["resource_provider_generation"] == 2
    assert {name: one["total"] for name, one in answer.json["inventories"].items()} == {"VCPU": 4, "DISK_GB": 10}
    stale = call("PUT", path, body)
    assert (stale.status, code(stale)) == (409, "placement.concurrent_update")
    one = call("PUT", f"{path}/VCPU", {"resource_provider_generation": 2, "total": 5, "reserved": 1})
    assert (one.status, one.json["total"], one.json["resource_provider_generation"]) == (200, 5, 3)
    assert call("PUT", f"{path}/VCPU", {"resource_provider_generation": 2, "total": 5}).status == 409
    assert call("PUT", f"{path}/PCPU", {"resource_provider_generation": 3, "total": 5}).status == 400
    assert call("DELETE", f"{path}/VCPU").status == 204
    assert call("DELETE", f"{path}/VCPU").status == 404
    assert call("GET", f"{path}/VCPU").status == 404
    assert call("DELETE", path, version="1.4").status in (404, 405)
    assert call("DELETE", path).status == 204
    assert call("GET", path).json["inventories"] == {}
    assert call("GET", f"/resource_providers/{UNKNOWN}/inventories").status == 404


@pytest.mark.parametrize(
    ("changes", "version", "status"),
    [
        ({"total": 0}, "1.39", 400),
        ({"total": 2**31}, "1.39", 400),
        ({"total": "4"}, "1.39", 400),
        ({"reserved": -1}, "1.39", 400),
        ({"reserved": 4}, "1.25", 400),
        ({"reserved": 4}, "1.26", 201),
        ({"reserved": 5}, "1.39", 400),
        ({"min_unit": 0}, "1.39", 400),
        ({"step_size": 0}, "1.39", 400),
        ({"allocation_ratio": 0}, "1.25", 400),
        ({"more": 1}, "1.39", 400),
        ({"resource_class": "NONSENSE"}, "1.39", 400),
        ({"resource_class": "no sense"}, "1.39", 400),
    ],
)
def test_bad_inventories(call: Caller, changes: Any, version: str, status: int) -> None:
    make(call)
    body = {"resource_class": "VCPU", "total": 4} | changes
    path = f"/resource_providers/{P1}/inventories"
    assert call("POST", path, body, version).status == status
    if status != 201:
        assert call("GET", path).json == {"inventories": {}, "resource_provider_generation": 0}


def test_aggregates(call: Caller) -> None:
    make(call)
    path = f"/resource_providers/{P1}/aggregates"
    assert call("GET", path, version="1.0").status == 404
    assert call("PUT", path, [A1, A2], "1.18").json == {"aggregates": [A1, A2]}
    assert call("GET", path).json == {"aggregates": [A1, A2], "resource_provider_generation": 0}
    answer = call("PUT", path, {"aggregates": [A2], "resource_provider_generation": 0})
    assert answer.json == {"aggregates": [A2], "resource_provider_generation": 1}
    stale = call("PUT", path, {"aggregates": [], "resource_provider_generation": 0})
    assert (stale.status, code(stale)) == (409, "placement.concurrent_update")
    for body, version in (([A1], "1.19"), ({"aggregates": [A1]}, "1.19"), (["x"], "1.1"), ([A1, A1], "1.1")):
        assert call("PUT", path, body, version).status == 400
    assert call("GET", f"/resource_providers/{UNKNOWN}/aggregates").status == 404


def test_traits(call: Caller) -> None:
    make(call)
    standard = call("GET", "/traits").json["traits"]
    assert "HW_CPU_X86_AVX" in standard
    assert call("PUT", "/traits/CUSTOM_GOLD").status == 201
    assert call("PUT", "/traits/CUSTOM_GOLD").status == 204
    assert call("PUT", "/traits/GOLD").status == 400
    assert call("GET", "/traits/CUSTOM_GOLD").status == 204
    assert call("GET", "/traits/CUSTOM_SILVER").status == 404
    assert call("GET", "/traits", version="1.5").status == 404
    path = f"/resource_providers/{P1}/traits"
    body = {"traits": ["CUSTOM_GOLD", "HW_CPU_X86_AVX"], "resource_provider_generation": 0}
    assert call("PUT", path, body).json == body | {"resource_provider_generation": 1}
    assert call("PUT", path, body).status == 409
    assert call("PUT", path, {"traits": ["CUSTOM_SILVER"], "resource_provider_generation": 1}).status == 400
    assert call("GET", path).json == body | {"resource_provider_generation": 1}
    assert call("GET", "/traits?associated=true").json["traits"] == ["CUSTOM_GOLD", "HW_CPU_X86_AVX"]
    assert call("GET", "/traits?name=startswith:CUSTOM_").json["traits"] == ["CUSTOM_GOLD"]
    assert call("GET", "/traits?name=in:CUSTOM_GOLD,NONE").json["traits"] == ["CUSTOM_GOLD"]
    for query in ("?name=x", "?associated=x", "?more=x"):
        assert call("GET", f"/traits{query}").status == 400
    assert call("DELETE", "/traits/CUSTOM_GOLD").status == 409
    assert call("DELETE", "/traits/HW_CPU_X86_AVX").status == 400
    assert call("DELETE", path).status == 204
    assert call("DELETE", "/traits/CUSTOM_GOLD").status == 204
    assert call("DELETE", "/traits/CUSTOM_GOLD").status == 404


def test_resource_classes(call: Caller) -> None:
    make(call)
    listed = call("GET", "/resource_classes").json["resource_classes"]
    assert listed[0] == {"name": "VCPU", "links": [{"rel": "self", "href": "/placement/resource_classes/VCPU"}]}
    assert call("GET", "/resource_classes", version="1.1").status == 404
    assert call("POST", "/resource_classes", {"name": "CUSTOM_GOLD"}).status == 201
    assert call("POST", "/resource_classes", {"name": "CUSTOM_GOLD"}).status == 409
    assert call("POST", "/resource_classes", {"name": "GOLD"}).status == 400
    assert call("GET", "/resource_classes/CUSTOM_GOLD").json["name"] == "CUSTOM_GOLD"
    assert call("GET", "/resource_classes/CUSTOM_NONE").status == 404
    assert call("PUT", "/resource_classes/CUSTOM_GOLD", {"name": "CUSTOM_AU"}, "1.6").json["name"] == "CUSTOM_AU"
    assert call("PUT", "/resource_classes/VCPU", {"name": "CUSTOM_X"}, "1.6").status == 400
    assert call("PUT", "/resource_classes/CUSTOM_NONE", {"name": "CUSTOM_X"}, "1.6").status == 404
    assert call("PUT", "/resource_classes/CUSTOM_AU").status == 204
    assert call("PUT", "/resource_classes/CUSTOM_AG").status == 201
    assert call("PUT", "/resource_classes/VCPU").status == 400
    body = {"resource_class": "CUSTOM_AG", "total": 1}
    assert call("POST", f"/resource_providers/{P1}/inventories", body).status == 201
    assert call("DELETE", "/resource_classes/CUSTOM_AG").status == 409
    assert call("DELETE", "/resource_classes/VCPU").status == 400
    assert call("DELETE", f"/resource_providers/{P1}/inventories").status == 204
    assert call("DELETE", "/resource_classes/CUSTOM_AG").status == 204
    assert call("DELETE", "/resource_classes/CUSTOM_AG").status == 404
