"""Flavors through the real edge."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.services.compute.cloud import NEWEST, OTHER, PROJECT, Cloud, at

FLAVORS = "/compute/v2.1/flavors"


@pytest.fixture
def cloud(database_url: str) -> Iterator[Cloud]:
    with Cloud(database_url) as found:
        yield found


def test_create_and_show(cloud: Cloud) -> None:
    body = {"name": "m1", "ram": "512", "vcpus": 1, "disk": 0, "swap": 64, "OS-FLV-EXT-DATA:ephemeral": 3}
    made = cloud.admin.request("POST", FLAVORS, json={"flavor": body})
    assert made.status == 200
    shown = cloud.reader.request("GET", f"{FLAVORS}/{made.json['flavor']['id']}").json["flavor"]
    assert shown == made.json["flavor"]
    assert (shown["ram"], shown["swap"], shown["OS-FLV-EXT-DATA:ephemeral"]) == (512, 64, 3)
    assert shown["os-flavor-access:is_public"] is True
    assert shown["links"][0]["href"].endswith(f"/compute/v2.1/flavors/{shown['id']}")


@pytest.mark.parametrize(
    ("version", "there", "absent"),
    [
        ("2.1", {"rxtx_factor", "OS-FLV-DISABLED:disabled"}, {"description", "extra_specs"}),
        ("2.54", {"rxtx_factor"}, {"description", "extra_specs"}),
        ("2.55", {"description", "rxtx_factor"}, {"extra_specs"}),
        ("2.61", {"description", "extra_specs", "rxtx_factor", "OS-FLV-DISABLED:disabled"}, set()),
        ("2.102", {"description", "extra_specs"}, {"rxtx_factor", "OS-FLV-DISABLED:disabled"}),
    ],
)
def test_windows(cloud: Cloud, version: str, there: set[str], absent: set[str]) -> None:
    cloud.flavor("1")
    found = set(cloud.reader.request("GET", f"{FLAVORS}/1", headers=at(version)).json["flavor"])
    assert there <= found
    assert not absent & found


def test_empty_swap_became_a_number(cloud: Cloud) -> None:
    cloud.flavor("1")
    swaps = [
        cloud.reader.request("GET", f"{FLAVORS}/1", headers=at(v)).json["flavor"]["swap"] for v in ("2.74", "2.75")
    ]
    assert swaps == ["", 0]


@pytest.mark.parametrize(
    ("version", "change", "status"),
    [
        ("2.1", {"description": "x"}, 400),
        ("2.55", {"description": "x"}, 200),
        ("2.101", {"rxtx_factor": 1.5}, 200),
        ("2.102", {"rxtx_factor": 1.5}, 400),
        ("2.1", {"ram": 0}, 400),
        ("2.1", {"vcpus": "many"}, 400),
        ("2.1", {"disk": -1}, 400),
        ("2.1", {"name": " "}, 400),
        ("2.1", {"name": ""}, 400),
        ("2.1", {"name": "x" * 256}, 400),
        ("2.1", {"id": "a/b"}, 400),
        ("2.1", {"id": 7}, 200),
        ("2.1", {"unknown": 1}, 400),
        ("2.1", {"rxtx_factor": 0}, 400),
    ],
)
def test_bodies(cloud: Cloud, version: str, change: dict[str, object], status: int) -> None:
    body = {"name": "m", "ram": 1, "vcpus": 1, "disk": 1} | change
    assert cloud.admin.request("POST", FLAVORS, json={"flavor": body}, headers=at(version)).status == status


def test_names_and_ids_are_taken_once(cloud: Cloud) -> None:
    cloud.flavor("1", name="m1")
    for body in ({"name": "m1", "id": "2"}, {"name": "m2", "id": "1"}):
        found = cloud.admin.request("POST", FLAVORS, json={"flavor": {"ram": 1, "vcpus": 1, "disk": 1} | body})
        assert found.status == 409
        assert "already exists" in found.json["conflictingRequest"]["message"]


def test_only_admins_make_and_delete(cloud: Cloud) -> None:
    cloud.flavor("1")
    body = {"flavor": {"name": "x", "ram": 1, "vcpus": 1, "disk": 1}}
    assert cloud.member.request("POST", FLAVORS, json=body).status == 403
    assert cloud.member.request("DELETE", f"{FLAVORS}/1").status == 403
    assert cloud.admin.request("DELETE", f"{FLAVORS}/1").status == 202
    assert cloud.admin.request("DELETE", f"{FLAVORS}/1").status == 404
    assert cloud.member.request("GET", f"{FLAVORS}/1").status == 404


def test_update(cloud: Cloud) -> None:
    cloud.flavor("1")
    body = {"flavor": {"description": "for tests"}}
    assert cloud.admin.request("PUT", f"{FLAVORS}/1", json=body, headers=at("2.54")).status == 404
    found = cloud.admin.request("PUT", f"{FLAVORS}/1", json=body, headers=at("2.55"))
    assert found.json["flavor"]["description"] == "for tests"
    assert cloud.admin.request("PUT", f"{FLAVORS}/1", json={"flavor": {}}, headers=at("2.55")).status == 400


def names(cloud: Cloud, query: str, version: str = "2.104") -> list[str]:
    found = cloud.reader.request("GET", f"{FLAVORS}{query}", headers=at(version))
    assert found.status == 200, found
    return [one["id"] for one in found.json["flavors"]]


def test_lists(cloud: Cloud) -> None:
    for number, ram in ((1, 64), (2, 4096), (3, 512)):
        cloud.flavor(str(number), ram=ram, disk=number)
    assert names(cloud, "") == ["1", "2", "3"]
    assert names(cloud, "?minRam=512") == ["2", "3"]
    assert names(cloud, "?minDisk=3") == ["3"]
    assert names(cloud, "?sort_key=memory_mb&sort_dir=desc") == ["2", "3", "1"]
    assert names(cloud, "?name=flavor-2") == ["2"]
    assert names(cloud, "?name=flavor-2", "2.74") == ["1", "2", "3"]
    page = cloud.reader.request("GET", f"{FLAVORS}?limit=2", headers=NEWEST).json
    assert [one["id"] for one in page["flavors"]] == ["1", "2"]
    following = page["flavors_links"][0]["href"].partition("/compute")
    assert names(cloud, following[2].removeprefix("/v2.1/flavors")) == ["3"]


@pytest.mark.parametrize(
    ("query", "version", "status"),
    [
        ("?name=x", "2.101", 400),
        ("?name=x", "2.102", 200),
        ("?color=x", "2.74", 200),
        ("?color=x", "2.75", 400),
        ("?minRam=x", "2.1", 400),
        ("?marker=x", "2.1", 400),
        ("?limit=x", "2.1", 400),
        ("?sort_key=x", "2.1", 400),
    ],
)
def test_list_parameters(cloud: Cloud, query: str, version: str, status: int) -> None:
    assert cloud.reader.request("GET", FLAVORS + query, headers=at(version)).status == status


def test_unknown_parameters_of_show_are_refused_at_last(cloud: Cloud) -> None:
    cloud.flavor("1")
    assert cloud.reader.request("GET", f"{FLAVORS}/1?x=1", headers=at("2.101")).status == 200
    assert cloud.reader.request("GET", f"{FLAVORS}/1?x=1", headers=at("2.102")).status == 400


def test_extra_specs(cloud: Cloud) -> None:
    cloud.flavor("1")
    specs = f"{FLAVORS}/1/os-extra_specs"
    body = {"extra_specs": {"hw:cpu_policy": "shared", "quota:cpu": 5}}
    assert cloud.admin.request("POST", specs, json=body).json == body
    assert cloud.reader.request("GET", specs).json["extra_specs"] == {"hw:cpu_policy": "shared", "quota:cpu": "5"}
    assert cloud.reader.request("GET", f"{specs}/quota:cpu").json == {"quota:cpu": "5"}
    assert cloud.admin.request("PUT", f"{specs}/quota:cpu", json={"quota:cpu": "6"}).status == 200
    assert cloud.admin.request("PUT", f"{specs}/quota:cpu", json={"other": "6"}).status == 400
    assert cloud.admin.request("DELETE", f"{specs}/quota:cpu").status == 200
    assert cloud.admin.request("DELETE", f"{specs}/quota:cpu").status == 404
    assert cloud.reader.request("GET", f"{specs}/quota:cpu").status == 404
    assert cloud.member.request("POST", specs, json=body).status == 403
    shown = cloud.reader.request("GET", f"{FLAVORS}/1", headers=at("2.61")).json["flavor"]
    assert shown["extra_specs"] == {"hw:cpu_policy": "shared"}


def test_private_flavors_are_for_some(cloud: Cloud) -> None:
    cloud.flavor("1", **{"os-flavor-access:is_public": False})
    act = f"{FLAVORS}/1/action"
    assert cloud.member.request("GET", f"{FLAVORS}/1").status == 404
    assert cloud.member.request("GET", FLAVORS).json["flavors"] == []
    found = cloud.admin.request("POST", act, json={"addTenantAccess": {"tenant": PROJECT}})
    assert found.status == 200
    assert found.json == {"flavor_access": [{"flavor_id": "1", "tenant_id": PROJECT}]}
    assert cloud.admin.request("POST", act, json={"addTenantAccess": {"tenant": PROJECT}}).status == 409
    assert cloud.member.request("GET", f"{FLAVORS}/1").status == 200
    assert cloud.stranger.request("GET", f"{FLAVORS}/1").status == 404
    assert cloud.admin.request("GET", f"{FLAVORS}/1/os-flavor-access").json["flavor_access"][0]["tenant_id"] == PROJECT
    nobody = cloud.admin.request("POST", act, json={"addTenantAccess": {"tenant": OTHER}})
    assert nobody.status == 400
    assert nobody.json["badRequest"]["message"] == f"Project ID {OTHER} is not a valid project."
    assert cloud.admin.request("POST", act, json={"removeTenantAccess": {"tenant": OTHER}}).status == 404
    assert cloud.admin.request("POST", act, json={"removeTenantAccess": {"tenant": PROJECT}}).status == 200
    assert cloud.member.request("GET", f"{FLAVORS}/1").status == 404


def test_public_flavors_refuse_access_lists(cloud: Cloud) -> None:
    cloud.flavor("1")
    assert cloud.admin.request("GET", f"{FLAVORS}/1/os-flavor-access").status == 404
    body = {"addTenantAccess": {"tenant": PROJECT}}
    act = f"{FLAVORS}/1/action"
    assert cloud.admin.request("POST", act, json=body, headers=at("2.7")).status == 409
    assert cloud.admin.request("POST", act, json=body, headers=at("2.6")).status == 200


def test_extra_specs_are_checked_from_2_86_on(cloud: Cloud) -> None:
    cloud.flavor("1")
    specs = f"{FLAVORS}/1/os-extra_specs"
    wrong = {"hw:cpu_policy": "sharrred"}
    assert cloud.admin.request("POST", specs, json={"extra_specs": wrong}, headers=at("2.85")).status == 200
    refused = cloud.admin.request("POST", specs, json={"extra_specs": wrong}, headers=at("2.86"))
    assert (refused.status, "is not one of" in refused.json["badRequest"]["message"]) == (400, True)
    one = f"{specs}/hw:cpu_polic"
    refused = cloud.admin.request("PUT", one, json={"hw:cpu_polic": "shared"}, headers=at("2.86"))
    assert (refused.status, "valid extra spec" in refused.json["badRequest"]["message"]) == (400, True)
    good = {"extra_specs": {"hw:cpu_policy": "shared", "mine": "anything", "quota:cpu_shares": 5}}
    assert cloud.admin.request("POST", specs, json=good, headers=at("2.86")).status == 200
