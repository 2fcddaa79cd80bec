"""What changes a server's disks or its flavor: through the real edge, link and loops."""

from __future__ import annotations

import json
from typing import Any

from tests.api.edge import Response
from tests.services.compute.cloud import IMAGE, NEWEST, PROJECT, Cloud, Host, at
from tests.services.compute.life import (
    OTHER_IMAGE,
    RESCUE_IMAGE,
    SERVERS,
    disks,
    last_action,
    ok,
    one_cloud,
    one_host,
    one_server,
    quota,
    refused,
    say,
    settled,
    used,
)

__all__ = ["one_cloud", "one_host", "one_server"]
"""Fixtures."""

# -- suspend ---------------------------------------------------------------------------------------------------------


def test_suspend_and_resume(cloud: Cloud, host: Host, server_id: str) -> None:
    ok(cloud.act(server_id, "suspend"))
    shown = settled(cloud, server_id, "SUSPENDED")
    assert (shown["OS-EXT-STS:vm_state"], shown["OS-EXT-STS:power_state"]) == ("suspended", 4)
    assert host.guests[server_id].power == "suspended"
    assert last_action(cloud, server_id) == ("suspend", "compute_suspend_instance", "Success")
    message = refused(cloud.act(server_id, "suspend"), 409)
    assert message == f"Cannot 'suspend' instance {server_id} while it is in vm_state suspended"
    assert cloud.act(server_id, "os-start").status == 409
    ok(cloud.act(server_id, "resume"))
    settled(cloud, server_id, "ACTIVE")
    assert refused(cloud.act(server_id, "resume"), 409).startswith("Cannot 'resume' instance")
    assert cloud.act(server_id, "suspend", client=cloud.reader).status == 403
    assert cloud.act(server_id, "suspend", client=cloud.stranger).status == 404


def test_a_suspended_server_is_started_anew_by_a_hard_reboot(cloud: Cloud, host: Host, server_id: str) -> None:
    ok(cloud.act(server_id, "suspend"))
    settled(cloud, server_id, "SUSPENDED")
    assert cloud.act(server_id, "reboot", {"type": "SOFT"}).status == 409
    ok(cloud.act(server_id, "reboot", {"type": "HARD"}))
    settled(cloud, server_id, "ACTIVE")


# -- rebuild ---------------------------------------------------------------------------------------------------------


def test_rebuild_makes_the_disks_anew(cloud: Cloud, host: Host) -> None:
    server_id = cloud.made(flavorRef="2", metadata={"a": "b"})
    cloud.reach(server_id, "ACTIVE")
    before = disks(host, server_id)
    assert {name: one.incarnation for name, one in before.items()} == {"root": 1, "ephemeral": 1, "swap": 1}
    made = cloud.act(server_id, "rebuild", {"imageRef": OTHER_IMAGE, "name": "again", "metadata": {"c": "d"}})
    server = ok(made)["server"]
    assert made.headers["location"].endswith(f"{SERVERS}/{server_id}")
    assert (server["status"], server["OS-EXT-STS:task_state"]) == ("REBUILD", "rebuilding")
    assert server["image"]["id"] == OTHER_IMAGE
    assert (server["name"], server["metadata"], len(server["adminPass"])) == ("again", {"c": "d"}, 12)
    shown = settled(cloud, server_id, "ACTIVE")
    after = disks(host, server_id)
    assert {name: one.incarnation for name, one in after.items()} == {"root": 2, "ephemeral": 2, "swap": 2}
    assert (after["root"].image_id, after["root"].image_sha512) == (OTHER_IMAGE, "1" * 128)
    assert host.guests[server_id].reboot_nonce == 1
    assert json.loads(host.guests[server_id].documents["openstack/latest/meta_data.json"])["admin_pass"]
    assert shown["id"] == server_id
    assert last_action(cloud, server_id) == ("rebuild", "compute_rebuild_instance", "Success")

    ok(cloud.act(server_id, "rebuild", {"imageRef": OTHER_IMAGE, "preserve_ephemeral": "on", "adminPass": "x"}))
    settled(cloud, server_id, "ACTIVE")
    assert {name: one.incarnation for name, one in disks(host, server_id).items()} == {
        "root": 3,
        "ephemeral": 2,
        "swap": 2,
    }


