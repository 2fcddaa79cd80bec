"""Subnet pools and address scopes through the real edge, and subnets that are allocated out of pools."""

from __future__ import annotations

import time
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pileus.services.network.rules import prefix as rules
from pileus.services.network.rules.fault import SubnetAllocationError
from tests.services.network.cloud import Cloud

UNKNOWN = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def cloud(database_url: str) -> Iterator[Cloud]:
    with Cloud(database_url, loops=False) as cloud:
        yield cloud


def make_scope(cloud: Cloud, by: Any = None, **values: Any) -> Any:
    found = cloud.ask("POST", "/address-scopes", {"address_scope": {"name": "s", "ip_version": 4, **values}}, by=by)
    assert found.status == 201, found
    return found.json["address_scope"]


def make_pool(cloud: Cloud, *prefixes: str, by: Any = None, **values: Any) -> Any:
    return cloud.make("subnetpool", by=by, **{"name": "pool", "prefixes": list(prefixes or ("10.0.0.0/16",)), **values})


def allot(cloud: Cloud, pool: Any, net: Any = None, **values: Any) -> Any:
    """A subnet out of a pool, on a network of its own unless one is given."""
    net = net or cloud.make("network", name="net")
    return cloud.make("subnet", network_id=net["id"], subnetpool_id=pool["id"], ip_version=4, **values)


# -- pools -----------------------------------------------------------------------------------------------------------


def test_a_pool_lives_and_goes(cloud: Cloud) -> None:
    pool = make_pool(cloud, "10.1.0.0/24", "10.1.1.0/24", "10.0.0.0/16", description="of web servers")
    assert {name: pool[name] for name in ("prefixes", "ip_version", "default_quota", "is_default", "shared")} == {
        "prefixes": ["10.0.0.0/16", "10.1.0.0/23"],
        "ip_version": 4,
        "default_quota": None,
        "is_default": False,
        "shared": False,
    }
    lengths = ("min_prefixlen", "default_prefixlen", "max_prefixlen")
    assert [pool[name] for name in lengths] == ["8", "8", "32"]
    assert (pool["project_id"], pool["description"], pool["address_scope_id"]) == ("p1", "of web servers", None)
    path = f"/subnetpools/{pool['id']}"
    assert cloud.get(path)["subnetpool"] == pool
    assert cloud.get("/subnetpools?name=pool&ip_version=4&is_default=false")["subnetpools"] == [pool]
    prefixes = ["10.0.0.0/15", "10.2.0.0/16"]
    wanted = {"name": "new", "default_prefixlen": "24", "default_quota": 512, "prefixes": prefixes}
    changed = cloud.ask("PUT", path, {"subnetpool": wanted}).json["subnetpool"]
    assert (changed["name"], changed["default_prefixlen"], changed["default_quota"]) == ("new", "24", 512)
    assert changed["prefixes"] == prefixes
    assert cloud.ask("PUT", f"{path}/tags/blue").status == 201
    assert cloud.get(path)["subnetpool"]["tags"] == ["blue"]
    assert cloud.ask("DELETE", path).status == 204
    cloud.refused(404, "SubnetPoolNotFound", "GET", path)


def test_a_pool_may_be_given_one_prefix_by_itself(cloud: Cloud) -> None:
    assert cloud.make("subnetpool", name="one", prefixes="fd00::/48")["prefixes"] == ["fd00::/48"]


WRONG: list[dict[str, Any]] = [
    {"prefixes": []},
    {"prefixes": ["10.0.0.0/33"]},
    {"prefixes": ["10.0.0.0/8", "fd00::/48"]},
    {"min_prefixlen": 25, "max_prefixlen": 24},
    {"max_prefixlen": 33},
    {"default_prefixlen": 7},
    {"max_prefixlen": 24, "default_prefixlen": 25},
    {"default_quota": -1},
    {"name": ""},
]


