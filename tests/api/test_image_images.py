"""Images through the edge: create, list, show, update, delete, tags, members, schemas, discovery."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pileus.core.store import Tx
from pileus.drivers.images.file import FileImageStore
from pileus.services.image.interface import ImageStores
from pileus.services.image.resources.usage import QUOTA
from pileus.services.image.service import service
from tests.api.edge import Client, Served, make_edge

PATCH = {"content-type": "application/openstack-images-v2.1-json-patch"}
UNKNOWN = "11111111-2222-3333-4444-555555555555"


def served(place: Path, url: str) -> Served:
    stores = ImageStores({"file": FileImageStore(place / "images")}, "file")
    return make_edge(url, service(), provided={ImageStores: stores})


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


def make(client: Client, **attributes: Any) -> Any:
    answer = client.request("POST", "/image/v2/images", json=attributes)
    assert answer.status == 201, answer
    return answer.json


def upload(client: Client, image_id: str, data: bytes = b"data") -> None:
    headers = {"content-type": "application/octet-stream"}
    answer = client.request("PUT", f"/image/v2/images/{image_id}/file", data=data, headers=headers)
    assert answer.status == 204, answer


def names(client: Client, query: str = "") -> list[str | None]:
    answer = client.request("GET", f"/image/v2/images{query}")
    assert answer.status == 200, answer
    return [image["name"] for image in answer.json["images"]]


def patch(client: Client, image_id: str, *changes: Any, headers: Any = None) -> Any:
    return client.request("PATCH", f"/image/v2/images/{image_id}", json=list(changes), headers=headers or PATCH)


def test_versions_are_told_without_a_token(cloud: Served) -> None:
    for path, status in (("/image", 300), ("/image/", 300), ("/image/versions", 200)):
        answer = cloud.client().request("GET", path)
        assert answer.status == status
        current = [version for version in answer.json["versions"] if version["status"] == "CURRENT"]
        assert [version["id"] for version in current] == ["v2.17"]
        assert current[0]["links"] == [{"rel": "self", "href": "http://testserver/image/v2/"}]
        assert {"v2.0", "v2.13", "v2.15"} <= {version["id"] for version in answer.json["versions"]}
    assert cloud.client().request("GET", "/image/v2/images").status == 401


def test_create_gives_every_attribute(member: Client) -> None:
    answer = member.request("POST", "/image/v2/images", json={"name": "one"})
    assert answer.status == 201
    image = answer.json
    assert answer.headers["location"] == f"http://testserver/image/v2/images/{image['id']}"
    assert answer.headers["openstack-image-store-ids"] == "file"
    assert image["created_at"].endswith("Z")
    assert image["created_at"] == image["updated_at"]
    known = {
        "id": image["id"],
        "created_at": image["created_at"],
        "updated_at": image["updated_at"],
        "name": "one",
        "status": "queued",
        "visibility": "shared",
        "protected": False,
        "os_hidden": False,
        "owner": "p1",
        "container_format": None,
        "disk_format": None,
        "min_ram": 0,
        "min_disk": 0,
        "size": None,
        "virtual_size": None,
        "checksum": None,
        "os_hash_algo": None,
        "os_hash_value": None,
        "tags": [],
        "locations": [],
        "self": f"/v2/images/{image['id']}",
        "file": f"/v2/images/{image['id']}/file",
        "schema": "/v2/schemas/image",
    }
    assert image == known
    assert member.request("GET", f"/image/v2/images/{image['id']}").json == known


def test_create_takes_every_attribute(member: Client) -> None:
    wanted = {
        "id": "a1b2c3d4-0000-1111-2222-333344445555",
        "name": None,
        "visibility": "private",
        "protected": True,
        "os_hidden": True,
        "container_format": "bare",
        "disk_format": "qcow2",
        "min_ram": 64,
        "min_disk": 3,
        "tags": ["b", "a", "b"],
        "os_distro": "debian",
        "hw:odd key/~": "ünïcode ☂",
        "kernel_id": None,
    }
    image = make(member, **wanted)
    assert {name: image[name] for name in wanted} == {**wanted, "tags": ["a", "b"]}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"id": "x"}, 400),
        ({"name": 1}, 400),
        ({"name": "x" * 256}, 400),
        ({"visibility": "hidden"}, 400),
        ({"protected": "yes"}, 400),
        ({"min_disk": -1}, 400),
        ({"min_disk": "3"}, 400),
        ({"min_ram": 2**31}, 400),
        ({"min_ram": True}, 400),
        ({"disk_format": "floppy"}, 400),
        ({"container_format": "box"}, 400),
        ({"tags": "a"}, 400),
        ({"tags": ["x" * 256]}, 400),
        ({"custom": 1}, 400),
        ({"custom": None}, 400),
        ({"kernel_id": "x"}, 400),
        ({"x" * 256: "y"}, 400),
        ([], 400),
        (None, 400),
        ({"status": "active"}, 403),
        ({"size": 1}, 403),
        ({"checksum": "x"}, 403),
        ({"os_hash_value": "x"}, 403),
        ({"created_at": "x"}, 403),
        ({"self": "x"}, 403),
        ({"file": "x"}, 403),
        ({"direct_url": "x"}, 403),
        ({"stores": "x"}, 403),
        ({"deleted": "x"}, 403),
        ({"os_glance_import_task": "x"}, 403),
        ({"locations": []}, 403),
        ({"owner": "p2"}, 403),
        ({"visibility": "public"}, 403),
        ({f"property {number}": "x" for number in range(129)}, 413),
        ({"tags": [f"tag {number}" for number in range(129)]}, 413),
    ],
)
def test_bad_bodies_are_refused_before_anything_is_written(member: Client, body: Any, status: int) -> None:
    answer = member.request("POST", "/image/v2/images", json=body)
    assert answer.status == status, answer
    assert answer.json["code"].startswith(str(status))
    assert names(member) == []


def test_an_image_has_an_owner(cloud: Served, admin: Client) -> None:
    body = {"name": "nobody's", "disk_format": "raw", "container_format": "bare"}
    assert admin.request("POST", "/image/v2/images", json={**body, "owner": None}).status == 403
    assert admin.request("POST", "/image/v2/images", json={**body, "owner": "p1"}).json["owner"] == "p1"
    image = make(admin)
    assert patch(admin, image["id"], {"op": "replace", "path": "/owner", "value": None}).status == 403


def test_images_are_for_tokens_of_projects(cloud: Served, admin: Client) -> None:
    image = make(admin, visibility="public")
    path = f"/image/v2/images/{image['id']}"
    for token in ("admin@system", "reader@system", "admin@domain:default"):
        client = cloud.client(token)
        assert client.request("GET", "/image/v2/images").status == 403
        assert client.request("POST", "/image/v2/images", json={"owner": "p1"}).status == 403
        assert client.request("GET", path).status == 404
        assert client.request("DELETE", path).status == 404


def test_an_id_is_used_once_for_ever(member: Client) -> None:
    make(member, id=UNKNOWN)
    assert member.request("POST", "/image/v2/images", json={"id": UNKNOWN}).status == 409
    assert member.request("DELETE", f"/image/v2/images/{UNKNOWN}").status == 204
    assert member.request("GET", f"/image/v2/images/{UNKNOWN}").status == 404
    assert member.request("POST", "/image/v2/images", json={"id": UNKNOWN}).status == 409


def test_an_empty_id_is_nobody_s(member: Client) -> None:
    for method, path in (("GET", "images/"), ("DELETE", "images/"), ("GET", "schemas/image/"), ("GET", "images//")):
        assert member.request(method, f"/image/v2/{path}").status == 404, path
    assert member.request("GET", "/image/").status == 300


def test_readers_do_not_write(cloud: Served, member: Client) -> None:
    image = make(member, name="one", disk_format="raw", container_format="bare")
    path = f"/image/v2/images/{image['id']}"
    reader = cloud.client("reader:p1")
    octets = {"content-type": "application/octet-stream"}
    assert reader.request("GET", path).status == 200
    assert reader.request("POST", "/image/v2/images", json={}).status == 403
    assert patch(reader, image["id"], {"op": "replace", "path": "/name", "value": "x"}).status == 403
    assert reader.request("DELETE", path).status == 403
    assert reader.request("PUT", f"{path}/tags/x").status == 403
    assert reader.request("PUT", f"{path}/file", data=b"x", headers=octets).status == 403
    assert reader.request("POST", f"{path}/actions/deactivate").status == 403
    assert reader.request("POST", f"{path}/members", json={"member": "p2"}).status == 403


def test_another_projects_image_is_not_there(cloud: Served, member: Client) -> None:
    image = make(member, name="one", visibility="private", disk_format="raw", container_format="bare")
    path = f"/image/v2/images/{image['id']}"
    other = cloud.client("member:p2")
    octets = {"content-type": "application/octet-stream"}
    assert names(other) == []
    for answer in (
        other.request("GET", path),
        other.request("GET", f"{path}/file"),
        other.request("PUT", f"{path}/file", data=b"x", headers=octets),
        patch(other, image["id"], {"op": "replace", "path": "/name", "value": "x"}),
        other.request("DELETE", path),
        other.request("PUT", f"{path}/tags/x"),
        other.request("DELETE", f"{path}/tags/x"),
        other.request("POST", f"{path}/actions/deactivate"),
        other.request("GET", f"{path}/members"),
        other.request("POST", f"{path}/members", json={"member": "p2"}),
        other.request("PUT", f"{path}/members/p2", json={"status": "accepted"}),
    ):
        assert answer.status == 404, answer


def test_a_public_image_is_seen_but_not_changed_by_others(cloud: Served, admin: Client) -> None:
    image = make(admin, name="one", visibility="public")
    other = cloud.client("member:p2")
    assert names(other) == ["one"]
    assert other.request("GET", f"/image/v2/images/{image['id']}").status == 200
    assert other.request("DELETE", f"/image/v2/images/{image['id']}").status == 403
    assert patch(other, image["id"], {"op": "replace", "path": "/name", "value": "x"}).status == 403


def test_visibilities_in_lists(cloud: Served, member: Client, admin: Client) -> None:
    for visibility in ("private", "shared", "community"):
        make(member, name=visibility, visibility=visibility)
    make(admin, name="public", visibility="public")
    other = cloud.client("member:p2")
    assert set(names(member)) == {"private", "shared", "community", "public"}
    assert set(names(other)) == {"public"}
    assert set(names(other, "?visibility=community")) == {"community"}
    assert set(names(other, "?visibility=all")) == {"public", "community"}
    assert set(names(member, "?visibility=private")) == {"private"}
    assert set(names(admin)) == {"private", "shared", "public"}
    assert set(names(admin, "?visibility=all")) == {"private", "shared", "community", "public"}
    assert member.request("GET", "/image/v2/images?visibility=some").status == 400


def test_lists_filter(member: Client) -> None:
    one = make(member, name="one", disk_format="raw", container_format="bare", tags=["a", "b"], os_distro="debian")
    make(member, name="two", disk_format="qcow2", container_format="bare", tags=["a"], min_ram=5, protected=True)
    make(member, name="three, four", os_hidden=True)
    upload(member, one["id"], b"x" * 1000)
    for query, expected in {
        "?name=one": ["one"],
        "?name=in:one,two": ["two", "one"],
        '?name=in:"three, four",one&os_hidden=true': ["three, four"],
        "?name=none": [],
        "?id=in:" + one["id"]: ["one"],
        "?status=active": ["one"],
        "?status=in:active,queued": ["two", "one"],
        "?disk_format=qcow2": ["two"],
        "?container_format=in:bare,ovf": ["two", "one"],
        "?tag=a": ["two", "one"],
        "?tag=a&tag=b": ["one"],
        "?os_distro=debian": ["one"],
        "?os_distro=": [],
        "?protected=true": ["two"],
        "?protected=false": ["one"],
        "?os_hidden=true": ["three, four"],
        "?owner=p1": ["two", "one"],
        "?owner=p2": [],
        "?size_min=1000": ["one"],
        "?size_min=1001": [],
        "?size_max=999": [],
        "?size=1000": ["one"],
        "?min_ram_min=5": ["two"],
        "?created_at=gte:2000-01-01T00:00:00Z": ["two", "one"],
        "?created_at=lt:2000-01-01T00:00:00Z": [],
        "?updated_at=neq:2000-01-01T00:00:00Z": ["two", "one"],
    }.items():
        assert names(member, query) == expected, query
    for query in (
        "?name=like:x",
        '?name=in:"x',
        '?name=in:a"b"',
        "?size_min=x",
        "?protected=x",
        "?os_hidden=x",
        "?created_at=gt:x",
        "?changes-since=2000-01-01T00:00:00Z",
        "?member_status=x",
    ):
        assert member.request("GET", f"/image/v2/images{query}").status == 400, query


def test_lists_are_asked_for_so_much_and_no_more(member: Client) -> None:
    for query, status in (
        ("&".join(f"p{number}=1" for number in range(64)), 200),
        ("&".join(f"p{number}=1" for number in range(65)), 400),
        ("&".join(f"tag={number}" for number in range(64)), 200),
        ("&".join(f"tag={number}" for number in range(65)), 400),
        ("id=in:" + ",".join(UNKNOWN for _ in range(900)), 200),
    ):
        assert member.request("GET", f"/image/v2/images?{query}").status == status


def test_lists_sort_and_page(member: Client) -> None:
    for name in ("b", "a", "c"):
        make(member, name=name, disk_format="raw" if name == "b" else "qcow2")
    assert names(member) == ["c", "a", "b"]
    assert names(member, "?sort_key=name") == ["c", "b", "a"]
    assert names(member, "?sort_key=name&sort_dir=asc") == ["a", "b", "c"]
    assert names(member, "?sort=disk_format:desc,name:asc") == ["b", "a", "c"]
    assert names(member, "?sort_key=disk_format&sort_dir=asc&sort_key=name&sort_dir=desc") == ["c", "a", "b"]
    assert names(member, "?sort=name") == ["c", "b", "a"]
    assert names(member, "?limit=0") == []
    found = []
    path: str | None = "/v2/images?limit=2&sort=name:asc"
    while path:
        answer = member.request("GET", f"/image{path}")
        assert answer.json["first"] == "/v2/images?limit=2&sort=name%3Aasc"
        assert answer.json["schema"] == "/v2/schemas/images"
        found.append([image["name"] for image in answer.json["images"]])
        path = answer.json.get("next")
    assert found == [["a", "b"], ["c"]]
    for query in (
        "?limit=-1",
        "?limit=x",
        f"?marker={UNKNOWN}",
        "?sort_key=owner",
        "?sort_key=name&sort_dir=up",
        "?sort=name&sort_key=id",
        "?sort_key=name&sort_dir=asc&sort_dir=desc",
    ):
        assert member.request("GET", f"/image/v2/images{query}").status == 400, query


def test_a_page_holds_25_images(member: Client) -> None:
    for number in range(26):
        make(member, name=f"{number:02}")
    assert len(names(member)) == 25
    assert len(names(member, "?limit=1000")) == 26


def test_protected_images_stay(member: Client) -> None:
    image = make(member, protected=True)
    path = f"/image/v2/images/{image['id']}"
    assert member.request("DELETE", path).status == 403
    assert patch(member, image["id"], {"op": "replace", "path": "/protected", "value": False}).status == 200
    assert member.request("DELETE", path).status == 204
    assert member.request("DELETE", path).status == 404


def test_tags(member: Client) -> None:
    image = make(member)
    path = f"/image/v2/images/{image['id']}"
    assert member.request("PUT", f"{path}/tags/one").status == 204
    assert member.request("PUT", f"{path}/tags/one").status == 204
    assert member.request("GET", path).json["tags"] == ["one"]
    assert member.request("DELETE", f"{path}/tags/one").status == 204
    assert member.request("DELETE", f"{path}/tags/one").status == 404
    assert member.request("PUT", f"{path}/tags/{'x' * 256}").status == 400
    assert member.request("PUT", f"/image/v2/images/{UNKNOWN}/tags/x").status == 404


def test_sharing(cloud: Served, member: Client) -> None:
    image = make(member, name="one")
    path = f"/image/v2/images/{image['id']}"
    other = cloud.client("member:p2")
    assert other.request("GET", path).status == 404
    shared = member.request("POST", f"{path}/members", json={"member": "p2"})
    assert shared.status == 200
    assert shared.json["status"] == "pending"
    assert shared.json["schema"] == "/v2/schemas/member"
    assert member.request("POST", f"{path}/members", json={"member": "p2"}).status == 409
    assert other.request("GET", path).status == 200
    assert names(other) == []
    assert names(other, "?member_status=pending") == ["one"]
    assert member.request("PUT", f"{path}/members/p2", json={"status": "accepted"}).status == 403
    assert other.request("PUT", f"{path}/members/p2", json={"status": "perhaps"}).status == 400
    assert other.request("PUT", f"{path}/members/p2", json={}).status == 400
    assert other.request("PUT", f"{path}/members/p3", json={"status": "accepted"}).status == 404
    assert other.request("PUT", f"{path}/members/p2", json={"status": "accepted"}).json["status"] == "accepted"
    assert names(other) == ["one"]
    assert names(other, "?visibility=shared") == ["one"]
    assert other.request("DELETE", path).status == 403
    member.request("POST", f"{path}/members", json={"member": "p3"})
    listed = member.request("GET", f"{path}/members").json
    assert listed["schema"] == "/v2/schemas/members"
    assert [one["member_id"] for one in listed["members"]] == ["p2", "p3"]
    assert [one["member_id"] for one in other.request("GET", f"{path}/members").json["members"]] == ["p2"]
    assert member.request("GET", f"{path}/members/p3").status == 200
    assert other.request("GET", f"{path}/members/p2").status == 200
    assert other.request("GET", f"{path}/members/p3").status == 404
    assert other.request("DELETE", f"{path}/members/p2").status == 403
    assert member.request("DELETE", f"{path}/members/p2").status == 204
    assert member.request("DELETE", f"{path}/members/p2").status == 404
    assert other.request("GET", path).status == 404


def test_only_shared_images_have_members(member: Client) -> None:
    image = make(member, visibility="private")
    path = f"/image/v2/images/{image['id']}/members"
    assert member.request("POST", path, json={"member": "p2"}).status == 403
    assert member.request("GET", path).status == 403
    shared = make(member)
    bodies: list[Any] = [{}, {"member": ""}, {"member": 5}, []]
    for body in bodies:
        assert member.request("POST", f"/image/v2/images/{shared['id']}/members", json=body).status == 400


def test_schemas(member: Client) -> None:
    image = member.request("GET", "/image/v2/schemas/image").json
    assert image["name"] == "image"
    assert set(make(member)) <= set(image["properties"])
    assert image["additionalProperties"] == {"type": "string"}
    images = member.request("GET", "/image/v2/schemas/images").json
    assert images["properties"]["images"]["items"] == image
    assert member.request("GET", "/image/v2/schemas/member").json["properties"]["status"]["enum"]
    assert member.request("GET", "/image/v2/schemas/members").json["name"] == "members"
    task = member.request("GET", "/image/v2/schemas/task").json
    assert set(task["properties"]["status"]["enum"]) == {"pending", "processing", "success", "failure"}
    tasks = member.request("GET", "/image/v2/schemas/tasks").json
    assert tasks["properties"]["tasks"]["items"]["properties"].keys() < task["properties"].keys()


def test_info(cloud: Served, member: Client, admin: Client) -> None:
    assert member.request("GET", "/image/v2/info/stores").json == {"stores": [{"id": "file", "default": "true"}]}
    assert member.request("GET", "/image/v2/info/import").json["import-methods"]["value"] == []
    assert member.request("GET", "/image/v2/info/stores/detail").status == 403
    assert admin.request("GET", "/image/v2/info/stores/detail").json["stores"][0]["type"] == "file"


def test_the_number_of_images_is_limited(cloud: Served, member: Client) -> None:
    def limit(tx: Tx) -> None:
        QUOTA.set(tx, "p1", {"image_count_total": 1})

    cloud.run(cloud.store.write(limit))
    image = make(member)
    answer = member.request("POST", "/image/v2/images", json={})
    assert answer.status == 413
    assert member.request("DELETE", f"/image/v2/images/{image['id']}").status == 204
    make(member)