def test_a_rebuild_of_a_stopped_server_leaves_it_stopped(cloud: Cloud, host: Host, server_id: str) -> None:
    ok(cloud.act(server_id, "os-stop"))
    settled(cloud, server_id, "SHUTOFF")
    assert ok(cloud.act(server_id, "rebuild", {"imageRef": IMAGE}))["server"]["status"] == "REBUILD"
    settled(cloud, server_id, "SHUTOFF")
    assert disks(host, server_id)["root"].incarnation == 2


def test_rebuild_by_version(cloud: Cloud, host: Host, server_id: str) -> None:
    path = f"{SERVERS}/{server_id}/action"

    def rebuild(version: str, **values: Any) -> Response:
        body = {"rebuild": {"imageRef": IMAGE, **values}}
        found = cloud.member.request("POST", path, json=body, headers=at(version))
        if found.status == 202:
            settled(cloud, server_id, "ACTIVE")
        return found

    assert rebuild("2.18", description="x").status == 400
    assert ok(rebuild("2.19", description="x"))["server"]["description"] == "x"
    assert rebuild("2.53", key_name=None).status == 400
    server = ok(rebuild("2.54", key_name=None))["server"]
    assert server["key_name"] is None
    assert "user_data" not in server
    assert "OS-EXT-STS:vm_state" not in server
    assert refused(rebuild("2.54", key_name="nobody"), 400) == "Invalid key_name provided."
    assert rebuild("2.56", user_data="aGk=").status == 400
    assert refused(rebuild("2.56", personality=[{"path": "/a", "contents": "?"}]), 400)
    assert ok(rebuild("2.57", user_data="aGk="))["server"]["user_data"] == "aGk="
    assert host.guests[server_id].documents["openstack/latest/user_data"] == b"hi"
    assert rebuild("2.57", user_data="!").status == 400
    assert rebuild("2.57", personality=[]).status == 400
    assert rebuild("2.62", trusted_image_certificates=None).status == 400
    assert ok(rebuild("2.63", trusted_image_certificates=None))
    assert rebuild("2.63", trusted_image_certificates=["x"]).status == 400
    assert rebuild("2.89", hostname="web").status == 400
    assert ok(rebuild("2.90", hostname="web"))
    assert rebuild("2.93", hostname="web.example.org").status == 400
    assert ok(rebuild("2.94", hostname="web.example.org"))["server"]["OS-EXT-STS:vm_state"] == "active"
    assert cloud.show(server_id)["OS-EXT-SRV-ATTR:hostname"] == "web.example.org"


def test_rebuilds_that_cannot_be(cloud: Cloud, host: Host, server_id: str) -> None:
    def why(**values: Any) -> str:
        return refused(cloud.act(server_id, "rebuild", {"imageRef": IMAGE, **values}), 400)

    assert why(imageRef="99999999-2222-4333-8444-555555555555") == "Cannot find image for rebuild"
    assert why(accessIPv4="300.1.1.1")
    assert why(metadata={"": "x"})
    assert why(preserve_ephemeral=1)
    assert why(imageRef="no uuid")
    large = cloud.image("44444444-2222-4333-8444-555555555555", virtual_size=5 << 30)
    assert why(imageRef=large).startswith("Flavor's disk is too small for requested image.")
    assert cloud.act(server_id, "rebuild", {"imageRef": IMAGE}, client=cloud.reader).status == 403
    ok(cloud.act(server_id, "pause"))
    settled(cloud, server_id, "PAUSED")
    assert "vm_state paused" in refused(cloud.act(server_id, "rebuild", {"imageRef": IMAGE}), 409)


def test_a_rebuild_that_fails_is_an_error_and_can_be_done_again(cloud: Cloud, host: Host, server_id: str) -> None:
    host.answers[server_id] = ("failed", "the image cannot be read", True)
    ok(cloud.act(server_id, "rebuild", {"imageRef": OTHER_IMAGE}))
    shown = settled(cloud, server_id, "ERROR")
    assert shown["fault"]["details"] == "the image cannot be read"
    assert last_action(cloud, server_id)[2] == "Error"
    host.answers.clear()
    assert ok(cloud.act(server_id, "rebuild", {"imageRef": IMAGE}))["server"]["status"] == "REBUILD"
    assert "fault" not in settled(cloud, server_id, "ACTIVE")


# -- resize ----------------------------------------------------------------------------------------------------------


