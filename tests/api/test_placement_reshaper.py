"""Placement's reshaper through the edge: inventories and allocations move together, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pileus.services.placement.service import service
from tests.api.edge import Served, make_edge
from tests.api.test_placement_allocations import C1, C2, OWNER, newest, usages
from tests.api.test_placement_providers import P1, P2, UNKNOWN, Caller, code, make


@pytest.fixture(name="cloud")
def one_cloud(database_url: str) -> Iterator[Served]:
    with make_edge(database_url, service()) as served:
        yield served


@pytest.fixture(name="call")
def one_caller(cloud: Served) -> Caller:
    return Caller(cloud.client("admin+service:ops"))


def generation(call: Caller, uuid: str) -> int:
    return int(call("GET", f"/resource_providers/{uuid}").json["generation"])


def offer(generation: int, **totals: int) -> dict[str, Any]:
    inventories = {name: {"total": total} for name, total in totals.items()}
    return {"resource_provider_generation": generation, "inventories": inventories}


def held(generation: int | None, **by_provider: dict[str, int]) -> dict[str, Any]:
    uuids = {"first": P1, "second": P2, "unknown": UNKNOWN}
    allocations = {uuids[name]: {"resources": amounts} for name, amounts in by_provider.items()}
    return newest(generation) | {"allocations": allocations}


@pytest.fixture(name="tree")
def one_tree(call: Caller) -> None:
    """A host with VCPUs and a disk, of which two consumers hold something, and a child that offers nothing."""
    make(call, P1, VCPU=4, DISK_GB=100)
    make(call, P2, parent=P1)
    assert call("PUT", f"/allocations/{C1}", newest(None, VCPU=3, DISK_GB=10)).status == 204
    assert call("PUT", f"/allocations/{C2}", newest(None, VCPU=1)).status == 204


def moved(call: Caller, **changes: Any) -> dict[str, Any]:
    """The VCPUs go from the host to the child, with all that is held of them."""
    inventories = {P1: offer(generation(call, P1), DISK_GB=100), P2: offer(generation(call, P2), VCPU=4)}
    allocations = {C1: held(1, first={"DISK_GB": 10}, second={"VCPU": 3}), C2: held(1, second={"VCPU": 1})}
    return {"inventories": inventories | changes.get("inventories", {}), "allocations": allocations} | {
        name: value for name, value in changes.items() if name == "allocations"
    }


@pytest.mark.usefixtures("tree")
def test_what_is_held_moves_with_what_is_offered(call: Caller) -> None:
    answer = call("POST", "/reshaper", moved(call))
    assert (answer.status, answer.body) == (204, b"")
    assert usages(call, P1) == {"DISK_GB": 10}
    assert usages(call, P2) == {"VCPU": 4}
    found = call("GET", f"/allocations/{C1}").json
    assert found["consumer_generation"] == 2
    assert {uuid: part["resources"] for uuid, part in found["allocations"].items()} == {
        P1: {"DISK_GB": 10},
        P2: {"VCPU": 3},
    }
    back = {
        "inventories": {P1: offer(generation(call, P1), VCPU=4, DISK_GB=100), P2: offer(generation(call, P2))},
        "allocations": {C1: held(2, first={"VCPU": 3, "DISK_GB": 10}), C2: held(2)},
    }
    assert call("POST", "/reshaper", back).status == 204
    assert (usages(call, P1), usages(call, P2)) == ({"DISK_GB": 10, "VCPU": 3}, {})
    assert call("GET", f"/allocations/{C2}").json == {"allocations": {}}


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"inventories": {P1: offer(0, DISK_GB=100)}}, 409, "placement.concurrent_update"),
        ({"inventories": {UNKNOWN: offer(0, DISK_GB=1)}}, 400, "placement.resource_provider.not_found"),
        ({"inventories": {P2: offer(0, VCPU=3)}}, 409, "placement.undefined_code"),
        ({"inventories": {P2: offer(0, NONSENSE=3)}}, 400, "placement.undefined_code"),
        ({"allocations": {}}, 409, "placement.inventory.inuse"),
        ({"allocations": {C1: held(7, second={"VCPU": 3})}}, 409, "placement.concurrent_update"),
        ({"allocations": {C1: held(1, unknown={"VCPU": 3})}}, 400, "placement.undefined_code"),
        ({"allocations": {"x": held(1)}}, 400, "placement.undefined_code"),
    ],
)
def test_a_refusal_changes_nothing(call: Caller, changes: Any, status: int, reason: str) -> None:
    before = [call("GET", path).json for path in ("/resource_providers", f"/allocations/{C1}", f"/allocations/{C2}")]
    answer = call("POST", "/reshaper", moved(call, **changes))
    assert (answer.status, code(answer)) == (status, reason), answer
    after = [call("GET", path).json for path in ("/resource_providers", f"/allocations/{C1}", f"/allocations/{C2}")]
    assert after == before
    assert usages(call, P1) == {"DISK_GB": 10, "VCPU": 4}


@pytest.mark.usefixtures("tree")
def test_the_shape_follows_the_version(call: Caller) -> None:
    body = moved(call)
    assert call("POST", "/reshaper", body, "1.29").status == 404
    assert call("POST", "/reshaper", body, "1.37").status == 400  # a type of consumer
    assert call("POST", "/reshaper", {**body, "inventories": {}}).status == 400
    assert call("POST", "/reshaper", {"inventories": body["inventories"]}).status == 400
    assert call("GET", "/reshaper").status == 405
    old = {
        uuid: {name: value for name, value in one.items() if name != "consumer_type"}
        for uuid, one in body["allocations"].items()
    }
    mapped = {uuid: {**one, "mappings": {"": [P2]}} for uuid, one in old.items()}
    assert call("POST", "/reshaper", {**body, "allocations": mapped}, "1.33").status == 400
    assert call("POST", "/reshaper", {**body, "allocations": mapped}, "1.34").status == 204


def test_only_services_reshape(cloud: Served) -> None:
    body = {"inventories": {P1: offer(0, VCPU=1)}, "allocations": {}}
    for token, status in (("admin:ops", 403), ("reader:ops", 403), ("service@system", 403), ("service:ops", 400)):
        assert Caller(cloud.client(token))("POST", "/reshaper", body).status == status, token


def test_who_holds_too_much_may_hold_less_but_not_more(call: Caller) -> None:
    make(call, P1, VCPU=4)
    assert call("PUT", f"/allocations/{C1}", newest(None, VCPU=3)).status == 204
    assert call("PUT", f"/allocations/{C2}", newest(None, VCPU=1)).status == 204
    shrunk = offer(generation(call, P1), VCPU=2)
    assert call("PUT", f"/resource_providers/{P1}/inventories", shrunk).status == 200
    even = {C1: newest(1, VCPU=2), C2: newest(1, VCPU=2)}
    assert call("POST", "/allocations", even | {C2: newest(1, VCPU=3)}).status == 409
    assert call("POST", "/allocations", even).status == 204
    assert call("PUT", f"/allocations/{C1}", newest(2, VCPU=2)).status == 204
    assert usages(call) == {"VCPU": 4}


def test_the_order_of_consumers_does_not_matter(call: Caller) -> None:
    make(call, P1, VCPU=4)
    assert call("PUT", f"/allocations/{C2}", newest(None, VCPU=4)).status == 204
    swap = {C1: newest(None, VCPU=3), C2: newest(1, VCPU=1)}
    assert call("POST", "/allocations", swap).status == 204
    assert usages(call) == {"VCPU": 4}


def test_an_end_counts_where_it_was_asked_for_by_generation(call: Caller) -> None:
    make(call, P1, VCPU=4)
    call("PUT", f"/allocations/{C1}", newest(None, VCPU=1))
    before = generation(call, P1)
    assert call("PUT", f"/allocations/{C1}", newest(1)).status == 204
    assert generation(call, P1) == before + 1
    assert call("PUT", f"/allocations/{C1}", newest(None)).status == 204
    assert generation(call, P1) == before + 1
    call("PUT", f"/allocations/{C1}", {"allocations": {P1: {"resources": {"VCPU": 1}}}, **OWNER}, "1.12")
    assert call("DELETE", f"/allocations/{C1}").status == 204
    assert generation(call, P1) == before + 2