def test_pools_that_cannot_be_are_refused(cloud: Cloud) -> None:
    for values in WRONG:
        body = {"subnetpool": {"name": "pool", "prefixes": ["10.0.0.0/16"], **values}}
        assert cloud.ask("POST", "/subnetpools", body).status == 400, values
    pool = make_pool(cloud)
    path = f"/subnetpools/{pool['id']}"
    for wrong in ({"prefixes": ["10.0.0.0/17"]}, {"prefixes": ["fd00::/48"]}, {"min_prefixlen": 33}):
        assert cloud.ask("PUT", path, {"subnetpool": wrong}).status == 400, wrong
    cloud.refused(404, "AddressScopeNotFound", "PUT", path, {"subnetpool": {"address_scope_id": UNKNOWN}})
    cloud.ask("PUT", "/quotas/p1", {"quota": {"subnetpool": 1}}, by=cloud.admin)
    body = {"subnetpool": {"name": "more", "prefixes": ["10.9.0.0/16"]}}
    cloud.refused(409, "OverQuota", "POST", "/subnetpools", body)


def test_pools_are_their_project_s_unless_shared(cloud: Cloud) -> None:
    mine, shared = make_pool(cloud), make_pool(cloud, "10.5.0.0/16", by=cloud.admin, shared=True)
    assert {one["id"] for one in cloud.get("/subnetpools", by=cloud.reader)["subnetpools"]} == {
        mine["id"],
        shared["id"],
    }
    assert [one["id"] for one in cloud.get("/subnetpools", by=cloud.stranger)["subnetpools"]] == [shared["id"]]
    for verb in ("GET", "PUT", "DELETE"):
        body = {"subnetpool": {"name": "x"}} if verb == "PUT" else None
        cloud.refused(404, "SubnetPoolNotFound", verb, f"/subnetpools/{mine['id']}", body, by=cloud.stranger)
    cloud.refused(403, "PolicyNotAuthorized", "DELETE", f"/subnetpools/{shared['id']}")
    cloud.refused(403, "PolicyNotAuthorized", "DELETE", f"/subnetpools/{mine['id']}", by=cloud.reader)
    for flag in ("shared", "is_default"):
        values: dict[str, Any] = {"name": "x", "prefixes": ["10.0.0.0/16"], flag: True}
        assert cloud.ask("POST", "/subnetpools", {"subnetpool": values}).status == 403, flag
    assert allot(cloud, shared, prefixlen=24)["cidr"] == "10.5.0.0/24"


def test_prefixes_come_and_go(cloud: Cloud) -> None:
    pool = make_pool(cloud)
    path = f"/subnetpools/{pool['id']}"
    added = cloud.ask("PUT", f"{path}/add_prefixes", {"prefixes": ["10.1.0.0/16", "10.9.0.0/24"]})
    assert added.json == {"prefixes": ["10.0.0.0/15", "10.9.0.0/24"]}
    assert allot(cloud, pool, cidr="10.9.0.0/25")["cidr"] == "10.9.0.0/25"
    for wrong in (["10.9.0.0/24"], ["10.9.0.64/26"]):
        cloud.refused(400, "IllegalSubnetPoolPrefixUpdate", "PUT", f"{path}/remove_prefixes", {"prefixes": wrong})
    gone = cloud.ask("PUT", f"{path}/remove_prefixes", {"prefixes": ["10.0.0.0/15", "10.9.0.128/25"]})
    assert gone.json == {"prefixes": ["10.9.0.0/25"]}
    cloud.refused(400, "IllegalSubnetPoolPrefixUpdate", "PUT", f"{path}/remove_prefixes", {"prefixes": ["10.0.0.0/8"]})
    for verb in ("add", "remove"):
        body = {"prefixes": ["10.7.0.0/16"]}
        cloud.refused(403, "PolicyNotAuthorized", "PUT", f"{path}/{verb}_prefixes", body, by=cloud.reader)
        cloud.refused(404, "SubnetPoolNotFound", "PUT", f"{path}/{verb}_prefixes", body, by=cloud.stranger)


