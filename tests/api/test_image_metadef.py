"""Metadata definitions through the edge: namespaces and what belongs to them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.edge import Client, Response, Served
from tests.api.test_image_images import served

ROOT = "/image/v2/metadefs"
SPACES = f"{ROOT}/namespaces"
DISK = {"type": "string", "title": "Disk", "enum": ["virtio", "ide"], "description": "The bus", "default": "virtio"}


@pytest.fixture(name="cloud")
def one_cloud(tmp_path: Path, database_url: str) -> Iterator[Served]:
    with served(tmp_path, database_url) as found:
        yield found


@pytest.fixture(name="admin")
def one_admin(cloud: Served) -> Client:
    return cloud.client("admin:p1")


@pytest.fixture(name="member")
def one_member(cloud: Served) -> Client:
    return cloud.client("member:p1")


def make(client: Client, name: str, **more: Any) -> Any:
    answer = client.request("POST", SPACES, json={"namespace": name, **more})
    assert answer.status == 201, answer
    return answer.json


def ok(answer: Response, status: int = 200) -> Any:
    assert answer.status == status, answer
    return answer.json


def names(client: Client, query: str = "") -> list[str]:
    return [one["namespace"] for one in ok(client.request("GET", SPACES + query))["namespaces"]]


def test_a_namespace_is_made_with_all_that_belongs_to_it(admin: Client) -> None:
    body = {
        "namespace": "OS::Compute::Disk",
        "display_name": "Disks",
        "description": "How disks are attached",
        "visibility": "public",
        "protected": True,
        "owner": "p9",
        "resource_type_associations": [
            {"name": "OS::Glance::Image", "prefix": "hw_"},
            {"name": "OS::Cinder::Volume", "prefix": "hw_", "properties_target": "image"},
            {"name": "OS::Nova::Server"},
        ],
        "properties": {"disk_bus": {**DISK, "name": "disk_bus"}},
        "objects": [
            {
                "name": "Size",
                "description": "How large",
                "required": ["gib"],
                "properties": {"gib": {"type": "integer", "title": "GiB", "minimum": 0, "maximum": 1.5}},
            },
            {"name": "Empty"},
        ],
        "tags": [{"name": "fast"}, {"name": "cheap"}],
    }
    answer = admin.request("POST", SPACES, json=body)
    made = ok(answer, 201)
    path = "/v2/metadefs/namespaces/OS::Compute::Disk"
    assert answer.headers["location"] == f"http://testserver/image{path}"
    shown = ok(admin.request("GET", f"/image{path}"))
    assert shown == made
    moments = {"created_at": made["created_at"], "updated_at": made["created_at"]}
    assert shown == {
        **moments,
        **{name: body[name] for name in ("namespace", "display_name", "description", "visibility", "protected")},
        "owner": "p9",
        "self": path,
        "schema": "/v2/schemas/metadefs/namespace",
        "resource_type_associations": [
            {"name": "OS::Cinder::Volume", "prefix": "hw_", "properties_target": "image", **moments},
            {"name": "OS::Glance::Image", "prefix": "hw_", **moments},
            {"name": "OS::Nova::Server", **moments},
        ],
        "properties": {"disk_bus": DISK},
        "objects": [
            {"name": "Empty", **moments, "self": f"{path}/objects/Empty", "schema": "/v2/schemas/metadefs/object"},
            {
                "name": "Size",
                "description": "How large",
                "required": ["gib"],
                "properties": {"gib": {"type": "integer", "title": "GiB", "minimum": 0, "maximum": 1.5}},
                **moments,
                "self": f"{path}/objects/Size",
                "schema": "/v2/schemas/metadefs/object",
            },
        ],
        "tags": [{"name": "cheap"}, {"name": "fast"}],
    }
    listed = ok(admin.request("GET", SPACES))
    assert listed["schema"] == "/v2/schemas/metadefs/namespaces"
    assert listed["first"] == "/v2/metadefs/namespaces"
    inside = ("properties", "objects", "tags")
    assert listed["namespaces"] == [{name: value for name, value in shown.items() if name not in inside}]


def test_a_bare_namespace_has_defaults(admin: Client) -> None:
    made = make(admin, "one")
    assert {name: made[name] for name in made if not name.endswith("_at")} == {
        "namespace": "one",
        "visibility": "private",
        "protected": False,
        "owner": "p1",
        "self": "/v2/metadefs/namespaces/one",
        "schema": "/v2/schemas/metadefs/namespace",
    }


def test_a_resource_type_s_prefix_is_put_before_names(admin: Client) -> None:
    make(
        admin,
        "one",
        resource_type_associations=[{"name": "OS::Nova::Flavor", "prefix": "hw:"}, {"name": "OS::Nova::Server"}],
        properties={"bus": DISK},
        objects=[{"name": "o", "required": ["bus"], "properties": {"bus": DISK}}],
    )
    shown = ok(admin.request("GET", f"{SPACES}/one?resource_type=OS::Nova::Flavor"))
    assert list(shown["properties"]) == ["hw:bus"]
    assert list(shown["objects"][0]["properties"]) == ["hw:bus"]
    assert shown["objects"][0]["required"] == ["hw:bus"]
    for plain in ("OS::Nova::Server", "None"):
        assert list(ok(admin.request("GET", f"{SPACES}/one?resource_type={plain}"))["properties"]) == ["bus"]
    path = f"{SPACES}/one/properties"
    assert ok(admin.request("GET", f"{path}/hw:bus?resource_type=OS::Nova::Flavor")) == {"name": "bus", **DISK}
    assert ok(admin.request("GET", f"{path}/bus?resource_type=OS::Nova::Server")) == {"name": "bus", **DISK}
    for wrong in ("bus?resource_type=OS::Nova::Flavor", "bus?resource_type=None", "hw:bus", "none"):
        assert admin.request("GET", f"{path}/{wrong}").status == 404, wrong


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ([], 400),
        ({"namespace": ""}, 400),
        ({"namespace": "x" * 81}, 400),
        ({"namespace": 5}, 400),
        ({"namespace": "one", "visibility": "shared"}, 400),
        ({"namespace": "one", "protected": "yes"}, 400),
        ({"namespace": "one", "description": "x" * 501}, 400),
        ({"namespace": "one", "display_name": None}, 400),
        ({"namespace": "one", "other": 1}, 400),
        ({"namespace": "one", "properties": {"p": {"type": "string"}}}, 400),
        ({"namespace": "one", "properties": {"p": {"title": "P", "type": "text"}}}, 400),
        ({"namespace": "one", "properties": {"p": {**DISK, "minLength": -1}}}, 400),
        ({"namespace": "one", "properties": {"x" * 81: DISK}}, 400),
        ({"namespace": "one", "objects": [{}]}, 400),
        ({"namespace": "one", "tags": ["a"]}, 400),
        ({"namespace": "one", "self": "x"}, 403),
        ({"namespace": "one", "schema": "x"}, 403),
        ({"namespace": "one", "created_at": "x"}, 403),
        ({"namespace": "one", "tags": [{"name": "a"}, {"name": "a"}]}, 409),
        ({"namespace": "one", "objects": [{"name": "a"}, {"name": "a"}]}, 409),
        ({"namespace": "one", "resource_type_associations": [{"name": "a"}, {"name": "a"}]}, 409),
        ({"namespace": "there"}, 409),
    ],
)
def test_bad_namespaces_are_refused(admin: Client, body: Any, status: int) -> None:
    make(admin, "there")
    answer = admin.request("POST", SPACES, json=body)
    assert answer.status == status, answer
    assert names(admin) == ["there"]


def test_a_namespace_is_changed_as_a_whole(admin: Client) -> None:
    make(admin, "one", display_name="One", description="x", visibility="public", protected=True, tags=[{"name": "a"}])
    make(admin, "two")
    changed = ok(admin.request("PUT", f"{SPACES}/one", json={"namespace": "uno", "description": "y"}))
    assert (changed["namespace"], changed["description"], changed["visibility"]) == ("uno", "y", "private")
    assert changed["protected"] is False
    assert "display_name" not in changed
    assert ok(admin.request("GET", f"{SPACES}/uno"))["tags"] == [{"name": "a"}]
    assert admin.request("GET", f"{SPACES}/one").status == 404
    for body, status in (
        ({"namespace": "two"}, 409),
        ({}, 400),
        ({"namespace": "uno", "self": "x"}, 403),
    ):
        assert admin.request("PUT", f"{SPACES}/uno", json=body).status == status
    assert admin.request("PUT", f"{SPACES}/none", json={"namespace": "none"}).status == 404


def test_protected_namespaces_keep_all_that_belongs_to_them(admin: Client) -> None:
    make(
        admin,
        "one",
        protected=True,
        resource_type_associations=[{"name": "t"}],
        properties={"p": DISK},
        objects=[{"name": "o"}],
        tags=[{"name": "g"}],
    )
    path = f"{SPACES}/one"
    inside = ("resource_types/t", "properties/p", "properties", "objects/o", "objects", "tags/g", "tags")
    for part in ("", *(f"/{part}" for part in inside)):
        assert admin.request("DELETE", path + part).status == 403, part
    ok(admin.request("PUT", path, json={"namespace": "one"}))
    for part in inside:
        answer = admin.request("DELETE", f"{path}/{part}")
        assert answer.status == 204, part
    assert (
        set(ok(admin.request("GET", path))) & {"resource_type_associations", "properties", "objects", "tags"} == set()
    )
    ok(admin.request("DELETE", path), 204)
    assert admin.request("DELETE", path).status == 404
    assert "t" in [one["name"] for one in ok(admin.request("GET", f"{ROOT}/resource_types"))["resource_types"]]


def test_objects(admin: Client) -> None:
    make(admin, "one")
    path = f"{SPACES}/one/objects"
    body = {"name": "a", "description": "x", "required": ["p"], "properties": {"p": DISK}}
    made = ok(admin.request("POST", path, json=body), 201)
    assert {name: made[name] for name in body} == body
    assert made["self"] == "/v2/metadefs/namespaces/one/objects/a"
    assert admin.request("POST", path, json=body).status == 409
    ok(admin.request("POST", path, json={"name": "b"}), 201)
    assert ok(admin.request("GET", f"{path}/a")) == made
    listed = ok(admin.request("GET", path))
    assert listed["schema"] == "/v2/schemas/metadefs/objects"
    assert [one["name"] for one in listed["objects"]] == ["b", "a"]
    changed = ok(admin.request("PUT", f"{path}/a", json={"name": "c"}))
    assert changed["name"] == "c"
    assert "description" not in changed
    assert admin.request("PUT", f"{path}/c", json={"name": "b"}).status == 409
    assert admin.request("PUT", f"{path}/a", json={"name": "a"}).status == 404
    for wrong, status in (
        ({}, 400),
        ({"name": "x" * 81}, 400),
        ({"name": "d", "properties": {"p": {}}}, 400),
        ({"name": "d", "required": "p"}, 400),
        ({"name": "d", "self": "x"}, 403),
        ({"name": "d", "updated_at": "x"}, 403),
    ):
        assert admin.request("POST", path, json=wrong).status == status, wrong
        assert admin.request("PUT", f"{path}/c", json=wrong).status == status, wrong
    ok(admin.request("DELETE", f"{path}/c"), 204)
    assert admin.request("DELETE", f"{path}/c").status == 404
    assert admin.request("GET", f"{path}/c").status == 404
    ok(admin.request("DELETE", path), 204)
    assert ok(admin.request("GET", path))["objects"] == []


def test_properties(admin: Client) -> None:
    make(admin, "one")
    path = f"{SPACES}/one/properties"
    body = {
        "name": "p",
        "type": "array",
        "title": "P",
        "operators": ["<in>"],
        "readonly": True,
        "items": {"type": "string", "enum": ["a", "b"]},
        "minItems": 1,
        "maxItems": 3,
        "uniqueItems": True,
        "additionalItems": False,
        "default": ["a", None, {"b": 1.5}],
    }
    assert ok(admin.request("POST", path, json=body), 201) == body
    assert admin.request("POST", path, json=body).status == 409
    assert ok(admin.request("GET", f"{path}/p")) == body
    ok(admin.request("POST", path, json={"name": "q", **DISK}), 201)
    plain = {name: value for name, value in body.items() if name != "name"}
    assert ok(admin.request("GET", path)) == {"properties": {"p": plain, "q": DISK}}
    renamed = {"name": "r", "type": "string", "title": "R"}
    assert ok(admin.request("PUT", f"{path}/p", json=renamed)) == renamed
    assert admin.request("PUT", f"{path}/r", json={**renamed, "name": "q"}).status == 409
    assert admin.request("PUT", f"{path}/p", json=renamed).status == 404
    for wrong, status in (
        ({"type": "string", "title": "P"}, 400),
        ({"name": "s", "title": "P"}, 400),
        ({"name": "s", "type": "string"}, 400),
        ({**renamed, "name": "s", "maxLength": "3"}, 400),
        ({**renamed, "name": "s", "created_at": "x"}, 403),
    ):
        assert admin.request("POST", path, json=wrong).status == status, wrong
        assert admin.request("PUT", f"{path}/r", json=wrong).status == status, wrong
    ok(admin.request("DELETE", f"{path}/r"), 204)
    assert admin.request("DELETE", f"{path}/r").status == 404
    ok(admin.request("DELETE", path), 204)
    assert ok(admin.request("GET", path)) == {"properties": {}}


def test_tags(admin: Client) -> None:
    make(admin, "one")
    path = f"{SPACES}/one/tags"
    three = {"tags": [{"name": "c"}, {"name": "a"}, {"name": "b"}]}
    assert ok(admin.request("POST", path, json=three), 201) == three
    assert {one["name"] for one in ok(admin.request("GET", path))["tags"]} == {"a", "b", "c"}
    ok(admin.request("POST", path, json={"tags": [{"name": "d"}]}, headers={"X-Openstack-Append": "true"}), 201)
    assert (
        admin.request("POST", path, json={"tags": [{"name": "d"}]}, headers={"X-Openstack-Append": "1"}).status == 409
    )
    assert len(ok(admin.request("GET", path))["tags"]) == 4
    ok(admin.request("POST", path, json={"tags": [{"name": "d"}]}), 201)
    assert ok(admin.request("GET", path)) == {"tags": [{"name": "d"}]}
    made = ok(admin.request("POST", f"{path}/e"), 201)
    assert set(made) == {"name", "created_at", "updated_at"}
    assert ok(admin.request("GET", f"{path}/e")) == made
    assert admin.request("POST", f"{path}/e").status == 409
    assert admin.request("POST", f"{path}/{'x' * 81}").status == 400
    assert ok(admin.request("PUT", f"{path}/e", json={"name": "f"}))["name"] == "f"
    assert admin.request("PUT", f"{path}/f", json={"name": "d"}).status == 409
    assert admin.request("PUT", f"{path}/e", json={"name": "g"}).status == 404
    bodies: list[tuple[Any, int]] = [
        ({}, 400),
        ({"tags": [{"name": 1}]}, 400),
        ({"tags": [{"name": "x", "y": 1}]}, 400),
        ({"tags": [{"name": "x"}, {"name": "x"}]}, 409),
        ({"tags": [], "created_at": "x"}, 403),
    ]
    for wrong, status in bodies:
        assert admin.request("POST", path, json=wrong).status == status, wrong
    assert [one["name"] for one in ok(admin.request("GET", f"{path}?sort_key=name&sort_dir=asc"))["tags"]] == ["d", "f"]
    assert [one["name"] for one in ok(admin.request("GET", f"{path}?limit=1"))["tags"]] == ["f"]
    assert [one["name"] for one in ok(admin.request("GET", f"{path}?marker=f"))["tags"]] == ["d"]
    assert ok(admin.request("GET", f"{path}?limit=0")) == {"tags": []}
    for query in ("limit=-1", "limit=x", "marker=none", "sort_key=id", "sort_dir=up"):
        assert admin.request("GET", f"{path}?{query}").status == 400, query
    assert admin.request("GET", f"{SPACES}/one/objects?limit=0").status == 400
    ok(admin.request("DELETE", f"{path}/f"), 204)
    assert admin.request("DELETE", f"{path}/f").status == 404
    ok(admin.request("DELETE", path), 204)
    assert ok(admin.request("GET", path)) == {"tags": []}


def test_resource_types(admin: Client, member: Client) -> None:
    make(admin, "one")
    path = f"{SPACES}/one/resource_types"
    body = {"name": "OS::Nova::Flavor", "prefix": "hw:", "properties_target": "x"}
    made = ok(admin.request("POST", path, json=body), 201)
    assert {name: made[name] for name in body} == body
    assert admin.request("POST", path, json=body).status == 409
    assert ok(admin.request("GET", path)) == {"resource_type_associations": [made]}
    types = ok(member.request("GET", f"{ROOT}/resource_types"))["resource_types"]
    assert set(types[0]) == {"name", "created_at", "updated_at"}
    assert "OS::Nova::Flavor" in [one["name"] for one in types]
    for wrong, status in (({}, 400), ({"name": "x" * 81}, 400), ({"name": "x", "created_at": ""}, 403)):
        assert admin.request("POST", path, json=wrong).status == status
    ok(admin.request("DELETE", f"{path}/OS::Nova::Flavor"), 204)
    assert admin.request("DELETE", f"{path}/OS::Nova::Flavor").status == 404
    assert ok(admin.request("GET", path)) == {"resource_type_associations": []}


def test_lists_of_namespaces_filter_sort_and_page(admin: Client, member: Client) -> None:
    make(admin, "a", visibility="public", resource_type_associations=[{"name": "x"}, {"name": "y"}])
    make(admin, "b", resource_type_associations=[{"name": "y"}])
    make(admin, "c", visibility="public")
    for query, expected in {
        "": ["c", "b", "a"],
        "?visibility=public": ["c", "a"],
        "?visibility=private": ["b"],
        "?resource_types=x": ["a"],
        "?resource_types=y,z": ["b", "a"],
        "?resource_types=z": [],
        "?sort_key=namespace&sort_dir=asc": ["a", "b", "c"],
        "?sort_dir=asc": ["a", "b", "c"],
        "?limit=0": [],
        "?marker=b": ["a"],
    }.items():
        assert names(member, query) == expected, query
    for query in ("visibility=all", "limit=-1", "limit=x", "marker=none", "sort_key=id", "sort_dir=up"):
        assert member.request("GET", f"{SPACES}?{query}").status == 400, query
    path: str | None = "/v2/metadefs/namespaces?limit=2&visibility=public"
    found = []
    while path:
        page = ok(member.request("GET", f"/image{path}"))
        found.append([one["namespace"] for one in page["namespaces"]])
        path = page.get("next")
    assert found == [["c", "a"], []]
    for number in range(30):
        make(admin, f"n{number}")
    assert len(names(member)) == 25
    assert len(names(member, "?limit=1000")) == 33
