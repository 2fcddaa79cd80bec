"""JSON patch against a model: whatever changes are asked for, the image becomes what a plain reading says, or stays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.edge import Client, Served
from tests.api.test_image_images import PATCH, served
from tests.api.test_image_patch import PATCH_4
from tests.conftest import Databases, whole_schema
from tests.effort import examples

BASE: dict[str, tuple[list[Any], list[Any]]] = {
    "name": ([None, "", "two", "x" * 255], [5, "x" * 256, []]),
    "visibility": (["private", "shared", "community"], ["hidden", None]),
    "protected": ([True, False], [0, "true", None]),
    "os_hidden": ([True, False], ["x"]),
    "min_ram": ([0, 5, 2**31 - 1], [-1, "5", True, 2**31]),
    "min_disk": ([0, 7], [1.5, None]),
    "container_format": ([None, "bare", "ova"], ["box"]),
    "disk_format": ([None, "raw", "qcow2"], ["floppy", 1]),
    "tags": ([[], ["a"], ["b", "a", "b"]], ["a", [1], ["x" * 256]]),
}
"""What a member may write, each with values that are good and that are not."""

LOCKED = (
    "id",
    "status",
    "size",
    "checksum",
    "self",
    "file",
    "created_at",
    "deleted",
    "os_glance_task",
    "os_hash_value",
)
CUSTOM = ("a", "b", "slash/in", "tilde~in", "kernel_id")
UUID = "00000000-1111-2222-3333-444455556666"


def values(name: str) -> tuple[list[Any], list[Any]]:
    """Good ones, and bad ones."""
    if name == "kernel_id":
        return [None, UUID], ["x"]
    if name == "owner":
        return [None, "p2"], [5]
    return BASE.get(name) or (["", "one", "ü"], [None, 1, ["x"]])


@st.composite
def changes(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Operations as (op, name, value); most are good, so that long runs of them are seen."""
    found = []
    for _ in range(draw(st.integers(1, 6))):
        usual = [*BASE, *CUSTOM, *CUSTOM, *CUSTOM]
        name = draw(st.sampled_from(usual if draw(st.integers(0, 19)) else [*LOCKED, "owner"]))
        good, bad = values(name)
        value = draw(st.sampled_from(good if draw(st.integers(0, 9)) else bad))
        operations = ["add", "replace"] if name in BASE and draw(st.integers(0, 9)) else ["add", "replace", "remove"]
        found.append({"op": draw(st.sampled_from(operations)), "name": name, "value": value})
    return found


def model(image: dict[str, Any], wanted: list[dict[str, Any]], draft: int) -> int:
    """Make the changes to a plain dictionary; the status, by reading the API's description from top to bottom."""
    for one in wanted:
        if one["name"] in LOCKED:
            return 403
        good, _ = values(one["name"])
        if one["op"] != "remove" and not any(type(one["value"]) is type(v) and one["value"] == v for v in good):
            return 400
    for one in wanted:
        name, base = one["name"], one["name"] in BASE or one["name"] == "owner"
        if name == "owner" or (base and one["op"] == "remove"):
            return 403
        if one["op"] == "add" and draft == 4 and (base or name in image):
            return 409
        if one["op"] != "add" and not base and name not in image:
            return 409
        if one["op"] == "remove":
            del image[name]
        else:
            image[name] = sorted(set(one["value"])) if name == "tags" else one["value"]
    return 200


def pointer(name: str) -> str:
    return "/" + name.replace("~", "~0").replace("/", "~1")


def body(wanted: list[dict[str, Any]], draft: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for one in wanted:
        path = pointer(one["name"])
        entry: dict[str, Any] = {"op": one["op"], "path": path} if draft == 10 else {one["op"]: path}
        if one["op"] != "remove":
            entry["value"] = one["value"]
        found.append(entry)
    return found


@pytest.fixture(name="cloud", scope="module")
def one_cloud(tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> Iterator[Served]:
    place = tmp_path_factory.mktemp("patch")
    url = databases.make(place, whole_schema)
    with served(place, url) as found:
        yield found
    databases.drop(url)


def visible(image: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in image.items() if name != "updated_at"}


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=changes(), draft=st.sampled_from([4, 10]), properties=st.sets(st.sampled_from(CUSTOM[:4])))
def test_a_patch_does_what_the_model_does(
    cloud: Served, wanted: list[dict[str, Any]], draft: int, properties: set[str]
) -> None:
    member: Client = cloud.client("member:p1")
    given_properties = dict.fromkeys(properties, "before")
    image = member.request("POST", "/image/v2/images", json={"name": "one", "tags": ["t"], **given_properties}).json
    path = f"/image/v2/images/{image['id']}"
    expected = dict(image)
    status = model(expected, wanted, draft)
    headers = PATCH if draft == 10 else PATCH_4
    answer = member.request("PATCH", path, json=body(wanted, draft), headers=headers)
    assert answer.status == status, answer
    shown = member.request("GET", path).json
    if status == 200:
        assert answer.json == shown
        assert visible(shown) == visible(expected)
    else:
        assert shown == image
