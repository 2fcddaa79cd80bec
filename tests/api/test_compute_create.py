"""What a server may be created of, from the first microversion to the newest."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.edge import Response
from tests.services.compute.cloud import IMAGE, NEWEST, OTHER, PROJECT, Cloud, at

SERVERS = "/compute/v2.1/servers"
UUID = "99999999-2222-4333-8444-555555555555"


@pytest.fixture
def cloud(database_url: str) -> Iterator[Cloud]:
    with Cloud(database_url) as found:
        found.image()
        found.flavor("1")
        yield found


def post(
    cloud: Cloud, version: str, *, drop: str = "", beside: dict[str, Any] | None = None, **changes: Any
) -> Response:
    """Create with the least that a server needs, and what is said."""
    body: dict[str, Any] = {"name": "s", "flavorRef": "1", "imageRef": IMAGE} | changes
    if version == "2.104" or int(version.split(".")[1]) >= 37:
        body.setdefault("networks", "none")
    body.pop(drop, None)
    return cloud.member.request("POST", SERVERS, json={"server": body, **(beside or {})}, headers=at(version))


def message(found: Response) -> str:
    (fault,) = found.json.values()
    return str(fault["message"])


@pytest.mark.parametrize(
    ("version", "changes", "status"),
    [
        ("2.18", {"description": "x"}, 400),
        ("2.19", {"description": "x"}, 202),
        ("2.19", {"description": None}, 202),
        ("2.36", {}, 202),
        ("2.36", {"networks": "none"}, 400),
        ("2.37", {"networks": "none"}, 202),
        ("2.37", {"networks": "other"}, 400),
        ("2.37", {"networks": None}, 400),
        ("2.36", {"networks": []}, 202),
        ("2.37", {"networks": [{"uuid": "not-a-uuid"}]}, 400),
        ("2.31", {"networks": [{"uuid": UUID, "tag": "a"}]}, 400),
        ("2.51", {"tags": ["a"]}, 400),
        ("2.52", {"tags": ["a"]}, 202),
        ("2.52", {"tags": ["a,b"]}, 400),
        ("2.52", {"tags": [str(number) for number in range(51)]}, 400),
        ("2.56", {"personality": []}, 202),
        ("2.56", {"personality": [{"path": "/x", "contents": "YQ=="}]}, 202),
        ("2.56", {"personality": [{"path": "/x", "contents": "?"}]}, 400),
        ("2.56", {"personality": [{"path": "/x", "contents": "YQ=="}] * 6}, 403),
        ("2.56", {"personality": [{"path": "/x", "contents": "YWFh" * 2561}]}, 403),
        ("2.56", {"personality": [{"path": "/" * 256, "contents": "YQ=="}]}, 403),
        ("2.57", {"personality": []}, 400),
        ("2.62", {"trusted_image_certificates": ["a"]}, 400),
        ("2.63", {"trusted_image_certificates": ["a"]}, 400),
        ("2.63", {"trusted_image_certificates": None}, 202),
        ("2.73", {"host": "h"}, 400),
        ("2.74", {"host": "h"}, 403),
        ("2.89", {"hostname": "box"}, 400),
        ("2.90", {"hostname": "box"}, 202),
        ("2.93", {"hostname": "box.example.org"}, 400),
        ("2.94", {"hostname": "box.example.org"}, 202),
        ("2.94", {"hostname": "box", "min_count": 2}, 400),
        ("2.1", {"return_reservation_id": True}, 202),
        ("2.1", {"OS-DCF:diskConfig": "AUTO"}, 202),
        ("2.1", {"OS-DCF:diskConfig": "other"}, 400),
        ("2.1", {"accessIPv4": "192.0.2.1", "accessIPv6": "2001:db8::1"}, 202),
        ("2.1", {"accessIPv4": "2001:db8::1"}, 400),
        ("2.1", {"accessIPv4": "999.0.0.1"}, 400),
        ("2.1", {"metadata": {"a": "b"}}, 202),
        ("2.1", {"metadata": {"a": 1}}, 400),
        ("2.1", {"metadata": {"a/b": "1"}}, 400),
        ("2.1", {"user_data": "IyEvYmluL3NoCg=="}, 202),
        ("2.1", {"user_data": "#!/bin/sh"}, 400),
        ("2.1", {"user_data": "A" * 65536}, 400),
        ("2.1", {"user_data": None}, 400),
        ("2.63", {"trusted_image_certificates": []}, 400),
        ("2.1", {"config_drive": True}, 202),
        ("2.1", {"config_drive": "true"}, 202),
        ("2.1", {"config_drive": "on", "return_reservation_id": "No"}, 202),
        ("2.1", {"config_drive": "maybe"}, 400),
        ("2.1", {"config_drive": "tRUE"}, 400),
        ("2.1", {"config_drive": 1}, 400),
        ("2.1", {"return_reservation_id": 0}, 400),
        ("2.1", {"min_count": "2", "max_count": "3"}, 202),
        ("2.1", {"min_count": 3, "max_count": 2}, 400),
        ("2.1", {"min_count": 0}, 400),
        ("2.1", {"name": ""}, 400),
        ("2.1", {"name": "   "}, 400),
        ("2.1", {"name": "x" * 256}, 400),
        ("2.1", {"name": "x" * 255}, 202),
        ("2.1", {"flavorRef": "nope"}, 400),
        ("2.1", {"flavorRef": 1}, 202),
        ("2.1", {"flavorRef": "http://cloud/compute/v2.1/flavors/1?q=4"}, 202),
        ("2.1", {"flavorRef": "http://cloud/compute/v2.1/flavors/9"}, 400),
        ("2.1", {"flavorRef": "http://[/1"}, 400),
        ("2.1", {"imageRef": UUID}, 400),
        ("2.1", {"imageRef": "nope"}, 400),
        ("2.1", {"imageRef": ""}, 400),
        ("2.1", {"key_name": "nope"}, 400),
        ("2.1", {"availability_zone": "nova"}, 400),
        ("2.1", {"availability_zone": "moon"}, 400),
        ("2.1", {"availability_zone": "nova:h"}, 403),
        ("2.1", {"adminPass": "secret"}, 202),
        ("2.1", {"adminPass": None}, 400),
        ("2.1", {"block_device_mapping": [{"volume_id": UUID}]}, 400),
        ("2.1", {"something": 1}, 400),
    ],
)
def test_bodies(cloud: Cloud, version: str, changes: dict[str, Any], status: int) -> None:
    found = post(cloud, version, **changes)
    assert found.status == status, found
    if status != 202:
        assert message(found)
        assert cloud.member.request("GET", SERVERS).json["servers"] == []
        path = f"/compute/v2.1/os-quota-sets/{PROJECT}/detail"
        assert cloud.admin.request("GET", path).json["quota_set"]["instances"]["in_use"] == 0


@pytest.mark.parametrize("missing", ["name", "flavorRef", "imageRef"])
def test_what_is_needed(cloud: Cloud, missing: str) -> None:
    assert post(cloud, "2.1", drop=missing).status == 400


def test_networks_are_needed_later(cloud: Cloud) -> None:
    body = {"name": "s", "flavorRef": "1", "imageRef": IMAGE}
    assert cloud.member.request("POST", SERVERS, json={"server": body}, headers=at("2.36")).status == 202
    assert cloud.member.request("POST", SERVERS, json={"server": body}, headers=at("2.37")).status == 400


@pytest.mark.parametrize(
    ("version", "change", "status"),
    [
        ("2.31", {"tag": "a"}, 400),
        ("2.32", {"tag": "a"}, 202),
        ("2.33", {"tag": "a"}, 400),
        ("2.41", {"tag": "a"}, 400),
        ("2.42", {"tag": "a"}, 202),
        ("2.66", {"volume_type": None}, 400),
        ("2.67", {"volume_type": None}, 202),
        ("2.1", {"boot_index": "0"}, 202),
        ("2.1", {"boot_index": 1}, 400),
        ("2.1", {"delete_on_termination": "yes"}, 202),
        ("2.1", {"delete_on_termination": 1}, 400),
        ("2.1", {"destination_type": "volume", "volume_size": 1}, 400),
        ("2.1", {"source_type": "volume"}, 400),
        ("2.1", {"source_type": "other"}, 400),
    ],
)
def test_disks(cloud: Cloud, version: str, change: dict[str, Any], status: int) -> None:
    disk = {"source_type": "image", "destination_type": "local", "uuid": IMAGE, "boot_index": 0} | change
    found = post(cloud, version, block_device_mapping_v2=[disk])
    assert found.status == status, found


@pytest.mark.parametrize(
    ("version", "status"),
    [("2.31", 400), ("2.32", 202), ("2.36", 202), ("2.37", 400), ("2.41", 400), ("2.42", 202), ("2.104", 202)],
)
def test_tags_of_cards_came_and_went(cloud: Cloud, version: str, status: int) -> None:
    network = cloud.network()
    assert post(cloud, version, networks=[{"uuid": network, "tag": "a"}]).status == status


def test_ports_that_no_host_can_make(cloud: Cloud) -> None:
    body = {"port": {"network_id": cloud.network(), "binding:vnic_type": "direct"}}
    port = cloud.member.request("POST", "/network/v2.0/ports", json=body).json["port"]["id"]
    found = post(cloud, "2.104", networks=[{"port": port}])
    assert (found.status, "of type direct" in message(found)) == (400, True)


def test_no_image_is_an_empty_one(cloud: Cloud) -> None:
    """Clients send an empty reference when the list of disks says what to boot from."""
    local = {"source_type": "image", "destination_type": "local", "uuid": IMAGE, "boot_index": 0}
    assert post(cloud, "2.1", imageRef="", block_device_mapping_v2=[local]).status == 202
    volume = local | {"destination_type": "volume", "volume_size": 1}
    found = post(cloud, "2.1", imageRef="", block_device_mapping_v2=[volume])
    assert (found.status, "no volumes" in message(found)) == (400, True)


def test_descriptions_began_as_names(cloud: Cloud) -> None:
    for version, expected in (("2.18", "s"), ("2.19", None)):
        made = post(cloud, version).json["server"]["id"]
        assert cloud.show(made)["description"] == expected


@pytest.mark.parametrize(("word", "shown"), [("YES", "True"), ("0", ""), ("off", "")])
def test_words_for_truth(cloud: Cloud, word: str, shown: str) -> None:
    made = post(cloud, "2.104", config_drive=word, return_reservation_id=word)
    assert ("reservation_id" in made.json) == bool(shown)
    [server] = cloud.member.request("GET", f"{SERVERS}/detail").json["servers"]
    assert server["config_drive"] == shown


def test_hints_stand_beside_the_server(cloud: Cloud) -> None:
    for key in ("os:scheduler_hints", "OS-SCH-HNT:scheduler_hints"):
        found = post(cloud, "2.104", beside={key: {"near": "here"}})
        assert cloud.show(found.json["server"]["id"])["scheduler_hints"] == {"near": "here"}
    assert post(cloud, "2.104", beside={"other": {}}).status == 400


def test_the_older_root_and_the_project_in_the_path(cloud: Cloud) -> None:
    body = {"server": {"name": "s", "flavorRef": "1", "imageRef": IMAGE}}
    assert cloud.member.request("POST", "/compute/v2/servers", json=body).status == 202
    found = cloud.member.request("POST", f"/compute/v2.1/{PROJECT}/servers", json=body)
    assert found.status == 202
    assert len(cloud.member.request("GET", f"/compute/v2.1/{PROJECT}/servers").json["servers"]) == 2


def test_the_project_in_the_path_is_the_tokens(cloud: Cloud) -> None:
    path = f"/compute/v2.1/{OTHER}/servers"
    body = {"server": {"name": "s", "flavorRef": "1", "imageRef": IMAGE}}
    for found in (cloud.member.request("POST", path, json=body), cloud.admin.request("GET", path)):
        assert (found.status, message(found)) == (
            400,
            f"Malformed request URL: URL's project_id '{OTHER}' doesn't match Context's project_id '{PROJECT}'",
        )
    assert cloud.member.request("GET", f"/compute/v2.1/{OTHER}/nothing").status == 404
    assert cloud.served.client().request("GET", path).status == 401
    assert cloud.admin.request("GET", SERVERS).json["servers"] == []
    assert "None" in message(cloud.served.client("admin@system").request("GET", path))
    assert cloud.stranger.request("GET", path).status == 200


def test_who_may(cloud: Cloud) -> None:
    assert cloud.create(cloud.reader).status == 403
    assert cloud.create(cloud.stranger).status == 202
    assert cloud.create(cloud.served.client()).status == 401


def test_images_of_others_are_not_there(cloud: Cloud) -> None:
    cloud.image(UUID, owner=OTHER, visibility="private")
    found = post(cloud, "2.1", imageRef=UUID)
    assert (found.status, message(found)) == (400, "Can not find requested image")


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"status": "deactivated"}, "is not active"),
        ({"min_ram": 513}, "memory is too small"),
        ({"min_disk": 2}, "disk is smaller"),
        ({"virtual_size": 2 << 30}, "disk is too small"),
        ({"virtual_size": None}, "not a disk"),
    ],
)
def test_images_that_do_not_fit(cloud: Cloud, values: dict[str, Any], part: str) -> None:
    cloud.image(UUID, **values)
    found = post(cloud, "2.1", imageRef=UUID)
    assert found.status == 400
    assert part in message(found)


def test_flavors_without_disk_are_for_admins(cloud: Cloud) -> None:
    cloud.flavor("0", disk=0)
    assert post(cloud, "2.1", flavorRef="0").status == 403
    assert cloud.create(cloud.admin, flavorRef="0").status == 202


def test_a_network_is_made_where_there_is_none(cloud: Cloud) -> None:
    network = "/network/v2.0"
    public = {"name": "public", "router:external": True, "is_default": True}
    made = cloud.admin.request("POST", f"{network}/networks", json={"network": public})
    body = {"network_id": made.json["network"]["id"], "cidr": "172.24.4.0/24", "ip_version": 4, "enable_dhcp": False}
    assert cloud.admin.request("POST", f"{network}/subnets", json={"subnet": body}).status == 201
    pool = {"name": "p", "prefixes": ["10.64.0.0/16"], "default_prefixlen": 26, "is_default": True, "shared": True}
    assert cloud.admin.request("POST", f"{network}/subnetpools", json={"subnetpool": pool}).status == 201
    assert post(cloud, "2.104", networks="auto", min_count=3).status == 202
    assert post(cloud, "2.104", networks="auto").status == 202
    found = cloud.member.request("GET", f"{network}/networks?name=auto_allocated_network")
    [one] = found.json["networks"]
    ports = cloud.member.request("GET", f"{network}/ports?network_id={one['id']}&device_owner=compute:nova").json[
        "ports"
    ]
    assert len(ports) == 4


def test_networks_that_cannot_be(cloud: Cloud) -> None:
    assert post(cloud, "2.104", networks=[{"uuid": UUID}]).status == 400
    assert post(cloud, "2.104", networks=[{"port": UUID}]).status == 400
    found = post(cloud, "2.104", networks="auto")
    assert found.status == 400
    assert "Unable to automatically allocate a network for project" in message(found)
    network = cloud.network("one")
    assert post(cloud, "2.104", networks="auto").status == 202
    foreign = cloud.network("two", client=cloud.stranger)
    assert post(cloud, "2.104", networks=[{"uuid": foreign}]).status == 400
    assert post(cloud, "2.1").status == 202
    cloud.network("three")
    assert post(cloud, "2.1").status == 409
    port = [{"uuid": network, "fixed_ip": "10.0.0.77"}]
    assert post(cloud, "2.104", networks=port, min_count=2).status == 400
    assert post(cloud, "2.104", networks=port).status == 202
    assert post(cloud, "2.104", networks=port).status == 400
    assert post(cloud, "2.104", networks=[{"uuid": network, "fixed_ip": "192.0.2.1"}]).status == 400


def test_a_refusal_writes_nothing(cloud: Cloud) -> None:
    network = cloud.network()
    found = post(cloud, "2.104", networks=[{"uuid": network}], security_groups=[{"name": "nope"}])
    assert found.status == 400
    ports = cloud.member.request("GET", "/network/v2.0/ports?device_owner=compute:nova").json["ports"]
    assert ports == []
    assert cloud.member.request("GET", SERVERS).json["servers"] == []


def test_several_at_once(cloud: Cloud) -> None:
    found = post(cloud, "2.104", min_count=2, max_count=3, return_reservation_id=True)
    reservation = found.json["reservation_id"]
    assert reservation.startswith("r-")
    rows = cloud.admin.request("GET", f"{SERVERS}/detail?reservation_id={reservation}", headers=NEWEST).json["servers"]
    assert sorted(one["name"] for one in rows) == ["s-1", "s-2", "s-3"]
    assert sorted(one["OS-EXT-SRV-ATTR:launch_index"] for one in rows) == [0, 1, 2]
    assert sorted(one["OS-EXT-SRV-ATTR:hostname"] for one in rows) == ["s-1", "s-2", "s-3"]


@pytest.mark.parametrize("given", [{}, {"adminPass": "secret"}, {"adminPass": ""}])
def test_several_at_once_have_the_password_that_is_told(cloud: Cloud, given: dict[str, Any]) -> None:
    host = cloud.host("h1")
    told = post(cloud, "2.104", min_count=3, **given).json["server"]["adminPass"]
    assert told == given.get("adminPass", told)
    cloud.wait(lambda: len(host.guests) == 3)
    found = [guest.documents["openstack/latest/meta_data.json"] for guest in host.guests.values()]
    assert [json.loads(one)["admin_pass"] for one in found] == [told] * 3


def test_quota(cloud: Cloud) -> None:
    cloud.admin.request("PUT", f"/compute/v2.1/os-quota-sets/{PROJECT}", json={"quota_set": {"instances": 3}})
    assert post(cloud, "2.104", min_count=1, max_count=2).status == 202
    found = post(cloud, "2.104", min_count=2)
    assert (found.status, message(found)) == (
        403,
        "Quota exceeded for instances: Requested 2, but already used 2 of 3 instances",
    )
    assert post(cloud, "2.104", min_count=1, max_count=5).status == 202
    assert len(cloud.member.request("GET", SERVERS).json["servers"]) == 3
    assert post(cloud, "2.104").status == 403
    for name, value in (("cores", 3), ("ram", 1536)):
        body = {"quota_set": {"instances": 10, name: value}}
        assert cloud.admin.request("PUT", f"/compute/v2.1/os-quota-sets/{PROJECT}", json=body).status == 200
        found = post(cloud, "2.104")
        assert found.status == 403
        assert f"Quota exceeded for {name}" in message(found)
        cloud.admin.request("PUT", f"/compute/v2.1/os-quota-sets/{PROJECT}", json={"quota_set": {name: -1}})
    below = {"quota_set": {"instances": 2}}
    assert cloud.admin.request("PUT", f"/compute/v2.1/os-quota-sets/{PROJECT}", json=below).status == 400
    forced = {"quota_set": {"instances": 2, "force": True}}
    assert cloud.admin.request("PUT", f"/compute/v2.1/os-quota-sets/{PROJECT}", json=forced).status == 200


def test_the_last_unit_is_given_once(cloud: Cloud) -> None:
    """Many requests fight over the last unit of quota, again and again."""
    path = f"/compute/v2.1/os-quota-sets/{PROJECT}"
    for round_ in range(5):
        cloud.admin.request("PUT", path, json={"quota_set": {"instances": round_ + 1}})
        start = threading.Barrier(8)
        found: list[int] = []

        def fight(start: threading.Barrier = start, found: list[int] = found) -> None:
            start.wait()
            found.append(cloud.create().status)

        threads = [threading.Thread(target=fight) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == [202] + [403] * 7
        used = cloud.admin.request("GET", f"{path}/detail").json["quota_set"]["instances"]["in_use"]
        assert used == len(cloud.member.request("GET", SERVERS).json["servers"]) == round_ + 1


def test_the_last_place_is_given_once(cloud: Cloud) -> None:
    """More servers than a host has room for: as many run as fit, and the others are told why not."""
    cloud.host("h1", memory_mib=2560)
    threads = [threading.Thread(target=cloud.create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = [one["id"] for one in cloud.member.request("GET", SERVERS).json["servers"]]
    cloud.wait(lambda: all(cloud.status(one) in ("ACTIVE", "ERROR") for one in ids))
    words = sorted(cloud.status(one) for one in ids)
    assert words == ["ACTIVE"] * 4 + ["ERROR"] * 4
    stats = cloud.admin.request("GET", "/compute/v2.1/os-hypervisors/detail").json["hypervisors"][0]
    assert (stats["memory_mb_used"], stats["free_ram_mb"]) == (2560, 0)


def test_a_token_without_a_project_makes_no_server(cloud: Cloud) -> None:
    body = {"server": {"name": "s", "flavorRef": "1", "imageRef": IMAGE, "networks": "none"}}
    found = cloud.served.client("admin@system").request("POST", SERVERS, json=body, headers=at("2.90"))
    assert found.status == 403