def test_there_is_one_default_pool_for_each_ip_version(cloud: Cloud) -> None:
    pool = make_pool(cloud, by=cloud.admin, is_default=True, shared=True, default_prefixlen=26)
    again = {"subnetpool": {"name": "x", "prefixes": ["10.9.0.0/16"], "is_default": True}}
    cloud.refused(400, "InvalidInput", "POST", "/subnetpools", again, by=cloud.admin)
    six = make_pool(cloud, "fd00::/48", by=cloud.admin, is_default=True, shared=True)
    net = cloud.make("network", name="net")
    made = cloud.make("subnet", network_id=net["id"], ip_version=4, use_default_subnetpool=True)
    assert (made["cidr"], made["subnetpool_id"]) == ("10.0.0.0/26", pool["id"])
    made = cloud.make("subnet", network_id=net["id"], ip_version=6, use_default_subnetpool=True)
    assert (made["cidr"], made["subnetpool_id"]) == ("fd00::/64", six["id"])
    body = {"network_id": net["id"], "use_default_subnetpool": True}
    assert cloud.ask("POST", "/subnets", {"subnet": body}).status == 400
    assert cloud.ask("POST", "/subnets", {"subnet": {**body, "subnetpool_id": pool["id"]}}).status == 400
    off = cloud.ask("PUT", f"/subnetpools/{pool['id']}", {"subnetpool": {"is_default": False}}, by=cloud.admin)
    assert off.json["subnetpool"]["is_default"] is False
    assert cloud.ask("POST", "/subnets", {"subnet": {**body, "ip_version": 4}}).status == 400


def test_a_default_pool_that_is_private_is_nobody_elses(cloud: Cloud) -> None:
    pool = make_pool(cloud, by=cloud.admin, is_default=True, default_prefixlen=26)
    net = cloud.make("network", name="net")
    body = {"subnet": {"network_id": net["id"], "ip_version": 4, "use_default_subnetpool": True}}
    message = cloud.refused(400, "BadRequest", "POST", "/subnets", body)
    assert message == "No default subnetpool found for IPv4."
    theirs = cloud.make("network", by=cloud.admin, name="net")
    body["subnet"]["network_id"] = theirs["id"]
    made = cloud.ask("POST", "/subnets", body, by=cloud.admin).json["subnet"]
    assert (made["cidr"], made["subnetpool_id"]) == ("10.0.0.0/26", pool["id"])


# -- subnets out of pools --------------------------------------------------------------------------------------------


def test_subnets_are_allocated(cloud: Cloud) -> None:
    pool = make_pool(cloud, "10.0.0.0/24", default_prefixlen=26)
    first = allot(cloud, pool)
    assert (first["cidr"], first["gateway_ip"], first["subnetpool_id"]) == ("10.0.0.0/26", "10.0.0.1", pool["id"])
    assert allot(cloud, pool, prefixlen=27)["cidr"] == "10.0.0.64/27"
    assert allot(cloud, pool, cidr="10.0.0.128/25")["cidr"] == "10.0.0.128/25"
    assert allot(cloud, pool, prefixlen=27)["cidr"] == "10.0.0.96/27"
    net = cloud.make("network", name="net")
    body = {"network_id": net["id"], "subnetpool_id": pool["id"], "ip_version": 4}
    cloud.refused(400, "SubnetAllocationError", "POST", "/subnets", {"subnet": body})
    cloud.refused(400, "SubnetPoolDeleteError", "DELETE", f"/subnetpools/{pool['id']}")
    assert cloud.ask("DELETE", f"/subnets/{first['id']}").status == 204
    assert allot(cloud, pool)["cidr"] == "10.0.0.0/26"
    shown = cloud.get(f"/subnets?subnetpool_id={pool['id']}")["subnets"]
    assert len(shown) == 4


