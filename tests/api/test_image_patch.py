"""Changes to images by JSON patch, through the edge."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.edge import Client, Served
from tests.api.test_image_images import PATCH, make, names, patch, served, upload

PATCH_4 = {"content-type": "application/openstack-images-v2.0-json-patch"}


@pytest.fixture(name="cloud")
def one_cloud(tmp_path: Path, database_url: str) -> Iterator[Served]:
    with served(tmp_path, database_url) as found:
        yield found


@pytest.fixture(name="member")
def one_member(cloud: Served) -> Client:
    return cloud.client("member:p1")


@pytest.fixture(name="admin")
def one_admin(cloud: Served) -> Client:
    return cloud.client("admin:ops")


def test_patch_changes_attributes_properties_and_tags(member: Client) -> None:
    image = make(member, name="one", os_distro="debian", tags=["a"])
    answer = patch(
        member,
        image["id"],
        {"op": "replace", "path": "/name", "value": "two"},
        {"op": "add", "path": "/min_ram", "value": 5},
        {"op": "add", "path": "/slash~1tilde~0", "value": "x"},
        {"op": "replace", "path": "/os_distro", "value": "alpine"},
        {"op": "replace", "path": "/tags", "value": ["c", "b", "c"]},
        {"op": "replace", "path": "/disk_format", "value": "qcow2"},
        {"op": "replace", "path": "/visibility", "value": "community"},
    )
    assert answer.status == 200
    assert answer.json == member.request("GET", f"/image/v2/images/{image['id']}").json
    assert answer.json["name"] == "two"
    assert answer.json["min_ram"] == 5
    assert answer.json["slash/tilde~"] == "x"
    assert answer.json["os_distro"] == "alpine"
    assert answer.json["tags"] == ["b", "c"]
    assert answer.json["disk_format"] == "qcow2"
    assert answer.json["visibility"] == "community"
    answer = patch(
        member, image["id"], {"op": "remove", "path": "/os_distro"}, {"op": "add", "path": "/x", "value": "y"}
    )
    assert answer.status == 200
    assert "os_distro" not in answer.json
    assert answer.json["x"] == "y"
    assert patch(member, image["id"]).status == 200


def test_patch_of_the_fourth_draft(member: Client) -> None:
    image = make(member, name="one", os_distro="debian")
    changes = [{"add": "/x", "value": "y"}, {"replace": "/name", "value": "two"}, {"remove": "/os_distro"}]
    answer = patch(member, image["id"], *changes, headers=PATCH_4)
    assert answer.status == 200
    assert (answer.json["x"], answer.json["name"], answer.json.get("os_distro")) == ("y", "two", None)
    for change, status in (
        ({"add": "/x", "value": "z"}, 409),
        ({"add": "/name", "value": "z"}, 409),
        ({"add": "/y", "remove": "/x", "value": "z"}, 400),
        ({"op": "add", "path": "/y", "value": "z"}, 400),
    ):
        assert patch(member, image["id"], change, headers=PATCH_4).status == status, change


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ("replace", 400),
        ({"path": "/name", "value": "x"}, 400),
        ({"op": "move", "path": "/name", "value": "x"}, 400),
        ({"op": "replace", "value": "x"}, 400),
        ({"op": "replace", "path": "/name"}, 400),
        ({"op": "replace", "path": "name", "value": "x"}, 400),
        ({"op": "replace", "path": "/", "value": "x"}, 400),
        ({"op": "replace", "path": "/a//b", "value": "x"}, 400),
        ({"op": "replace", "path": "/a/", "value": "x"}, 400),
        ({"op": "replace", "path": "/a~2", "value": "x"}, 400),
        ({"op": "replace", "path": "/a~", "value": "x"}, 400),
        ({"op": "replace", "path": "/tags/0", "value": "x"}, 400),
        ({"op": "replace", "path": 5, "value": "x"}, 400),
        ({"op": "replace", "path": "/min_ram", "value": -1}, 400),
        ({"op": "replace", "path": "/visibility", "value": "x"}, 400),
        ({"op": "add", "path": "/custom", "value": 1}, 400),
        ({"op": "add", "path": "/" + "x" * 256, "value": "y"}, 400),
        ({"op": "remove", "path": "/name"}, 403),
        ({"op": "remove", "path": "/tags"}, 403),
        ({"op": "replace", "path": "/id", "value": "x"}, 403),
        ({"op": "replace", "path": "/status", "value": "active"}, 403),
        ({"op": "replace", "path": "/size", "value": 5}, 403),
        ({"op": "remove", "path": "/checksum"}, 403),
        ({"op": "add", "path": "/self", "value": "x"}, 403),
        ({"op": "add", "path": "/deleted", "value": "x"}, 403),
        ({"op": "add", "path": "/os_glance_x", "value": "x"}, 403),
        ({"op": "add", "path": "/locations/-", "value": {}}, 403),
        ({"op": "replace", "path": "/owner", "value": "p2"}, 403),
        ({"op": "replace", "path": "/visibility", "value": "public"}, 403),
        ({"op": "replace", "path": "/none", "value": "x"}, 409),
        ({"op": "remove", "path": "/none"}, 409),
    ],
)
def test_bad_patches_change_nothing(member: Client, change: Any, status: int) -> None:
    image = make(member, name="one")
    answer = patch(member, image["id"], {"op": "add", "path": "/first", "value": "x"}, change)
    assert answer.status == status, answer
    assert member.request("GET", f"/image/v2/images/{image['id']}").json == image


def test_patch_takes_its_own_media_types_alone(member: Client) -> None:
    image = make(member)
    path = f"/image/v2/images/{image['id']}"
    assert member.request("PATCH", path, json=[]).status == 415
    assert member.request("PATCH", path, json={"op": "add"}, headers=PATCH).status == 400


def test_formats_are_fixed_once_there_is_data(member: Client) -> None:
    image = make(member, disk_format="raw", container_format="bare")
    upload(member, image["id"])
    answer = patch(member, image["id"], {"op": "replace", "path": "/disk_format", "value": "qcow2"})
    assert answer.status == 403


def test_admins_give_images_away(cloud: Served, member: Client, admin: Client) -> None:
    image = make(member, name="one", disk_format="raw", container_format="bare")
    upload(member, image["id"], b"x" * (3 << 19))
    assert patch(admin, image["id"], {"op": "replace", "path": "/owner", "value": "p2"}).status == 200
    assert names(member) == []
    assert names(cloud.client("member:p2")) == ["one"]
    usage = cloud.client("member:p2").request("GET", "/image/v2/info/usage").json["usage"]
    assert (usage["image_count_total"]["usage"], usage["image_size_total"]["usage"]) == (1, 2)
    usage = member.request("GET", "/image/v2/info/usage").json["usage"]
    assert (usage["image_count_total"]["usage"], usage["image_size_total"]["usage"]) == (0, 0)