def test_resize_and_confirm(cloud: Cloud, host: Host, server_id: str) -> None:
    taken, held = quota(cloud), used(cloud)
    ok(cloud.act(server_id, "resize", {"flavorRef": "2"}))
    shown = settled(cloud, server_id, "VERIFY_RESIZE")
    assert shown["OS-EXT-STS:vm_state"] == "resized"
    assert shown["flavor"]["original_name"] == "flavor-2"
    guest = host.guests[server_id]
    root = disks(host, server_id)["root"]
    assert (guest.vcpus, guest.memory_mib, guest.reboot_nonce) == (2, 1024, 1)
    assert (root.incarnation, root.copy_of, root.keep, root.size_gib) == (2, 1, (1,), 2)
    assert quota(cloud) == {**taken, "cores": taken["cores"] + 1, "ram": taken["ram"] + 512}
    assert used(cloud) == (held[0] + 2, held[1] + 1024, held[2] + 4), "both flavors are held"
    assert last_action(cloud, server_id)[2] == "Success"
    assert cloud.act(server_id, "os-stop").status == 409
    assert cloud.act(server_id, "resize", {"flavorRef": "1"}).status == 409

    ok(cloud.act(server_id, "confirmResize"), 204)
    settled(cloud, server_id, "ACTIVE")
    root = disks(host, server_id)["root"]
    assert (root.incarnation, root.keep) == (2, ())
    assert host.guests[server_id].reboot_nonce == 1, "it runs on"
    assert used(cloud) == (held[0] + 1, held[1] + 512, held[2] + 3)
    assert quota(cloud) == {**taken, "cores": taken["cores"] + 1, "ram": taken["ram"] + 512}
    assert last_action(cloud, server_id) == ("confirmResize", "compute_confirm_resize", "Success")
    assert "vm_state active" in refused(cloud.act(server_id, "confirmResize"), 409)


def test_no_resize_is_confirmed_while_the_host_is_down(cloud: Cloud, server_id: str) -> None:
    ok(cloud.act(server_id, "resize", {"flavorRef": "2"}))
    settled(cloud, server_id, "VERIFY_RESIZE")
    [found] = cloud.admin.request("GET", "/compute/v2.1/os-services?binary=nova-compute", headers=NEWEST).json[
        "services"
    ]
    service = f"/compute/v2.1/os-services/{found['id']}"
    ok(cloud.admin.request("PUT", service, json={"forced_down": True}, headers=NEWEST), 200)
    try:
        message = refused(cloud.act(server_id, "confirmResize"), 409)
        assert message == "Service is unavailable at this time."
        assert cloud.status(server_id) == "VERIFY_RESIZE"
    finally:
        ok(cloud.admin.request("PUT", service, json={"forced_down": False}, headers=NEWEST), 200)
    ok(cloud.act(server_id, "confirmResize"), 204)
    settled(cloud, server_id, "ACTIVE")


def test_resize_and_revert(cloud: Cloud, host: Host) -> None:
    taken, held = quota(cloud), used(cloud)
    network = cloud.network("resize")
    server_id = cloud.made(networks=[{"uuid": network}])
    cloud.reach(server_id, "ACTIVE")
    nics = host.guests[server_id].nics
    ok(cloud.act(server_id, "resize", {"flavorRef": "2"}))
    settled(cloud, server_id, "VERIFY_RESIZE")
    assert set(disks(host, server_id)) == {"root", "ephemeral", "swap"}
    ok(cloud.act(server_id, "revertResize"))
    assert settled(cloud, server_id, "ACTIVE")["flavor"]["original_name"] == "flavor-1"
    guest = host.guests[server_id]
    assert (guest.memory_mib, guest.retired, guest.nics) == (512, ("ephemeral", "swap"), nics)
    root = disks(host, server_id)["root"]
    assert (root.incarnation, root.copy_of, root.keep) == (1, None, ())
    assert quota(cloud) == {"instances": taken["instances"] + 1, "cores": taken["cores"] + 1, "ram": taken["ram"] + 512}
    assert used(cloud) == (held[0] + 1, held[1] + 512, held[2] + 1)

    ok(cloud.act(server_id, "resize", {"flavorRef": "2"}))
    settled(cloud, server_id, "VERIFY_RESIZE")
    assert {name: one.incarnation for name, one in disks(host, server_id).items()} == {
        "root": 3,
        "ephemeral": 2,
        "swap": 2,
    }, "no number is given twice"
    assert cloud.member.request("DELETE", f"{SERVERS}/{server_id}").status == 204
    cloud.reach(server_id, "gone")
    assert (quota(cloud), used(cloud)) == (taken, held)


