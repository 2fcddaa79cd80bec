"""Where images' data is, as clients see and say it; and the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pileus.services.image.interface import by_id
from tests.api.edge import Client, Response
from tests.api.image_cloud import ImageCloud, Site, image_cloud

DATA = bytes(range(256)) * 500
PATCH = {"content-type": "application/openstack-images-v2.1-json-patch"}
DIGESTS = {"checksum": "1" * 32, "os_hash_algo": "sha512", "os_hash_value": "deadbeef" * 16}


@pytest.fixture(name="site")
def one_site() -> Iterator[Site]:
    site = Site()
    site.pages["/disk"] = DATA
    yield site
    site.close()


@pytest.fixture(name="cloud")
def one_cloud(tmp_path: Path, database_url: str, site: Site) -> Iterator[ImageCloud]:
    with image_cloud(tmp_path, database_url, site) as cloud:
        yield cloud


def change(cloud: ImageCloud, image_id: str, *changes: dict[str, Any], by: Client | None = None) -> Response:
    return (by or cloud.member).request("PATCH", f"/image/v2/images/{image_id}", json=list(changes), headers=PATCH)


def added(url: str, position: str = "-", **more: Any) -> dict[str, Any]:
    return {"op": "add", "path": f"/locations/{position}", "value": {"url": url, "metadata": {}, **more}}


def sha(algorithm: str) -> dict[str, str]:
    return {"os_hash_algo": algorithm, "os_hash_value": hashlib.new(algorithm, DATA).hexdigest()}


def test_data_on_the_web_is_hashed_before_it_is_used(cloud: ImageCloud, site: Site) -> None:
    image_id = cloud.make()
    path = f"/images/{image_id}/locations"
    assert cloud.ask("POST", path, {"url": site.url("/disk")}, cloud.other).status == 404
    assert cloud.ask("POST", path, {"url": site.url("/disk")}, cloud.reader).status == 403
    assert cloud.ask("POST", path, {"url": site.url("/disk")}).status == 202
    assert cloud.show(image_id)["status"] == "importing"
    assert cloud.ask("POST", path, {"url": site.url("/disk")}).status == 409
    cloud.settle()
    image = cloud.show(image_id)
    assert (image["status"], image["stores"], image["size"]) == ("active", "web", len(DATA))
    assert image["checksum"] == hashlib.md5(DATA).hexdigest()
    assert (image["os_hash_algo"], image["os_hash_value"]) == tuple(sha("sha512").values())
    assert image["locations"] == [{"url": site.url("/disk"), "metadata": {"store": "web"}}]
    assert cloud.tasks(image_id)[0]["type"] == "location_import"
    assert cloud.data(image_id) == DATA
    assert cloud.data(image_id, range="bytes=5-9") == DATA[5:10]
    assert cloud.ask("GET", "/info/usage").json["usage"]["image_size_total"]["usage"] == 0
    info = cloud.served.run(cloud.served.store.read(lambda tx: by_id(tx, image_id)))
    assert info is not None
    assert (info.virtual_size, info.sha512) == (len(DATA), image["os_hash_value"])

    assert cloud.ask("GET", path).status == 403
    for by in (cloud.admin, cloud.served.client("service+member:p1")):
        assert cloud.ask("GET", path, by=by).json == image["locations"]
    assert cloud.ask("DELETE", f"/images/{image_id}").status == 204


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "sha1", "md5"])
def test_a_hash_is_checked(cloud: ImageCloud, site: Site, algorithm: str) -> None:
    image_id = cloud.make()
    path = f"/images/{image_id}/locations"
    for told in (
        {"os_hash_value": sha(algorithm)["os_hash_value"]},
        {"os_hash_algo": algorithm},
        {**sha(algorithm), "os_hash_value": "abcd"},
        {**sha(algorithm), "os_hash_value": "xy" * 32},
        {**sha(algorithm), "os_hash_algo": "sha123"},
        {**sha(algorithm), "more": "x"},
    ):
        body = {"url": site.url("/disk"), "validation_data": told}
        assert cloud.ask("POST", path, body).status == 400, told
    cloud.ask("POST", path, {"url": site.url("/disk"), "validation_data": sha(algorithm)})
    cloud.settle()
    image = cloud.show(image_id)
    assert image["status"] == "active"
    assert (image["os_hash_algo"], image["os_hash_value"]) == tuple(sha(algorithm).values())
    info = cloud.served.run(cloud.served.store.read(lambda tx: by_id(tx, image_id)))
    # Only the cloud's own hash lets a host know that what it fetches is what was inspected.
    assert info is not None
    assert (info.virtual_size is not None) == (algorithm == "sha512")


def test_data_of_another_hash_is_not_used(cloud: ImageCloud, site: Site) -> None:
    image_id = cloud.make()
    told = {"os_hash_algo": "sha512", "os_hash_value": "beefdead" * 16}
    cloud.ask("POST", f"/images/{image_id}/locations", {"url": site.url("/disk"), "validation_data": told})
    cloud.settle()
    image = cloud.show(image_id)
    assert (image["status"], image["stores"]) == ("queued", "web")
    assert (image["checksum"], image["os_hash_algo"], image["os_hash_value"]) == (None, None, None)
    (task,) = cloud.tasks(image_id)
    assert (task["status"], "not matched" in task["message"]) == ("failure", True)
    # The image still waits for data, which may come by any way.
    assert cloud.put(image_id, b"other").status == 204
    assert cloud.show(image_id)["stores"] == "file"
    assert cloud.data(image_id) == b"other"


def test_a_place_that_is_not_there(cloud: ImageCloud, site: Site) -> None:
    image_id = cloud.make()
    assert cloud.ask("POST", f"/images/{image_id}/locations", {"url": "file:///etc/passwd"}).status == 403
    assert cloud.ask("POST", f"/images/{image_id}/locations", {"url": "http://10.0.0.1/x"}).status == 400
    assert cloud.ask("POST", f"/images/{image_id}/locations", {}).status == 400
    cloud.ask("POST", f"/images/{image_id}/locations", {"url": site.url("/none")})
    cloud.settle()
    image = cloud.show(image_id)
    assert (image["status"], image["locations"]) == ("queued", [])
    assert "404" in cloud.tasks(image_id)[0]["message"]


def test_data_that_is_no_sound_disk_is_nothing_to_boot(cloud: ImageCloud, site: Site) -> None:
    image_id = cloud.make("qcow2")
    cloud.ask("POST", f"/images/{image_id}/locations", {"url": site.url("/disk")})
    cloud.settle()
    image = cloud.show(image_id)
    assert (image["status"], image["virtual_size"]) == ("active", None)


def test_places_are_added_by_a_patch(cloud: ImageCloud, site: Site) -> None:
    image_id = cloud.make()
    url = site.url("/disk")
    assert cloud.show(image_id)["locations"] == []
    assert change(cloud, image_id, added("gopher://example.org")).status == 400
    assert change(cloud, image_id, added("http://10.0.0.1/")).status == 400
    assert change(cloud, image_id, {**added(url), "path": "/locations"}).status == 400
    assert change(cloud, image_id, {"op": "replace", "path": "/locations", "value": []}).status == 403
    assert change(cloud, image_id, {**added(url), "value": {"url": url}}).status == 400
    assert change(cloud, image_id, added(url), by=cloud.reader).status == 403
    assert change(cloud, image_id, added(url, metadata={"foo": "bar"})).status == 200
    image = cloud.show(image_id)
    assert (image["status"], image["os_hash_algo"], image["os_hash_value"]) == ("active", None, None)
    assert image["locations"] == [{"url": url, "metadata": {"foo": "bar", "store": "web"}}]
    assert cloud.data(image_id) == DATA
    info = cloud.served.run(cloud.served.store.read(lambda tx: by_id(tx, image_id)))
    assert info is not None
    assert (info.virtual_size, info.sha512) == (None, None)

    assert change(cloud, image_id, added(url)).status == 400
    assert change(cloud, image_id, added(url + "#new")).status == 200
    assert [one["url"] for one in cloud.show(image_id)["locations"]] == [url, url + "#new"]
    assert change(cloud, image_id, added(url + "#first", "0")).status == 200
    found = cloud.show(image_id)["locations"]
    assert [one["url"] for one in found] == [url + "#first", url, url + "#new"]

    found[0]["metadata"]["date"] = "2015-10-15"
    replace = {"op": "replace", "path": "/locations", "value": found}
    assert change(cloud, image_id, replace).json["locations"] == found
    assert change(cloud, image_id, {**replace, "value": found[:1]}).status == 400
    other = [*found[:2], {"url": url + "#other", "metadata": {}}]
    assert change(cloud, image_id, {**replace, "value": other}).status == 400
    assert cloud.show(image_id)["locations"] == found

    remove = {"op": "remove", "path": "/locations/0"}
    assert change(cloud, image_id, remove).status == 403
    for beyond in ("7", "7" * 5000):
        assert change(cloud, image_id, {**remove, "path": f"/locations/{beyond}"}, by=cloud.admin).status == 400
    assert change(cloud, image_id, remove, by=cloud.admin).status == 200
    assert change(cloud, image_id, remove, {"op": "add", "path": "/name", "value": "x"}, by=cloud.admin).status == 200
    assert change(cloud, image_id, remove, by=cloud.admin).status == 403
    image = cloud.show(image_id)
    assert (image["name"], [one["url"] for one in image["locations"]]) == ("x", [url + "#new"])


def test_what_places_say_of_the_data_must_agree(cloud: ImageCloud, site: Site) -> None:
    image_id = cloud.make()
    url = site.url("/disk")
    for name, value in (("checksum", "1"), ("os_hash_algo", "sha256"), ("os_hash_value", "ab"), ("checksum", "x" * 32)):
        wrong = added(url, validation_data={**DIGESTS, name: value})
        assert change(cloud, image_id, wrong).status == 409, name
    assert change(cloud, image_id, added(url, validation_data=DIGESTS)).status == 200
    image = cloud.show(image_id)
    assert {name: image[name] for name in DIGESTS} == DIGESTS
    assert "validation_data" not in image["locations"][0]
    for name, value in (("checksum", "2" * 32), ("os_hash_algo", "sha256"), ("os_hash_value", "beefdead" * 16)):
        other = added(url + "#new", validation_data={**DIGESTS, name: value})
        assert change(cloud, image_id, other).status == 409, name
    assert change(cloud, image_id, added(url + "#new", validation_data=DIGESTS)).status == 200
    assert len(cloud.show(image_id)["locations"]) == 2


def test_where_locations_are_not_shown(tmp_path: Path, database_url: str, site: Site) -> None:
    with image_cloud(tmp_path, database_url, site, show_locations=False) as cloud:
        image_id = cloud.make()
        assert "locations" not in cloud.show(image_id)
        assert change(cloud, image_id, added(site.url("/disk"))).status == 403


def test_stores_come_in_the_order_of_their_weight(tmp_path: Path, database_url: str, site: Site) -> None:
    with image_cloud(tmp_path, database_url, site, weights={"reserve": 10}) as cloud:
        image_id = cloud.make()
        cloud.put(image_id, DATA, "stage")
        cloud.start(image_id, "glance-direct", all_stores=True)
        cloud.settle()
        assert cloud.show(image_id)["stores"] == "reserve,file"
        for name in list(cloud.reserve.data):
            cloud.reserve.data[name] = b"R" * len(DATA)
        path = f"/images/{image_id}/file"
        assert cloud.ask("GET", path).body == b"R" * len(DATA)
        assert cloud.ask("GET", f"{path}?prefer=file").body == DATA
        assert cloud.ask("GET", f"{path}?prefer=nowhere").status == 400
        cloud.reserve.data.clear()
        assert cloud.ask("GET", path).body == DATA  # the next place, when one lost it


def test_uploads_go_where_they_are_told(cloud: ImageCloud) -> None:
    image_id = cloud.make()
    for name in ("web", "nowhere", "staging", "cache"):
        assert cloud.put(image_id, DATA, **{"x-image-meta-store": name}).status == 400, name
    assert cloud.put(image_id, DATA, **{"x-image-meta-store": "reserve"}).status == 204
    assert cloud.show(image_id)["stores"] == "reserve"
    assert cloud.data(image_id) == DATA


def cache(cloud: ImageCloud) -> tuple[list[str], list[str]]:
    told = cloud.ask("GET", "/cache", by=cloud.admin).json
    return [one["image_id"] for one in told["cached_images"]], told["queued_images"]


def test_the_cache(cloud: ImageCloud) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/clean"), ("POST", "/prune")):
        assert cloud.ask(method, f"/cache{path}").status == 403
    assert cloud.ask("PUT", "/cache/nothing", by=cloud.admin).status == 404
    assert cloud.ask("DELETE", "/cache/nothing", by=cloud.admin).status == 404
    image_id = cloud.make()
    assert cloud.ask("PUT", f"/cache/{image_id}", by=cloud.admin).status == 400
    cloud.put(image_id, DATA)
    assert cloud.ask("PUT", f"/cache/{image_id}", by=cloud.admin).status == 202
    assert cache(cloud) == ([], [image_id])
    assert cloud.ask("DELETE", f"/cache/{image_id}").status == 403
    assert cloud.ask("DELETE", f"/cache/{image_id}", by=cloud.admin).status == 204
    assert cache(cloud) == ([], [])
    assert cloud.ask("PUT", f"/cache/{image_id}", by=cloud.admin).status == 202
    cloud.settle()
    assert cache(cloud) == ([image_id], [])
    (kept,) = cloud.ask("GET", "/cache", by=cloud.admin).json["cached_images"]
    assert (kept["size"], kept["hits"]) == (len(DATA), 0)
    for held in cloud.file.data.iterdir():
        held.unlink()  # what is read now comes from the cache
    assert cloud.data(image_id) == DATA
    assert cloud.ask("GET", "/cache", by=cloud.admin).json["cached_images"][0]["hits"] == 1
    assert cloud.ask("DELETE", "/cache", by=cloud.admin, **{"x-image-cache-clear-target": "x"}).status == 400
    assert cloud.ask("DELETE", "/cache", by=cloud.admin, **{"x-image-cache-clear-target": "queue"}).status == 204
    assert cache(cloud) == ([image_id], [])
    assert cloud.ask("DELETE", "/cache", by=cloud.admin).status == 204
    cloud.settle()
    assert (cache(cloud), cloud.files()) == (([], []), [])


def test_the_cache_has_room_for_what_was_read_last(cloud: ImageCloud) -> None:
    large, images = b"x" * 400_000, []
    for _ in range(3):
        image_id = cloud.make()
        cloud.put(image_id, large)
        cloud.ask("PUT", f"/cache/{image_id}", by=cloud.admin)
        cloud.settle()
        cloud.clock.advance(10)
        images.append(image_id)
    assert cache(cloud) == (images[1:], [])
    assert cloud.ask("POST", "/cache/prune", by=cloud.admin).json == {"total_files_pruned": 0, "total_bytes_pruned": 0}
    huge = cloud.make()
    cloud.put(huge, b"x" * (1 << 20) + b"x")
    cloud.ask("PUT", f"/cache/{huge}", by=cloud.admin)
    cloud.settle()
    assert cache(cloud) == (images[1:], [])
    assert cloud.ask("DELETE", f"/images/{images[1]}").status == 204
    cloud.settle()
    assert cache(cloud) == ([images[2]], [])
    for kept in cloud.cache.data.iterdir():
        kept.unlink()
    assert cloud.ask("POST", "/cache/clean", by=cloud.admin).status == 200
    assert cache(cloud) == ([], [])


def test_what_comes_from_far_away_is_fetched_once(cloud: ImageCloud, site: Site) -> None:
    image_id = cloud.make()
    cloud.ask("POST", f"/images/{image_id}/locations", {"url": site.url("/disk")})
    cloud.settle()
    assert cloud.data(image_id) == DATA
    assert cache(cloud) == ([], [image_id])
    cloud.settle()
    asked = len(site.asked)
    site.pages["/disk"] = b"other data of the same place"
    for _ in range(3):
        assert cloud.data(image_id) == DATA
    assert len(site.asked) == asked
    (kept,) = cloud.ask("GET", "/cache", by=cloud.admin).json["cached_images"]
    assert kept["hits"] == 3


def test_what_has_changed_on_the_web_is_not_kept(cloud: ImageCloud, site: Site) -> None:
    image_id = cloud.make()
    cloud.ask("POST", f"/images/{image_id}/locations", {"url": site.url("/disk")})
    cloud.settle()
    site.pages["/disk"] = bytes(len(DATA))
    cloud.ask("PUT", f"/cache/{image_id}", by=cloud.admin)
    cloud.settle()
    assert cache(cloud) == ([], [])
    assert cloud.files() == []


def test_without_a_cache_there_is_none(tmp_path: Path, database_url: str) -> None:
    with image_cloud(tmp_path, database_url) as cloud:
        cloud.stores.cache = None
        image_id = cloud.make()
        for method, path in (
            ("GET", ""),
            ("DELETE", ""),
            ("POST", "/clean"),
            ("POST", "/prune"),
            ("PUT", f"/{image_id}"),
        ):
            assert cloud.ask(method, f"/cache{path}", by=cloud.admin).status == 404
            assert cloud.ask(method, f"/cache{path}").status == 403