def test_what_a_pool_does_not_give_is_refused(cloud: Cloud) -> None:
    pool = make_pool(cloud, min_prefixlen=20, max_prefixlen=28)
    net = cloud.make("network", name="net")
    wrong: list[dict[str, Any]] = [
        {"prefixlen": 19},
        {"prefixlen": 29},
        {"cidr": "10.0.0.0/29"},
        {"cidr": "10.9.0.0/24"},
        {"cidr": "10.0.0.0/24", "prefixlen": 24},
        {"ip_version": 6},
        {"prefixlen": 24, "gateway_ip": "no address"},
    ]
    for values in wrong:
        body = {"network_id": net["id"], "subnetpool_id": pool["id"], "ip_version": 4, **values}
        assert cloud.ask("POST", "/subnets", {"subnet": body}).status == 400, values
    bare = {"network_id": net["id"], "ip_version": 4}
    for values in ({}, {"cidr": "10.0.0.0/24", "prefixlen": 24}):
        assert cloud.ask("POST", "/subnets", {"subnet": {**bare, **values}}).status == 400, values
    cloud.refused(404, "SubnetPoolNotFound", "POST", "/subnets", {"subnet": {**bare, "subnetpool_id": UNKNOWN}})
    theirs = make_pool(cloud, by=cloud.stranger)
    cloud.refused(404, "SubnetPoolNotFound", "POST", "/subnets", {"subnet": {**bare, "subnetpool_id": theirs["id"]}})


def test_a_network_keeps_to_one_pool(cloud: Cloud) -> None:
    first, second = make_pool(cloud), make_pool(cloud, "10.9.0.0/16")
    net = cloud.make("network", name="net")
    allot(cloud, first, net, prefixlen=24)
    allot(cloud, first, net, prefixlen=24)
    for body in ({"subnetpool_id": second["id"], "prefixlen": 24}, {"cidr": "192.0.2.0/24"}):
        values = {"network_id": net["id"], "ip_version": 4, **body}
        cloud.refused(400, "NetworkSubnetPoolAffinityError", "POST", "/subnets", {"subnet": values})
    assert cloud.make("subnet", network_id=net["id"], cidr="fd00::/64", ip_version=6)["subnetpool_id"] is None


def test_a_project_has_no_more_of_a_pool_than_its_quota(cloud: Cloud) -> None:
    pool = make_pool(cloud, default_quota=384)
    allot(cloud, pool, prefixlen=24)
    net = cloud.make("network", name="net")
    body = {"network_id": net["id"], "subnetpool_id": pool["id"], "ip_version": 4, "prefixlen": 24}
    cloud.refused(409, "SubnetPoolQuotaExceeded", "POST", "/subnets", {"subnet": body})
    allot(cloud, pool, prefixlen=25)


def test_a_pool_takes_in_the_subnets_of_a_network(cloud: Cloud) -> None:
    pool = make_pool(cloud)
    net, subnet = cloud.net("192.0.2.0/24")
    path = f"/subnetpools/{pool['id']}/onboard_network_subnets"
    found = cloud.ask("PUT", path, {"network_id": net["id"]})
    assert (found.status, found.json) == (200, [{"id": subnet["id"], "cidr": "192.0.2.0/24"}])
    assert cloud.get(f"/subnets/{subnet['id']}")["subnet"]["subnetpool_id"] == pool["id"]
    assert cloud.get(f"/subnetpools/{pool['id']}")["subnetpool"]["prefixes"] == ["10.0.0.0/16", "192.0.2.0/24"]
    other, _ = cloud.net("192.0.2.0/25")
    assert cloud.ask("PUT", path, {"network_id": other["id"]}).status == 400
    public, _ = cloud.public()
    cloud.refused(403, "PolicyNotAuthorized", "PUT", path, {"network_id": public["id"]})
    cloud.refused(404, "NetworkNotFound", "PUT", path, {"network_id": UNKNOWN})
    cloud.refused(403, "PolicyNotAuthorized", "PUT", path, {"network_id": net["id"]}, by=cloud.reader)