def test_a_smaller_flavor_holds_the_larger_until_it_is_confirmed(cloud: Cloud, server_id: str) -> None:
    taken = quota(cloud)
    ok(cloud.act(server_id, "resize", {"flavorRef": "small"}))
    settled(cloud, server_id, "VERIFY_RESIZE")
    assert quota(cloud) == taken
    ok(cloud.act(server_id, "confirmResize"), 204)
    settled(cloud, server_id, "ACTIVE")
    assert quota(cloud) == {**taken, "ram": taken["ram"] - 256}


def test_a_stopped_server_is_resized_without_being_started(cloud: Cloud, host: Host, server_id: str) -> None:
    ok(cloud.act(server_id, "os-stop"))
    settled(cloud, server_id, "SHUTOFF")
    ok(cloud.act(server_id, "resize", {"flavorRef": "2"}))
    settled(cloud, server_id, "VERIFY_RESIZE")
    assert host.guests[server_id].power == "stopped"
    ok(cloud.act(server_id, "confirmResize"), 204)
    settled(cloud, server_id, "SHUTOFF")


def test_resizes_that_cannot_be(cloud: Cloud, host: Host, server_id: str) -> None:
    def why(flavor: str, status: int = 400) -> str:
        return refused(cloud.act(server_id, "resize", {"flavorRef": flavor}), status)

    assert why("1") == "When resizing, instances must change flavor!"
    assert why("nowhere") == "Flavor nowhere could not be found."
    cloud.flavor("zero", disk=0)
    assert why("zero").endswith("Resize to zero disk flavor is not allowed.")
    cloud.admin.request(
        "PUT", f"/compute/v2.1/os-quota-sets/{PROJECT}", json={"quota_set": {"ram": quota(cloud)["ram"]}}
    )
    assert "ram" in why("2", 403)
    cloud.admin.request("DELETE", f"/compute/v2.1/os-quota-sets/{PROJECT}")
    ok(cloud.act(server_id, "resize", {"flavorRef": "2"}))
    settled(cloud, server_id, "VERIFY_RESIZE")
    ok(cloud.act(server_id, "confirmResize"), 204)
    settled(cloud, server_id, "ACTIVE")
    assert why("1").endswith("Unable to resize disk down.")
    assert cloud.act(server_id, "resize", {"flavorRef": "1"}, client=cloud.reader).status == 403


def test_a_resize_without_room_changes_nothing(cloud: Cloud, host: Host, server_id: str) -> None:
    taken, held = quota(cloud), used(cloud)
    ok(cloud.act(server_id, "resize", {"flavorRef": "large"}))
    shown = cloud.show(server_id)
    assert (shown["status"], shown["flavor"]["original_name"]) == ("ACTIVE", "flavor-1")
    assert (quota(cloud), used(cloud)) == (taken, held)
    assert last_action(cloud, server_id) == ("resize", "compute_finish_resize", "Error")


def test_a_resize_that_fails_goes_back(cloud: Cloud, host: Host, server_id: str) -> None:
    taken, held = quota(cloud), used(cloud)
    host.silent = True
    ok(cloud.act(server_id, "resize", {"flavorRef": "2"}))
    shown = cloud.show(server_id)
    assert (shown["status"], shown["OS-EXT-STS:task_state"]) == ("RESIZE", "resize_finish")
    cloud.wait(lambda: f"guest/{server_id}" in host.held)
    host.answers[server_id] = ("failed", "the disk cannot be copied", True)
    cloud.served.run(host.report())
    host.answers.clear()
    host.silent = False
    cloud.wait(lambda: cloud.show(server_id)["flavor"]["original_name"] == "flavor-1")
    cloud.wait(lambda: host.guests[server_id].memory_mib == 512)
    cloud.served.run(host.report())
    settled(cloud, server_id, "ACTIVE")
    root = disks(host, server_id)["root"]
    assert (root.incarnation, root.keep) == (1, ())
    assert (quota(cloud), used(cloud)) == (taken, held)
    assert last_action(cloud, server_id) == ("resize", "compute_finish_resize", "Error")


