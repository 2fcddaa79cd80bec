"""Servers that are put by as images, and taken out again: through the real edge, link and loops."""

from __future__ import annotations

from typing import Any

from tests.api.edge import Response
from tests.services.compute.cloud import IMAGE, NEWEST, Cloud, Host, at
from tests.services.compute.life import (
    SERVERS,
    disks,
    images,
    last_action,
    newest_action,
    ok,
    one_cloud,
    one_host,
    one_server,
    quota,
    refused,
    settled,
    used,
)

__all__ = ["one_cloud", "one_host", "one_server"]
"""Fixtures."""


def test_shelve_and_unshelve(cloud: Cloud, host: Host) -> None:
    held = used(cloud)
    network = cloud.network("shelve")
    server_id = cloud.made(networks=[{"uuid": network}], name="put by", flavorRef="2")
    nics = [one.mac_address for one in disks_and_nics(cloud, host, server_id)]
    taken = quota(cloud)
    ok(cloud.act(server_id, "shelve"))
    shown = settled(cloud, server_id, "SHELVED_OFFLOADED")
    assert (shown["OS-EXT-SRV-ATTR:host"], shown["hostId"]) == (None, "")
    assert shown["OS-EXT-STS:vm_state"] == "shelved_offloaded"
    assert shown["addresses"]["shelve"], "it keeps its addresses"
    assert server_id not in host.guests
    assert (used(cloud), quota(cloud)) == (held, taken)
    [image_id] = [one for one, name in images(cloud).items() if name == "put by-shelved"]
    assert last_action(cloud, server_id) == ("shelve", "compute_shelve_instance", "Success")
    assert cloud.act(server_id, "os-start").status == 409
    assert cloud.act(server_id, "shelve").status == 409
    assert cloud.act(server_id, "shelveOffload", client=cloud.admin).status == 409

    ok(cloud.act(server_id, "unshelve"))
    settled(cloud, server_id, "ACTIVE")
    found = disks(host, server_id)
    assert (found["root"].image_id, found["root"].incarnation) == (image_id, 2)
    assert (found["swap"].image_id, found["swap"].incarnation) == (None, 2)
    assert [one.mac_address for one in host.guests[server_id].nics] == nics
    assert cloud.show(server_id)["image"]["id"] == IMAGE
    assert image_id not in images(cloud)
    assert last_action(cloud, server_id) == ("unshelve", "compute_unshelve_instance", "Success")
    _, event = newest_action(cloud, server_id)
    assert (event["host"], event["hostId"]) == ("h1", cloud.show(server_id)["hostId"])


def disks_and_nics(cloud: Cloud, host: Host, server_id: str) -> Any:
    cloud.reach(server_id, "ACTIVE")
    return host.guests[server_id].nics


def test_unshelve_by_version(cloud: Cloud, host: Host, server_id: str) -> None:
    ok(cloud.act(server_id, "shelve"))
    settled(cloud, server_id, "SHELVED_OFFLOADED")
    path = f"{SERVERS}/{server_id}/action"

    def unshelve(version: str, body: Any, token: Any = None) -> Response:
        return (token or cloud.member).request("POST", path, json={"unshelve": body}, headers=at(version))

    assert unshelve("2.77", {}).status == 400
    assert unshelve("2.77", {"availability_zone": None}).status == 400
    assert unshelve("2.90", {"host": "h1"}).status == 400
    assert unshelve("2.77", {"availability_zone": "nowhere"}).status == 400
    assert unshelve("2.91", {"host": "h1"}).status == 403
    assert refused(unshelve("2.91", {"host": "h9"}, cloud.admin), 400) == "Compute host h9 could not be found."
    ok(unshelve("2.91", {"host": "h1", "availability_zone": "nova"}, cloud.admin))
    settled(cloud, server_id, "ACTIVE")
    assert unshelve("2.91", None).status == 409


def test_a_shelf_that_fails_brings_the_server_back(cloud: Cloud, host: Host, server_id: str) -> None:
    host.answers["snapshot"] = ("failed", "no space", True)
    before = images(cloud)
    ok(cloud.act(server_id, "shelve"))
    settled(cloud, server_id, "ACTIVE")
    cloud.wait(lambda: last_action(cloud, server_id) == ("shelve", "compute_shelve_instance", "Error"))
    assert images(cloud) == before
    assert not host.snapshots


def test_a_shelved_server_without_room_stays_shelved(cloud: Cloud, host: Host, server_id: str) -> None:
    ok(cloud.act(server_id, "shelve"))
    settled(cloud, server_id, "SHELVED_OFFLOADED")
    service = f"/compute/v2.1/os-services/{host.id}"
    services = cloud.admin.request("GET", "/compute/v2.1/os-services?binary=nova-compute", headers=NEWEST)
    service = f"/compute/v2.1/os-services/{services.json['services'][0]['id']}"
    ok(cloud.admin.request("PUT", service, json={"status": "disabled"}, headers=NEWEST), 200)
    try:
        ok(cloud.act(server_id, "unshelve"))
        settled(cloud, server_id, "SHELVED_OFFLOADED")
        cloud.wait(lambda: last_action(cloud, server_id) == ("unshelve", "compute_unshelve_instance", "Error"))
    finally:
        ok(cloud.admin.request("PUT", service, json={"status": "enabled"}, headers=NEWEST), 200)
    ok(cloud.act(server_id, "unshelve"))
    settled(cloud, server_id, "ACTIVE")


def test_unshelve_takes_a_zone_that_has_a_host_in_use(cloud: Cloud, host: Host, server_id: str) -> None:
    ok(cloud.act(server_id, "shelve"))
    settled(cloud, server_id, "SHELVED_OFFLOADED")
    services = cloud.admin.request("GET", "/compute/v2.1/os-services?binary=nova-compute", headers=NEWEST)
    service = f"/compute/v2.1/os-services/{services.json['services'][0]['id']}"
    ok(cloud.admin.request("PUT", service, json={"status": "disabled"}, headers=NEWEST), 200)
    try:
        found = cloud.act(server_id, "unshelve", {"availability_zone": "nova"})
        assert refused(found, 400) == "The requested availability zone is not available"
    finally:
        ok(cloud.admin.request("PUT", service, json={"status": "enabled"}, headers=NEWEST), 200)


def test_an_unshelved_guest_that_cannot_be_made_is_shelved_again(cloud: Cloud, host: Host, server_id: str) -> None:
    ok(cloud.act(server_id, "shelve"))
    settled(cloud, server_id, "SHELVED_OFFLOADED")
    held = used(cloud)
    host.answers[server_id] = ("failed", "the image cannot be read", True)
    ok(cloud.act(server_id, "unshelve"))
    cloud.wait(lambda: last_action(cloud, server_id) == ("unshelve", "compute_unshelve_instance", "Error"))
    settled(cloud, server_id, "SHELVED_OFFLOADED")
    assert used(cloud) == held
    host.answers.clear()
    ok(cloud.act(server_id, "unshelve"))
    settled(cloud, server_id, "ACTIVE")


def test_a_shelved_server_is_deleted_with_its_image(cloud: Cloud, host: Host, server_id: str) -> None:
    before = images(cloud)
    ok(cloud.act(server_id, "shelve"))
    settled(cloud, server_id, "SHELVED_OFFLOADED")
    assert len(images(cloud)) == len(before) + 1
    assert cloud.member.request("DELETE", f"{SERVERS}/{server_id}").status == 204
    cloud.reach(server_id, "gone")
    assert images(cloud) == before
