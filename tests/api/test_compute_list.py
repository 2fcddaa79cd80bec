"""Lists of servers: filters, order, pages, and what each costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from pileus.services.compute.resources.server.table import server
from tests.api.edge import Client
from tests.services.compute.cloud import IMAGE, NEWEST, OTHER, PROJECT, Cloud, at

SERVERS = "/compute/v2.1/servers"


@pytest.fixture
def cloud(database_url: str) -> Iterator[Cloud]:
    with Cloud(database_url) as found:
        found.image()
        found.flavor("1")
        yield found


def names(cloud: Cloud, query: str = "", version: str = "2.104", client: Client | None = None) -> list[str]:
    found = (client or cloud.member).request("GET", f"{SERVERS}{query}", headers=at(version))
    assert found.status == 200, found
    return [one["name"] for one in found.json["servers"]]


def status(cloud: Cloud, query: str, version: str = "2.104", client: Client | None = None) -> int:
    return (client or cloud.member).request("GET", f"{SERVERS}{query}", headers=at(version)).status


def test_a_status_may_be_named_often(cloud: Cloud) -> None:
    assert status(cloud, "?" + "&".join(["status=ACTIVE"] * 1000)) == 200


def test_filters(cloud: Cloud) -> None:
    cloud.host("h1")
    cloud.flavor("2")
    network = cloud.network()
    web = cloud.made(name="web-one", networks=[{"uuid": network}], tags=["red", "big"], description="first")
    db = cloud.made(name="db_two", flavorRef="2", tags=["red"])
    cloud.reach(web, "ACTIVE")
    cloud.reach(db, "ACTIVE")
    cloud.act(db, "os-stop")
    cloud.reach(db, "SHUTOFF")
    address = cloud.show(web)["addresses"]["net"][0]["addr"]
    assert names(cloud) == ["db_two", "web-one"]
    expected = {
        "?name=web": ["web-one"],
        "?name=^one": [],
        "?name=one$": ["web-one"],
        "?name=b_t": ["db_two"],
        "?name=w.*e": ["web-one"],
        "?name=^web-[a-z]%2B$": ["web-one"],
        "?name=(two|three)$": ["db_two"],
        "?name=^[wd]": ["db_two", "web-one"],
        "?name=WEB": ["web-one"],
        "?name=[0-9]": [],
        "?status=active": ["web-one"],
        "?status=SHUTOFF": ["db_two"],
        "?status=ACTIVE&status=SHUTOFF": ["db_two", "web-one"],
        "?status=PASSWORD": [],
        "?flavor=2": ["db_two"],
        f"?image={IMAGE}": ["db_two", "web-one"],
        "?image=other": [],
        f"?ip={address}": ["web-one"],
        "?ip=10.0.0.": ["web-one"],
        "?ip=10.99": [],
        "?ip6=fe80": [],
        "?tags=red": ["db_two", "web-one"],
        "?tags=red,big": ["web-one"],
        "?tags-any=big,blue": ["web-one"],
        "?not-tags=red,big": ["db_two"],
        "?not-tags-any=big,blue": ["db_two"],
        "?vm_state=stopped": ["db_two"],
        "?power_state=1": ["web-one"],
        "?task_state=deleting": [],
        "?locked=false": ["db_two", "web-one"],
        "?hostname=web": ["web-one"],
        "?availability_zone=nova": ["db_two", "web-one"],
        "?config_drive=true": [],
        "?changes-since=2099-01-01T00:00:00Z": [],
        "?changes-before=2099-01-01T00:00:00Z": ["db_two", "web-one"],
        "?tenant_id=other": ["db_two", "web-one"],
        "?reservation_id=^r-": ["db_two", "web-one"],
        "?reservation_id=r-none": [],
        "?name=web&name=db": ["db_two"],
        "?flavor=2&flavor=1": ["web-one"],
    }
    assert {query: names(cloud, query) for query in expected} == expected
    for_admins = {
        "?host=h1": ["db_two", "web-one"],
        "?host=h2": [],
        f"?uuid={db}": ["db_two"],
        "?description=first": ["web-one"],
        "?node=h1": ["db_two", "web-one"],
    }
    assert {query: names(cloud, query, client=cloud.admin) for query in for_admins} == for_admins
    assert {query: names(cloud, query) for query in for_admins} == {
        query: ["db_two", "web-one"] for query in for_admins
    }


@pytest.mark.parametrize(
    ("query", "version", "kept"),
    [
        ("?vm_state=stopped", "2.82", False),
        ("?vm_state=stopped", "2.83", True),
        ("?tags=none", "2.25", False),
        ("?tags=none", "2.26", True),
        ("?locked=true", "2.72", False),
        ("?locked=true", "2.73", True),
        ("?hostname=other", "2.89", False),
        ("?hostname=other", "2.90", True),
        ("?ip6=fe80", "2.4", False),
        ("?ip6=fe80", "2.5", True),
        ("?changes-before=2001-01-01T00:00:00Z", "2.65", False),
        ("?changes-before=2001-01-01T00:00:00Z", "2.66", True),
    ],
)
def test_filters_have_windows(cloud: Cloud, query: str, version: str, kept: bool) -> None:
    cloud.made(name="one")
    assert names(cloud, query, version) == ([] if kept else ["one"])


@pytest.mark.parametrize(
    ("query", "version", "expected"),
    [
        ("?color=red", "2.74", 200),
        ("?color=red", "2.75", 400),
        ("?tags=a", "2.75", 200),
        ("?status=nonsense", "2.37", 200),
        ("?status=nonsense", "2.38", 400),
        ("?name=(a", "2.1", 400),
        ("?name=*", "2.1", 400),
        ("?limit=x", "2.1", 400),
        ("?limit=-1", "2.1", 400),
        ("?marker=nothing", "2.1", 400),
        ("?sort_key=nothing", "2.1", 400),
        ("?sort_key=host", "2.1", 403),
        ("?sort=host", "2.1", 403),
        ("?sort=display_name,node:desc", "2.1", 403),
        ("?sort_dir=sideways", "2.1", 400),
        ("?changes-since=yesterday", "2.1", 400),
        ("?changes-since=2030-01-01T00:00:00Z&changes-before=2029-01-01T00:00:00Z", "2.66", 400),
        ("?metadata=x", "2.1", 400),
        ("?_private=x", "2.1", 400),
        ("?all_tenants=maybe", "2.1", 400),
        ("?all_tenants=1", "2.1", 403),
        ("?status=deleted", "2.1", 403),
        ("?locked=perhaps", "2.73", 400),
    ],
)
def test_parameters(cloud: Cloud, query: str, version: str, expected: int) -> None:
    assert status(cloud, query, version) == expected
    assert status(cloud, f"/detail{query}", version) == expected


def test_order_and_pages(cloud: Cloud) -> None:
    for name in ("b", "c", "a"):
        cloud.made(name=name)
    assert names(cloud) == ["a", "c", "b"]
    assert names(cloud, "?sort_key=display_name&sort_dir=asc") == ["a", "b", "c"]
    assert names(cloud, "?sort_key=vm_state&sort_key=display_name&sort_dir=asc&sort_dir=desc") == ["c", "b", "a"]
    seen, path = [], f"{SERVERS}?limit=1&sort_key=display_name&sort_dir=asc"
    while path:
        page = cloud.member.request("GET", path, headers=NEWEST).json
        seen += [one["name"] for one in page["servers"]]
        path = page["servers_links"][0]["href"].removeprefix("http://testserver") if "servers_links" in page else ""
    assert seen == ["a", "b", "c"]
    marker = cloud.member.request("GET", f"{SERVERS}?name=c", headers=NEWEST).json["servers"][0]["id"]
    assert names(cloud, f"?marker={marker}") == ["b"]


def test_sort_keys_without_a_direction(cloud: Cloud) -> None:
    for name, flavor in (("b", "1"), ("c", cloud.flavor("2")), ("a", "1")):
        cloud.made(name=name, flavorRef=flavor)
    expected = {
        "?sort_key=display_name": ["c", "b", "a"],
        "?sort_key=instance_type_id&sort_key=display_name": ["c", "b", "a"],
        "?sort_key=instance_type_id&sort_key=display_name&sort_dir=asc": ["a", "b", "c"],
        "?sort_key=instance_type_id&sort_key=display_name&sort_dir=asc&sort_dir=desc": ["b", "a", "c"],
        "?sort_key=instance_type_id&sort_key=display_name&sort_dir=desc&sort_dir=asc": ["c", "a", "b"],
        "?sort_dir=asc": ["b", "c", "a"],
    }
    assert {query: names(cloud, query) for query in expected} == expected


@pytest.mark.parametrize(
    ("query", "version", "expected"),
    [
        ("?sort_key=id", "2.74", ["a", "c", "b"]),
        ("?sort_key=vcpus&sort_dir=asc", "2.1", ["a", "c", "b"]),
        ("?sort_key=memory_mb&sort_key=display_name&sort_dir=desc&sort_dir=asc", "2.74", ["a", "b", "c"]),
        ("?sort_key=display_name&sort_key=deleted_at&sort_dir=asc", "2.74", ["a", "b", "c"]),
        ("?sort_key=locked&sort_dir=asc", "2.72", ["a", "c", "b"]),
        ("?sort_key=locked&sort_key=display_name&sort_dir=asc", "2.73", ["a", "c", "b"]),
        ("?sort_key=id", "2.75", None),
        ("?sort_key=user_data", "2.75", None),
    ],
)
def test_sort_keys_that_do_nothing(cloud: Cloud, query: str, version: str, expected: list[str] | None) -> None:
    first, *_ = [cloud.made(name=name) for name in ("b", "c", "a")]
    if expected is None:
        assert status(cloud, query, version) == 400
        return
    assert cloud.act(first, "lock").status == 202
    assert names(cloud, query, version) == expected


def east(cloud: Cloud, *hosts: str) -> None:
    """Put hosts into the zone `east`."""
    body = {"aggregate": {"name": "east", "availability_zone": "east"}}
    number = cloud.admin.request("POST", "/compute/v2.1/os-aggregates", json=body).json["aggregate"]["id"]
    for host in hosts:
        path = f"/compute/v2.1/os-aggregates/{number}/action"
        assert cloud.admin.request("POST", path, json={"add_host": {"host": host}}).status == 200


def test_the_zone_that_is_shown_is_filtered_and_sorted_by(cloud: Cloud) -> None:
    cloud.host("h1")
    cloud.host("h2")
    east(cloud, "h1")
    for number, host in enumerate(("h1", "h2", "h1")):
        server_id = cloud.made(name=f"s{number}", client=cloud.admin, host=host)
        shown = cloud.reach(server_id, "ACTIVE")["OS-EXT-AZ:availability_zone"]
        assert shown == {"h1": "east", "h2": "nova"}[host]
    cloud.reach(cloud.made(name="s3", availability_zone="nova", flavorRef=cloud.flavor("9", ram=40000)), "ERROR")
    expected = {
        "?availability_zone=east": ["s2", "s0"],
        "?availability_zone=nova": ["s3", "s1"],
        "?availability_zone=^e.*t$": ["s2", "s0"],
        "?sort_key=availability_zone&sort_key=display_name&sort_dir=asc&sort_dir=asc": ["s0", "s2", "s1", "s3"],
        "?sort_key=availability_zone&sort_key=display_name&sort_dir=desc&sort_dir=asc": ["s1", "s3", "s0", "s2"],
    }
    assert {query: names(cloud, query) for query in expected} == expected
    first = cloud.member.request("GET", f"{SERVERS}?name=s2", headers=NEWEST).json["servers"][0]["id"]
    ascending = "?sort_key=availability_zone&sort_key=display_name&sort_dir=asc&sort_dir=asc"
    assert names(cloud, f"{ascending}&marker={first}") == ["s1", "s3"]


def test_projects_do_not_see_each_other(cloud: Cloud) -> None:
    cloud.made(name="mine")
    cloud.made(name="theirs", client=cloud.stranger)
    assert names(cloud) == ["mine"]
    assert names(cloud, client=cloud.stranger) == ["theirs"]
    assert names(cloud, client=cloud.admin) == ["mine"]
    assert sorted(names(cloud, "?all_tenants=1", client=cloud.admin)) == ["mine", "theirs"]
    assert names(cloud, f"?all_tenants=1&project_id={PROJECT}", client=cloud.admin) == ["mine"]
    assert names(cloud, "?all_tenants=0", client=cloud.admin) == ["mine"]
    for name in ("project_id", "tenant_id"):
        assert names(cloud, f"?{name}={OTHER}", client=cloud.admin) == ["mine"]
        assert names(cloud, f"?all_tenants=1&{name}={OTHER}", client=cloud.admin) == ["theirs"]


def test_what_is_deleted_has_no_power(cloud: Cloud) -> None:
    cloud.host("h1")
    server_id = cloud.made(name="gone")
    cloud.reach(server_id, "ACTIVE")
    assert cloud.member.request("DELETE", f"{SERVERS}/{server_id}").status == 204
    cloud.reach(server_id, "gone")
    since = "changes-since=2001-01-01T00:00:00Z"
    [shown] = cloud.member.request("GET", f"{SERVERS}/detail?{since}", headers=NEWEST).json["servers"]
    assert (shown["status"], shown["OS-EXT-STS:power_state"]) == ("DELETED", 0)
    assert names(cloud, f"?{since}&power_state=0") == ["gone"]
    assert names(cloud, f"?{since}&power_state=1") == []


def test_admins_see_more_of_a_server(cloud: Cloud) -> None:
    cloud.host("h1")
    server_id = cloud.made()
    cloud.reach(server_id, "ACTIVE")
    theirs, mine = set(cloud.show(server_id)), set(cloud.show(server_id, cloud.member))
    assert theirs - mine == {
        "OS-EXT-SRV-ATTR:host",
        "OS-EXT-SRV-ATTR:hypervisor_hostname",
        "OS-EXT-SRV-ATTR:instance_name",
        "OS-EXT-SRV-ATTR:kernel_id",
        "OS-EXT-SRV-ATTR:launch_index",
        "OS-EXT-SRV-ATTR:ramdisk_id",
        "OS-EXT-SRV-ATTR:reservation_id",
        "OS-EXT-SRV-ATTR:root_device_name",
        "OS-EXT-SRV-ATTR:user_data",
        "host_status",
    }
    assert "OS-EXT-SRV-ATTR:hostname" not in cloud.show(server_id, cloud.member, "2.89")
    assert "OS-EXT-SRV-ATTR:hostname" in cloud.show(server_id, cloud.member, "2.90")


BROUGHT = {
    "2.3": {"OS-EXT-SRV-ATTR:hostname", "OS-EXT-SRV-ATTR:user_data", "OS-EXT-SRV-ATTR:launch_index"},
    "2.9": {"locked"},
    "2.16": {"host_status"},
    "2.19": {"description"},
    "2.26": {"tags"},
    "2.63": {"trusted_image_certificates"},
    "2.71": {"server_groups"},
    "2.73": {"locked_reason"},
    "2.96": {"pinned_availability_zone"},
    "2.100": {"scheduler_hints"},
}
"""What each version added to a server that is shown to admins."""


def test_windows_of_a_server(cloud: Cloud) -> None:
    cloud.host("h1")
    server_id = cloud.made()
    cloud.reach(server_id, "ACTIVE")
    for version, fields in BROUGHT.items():
        before = f"2.{int(version.split('.')[1]) - 1}"
        assert fields <= set(cloud.show(server_id, version=version)), version
        assert not fields & set(cloud.show(server_id, version=before)), before
    assert set(cloud.show(server_id, version="2.46")["flavor"]) == {"id", "links"}
    assert cloud.show(server_id, version="2.47")["flavor"]["original_name"] == "flavor-1"
    assert "properties" not in cloud.show(server_id, version="2.97")["image"]
    assert "properties" in cloud.show(server_id, version="2.98")["image"]
    listed = cloud.admin.request("GET", f"{SERVERS}/detail", headers=NEWEST).json["servers"][0]
    assert set(cloud.show(server_id)) - set(listed) == {"server_groups"}


def test_a_longer_list_takes_no_more_statements(cloud: Cloud) -> None:
    cloud.host("h1", memory_mib=65536)
    network = cloud.network()
    unlimited = {"quota_set": {"instances": -1, "cores": -1, "ram": -1}}
    cloud.admin.request("PUT", f"/compute/v2.1/os-quota-sets/{PROJECT}", json=unlimited)
    assert cloud.create(networks=[{"uuid": network}], tags=["a"]).status == 202
    cloud.wait(lambda: "BUILD" not in names_by_status(cloud))
    few = min(statements(cloud) for _ in range(30))  # the least: others may be at the store as well
    assert few <= 12
    assert cloud.create(networks=[{"uuid": network}], min_count=11, tags=["a"]).status == 202
    cloud.wait(lambda: "BUILD" not in names_by_status(cloud))
    # What is known of the hosts is looked up anew as long as a transaction runs that may tell more, be it another's.
    cloud.wait(lambda: statements(cloud) <= few)


def names_by_status(cloud: Cloud) -> set[str]:
    found = cloud.member.request("GET", f"{SERVERS}/detail").json["servers"]
    return {one["status"] for one in found}


def statements(cloud: Cloud) -> int:
    """How many statements one list in full takes."""
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if statement.startswith("SELECT"):
            seen.append(statement)

    cloud.pause()
    sa.event.listen(cloud.store.engine, "before_cursor_execute", note)
    try:
        found = cloud.admin.request("GET", f"{SERVERS}/detail", headers=NEWEST)
    finally:
        sa.event.remove(cloud.store.engine, "before_cursor_execute", note)
        cloud.resume()
    assert found.status == 200
    assert len(found.json["servers"]) == cloud.store.read_here(
        lambda tx: tx.scalar(sa.select(sa.func.count()).select_from(server))
    )
    return len(seen)
