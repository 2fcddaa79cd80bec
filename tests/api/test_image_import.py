"""Import through the edge: staging, the web, other images, further stores, and what becomes of it when it fails."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from pileus.core.reconcile import DONE
from pileus.core.store import Tx
from pileus.services.image.controllers import importing
from pileus.services.image.controllers.importing import Importing
from pileus.services.image.interface import AddressFilter
from pileus.services.image.resources import task
from pileus.services.image.resources.usage import QUOTA
from tests.api.image_cloud import ImageCloud, Site, image_cloud

DATA = bytes(range(256)) * 5000
IDLE = {"image_count_uploading": 0, "image_stage_total": 0}


@pytest.fixture(name="site")
def one_site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture(name="cloud")
def one_cloud(tmp_path: Path, database_url: str, site: Site) -> Iterator[ImageCloud]:
    with image_cloud(tmp_path, database_url, site) as cloud:
        yield cloud


def usage(cloud: ImageCloud) -> dict[str, int]:
    told = cloud.ask("GET", "/info/usage").json["usage"]
    return {name: one["usage"] for name, one in told.items()}


def limit(cloud: ImageCloud, **limits: int) -> None:
    def write(tx: Tx) -> None:
        QUOTA.set(tx, "p1", limits)

    cloud.served.run(cloud.served.store.write(write))


def test_what_can_be_done_is_told(cloud: ImageCloud) -> None:
    methods = cloud.ask("GET", "/info/import").json["import-methods"]
    assert methods["value"] == ["glance-direct", "web-download", "glance-download", "copy-image"]
    stores = cloud.ask("GET", "/info/stores").json["stores"]
    assert stores == [
        {"id": "file", "default": "true"},
        {"id": "reserve"},
        {"id": "web", "read-only": "true"},
    ]
    detail = cloud.ask("GET", "/info/stores/detail", by=cloud.admin).json["stores"]
    assert [(one["id"], one["type"], one["weight"]) for one in detail] == [
        ("file", "file", 0),
        ("reserve", "fake", 0),
        ("web", "http", 0),
    ]
    assert cloud.ask("GET", "/info/stores/detail").status == 403
    answer = cloud.ask("POST", "/images", {"name": "x"})
    assert answer.headers["openstack-image-import-methods"] == ",".join(methods["value"])


def test_staged_data_is_imported(cloud: ImageCloud) -> None:
    image_id = cloud.make()
    assert cloud.start(image_id, "glance-direct").status == 409
    assert cloud.put(image_id, DATA, "stage").status == 204
    assert cloud.show(image_id)["status"] == "uploading"
    assert cloud.put(image_id, DATA, "stage").status == 409
    assert usage(cloud) == {
        "image_count_total": 1,
        "image_count_uploading": 1,
        "image_size_total": 0,
        "image_stage_total": 2,
    }
    answer = cloud.start(image_id, "glance-direct")
    assert (answer.status, answer.body) == (202, b"")
    image = cloud.show(image_id)
    assert (image["status"], image["os_glance_importing_to_stores"]) == ("importing", "file")
    assert cloud.start(image_id, "glance-direct").status == 409
    cloud.settle()
    image = cloud.show(image_id)
    assert image["status"] == "active"
    assert image["stores"] == "file"
    assert image["size"] == image["virtual_size"] == len(DATA)
    assert image["checksum"] == hashlib.md5(DATA).hexdigest()
    assert image["os_hash_value"] == hashlib.sha512(DATA).hexdigest()
    assert (image["os_glance_importing_to_stores"], image["os_glance_failed_import"]) == ("", "")
    assert "os_glance_import_task" not in image
    assert cloud.data(image_id) == DATA
    (task,) = cloud.tasks(image_id)
    assert task["status"] == "success"
    assert task["request_id"] == answer.headers["x-openstack-request-id"]
    assert task["input"]["import_req"]["method"]["name"] == "glance-direct"
    assert task["result"] == {"image_id": image_id}
    assert len(cloud.files()) == 1
    assert usage(cloud) == {**IDLE, "image_count_total": 1, "image_size_total": 2}


def test_into_all_stores(cloud: ImageCloud) -> None:
    image_id = cloud.make()
    cloud.put(image_id, DATA, "stage")
    assert cloud.start(image_id, "glance-direct", all_stores=True, stores=["file"]).status == 400
    assert cloud.start(image_id, "glance-direct", stores=["nowhere"]).status == 409
    assert cloud.start(image_id, "glance-direct", stores=["web"]).status == 409
    assert cloud.start(image_id, "glance-direct", all_stores="yes").status == 400
    assert cloud.start(image_id, "nonsense").status == 400
    assert cloud.ask("POST", f"/images/{image_id}/import", {}).status == 400
    assert cloud.start(image_id, "glance-direct", cloud.other).status == 404
    assert cloud.start(image_id, "glance-direct", cloud.reader).status == 403
    assert cloud.start(image_id, "glance-direct", all_stores=True).status == 202
    cloud.settle()
    image = cloud.show(image_id)
    assert (image["status"], image["stores"]) == ("active", "file,reserve")
    assert [one["metadata"]["store"] for one in image["locations"]] == ["file", "reserve"]
    assert usage(cloud)["image_size_total"] == 4
    assert len(cloud.files()) == 2
    assert cloud.ask("DELETE", f"/images/{image_id}").status == 204
    cloud.settle()
    assert cloud.files() == []
    assert usage(cloud) == {**IDLE, "image_count_total": 0, "image_size_total": 0}


def test_a_store_that_fails_spoils_it_unless_it_may(cloud: ImageCloud) -> None:
    image_id = cloud.make()
    cloud.reserve.broken = True
    cloud.put(image_id, DATA, "stage")
    assert cloud.start(image_id, "glance-direct", all_stores=True).status == 202
    cloud.settle()
    image = cloud.show(image_id)
    assert (image["status"], image["os_glance_failed_import"]) == ("queued", "reserve")
    assert (image["checksum"], image["size"], "stores" in image) == (None, None, False)
    assert cloud.tasks(image_id)[0]["status"] == "failure"
    assert "broken" in cloud.tasks(image_id)[0]["message"]
    assert cloud.files() == []
    assert usage(cloud) == {**IDLE, "image_count_total": 1, "image_size_total": 0}
    cloud.put(image_id, DATA, "stage")
    assert cloud.start(image_id, "glance-direct", all_stores=True, all_stores_must_succeed=False).status == 202
    cloud.settle()
    image = cloud.show(image_id)
    assert (image["status"], image["stores"], image["os_glance_failed_import"]) == ("active", "file", "reserve")
    assert len(cloud.files()) == 1


def test_no_store_at_all_is_a_failure(cloud: ImageCloud) -> None:
    image_id = cloud.make()
    cloud.reserve.broken = True
    cloud.put(image_id, DATA, "stage")
    cloud.start(image_id, "glance-direct", stores=["reserve"], all_stores_must_succeed=False)
    cloud.settle()
    assert cloud.show(image_id)["status"] == "queued"
    assert cloud.tasks(image_id)[0]["message"] == "None of the uploads finished!"
    assert cloud.files() == []


def test_copies_go_to_further_stores(cloud: ImageCloud) -> None:
    image_id = cloud.make()
    assert cloud.start(image_id, "copy-image", cloud.admin).status == 409
    cloud.put(image_id, DATA)
    assert cloud.start(image_id, "copy-image", stores=["reserve"]).status == 403
    assert cloud.start(image_id, "copy-image", cloud.admin, stores=["file"]).status == 400
    assert cloud.start(image_id, "glance-direct", cloud.admin).status == 409
    answer = cloud.start(image_id, "copy-image", cloud.admin, all_stores=True, all_stores_must_succeed=False)
    assert answer.status == 202
    assert cloud.show(image_id)["status"] == "active"
    cloud.settle()
    image = cloud.show(image_id)
    assert (image["status"], image["stores"]) == ("active", "file,reserve")
    assert (image["os_glance_importing_to_stores"], image["os_glance_failed_import"]) == ("", "")
    assert list(cloud.reserve.data.values()) == [DATA]
    assert cloud.start(image_id, "copy-image", cloud.admin, all_stores=True).status == 202  # there is nothing to do
    assert "os_glance_import_task" not in cloud.show(image_id)

    assert cloud.ask("DELETE", f"/stores/file/{image_id}").status == 403
    assert cloud.ask("DELETE", f"/stores/nowhere/{image_id}", by=cloud.admin).status == 409
    assert cloud.ask("DELETE", f"/stores/web/{image_id}", by=cloud.admin).status == 404
    assert cloud.ask("DELETE", f"/stores/file/{image_id}", by=cloud.admin).status == 204
    cloud.settle()
    assert cloud.show(image_id)["stores"] == "reserve"
    assert [name.split("/")[0] for name in cloud.files()] == ["reserve"]
    assert cloud.data(image_id) == DATA
    assert cloud.ask("DELETE", f"/stores/reserve/{image_id}", by=cloud.admin).status == 403


def test_a_copy_that_fails_leaves_the_image_as_it_was(cloud: ImageCloud) -> None:
    image_id = cloud.make()
    cloud.put(image_id, DATA)
    cloud.reserve.broken = True
    assert cloud.start(image_id, "copy-image", cloud.admin, stores=["reserve"]).status == 202
    cloud.settle()
    image = cloud.show(image_id)
    assert (image["status"], image["stores"], image["os_glance_failed_import"]) == ("active", "file", "reserve")
    assert cloud.data(image_id) == DATA
    assert len(cloud.files()) == 1


def test_what_is_on_the_web_is_imported(cloud: ImageCloud, site: Site) -> None:
    site.pages["/disk"] = DATA
    site.pages["/moved"] = "/disk"
    image_id = cloud.make()
    assert cloud.start(image_id, "web-download", uri=site.url("/moved")).status == 202
    cloud.settle()
    image = cloud.show(image_id)
    assert (image["status"], image["stores"], image["size"]) == ("active", "file", len(DATA))
    assert cloud.data(image_id) == DATA
    assert len(cloud.files()) == 1
    assert cloud.start(image_id, "web-download", uri=site.url("/disk")).status == 409


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "http://example.org:22/x",
        "http://10.0.0.1/x",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/x",
        "http://[::ffff:10.0.0.1]/x",
        "http://user:secret@example.org/x",
        "http://example.org/a b",
        "//example.org",
        "nonsense",
    ],
)
def test_a_place_that_may_not_be_fetched(cloud: ImageCloud, url: str) -> None:
    image_id = cloud.make()
    answer = cloud.start(image_id, "web-download", uri=url)
    assert answer.status == 400, answer
    assert "does not pass filtering" in answer.json["message"]
    assert cloud.show(image_id)["status"] == "queued"
    assert cloud.start(image_id, "web-download").status == 400


def failed(cloud: ImageCloud, image_id: str) -> str:
    """Why the one import of an image failed, which must have left nothing."""
    image = cloud.show(image_id)
    (task,) = cloud.tasks(image_id)
    assert (image["status"], task["status"], task["result"]) == ("queued", "failure", None)
    assert image["os_glance_failed_import"] == "file"
    assert image["os_glance_importing_to_stores"] == ""
    assert cloud.files() == []
    assert usage(cloud) == {**IDLE, "image_count_total": 1, "image_size_total": 0}
    return str(task["message"])


def test_a_redirect_to_a_place_that_may_not_be_fetched(cloud: ImageCloud, site: Site) -> None:
    site.pages["/a"] = "http://10.1.2.3/secret"
    image_id = cloud.make()
    assert cloud.start(image_id, "web-download", uri=site.url("/a")).status == 202
    cloud.settle()
    assert "does not pass filtering" in failed(cloud, image_id)


def test_a_name_of_a_place_that_may_not_be_fetched(tmp_path: Path, database_url: str, site: Site) -> None:
    addresses = AddressFilter(allowed_ports=(site.port,))
    site.pages["/a"] = DATA
    with image_cloud(tmp_path, database_url, site, addresses=addresses) as cloud:
        for host in ("localhost", "127.1", "0x7f000001", "2130706433"):
            image_id = cloud.make()
            answer = cloud.start(image_id, "web-download", uri=f"http://{host}:{site.port}/a")
            if answer.status == 202:
                cloud.settle()
                assert cloud.tasks(image_id)[0]["status"] == "failure"
            else:
                assert answer.status == 400
        assert site.asked == []


def loop(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(302)
    handler.send_header("Location", "/loop")
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def short(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    handler.wfile.write(b"x" * 1000)
    handler.close_connection = True


def silent(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(4)


@pytest.mark.parametrize(
    ("path", "page", "reason"),
    [
        ("/loop", loop, "redirects"),
        ("/short", short, "went away"),
        ("/silent", silent, "timed out"),
        ("/none", None, "404"),
    ],
)
def test_a_server_that_misbehaves(cloud: ImageCloud, site: Site, path: str, page: Any, reason: str) -> None:
    if page is not None:
        site.pages[path] = page
    image_id = cloud.make()
    cloud.start(image_id, "web-download", uri=site.url(path))
    cloud.settle()
    assert reason in failed(cloud, image_id)


def test_a_project_has_its_share_of_imports_and_others_go_on(cloud: ImageCloud, site: Site) -> None:
    held = threading.Event()

    def slow(handler: BaseHTTPRequestHandler) -> None:
        held.wait(30)
        handler.send_response(200)
        handler.send_header("Content-Length", "4")
        handler.end_headers()
        handler.wfile.write(b"disk")

    site.pages |= {"/slow": slow, "/disk": DATA}
    mine = [cloud.make() for _ in range(3)]
    for image_id in mine:
        cloud.start(image_id, "web-download", uri=site.url("/slow"))
    theirs = cloud.ask("POST", "/images", {"disk_format": "raw", "container_format": "bare"}, cloud.other).json["id"]
    cloud.start(theirs, "web-download", cloud.other, uri=site.url("/disk"))
    loop, store = Importing(cloud.stores), cloud.served.store
    first, second, third = sorted(cloud.tasks(image_id)[0]["id"] for image_id in mine)
    other = cloud.ask("GET", f"/images/{theirs}/tasks", None, cloud.other).json["tasks"][0]["id"]

    async def act() -> None:
        assert set(await store.read(task.unfinished)) == {first, second, other}
        running = [asyncio.create_task(loop.reconcile(store, [key])) for key in (first, second)]
        async with asyncio.timeout(20):
            while len(site.asked) < 2:  # noqa: ASYNC110 # another thread's
                await asyncio.sleep(0.01)
            assert (await loop.reconcile(store, [third]))[third] is DONE  # until it is told, or the timer comes round
            assert site.asked == [("GET", "/slow", None)] * 2
            assert (await loop.reconcile(store, [other]))[other] is DONE
            held.set()
            await asyncio.gather(*running)
            assert await store.read(task.unfinished) == [third]
            assert (await loop.reconcile(store, [third]))[third] is DONE

    cloud.served.run(act())
    assert {cloud.show(image_id)["status"] for image_id in mine} == {"active"}
    assert cloud.ask("GET", f"/images/{theirs}", None, cloud.other).json["status"] == "active"


def test_an_import_has_an_end(cloud: ImageCloud, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "LONGEST", 0.0)
    site.pages["/disk"] = DATA
    image_id = cloud.make()
    cloud.start(image_id, "web-download", uri=site.url("/disk"))
    cloud.settle()
    assert "takes longer than" in failed(cloud, image_id)


def test_data_that_is_not_what_it_should_be(cloud: ImageCloud, site: Site) -> None:
    site.pages["/disk"] = DATA
    image_id = cloud.make("qcow2")
    cloud.start(image_id, "web-download", uri=site.url("/disk"))
    cloud.settle()
    assert "does not match" in failed(cloud, image_id)


def test_staging_has_a_quota(cloud: ImageCloud, site: Site) -> None:
    site.pages["/disk"] = DATA
    limit(cloud, image_stage_total=1)
    image_id = cloud.make()
    assert cloud.put(image_id, DATA, "stage").status == 413
    assert cloud.show(image_id)["status"] == "queued"
    cloud.start(image_id, "web-download", uri=site.url("/disk"))
    cloud.settle()
    assert "too large" in failed(cloud, image_id)


def test_what_is_on_its_way_has_a_quota(cloud: ImageCloud) -> None:
    limit(cloud, image_count_uploading=1)
    first, second = cloud.make(), cloud.make()
    assert cloud.put(first, DATA, "stage").status == 204
    assert cloud.put(second, DATA, "stage").status == 413
    assert cloud.put(second, DATA).status == 413
    cloud.start(first, "glance-direct")
    cloud.settle()
    assert cloud.put(second, DATA).status == 204


def test_data_has_a_quota_in_each_store(cloud: ImageCloud) -> None:
    limit(cloud, image_size_total=3)
    image_id = cloud.make()
    cloud.put(image_id, DATA, "stage")
    cloud.start(image_id, "glance-direct", all_stores=True)
    cloud.settle()
    image = cloud.show(image_id)
    assert (image["status"], image["os_glance_failed_import"]) == ("queued", "reserve")
    assert cloud.files() == []
    assert usage(cloud) == {**IDLE, "image_count_total": 1, "image_size_total": 0}


def test_an_image_takes_over_another(cloud: ImageCloud) -> None:
    source = cloud.make("raw", "bare", hw_cpu_cores="5", os_distro="rhel", speed="88mph")
    cloud.put(source, DATA)
    image_id = cloud.make("iso", "ovf", hw_cpu_cores="1", os_distro="windows")
    assert cloud.start(image_id, "glance-download").status == 400
    answer = cloud.start(image_id, "glance-download", glance_image_id="foo", glance_region="RegionOne")
    assert "image id does not look like a UUID" in answer.json["message"]
    answer = cloud.start(image_id, "glance-download", glance_image_id=source, glance_region="RegionOne")
    assert answer.status == 202
    cloud.settle()
    image = cloud.show(image_id)
    assert (image["status"], image["disk_format"], image["container_format"]) == ("active", "raw", "bare")
    assert (image["hw_cpu_cores"], image["os_distro"], "speed" in image) == ("5", "rhel", False)
    assert cloud.data(image_id) == DATA


def test_an_image_cannot_take_over_what_its_owner_may_not_read(cloud: ImageCloud) -> None:
    source = cloud.make(visibility="private")
    cloud.put(source, DATA)
    for wanted, region in ((source, "RegionOne"), (source, "elsewhere"), ("0" * 32, "RegionOne")):
        body = {"disk_format": "raw", "container_format": "bare", "os_distro": "windows"}
        image_id = cloud.ask("POST", "/images", body, cloud.other).json["id"]
        answer = cloud.start(image_id, "glance-download", cloud.other, glance_image_id=wanted, glance_region=region)
        assert answer.status == 202
        cloud.settle()
        image = cloud.ask("GET", f"/images/{image_id}", by=cloud.other).json
        assert (image["status"], image["os_distro"]) == ("queued", "windows")


def test_an_image_that_is_deleted_ends_its_import(cloud: ImageCloud, site: Site) -> None:
    site.pages["/disk"] = DATA
    image_id = cloud.make()
    cloud.start(image_id, "web-download", uri=site.url("/disk"))
    assert cloud.ask("DELETE", f"/images/{image_id}").status == 204
    cloud.settle()
    assert cloud.files() == []
    (task,) = cloud.ask("GET", "/tasks", by=cloud.admin).json["tasks"]
    assert task["status"] == "failure"


def test_the_older_way_by_a_task(cloud: ImageCloud, site: Site) -> None:
    site.pages["/disk"] = DATA
    given = {
        "import_from": site.url("/disk"),
        "import_from_format": "raw",
        "image_properties": {"name": "made", "visibility": "public"},
    }
    assert cloud.ask("POST", "/tasks", {"type": "import", "input": given}).status == 403
    for body in (
        {"type": "import"},
        {"type": "other", "input": given},
        {"type": "import", "input": {**given, "import_from": "file:///x"}},
        {"type": "import", "input": {"import_from": given["import_from"]}},
    ):
        assert cloud.ask("POST", "/tasks", body, cloud.admin).status == 400, body
    answer = cloud.ask("POST", "/tasks", {"type": "import", "input": given}, cloud.admin)
    assert (answer.status, answer.json["status"], answer.json["input"]) == (201, "pending", given)
    assert answer.headers["location"] == f"/v2/tasks/{answer.json['id']}"
    cloud.settle()
    task = cloud.ask("GET", answer.headers["location"].removeprefix("/v2"), by=cloud.admin).json
    assert task["status"] == "success"
    image = cloud.show(task["result"]["image_id"])
    assert (image["name"], image["status"], image["visibility"]) == ("made", "active", "public")


def test_tasks_are_listed_and_forgotten(cloud: ImageCloud) -> None:
    for number in range(3):
        image_id = cloud.make()
        cloud.put(image_id, b"x", "stage")
        cloud.start(image_id, "glance-direct")
        if number == 1:
            cloud.settle()
        cloud.clock.advance(10)
    found = cloud.ask("GET", "/tasks", by=cloud.admin).json
    assert [one["status"] for one in found["tasks"]] == ["pending", "success", "success"]
    assert "input" not in found["tasks"][0]
    assert (found["first"], found["schema"]) == ("/v2/tasks", "/v2/schemas/tasks")
    assert len(cloud.ask("GET", "/tasks?status=success", by=cloud.admin).json["tasks"]) == 2
    page = cloud.ask("GET", "/tasks?limit=2&sort_dir=asc", by=cloud.admin).json
    assert len(page["tasks"]) == 2
    rest = cloud.ask("GET", page["next"].removeprefix("/v2"), by=cloud.admin).json["tasks"]
    assert [one["status"] for one in rest] == ["pending"]
    for query in ("status=x", "type=x", "sort_dir=x", "limit=-1", "limit=x", "marker=nothing", "sort_key=input"):
        assert cloud.ask("GET", f"/tasks?{query}", by=cloud.admin).status == 400, query
    assert cloud.ask("GET", "/tasks?limit=0", by=cloud.admin).json["tasks"] == []
    assert cloud.ask("GET", "/tasks").status == 403
    task_id = found["tasks"][1]["id"]
    assert cloud.ask("DELETE", f"/tasks/{task_id}", by=cloud.admin).status == 405
    assert cloud.ask("GET", f"/tasks/{task_id}", by=cloud.admin).json["expires_at"] > found["tasks"][1]["updated_at"]
    cloud.clock.advance(49 * 3600)
    assert cloud.ask("GET", f"/tasks/{task_id}", by=cloud.admin).status == 404
    cloud.settle()
    left = cloud.ask("GET", "/tasks", by=cloud.admin).json["tasks"]
    assert [one["status"] for one in left] == ["success"]
