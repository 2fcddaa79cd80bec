"""Images and backups of servers, through the real edge, link and loops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.services.compute.cloud import IMAGE, OTHER, PROJECT, Cloud, at

SERVERS = "/compute/v2.1/servers"


@pytest.fixture
def cloud(database_url: str) -> Iterator[Cloud]:
    with Cloud(database_url) as found:
        found.image()
        found.flavor("1", disk=2)
        yield found


def image(cloud: Cloud, image_id: str) -> dict[str, Any]:
    """An image as its project sees it; empty when it is gone."""
    found = cloud.member.request("GET", f"/image/v2/images/{image_id}")
    return dict(found.json) if found.status == 200 else {}


def actions(cloud: Cloud, server_id: str) -> dict[str, str | None]:
    """The result of each action by its name."""
    path = f"{SERVERS}/{server_id}/os-instance-actions"
    found = {}
    for one in cloud.admin.request("GET", path, headers=at("2.84")).json["instanceActions"]:
        shown = cloud.admin.request("GET", f"{path}/{one['request_id']}", headers=at("2.84")).json["instanceAction"]
        found[one["action"]] = shown["events"][0]["result"] if shown["events"] else None
    return found


def test_an_image_is_made_while_the_server_runs_on(cloud: Cloud) -> None:
    host = cloud.host("h1")
    server_id = cloud.made()
    cloud.reach(server_id, "ACTIVE")
    host.silent = True
    made = cloud.act(server_id, "createImage", {"name": "mine", "metadata": {"purpose": "test"}})
    assert made.status == 202, made
    image_id = made.json["image_id"]
    shown = cloud.show(server_id)
    assert (shown["status"], shown["OS-EXT-STS:task_state"]) == ("ACTIVE", "image_snapshot")
    again = cloud.act(server_id, "createImage", {"name": "more"})
    assert (again.status, "task_state image_snapshot" in again.json["conflictingRequest"]["message"]) == (409, True)
    host.silent = False
    cloud.served.run(host.report())
    cloud.wait(lambda: cloud.show(server_id)["OS-EXT-STS:task_state"] is None)
    found = image(cloud, image_id)
    assert (found["status"], found["name"], found["visibility"]) == ("active", "mine", "private")
    assert (found["min_disk"], found["disk_format"], found["purpose"]) == (2, "qcow2", "test")
    assert (found["base_image_ref"], found["instance_uuid"]) == (IMAGE, server_id)
    assert (found["image_type"], found["owner"]) == ("snapshot", PROJECT)
    cloud.wait(lambda: actions(cloud, server_id)["createImage"] == "Success")
    cloud.wait(lambda: image_id not in host.snapshots)


def test_a_stopped_server_and_one_of_older_versions(cloud: Cloud) -> None:
    cloud.host("h1")
    server_id = cloud.made()
    cloud.reach(server_id, "ACTIVE")
    assert cloud.act(server_id, "os-stop").status == 202
    cloud.reach(server_id, "SHUTOFF")
    path = f"{SERVERS}/{server_id}/action"
    made = cloud.member.request("POST", path, json={"createImage": {"name": "old"}}, headers=at("2.44"))
    assert (made.status, made.body) == (202, b"")
    location = urlsplit(made.headers["location"])
    image_id = location.path.rsplit("/", 1)[1]
    assert location.path == f"/image/v2/images/{image_id}"
    assert cloud.member.request("GET", location.path).json["id"] == image_id
    cloud.wait(lambda: image(cloud, image_id).get("status") == "active")
    assert cloud.status(server_id) == "SHUTOFF"
    again = cloud.made(imageRef=image_id)
    assert cloud.reach(again, "ACTIVE")["image"]["id"] == image_id


@pytest.mark.parametrize(
    ("body", "status"),
    [({"name": ""}, 400), ({"name": "x" * 256}, 400), ({}, 400), ({"name": "x", "metadata": {"": "y"}}, 400)],
)
def test_what_is_refused(cloud: Cloud, body: dict[str, Any], status: int) -> None:
    server_id = cloud.made()
    assert cloud.act(server_id, "createImage", body).status == status
    assert cloud.act(server_id, "createImage", {"name": "x"}).status == 409  # it is not there yet
    assert cloud.act(server_id, "createImage", {"name": "x"}, client=cloud.stranger).status == 404
    assert cloud.act(server_id, "createImage", {"name": "x"}, client=cloud.reader).status == 403


def test_an_image_that_cannot_be_made_is_gone_and_the_server_as_it_was(cloud: Cloud) -> None:
    host = cloud.host("h1")
    server_id = cloud.made()
    cloud.reach(server_id, "ACTIVE")
    host.answers["snapshot"] = ("failed", "no space left", True)
    image_id = cloud.act(server_id, "createImage", {"name": "mine"}).json["image_id"]
    cloud.wait(lambda: cloud.show(server_id)["OS-EXT-STS:task_state"] is None)
    assert image(cloud, image_id) == {}
    assert cloud.status(server_id) == "ACTIVE"
    assert actions(cloud, server_id)["createImage"] == "Error"


def test_a_server_that_is_deleted_meanwhile_leaves_no_image_that_waits(cloud: Cloud) -> None:
    host = cloud.host("h1")
    server_id = cloud.made()
    cloud.reach(server_id, "ACTIVE")
    host.answers["snapshot"] = ("failed", "again soon", False)
    image_id = cloud.act(server_id, "createImage", {"name": "mine"}).json["image_id"]
    assert cloud.member.request("DELETE", f"{SERVERS}/{server_id}").status == 204
    cloud.reach(server_id, "gone")
    cloud.wait(lambda: image(cloud, image_id) == {})
    cloud.wait(lambda: image_id not in host.snapshots)


def test_an_image_that_is_deleted_meanwhile_ends_the_task(cloud: Cloud) -> None:
    host = cloud.host("h1")
    server_id = cloud.made()
    cloud.reach(server_id, "ACTIVE")
    host.answers["snapshot"] = ("failed", "again soon", False)
    image_id = cloud.act(server_id, "createImage", {"name": "mine"}).json["image_id"]
    assert cloud.member.request("DELETE", f"/image/v2/images/{image_id}").status == 204
    cloud.wait(lambda: cloud.show(server_id)["OS-EXT-STS:task_state"] is None, 40)
    assert cloud.status(server_id) == "ACTIVE"


def test_backups_rotate(cloud: Cloud) -> None:
    cloud.host("h1")
    server_id = cloud.made()
    cloud.reach(server_id, "ACTIVE")
    made = []
    for number in range(3):
        body = {"name": f"backup-{number}", "backup_type": "daily", "rotation": 2, "metadata": {"n": str(number)}}
        answer = cloud.act(server_id, "createBackup", body)
        assert answer.status == 202, answer
        made.append(answer.json["image_id"])
        cloud.wait(lambda: cloud.show(server_id)["OS-EXT-STS:task_state"] is None)
    found = [image(cloud, one) for one in made]
    assert [one.get("status") for one in found] == [None, "active", "active"]
    assert (found[2]["image_type"], found[2]["backup_type"], found[2]["n"]) == ("backup", "daily", "2")
    path = f"{SERVERS}/{server_id}/action"
    body = {"name": "none", "backup_type": "daily", "rotation": 0}
    answer = cloud.member.request("POST", path, json={"createBackup": {**body, "rotation": 1}}, headers=at("2.35"))
    location = urlsplit(answer.headers["location"])
    assert location.path.startswith("/compute/v2.1/images/")
    shown = cloud.member.request("GET", location.path, headers=at("2.35"))
    assert shown.json["image"]["id"] == location.path.rsplit("/", 1)[1]
    cloud.wait(lambda: cloud.show(server_id)["OS-EXT-STS:task_state"] is None)
    answer = cloud.member.request("POST", path, json={"createBackup": body}, headers=at("2.44"))
    assert (answer.status, "location" in answer.headers) == (202, False)
    cloud.wait(lambda: all(image(cloud, one) == {} for one in made))


@pytest.mark.parametrize("wrong", [{"rotation": -1}, {"rotation": "many"}, {"backup_type": 7}, {"name": None}])
def test_backups_that_are_refused(cloud: Cloud, wrong: dict[str, Any]) -> None:
    server_id = cloud.made()
    body = {"name": "one", "backup_type": "daily", "rotation": 1} | wrong
    assert cloud.act(server_id, "createBackup", body).status == 400


def test_the_image_of_an_admin_is_shared_with_the_servers_project(cloud: Cloud) -> None:
    cloud.host("h1")
    server_id = cloud.made()
    cloud.reach(server_id, "ACTIVE")
    admin = cloud.served.client(f"admin:{OTHER}")
    image_id = cloud.act(server_id, "createImage", {"name": "theirs"}, client=admin).json["image_id"]
    found = admin.request("GET", f"/image/v2/images/{image_id}").json
    assert (found["owner"], found["visibility"], found["instance_owner"]) == (OTHER, "shared", PROJECT)


def test_old_versions_limit_the_images_metadata(cloud: Cloud) -> None:
    cloud.host("h1")
    server_id = cloud.made()
    cloud.reach(server_id, "ACTIVE")
    many = {f"k{number}": "v" for number in range(129)}
    path, body = f"{SERVERS}/{server_id}/action", {"createImage": {"name": "x", "metadata": many}}
    refused = cloud.member.request("POST", path, json=body, headers=at("2.38"))
    assert (refused.status, refused.json["forbidden"]["message"]) == (403, "Image metadata limit exceeded")
