"""What flavors, images and hints make of servers: machines, limits, refusals, and hosts that are passed over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from pileus.contracts.hypervisor import DiskLimit, NicLimit
from pileus.core.store import Tx
from pileus.services.placement import interface as placement
from pileus.services.placement.resources.trait import custom_trait
from tests.services.compute.cloud import IMAGE, NEWEST, PROJECT, Cloud, at

SERVERS = "/compute/v2.1/servers"


@pytest.fixture
def cloud(database_url: str) -> Iterator[Cloud]:
    with Cloud(database_url) as found:
        found.image()
        found.flavor("1")
        yield found


def special(cloud: Cloud, flavor_id: str = "9", *, specs: dict[str, str], **values: Any) -> str:
    """A flavor with extra specs."""
    cloud.flavor(flavor_id, **values)
    path = f"/compute/v2.1/flavors/{flavor_id}/os-extra_specs"
    assert cloud.admin.request("POST", path, json={"extra_specs": specs}, headers=NEWEST).status == 200
    return flavor_id


def says(cloud: Cloud, **properties: str) -> None:
    """Let the image have properties."""
    body = [{"op": "add", "path": f"/{name}", "value": value} for name, value in properties.items()]
    headers = {"content-type": "application/openstack-images-v2.1-json-patch"}
    assert cloud.admin.request("PATCH", f"/image/v2/images/{IMAGE}", json=body, headers=headers).status == 200


def test_a_guest_is_what_its_flavor_and_image_say(cloud: Cloud) -> None:
    host = cloud.host("h1")
    specs = {
        "hw:cpu_policy": "dedicated",
        "hw:watchdog_action": "reset",
        "hw_rng:allowed": "false",
        "quota:cpu_quota": "10000",
        "quota:disk_total_iops_sec": "100",
        "quota:vif_outbound_average": "125",
    }
    more: dict[str, Any] = {"OS-FLV-EXT-DATA:ephemeral": 2}
    flavor = special(cloud, specs=specs, vcpus=2, swap=512, **more)
    says(cloud, hw_disk_bus="scsi", hw_vif_model="e1000", hw_video_model="virtio", hw_qemu_guest_agent="yes")
    network = cloud.network()
    server_id = cloud.made(flavorRef=flavor, networks=[{"uuid": network, "tag": "front"}])
    cloud.reach(server_id, "ACTIVE")
    guest = host.guests[server_id]
    machine = guest.machine
    assert (machine.pinned, machine.watchdog, machine.rng, machine.cpu_quota) == (True, "reset", False, 10000)
    assert (machine.video, machine.guest_agent) == ("virtio", True)
    assert [(one.id, one.bus, one.filesystem) for one in guest.disks] == [
        ("root", "scsi", ""),
        ("ephemeral", "scsi", "ext4"),
        ("swap", "scsi", "swap"),
    ]
    assert {one.limit for one in guest.disks} == {DiskLimit(total_iops=100)}
    [nic] = guest.nics
    assert (nic.model, nic.limit) == ("e1000", NicLimit(out_average=125))
    meta = json.loads(guest.documents["openstack/latest/meta_data.json"])
    assert (meta["devices"][0]["tags"], meta["dedicated_cpus"]) == (["front"], [0, 1])
    [shown] = cloud.member.request("GET", f"{SERVERS}/{server_id}/os-interface", headers=at("2.70")).json[
        "interfaceAttachments"
    ]
    assert shown["tag"] == "front"


@pytest.mark.parametrize(
    ("specs", "properties", "words"),
    [
        ({"os:secure_boot": "required"}, {}, "hw_firmware_type is uefi"),
        ({"hw:cpu_policy": "shared"}, {"hw_cpu_policy": "dedicated"}, "not permitted to override"),
        ({"hw:cpu_max_sockets": "1"}, {"hw_cpu_sockets": "2"}, "exceeds the limits"),
        ({}, {"hw_disk_bus": "xen"}, "hw_disk_bus"),
        ({}, {"img_config_drive": "perhaps"}, "config drive option 'perhaps' is invalid"),
    ],
)
def test_contradictions_are_refused(
    cloud: Cloud, specs: dict[str, str], properties: dict[str, str], words: str
) -> None:
    flavor = special(cloud, specs=specs)
    if properties:
        says(cloud, **properties)
    refused = cloud.create(flavorRef=flavor)
    assert (refused.status, words in refused.json["badRequest"]["message"]) == (400, True), refused
    assert cloud.member.request("GET", SERVERS).json["servers"] == []


def test_a_host_that_cannot_give_it_is_refused_with_the_reason(cloud: Cloud) -> None:
    cloud.host("h1")
    flavor = special(cloud, specs={"hw:tpm_version": "2.0"})
    server_id = cloud.made(flavorRef=flavor)
    shown = cloud.reach(server_id, "ERROR")
    assert "No valid host" in shown["fault"]["message"]
    assert "TPM of version 2.0" in shown["fault"]["details"]
    explained = cloud.admin.request("GET", f"{SERVERS}/{server_id}/explain", headers=NEWEST).json["explanation"]
    assert (explained["refused_by"], explained["hosts"][0]["filter"]) == ({"machine": 1}, "machine")


def test_what_operators_say_of_a_host_is_asked_for(cloud: Cloud) -> None:
    host = cloud.host("h1")
    flavor = special(cloud, specs={"trait:CUSTOM_FAST": "required"})
    shown = cloud.reach(cloud.made(flavorRef=flavor), "ERROR")
    assert "the trait CUSTOM_FAST" in shown["fault"]["details"]

    def offer(tx: Tx) -> None:
        tx.execute(sa.insert(custom_trait).values(name="CUSTOM_FAST", created_at=tx.now))
        placement.set_traits(tx, host.id, ["CUSTOM_FAST"])

    cloud.store.write_here(offer)
    cloud.reach(cloud.made(flavorRef=flavor), "ACTIVE")


def test_a_resize_to_what_the_host_cannot_give_leaves_the_server_as_it_was(cloud: Cloud) -> None:
    cloud.host("h1")
    server_id = cloud.made()
    cloud.reach(server_id, "ACTIVE")
    flavor = special(cloud, specs={"hw:tpm_version": "2.0"}, ram=1024)
    assert cloud.act(server_id, "resize", {"flavorRef": flavor}).status == 202
    shown = cloud.show(server_id)
    assert (shown["status"], shown["OS-EXT-STS:task_state"], shown["flavor"]["ram"]) == ("ACTIVE", None, 512)
    actions = cloud.admin.request("GET", f"{SERVERS}/{server_id}/os-instance-actions", headers=NEWEST).json
    assert actions["instanceActions"][0]["message"] == "Error"
    contradiction = special(cloud, "10", specs={"os:secure_boot": "required"})
    refused = cloud.act(server_id, "resize", {"flavorRef": contradiction})
    assert (refused.status, "uefi" in refused.json["badRequest"]["message"]) == (400, True)


def test_servers_together_and_apart(cloud: Cloud) -> None:
    for name in ("h1", "h2"):
        cloud.host(name)
    first = cloud.made()
    place = cloud.reach(first, "ACTIVE")["OS-EXT-SRV-ATTR:host"]

    def hinted(**hints: Any) -> str:
        body = {
            "server": {"name": "x", "flavorRef": "1", "imageRef": IMAGE, "networks": "none"},
            "os:scheduler_hints": hints,
        }
        made = cloud.member.request("POST", SERVERS, json=body, headers=NEWEST)
        assert made.status == 202, made
        return str(made.json["server"]["id"])

    together = [hinted(same_host=first), hinted(same_host=[first])]
    apart = [hinted(different_host=first), hinted(different_host=[first])]
    assert {cloud.reach(one, "ACTIVE")["OS-EXT-SRV-ATTR:host"] for one in together} == {place}
    assert {cloud.reach(one, "ACTIVE")["OS-EXT-SRV-ATTR:host"] for one in apart} == {"h1", "h2"} - {place}
    nowhere = hinted(same_host="11111111-0000-4000-8000-000000000000")
    assert "same_host" in cloud.reach(nowhere, "ERROR")["fault"]["details"]
    assert cloud.show(together[0])["scheduler_hints"] == {"same_host": first}


@pytest.mark.parametrize(
    "hints",
    [
        {"group": "no uuid"},
        {"different_host": "no uuid"},
        {"same_host": ["no uuid"]},
        {"query": 5},
        {"target_cell": ""},
        {"different_cell": [5]},
        {"build_near_host_ip": "no address"},
        {"cidr": "24"},
    ],
)
def test_hints_have_shapes(cloud: Cloud, hints: dict[str, Any]) -> None:
    server = {"name": "x", "flavorRef": "1", "imageRef": IMAGE, "networks": "none"}
    for key in ("os:scheduler_hints", "OS-SCH-HNT:scheduler_hints"):
        found = cloud.member.request("POST", SERVERS, json={"server": server, key: hints}, headers=NEWEST)
        assert found.status == 400, found


def test_hints_that_nobody_knows_change_nothing(cloud: Cloud) -> None:
    cloud.host("h1")
    hints = {
        "mine": ["anything"],
        "query": '["=", "$free_ram_mb", 1]',
        "build_near_host_ip": "192.0.2.1",
        "cidr": "/24",
    }
    server = {"name": "x", "flavorRef": "1", "imageRef": IMAGE, "networks": "none"}
    made = cloud.member.request("POST", SERVERS, json={"server": server, "os:scheduler_hints": hints}, headers=NEWEST)
    cloud.reach(made.json["server"]["id"], "ACTIVE")


def test_tags_of_cards_by_version(cloud: Cloud) -> None:
    network = cloud.network()
    wanted = [{"uuid": network, "tag": "front"}]
    found = {}
    for version in ("2.31", "2.32", "2.36", "2.37", "2.41", "2.42"):
        server = {"name": "x", "flavorRef": "1", "imageRef": IMAGE, "networks": wanted}
        found[version] = cloud.member.request("POST", SERVERS, json={"server": server}, headers=at(version)).status
    assert found == {"2.31": 400, "2.32": 202, "2.36": 202, "2.37": 400, "2.41": 400, "2.42": 202}


def test_files_are_in_the_guests_metadata(cloud: Cloud) -> None:
    host = cloud.host("h1")
    files = [{"path": "/etc/motd", "contents": "aGVsbG8="}, {"path": "/empty", "contents": ""}]
    server = {"name": "x", "flavorRef": "1", "imageRef": IMAGE, "personality": files}
    made = cloud.member.request("POST", SERVERS, json={"server": server}, headers=at("2.1"))
    server_id = made.json["server"]["id"]
    cloud.reach(server_id, "ACTIVE")
    documents = host.guests[server_id].documents
    assert json.loads(documents["openstack/latest/meta_data.json"])["files"] == [
        {"path": "/etc/motd", "content_path": "/content/0000"},
        {"path": "/empty", "content_path": "/content/0001"},
    ]
    assert (documents["openstack/content/0000"], documents["openstack/content/0001"]) == (b"hello", b"")
    rebuild = {"imageRef": IMAGE, "personality": [{"path": "/etc/issue", "contents": "aXNzdWU="}]}
    path = f"{SERVERS}/{server_id}/action"
    assert cloud.member.request("POST", path, json={"rebuild": rebuild}, headers=at("2.1")).status == 202
    cloud.wait(lambda: host.guests[server_id].documents["openstack/content/0000"] == b"issue")


def test_several_at_once(cloud: Cloud) -> None:
    cloud.host("h1")
    network = cloud.network()
    wanted = [{"uuid": network, "tag": "front"}]
    made = cloud.create(name="web", min_count=2, max_count=3, networks=wanted, return_reservation_id=True)
    reservation = made.json["reservation_id"]
    found = cloud.member.request("GET", f"{SERVERS}?reservation_id={reservation}", headers=NEWEST).json["servers"]
    assert sorted(one["name"] for one in found) == ["web-1", "web-2", "web-3"]
    for one in found:
        shown = cloud.reach(one["id"], "ACTIVE")
        assert shown["OS-EXT-SRV-ATTR:reservation_id"] == reservation
    assert (cloud.create(min_count=3, max_count=2).status, cloud.create(min_count=0).status) == (400, 400)
    limit = {"quota_set": {"instances": 4}}
    assert cloud.admin.request("PUT", f"/compute/v2.1/os-quota-sets/{PROJECT}", json=limit).status == 200
    assert cloud.create(min_count=2, max_count=3).status == 403
    assert cloud.create(min_count=1, max_count=5).status == 202
    assert len(cloud.member.request("GET", SERVERS).json["servers"]) == 4