# -- rescue ----------------------------------------------------------------------------------------------------------


def test_rescue_and_unrescue(cloud: Cloud, host: Host, server_id: str) -> None:
    answer = ok(cloud.act(server_id, "rescue", {"rescue_image_ref": RESCUE_IMAGE, "adminPass": "secret"}), 200)
    assert answer == {"adminPass": "secret"}
    assert settled(cloud, server_id, "RESCUE")["OS-EXT-STS:vm_state"] == "rescued"
    first, second = host.guests[server_id].disks
    assert (first.id, first.boot_index, first.image_id, first.size_gib) == ("rescue", 0, RESCUE_IMAGE, 0)
    assert (second.id, second.boot_index, second.incarnation) == ("root", 1, 1)
    assert "vm_state rescued" in refused(cloud.act(server_id, "rescue"), 409)
    assert cloud.act(server_id, "os-stop").status == 409
    ok(cloud.act(server_id, "unrescue"))
    settled(cloud, server_id, "ACTIVE")
    guest = host.guests[server_id]
    assert ([one.id for one in guest.disks], guest.retired, guest.reboot_nonce) == (["root"], ("rescue",), 2)
    assert last_action(cloud, server_id) == ("unrescue", "compute_unrescue_instance", "Success")
    assert "vm_state active" in refused(cloud.act(server_id, "unrescue"), 409)

    assert len(ok(cloud.act(server_id, "rescue"), 200)["adminPass"]) == 12
    settled(cloud, server_id, "RESCUE")
    rescue = disks(host, server_id)["rescue"]
    assert (rescue.incarnation, rescue.image_id) == (2, IMAGE), "it is made anew, from the server's own image"
    assert cloud.member.request("DELETE", f"{SERVERS}/{server_id}").status == 204
    cloud.reach(server_id, "gone")


def test_stable_device_rescue_keeps_the_disks_in_their_places(cloud: Cloud, host: Host) -> None:
    image = cloud.image("55555555-2222-4333-8444-555555555555")
    say(cloud, image, hw_rescue_device="cdrom", hw_rescue_bus="usb")
    server_id = cloud.made(flavorRef="2")
    cloud.reach(server_id, "ACTIVE")
    ok(cloud.act(server_id, "rescue", {"rescue_image_ref": image}), 200)
    settled(cloud, server_id, "RESCUE")
    assert [one.id for one in host.guests[server_id].disks] == ["root", "ephemeral", "swap", "rescue"]
    rescue = disks(host, server_id)["rescue"]
    assert (rescue.device, rescue.bus, rescue.boot_index) == ("cdrom", "usb", 0)


def test_rescues_that_cannot_be(cloud: Cloud, host: Host, server_id: str) -> None:
    gone = "99999999-2222-4333-8444-555555555555"
    message = refused(cloud.act(server_id, "rescue", {"rescue_image_ref": gone}), 400)
    assert message == f"Requested rescue image '{gone}' is not supported"
    assert cloud.act(server_id, "rescue", {"rescue_image_ref": "x"}).status == 400
    assert cloud.act(server_id, "rescue", {"fast": True}).status == 400
    strange = cloud.image("66666666-2222-4333-8444-555555555555")
    say(cloud, strange, hw_rescue_bus="floppy")
    assert "'floppy'" in refused(cloud.act(server_id, "rescue", {"rescue_image_ref": strange}), 400)
    assert cloud.act(server_id, "rescue", client=cloud.reader).status == 403


def test_a_rescue_that_fails_leaves_the_server_its_own_disk(cloud: Cloud, host: Host, server_id: str) -> None:
    host.silent = True
    ok(cloud.act(server_id, "rescue"), 200)
    cloud.wait(lambda: f"guest/{server_id}" in host.held)
    host.answers[server_id] = ("failed", "no such bus", True)
    cloud.served.run(host.report())
    host.answers.clear()
    host.silent = False
    assert settled(cloud, server_id, "ERROR")["fault"]["details"] == "no such bus"
    cloud.wait(lambda: set(disks(host, server_id)) == {"root"} or bool(cloud.served.run(host.report())))
    ok(cloud.act(server_id, "reboot", {"type": "HARD"}))
    settled(cloud, server_id, "ACTIVE")