def test_subnets_that_are_made_at_once_have_prefixes_of_their_own(cloud: Cloud) -> None:
    pool = make_pool(cloud, "10.0.0.0/24", default_prefixlen=27)
    nets = [cloud.make("network", name=f"net-{number}") for number in range(8)]
    bodies = [{"subnet": {"network_id": net["id"], "subnetpool_id": pool["id"], "ip_version": 4}} for net in nets]
    waiting = [cloud.member.submit("POST", "/network/v2.0/subnets", json=one) for one in bodies]
    answers = [one.result(60) for one in waiting]
    made = [one.json["subnet"]["cidr"] for one in answers if one.status == 201]
    assert {one.status for one in answers} <= {201, 409}, "whoever loses a race three times is told so"
    assert len(set(made)) == len(made) >= 1


# -- address scopes --------------------------------------------------------------------------------------------------


def test_a_scope_lives_and_goes(cloud: Cloud) -> None:
    scope = make_scope(cloud)
    assert scope.keys() == {"id", "name", "ip_version", "shared", "project_id", "tenant_id"}
    path = f"/address-scopes/{scope['id']}"
    assert cloud.get(path, by=cloud.reader)["address_scope"] == scope
    assert cloud.get("/address-scopes?ip_version=4&name=s")["address_scopes"] == [scope]
    assert cloud.ask("PUT", path, {"address_scope": {"name": "t"}}).json["address_scope"]["name"] == "t"
    cloud.refused(403, "PolicyNotAuthorized", "DELETE", path, by=cloud.reader)
    assert cloud.ask("PUT", path, {"address_scope": {"shared": True}}).status == 403
    for verb in ("GET", "DELETE"):
        cloud.refused(404, "AddressScopeNotFound", verb, path, by=cloud.stranger)
    shared = cloud.ask("PUT", path, {"address_scope": {"shared": True}}, by=cloud.admin)
    assert shared.json["address_scope"]["shared"] is True
    assert cloud.get(path, by=cloud.stranger)["address_scope"]["name"] == "t"
    cloud.refused(400, "InvalidInput", "PUT", path, {"address_scope": {"shared": False}}, by=cloud.admin)
    assert cloud.ask("DELETE", path).status == 204
    cloud.refused(404, "AddressScopeNotFound", "GET", path)
    assert cloud.ask("POST", "/address-scopes", {"address_scope": {"name": "x", "ip_version": 5}}).status == 400
    shared_by_member = {"address_scope": {"name": "x", "ip_version": 4, "shared": True}}
    assert cloud.ask("POST", "/address-scopes", shared_by_member).status == 403


def test_pools_of_a_scope_are_unique(cloud: Cloud) -> None:
    scope = make_scope(cloud)
    pool = make_pool(cloud, address_scope_id=scope["id"])
    assert pool["address_scope_id"] == scope["id"]
    body: dict[str, Any] = {"name": "x", "prefixes": ["10.0.128.0/17"], "address_scope_id": scope["id"]}
    cloud.refused(409, "AddressScopePrefixConflict", "POST", "/subnetpools", {"subnetpool": body})
    six = {"subnetpool": {**body, "prefixes": ["fd00::/48"]}}
    cloud.refused(400, "IllegalSubnetPoolAssociationToAddressScope", "POST", "/subnetpools", six)
    cloud.refused(404, "AddressScopeNotFound", "POST", "/subnetpools", {"subnetpool": body}, by=cloud.stranger)
    other = make_pool(cloud, "10.9.0.0/16", address_scope_id=scope["id"])
    path = f"/subnetpools/{other['id']}/add_prefixes"
    cloud.refused(409, "AddressScopePrefixConflict", "PUT", path, {"prefixes": ["10.0.0.0/24"]})
    cloud.refused(409, "AddressScopeInUse", "DELETE", f"/address-scopes/{scope['id']}")
    net = cloud.make("network", name="net")
    allot(cloud, pool, net, prefixlen=24)
    allot(cloud, other, net, prefixlen=24)
    shown = cloud.get(f"/networks/{net['id']}")["network"]
    assert (shown["ipv4_address_scope"], shown["ipv6_address_scope"]) == (scope["id"], None)


