"""Servers that are deleted softly, whose time comes, and of which an admin says what they are."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from pileus.services.compute.resources.migration import migration
from pileus.services.compute.resources.server.table import server
from pileus.services.image import interface as images
from tests.conftest import Databases, whole_schema
from tests.services.compute.cloud import NEWEST, PROJECT, Cloud, Host

SERVERS = "/compute/v2.1/servers"


@pytest.fixture(name="cloud", scope="module")
def one_cloud(tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> Iterator[Cloud]:
    """A cloud in which deleted servers wait, shelved ones stay on their hosts a while, and resizes are confirmed."""
    url = databases.make(tmp_path_factory.mktemp("reset"), whole_schema)
    hour = 3600
    with Cloud(url, reclaim_instance_interval=hour, shelved_offload_time=hour, resize_confirm_window=hour) as found:
        found.image()
        found.flavor("1")
        found.flavor("2", ram=1024, vcpus=2)
        found.host("h1", vcpus=64, memory_mib=65536, disk_gib=500)
        yield found
    databases.drop(url)


@pytest.fixture
def host(cloud: Cloud) -> Iterator[Host]:
    """The host; when the test is over all servers go for good, and nothing is left of them."""
    found = cloud.hosts[0]
    cloud.served.run(found.beat())  # the module may take longer than a host may be silent
    yield found
    found.answers.clear()
    found.silent = False
    cloud.served.run(found.report())
    rows = cloud.store.read_here(lambda tx: tx.all(sa.select(server.c.id).where(server.c.deleted_at.is_(None))))
    for row in rows:
        assert cloud.act(row.id, "forceDelete", client=cloud.admin).status == 202
        cloud.reach(row.id, "gone")
    assert (quota(cloud), used(cloud)) == ({"instances": 0, "cores": 0, "ram": 0}, (0, 512))


@pytest.fixture
def server_id(cloud: Cloud, host: Host) -> str:
    found = cloud.made()
    cloud.reach(found, "ACTIVE")
    return found


def quota(cloud: Cloud) -> dict[str, int]:
    found = cloud.admin.request("GET", f"/compute/v2.1/os-quota-sets/{PROJECT}/detail").json["quota_set"]
    return {name: found[name]["in_use"] for name in ("instances", "cores", "ram")}


def used(cloud: Cloud) -> tuple[int, int]:
    [one] = cloud.admin.request("GET", "/compute/v2.1/os-hypervisors/detail").json["hypervisors"]
    return one["vcpus_used"], one["memory_mb_used"]


def settled(cloud: Cloud, server_id: str, status: str) -> dict[str, Any]:
    cloud.wait(lambda: (shown := cloud.show(server_id))["status"] == status and shown["OS-EXT-STS:task_state"] is None)
    return cloud.show(server_id)


def pass_time(cloud: Cloud, server_id: str) -> None:
    """Let a server have been in its mode for two hours, and the loops look at once."""

    def age(tx: Any) -> None:
        found = sa.update(server).where(server.c.id == server_id)
        tx.execute(found.values(mode_at=tx.now - timedelta(hours=2)))

    cloud.store.write_here(age)
    cloud.pause()
    cloud.resume()


def ids(cloud: Cloud, query: str = "") -> set[str]:
    found = cloud.admin.request("GET", f"{SERVERS}?all_tenants=1{query}", headers=NEWEST)
    return {one["id"] for one in found.json["servers"]}


# -- soft deletion ---------------------------------------------------------------------------------------------------


def test_a_deleted_server_waits_and_is_restored(cloud: Cloud, host: Host, server_id: str) -> None:
    assert cloud.member.request("DELETE", f"{SERVERS}/{server_id}").status == 204
    shown = settled(cloud, server_id, "SOFT_DELETED")
    assert shown["OS-EXT-STS:vm_state"] == "soft-delete"
    assert host.guests[server_id].power == "stopped"
    assert quota(cloud)["instances"] == 0, "it counts no more"
    assert used(cloud)[1] > 512, "what it had on its host is still its own"
    assert ids(cloud) == set()
    assert ids(cloud, "&deleted=true") >= {server_id}
    assert ids(cloud, "&deleted=false&soft_deleted=true") == {server_id}
    assert ids(cloud, "&status=SOFT_DELETED") == {server_id}
    assert cloud.member.request("DELETE", f"{SERVERS}/{server_id}").status == 204
    assert cloud.act(server_id, "os-start").status == 409
    assert cloud.act(server_id, "restore", client=cloud.reader).status == 403

    assert cloud.act(server_id, "restore").status == 202
    settled(cloud, server_id, "ACTIVE")
    assert (host.guests[server_id].power, quota(cloud)["instances"]) == ("running", 1)
    assert cloud.act(server_id, "restore").status == 409


def test_what_may_not_be_counted_is_not_restored(cloud: Cloud, server_id: str) -> None:
    assert cloud.member.request("DELETE", f"{SERVERS}/{server_id}").status == 204
    settled(cloud, server_id, "SOFT_DELETED")
    path = f"/compute/v2.1/os-quota-sets/{PROJECT}"
    assert cloud.admin.request("PUT", path, json={"quota_set": {"instances": 0}}).status == 200
    try:
        assert cloud.act(server_id, "restore").status == 403
    finally:
        cloud.admin.request("DELETE", path)
    assert cloud.show(server_id)["status"] == "SOFT_DELETED"


def test_a_softly_deleted_server_goes_for_good_when_its_time_is_over(cloud: Cloud, host: Host, server_id: str) -> None:
    assert cloud.member.request("DELETE", f"{SERVERS}/{server_id}").status == 204
    settled(cloud, server_id, "SOFT_DELETED")
    pass_time(cloud, server_id)
    cloud.reach(server_id, "gone")
    assert server_id not in host.guests


def test_forced_deletion_does_not_wait(cloud: Cloud, server_id: str) -> None:
    assert cloud.act(server_id, "forceDelete").status == 202
    cloud.reach(server_id, "gone")


def test_a_server_that_never_ran_is_deleted_at_once(cloud: Cloud, host: Host) -> None:
    host.silent = True
    server_id = cloud.made()
    assert cloud.member.request("DELETE", f"{SERVERS}/{server_id}").status == 204
    host.silent = False
    cloud.served.run(host.report())
    cloud.reach(server_id, "gone")


def test_a_resized_server_that_is_deleted_softly_is_confirmed(cloud: Cloud, host: Host, server_id: str) -> None:
    assert cloud.act(server_id, "resize", {"flavorRef": "2"}).status == 202
    settled(cloud, server_id, "VERIFY_RESIZE")
    assert cloud.member.request("DELETE", f"{SERVERS}/{server_id}").status == 204
    settled(cloud, server_id, "SOFT_DELETED")
    assert used(cloud) == (2, 1024 + 512)
    assert cloud.act(server_id, "restore").status == 202
    assert settled(cloud, server_id, "ACTIVE")["flavor"]["original_name"] == "flavor-2"
    assert host.guests[server_id].disks[0].keep == ()


# -- deadlines -------------------------------------------------------------------------------------------------------


def test_a_shelved_server_leaves_its_host_after_a_time(cloud: Cloud, host: Host, server_id: str) -> None:
    assert cloud.act(server_id, "shelve").status == 202
    assert settled(cloud, server_id, "SHELVED")["OS-EXT-SRV-ATTR:host"] == "h1"
    assert cloud.act(server_id, "unshelve", {"availability_zone": "nova"}).status == 409
    assert cloud.act(server_id, "unshelve").status == 202
    settled(cloud, server_id, "ACTIVE")
    assert host.guests[server_id].disks[0].incarnation == 1, "its disk was there all the time"
    assert cloud.act(server_id, "shelve").status == 202
    settled(cloud, server_id, "SHELVED")
    pass_time(cloud, server_id)
    settled(cloud, server_id, "SHELVED_OFFLOADED")
    assert server_id not in host.guests


def test_a_shelved_server_is_taken_from_its_host(cloud: Cloud, server_id: str) -> None:
    assert cloud.act(server_id, "shelve").status == 202
    settled(cloud, server_id, "SHELVED")
    assert cloud.act(server_id, "shelveOffload").status == 403
    assert cloud.act(server_id, "shelveOffload", client=cloud.admin).status == 202
    settled(cloud, server_id, "SHELVED_OFFLOADED")


def test_a_resize_is_confirmed_after_a_time(cloud: Cloud, server_id: str) -> None:
    assert cloud.act(server_id, "resize", {"flavorRef": "2"}).status == 202
    settled(cloud, server_id, "VERIFY_RESIZE")
    pass_time(cloud, server_id)
    settled(cloud, server_id, "ACTIVE")
    query = sa.select(migration.c.status).where(migration.c.server_id == server_id)
    assert [row.status for row in cloud.store.read_here(lambda tx: tx.all(query))] == ["confirmed"]


# -- what an admin says ----------------------------------------------------------------------------------------------


def reset(cloud: Cloud, server_id: str, state: str) -> None:
    found = cloud.act(server_id, "os-resetState", {"state": state}, client=cloud.admin)
    assert found.status == 202, found


def test_reset_ends_whatever_is_under_way(cloud: Cloud, host: Host, server_id: str) -> None:
    host.silent = True
    assert cloud.act(server_id, "rebuild", {"imageRef": "11111111-2222-4333-8444-555555555555"}).status == 202
    assert cloud.show(server_id)["OS-EXT-STS:task_state"] == "rebuilding"
    reset(cloud, server_id, "error")
    shown = cloud.show(server_id)
    assert (shown["status"], shown["OS-EXT-STS:task_state"]) == ("ERROR", None)
    host.silent = False
    cloud.served.run(host.report())
    assert cloud.act(server_id, "os-stop").status == 202
    settled(cloud, server_id, "SHUTOFF")
    assert cloud.act(server_id, "os-resetState", {"state": "active"}).status == 403
    assert cloud.act(server_id, "os-resetState", {"state": "gone"}, client=cloud.admin).status == 400


@pytest.mark.parametrize(("verb", "body"), [("createImage", {"name": "never"}), ("shelve", None)])
def test_reset_gives_up_an_image_that_does_not_come(
    cloud: Cloud, host: Host, server_id: str, verb: str, body: Any
) -> None:
    host.answers["snapshot"] = ("failed", "no space just now", False)
    assert cloud.act(server_id, verb, body).status == 202
    cloud.wait(lambda: bool(host.snapshots))
    [image_id] = host.snapshots
    assert "image" in cloud.show(server_id)["OS-EXT-STS:task_state"]
    reset(cloud, server_id, "active")
    cloud.wait(lambda: not host.snapshots)
    found = cloud.store.read_here(lambda tx: images.by_id(tx, image_id))
    assert found is None or found.status == "deleted"
    assert cloud.show(server_id)["OS-EXT-STS:task_state"] is None


def test_a_resized_server_that_is_reset_counts_as_confirmed(cloud: Cloud, host: Host, server_id: str) -> None:
    assert cloud.act(server_id, "resize", {"flavorRef": "2"}).status == 202
    settled(cloud, server_id, "VERIFY_RESIZE")
    reset(cloud, server_id, "active")
    assert cloud.show(server_id)["status"] == "ACTIVE"
    assert (quota(cloud)["ram"], used(cloud)) == (1024, (2, 1024 + 512))
    assert cloud.act(server_id, "revertResize").status == 409


def test_a_rescued_server_that_is_reset_starts_from_its_own_disk(cloud: Cloud, host: Host, server_id: str) -> None:
    assert cloud.act(server_id, "rescue").status == 200
    settled(cloud, server_id, "RESCUE")
    reset(cloud, server_id, "active")
    settled(cloud, server_id, "ACTIVE")
    cloud.wait(lambda: [one.id for one in host.guests[server_id].disks] == ["root"])


def test_a_shelved_server_that_is_reset_is_a_stopped_one(cloud: Cloud, host: Host, server_id: str) -> None:
    assert cloud.act(server_id, "shelve").status == 202
    settled(cloud, server_id, "SHELVED")
    reset(cloud, server_id, "active")
    assert cloud.show(server_id)["status"] == "SHUTOFF"
    assert cloud.act(server_id, "os-start").status == 202
    settled(cloud, server_id, "ACTIVE")


def test_a_server_on_no_host_stays_shelved_whatever_is_said(cloud: Cloud, host: Host, server_id: str) -> None:
    assert cloud.act(server_id, "shelve").status == 202
    settled(cloud, server_id, "SHELVED")
    assert cloud.act(server_id, "shelveOffload", client=cloud.admin).status == 202
    settled(cloud, server_id, "SHELVED_OFFLOADED")
    reset(cloud, server_id, "active")
    assert cloud.show(server_id)["status"] == "SHELVED_OFFLOADED"
    reset(cloud, server_id, "error")
    assert cloud.show(server_id)["status"] == "ERROR"
    reset(cloud, server_id, "active")
    assert cloud.act(server_id, "unshelve").status == 202
    settled(cloud, server_id, "ACTIVE")


def test_a_softly_deleted_server_that_is_reset_counts_again(cloud: Cloud, host: Host, server_id: str) -> None:
    assert cloud.member.request("DELETE", f"{SERVERS}/{server_id}").status == 204
    settled(cloud, server_id, "SOFT_DELETED")
    reset(cloud, server_id, "active")
    assert quota(cloud)["instances"] == 1
    assert cloud.show(server_id)["status"] == "SHUTOFF"


def test_a_lock_holds_back_every_verb(cloud: Cloud, host: Host, server_id: str) -> None:
    assert cloud.act(server_id, "lock").status == 202
    image = {"imageRef": "11111111-2222-4333-8444-555555555555"}
    verbs: dict[str, Any] = {
        **dict.fromkeys(("suspend", "resume", "shelve", "unshelve", "rescue", "unrescue", "restore", "forceDelete")),
        **dict.fromkeys(("confirmResize", "revertResize")),
        "rebuild": image,
        "resize": {"flavorRef": "2"},
    }
    for verb, body in verbs.items():
        found = cloud.act(server_id, verb, body)
        assert (found.status, found.json["conflictingRequest"]["message"]) == (409, f"Instance {server_id} is locked")
    assert cloud.act(server_id, "suspend", client=cloud.admin).status == 202
    settled(cloud, server_id, "SUSPENDED")
    assert cloud.act(server_id, "unlock").status == 202
    assert cloud.act(server_id, "resume").status == 202
    settled(cloud, server_id, "ACTIVE")