def test_a_pool_has_a_bounded_number_of_prefixes(cloud: Cloud) -> None:
    many = [f"10.{number // 256}.{number % 256}.0/25" for number in range(257)]
    body: dict[str, Any] = {"name": "x", "prefixes": many}
    assert cloud.ask("POST", "/subnetpools", {"subnetpool": body}).status == 400
    pool = make_pool(cloud, *many[:256])
    path = f"/subnetpools/{pool['id']}"
    for verb, more in (("add", many[256:]), ("add", [f"10.9.{number}.0/25" for number in range(256)])):
        cloud.refused(400, "InvalidInput", "PUT", f"{path}/{verb}_prefixes", {"prefixes": more})
    cloud.refused(400, "InvalidInput", "PUT", f"{path}/remove_prefixes", {"prefixes": ["10.0.0.1/32"]})
    body = {"prefixes": [*many[:255], "10.8.0.0/16", many[255], "10.9.0.0/16"]}
    assert cloud.ask("PUT", path, {"subnetpool": body}).status == 400
    assert cloud.ask("PUT", path, {"subnetpool": {"name": "y"}}).status == 200
    less = cloud.ask("PUT", f"{path}/remove_prefixes", {"prefixes": many[:250]})
    assert less.json == {"prefixes": many[250:256]}


def test_what_is_taken_from_a_wide_prefix_costs_no_time(cloud: Cloud) -> None:
    pool = make_pool(cloud, "fd00::/8", default_prefixlen=64)
    far = [f"fd{number:02x}:{number:x}::{number:x}/128" for number in range(256)]
    began = time.perf_counter()
    cloud.refused(400, "InvalidInput", "PUT", f"/subnetpools/{pool['id']}/remove_prefixes", {"prefixes": far})
    assert time.perf_counter() - began < 1
    cloud.refused(400, "BadRequest", "PUT", f"/subnetpools/{pool['id']}/remove_prefixes", {"prefixes": far * 12})


# -- the rules -------------------------------------------------------------------------------------------------------

SPACE = ip_network("10.0.0.0/26")
BLOCKS = [block for length in range(26, 33) for block in SPACE.subnets(new_prefix=length)]


@given(st.lists(st.sampled_from(BLOCKS), max_size=8), st.integers(26, 32))
def test_free_blocks_are_what_is_not_taken(taken: list[Any], length: int) -> None:
    available = rules.free([SPACE], taken)
    held = {address for block in taken for address in block}
    left = [address for block in available for address in block]
    assert sorted(left) == sorted(set(SPACE) - held)
    try:
        found = rules.choose(available, length)
    except SubnetAllocationError:
        assert all(held & set(block) for block in SPACE.subnets(new_prefix=length))
    else:
        assert found.prefixlen == length
        assert not held & set(found)
        rules.check_free(available, found)


@given(st.lists(st.sampled_from(BLOCKS), max_size=6), st.lists(st.sampled_from(BLOCKS), max_size=6))
def test_what_lies_in_prefixes_is_what_their_addresses_say(some: list[Any], others: list[Any]) -> None:
    mine, theirs = ({address for block in blocks for address in block} for blocks in (some, others))
    assert rules.covered(some, others) == (theirs <= mine)
    assert rules.overlap(some, others) == bool(mine & theirs)
    left = {address for block in rules.free(rules.merge(some), others) for address in block}
    assert left == mine - theirs


def test_what_is_free_of_many_prefixes_is_found_in_time_that_grows_with_their_number() -> None:
    space = [ip_network("fd00::/8")]
    taken = [ip_network(f"fd00:0:0:{number:x}::/128") for number in range(0, 20_000, 2)]
    began = time.perf_counter()
    left = rules.free([ip_network(f"fd00:0:0:{number:x}::/120") for number in range(20_000)], taken)
    assert rules.covered(space, left)
    assert not rules.overlap(left, taken)
    assert time.perf_counter() - began < 10  # two hundred million looks, if each taken one were held against each block
    assert len(left) == 10_000 * 8 + 10_000


def test_units_count_addresses_or_prefixes_of_64_bits() -> None:
    assert rules.units([ip_network("10.0.0.0/24"), ip_network("10.0.1.0/32")]) == 257
    assert rules.units([ip_network("fd00::/62")]) == 4
