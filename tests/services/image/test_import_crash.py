"""An import whose process dies, after any of its steps, is brought to its end by the next one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pileus.core.store import Store
from pileus.services.image.controllers.caching import Caching
from pileus.services.image.controllers.importing import Importing
from pileus.services.image.resources import task
from tests.api.image_cloud import ImageCloud, Site, image_cloud

DATA = bytes(range(256)) * 9000
STEPS = 40
"""More than any import has."""


class Death(BaseException):
    """The process is killed."""


class Mortal:
    """A store of rows in whose midst the process dies: before, or right after, the write of a number."""

    def __init__(self, store: Store, number: int, *, after: bool) -> None:
        self._store = store
        self._number = number
        self._after = after
        self.embedded = store.embedded
        self.seams = store.seams
        self.read = store.read

    async def write(self, work: Callable[[Any], Any]) -> Any:
        self._number -= 1
        if self._number == 0 and not self._after:
            raise Death
        found = await self._store.write(work)
        if self._number == 0:
            raise Death
        return found


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


def die(cloud: ImageCloud, loop: Any, number: int, *, after: bool) -> bool:
    """Let the loop work on everything until it dies; whether it did."""
    mortal = Mortal(cloud.served.store, number, after=after)

    async def work() -> bool:
        keys = await cloud.served.store.read(lambda tx: list(loop.keys(tx)))
        try:
            await loop.reconcile(mortal, keys)
        except Death:
            return True
        return False

    return cloud.served.run(work())


def idle(cloud: ImageCloud) -> None:
    used = {name: one["usage"] for name, one in cloud.ask("GET", "/info/usage").json["usage"].items()}
    assert (used["image_count_uploading"], used["image_stage_total"]) == (0, 0)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("method", ["glance-direct", "web-download", "copy-image", "location"])
def test_an_import_survives_the_death_of_its_process(
    cloud: ImageCloud, site: Site, method: str, *, after: bool
) -> None:
    for number in range(1, STEPS):
        image_id = cloud.make()
        if method == "glance-direct":
            cloud.put(image_id, DATA, "stage")
        if method == "copy-image":
            cloud.put(image_id, DATA)
        if method == "location":
            cloud.ask("POST", f"/images/{image_id}/locations", {"url": site.url("/disk")})
        else:
            more = {"uri": site.url("/disk")} if method == "web-download" else {}
            by = cloud.admin if method == "copy-image" else cloud.member
            assert cloud.start(image_id, method, by, all_stores=True, **more).status == 202
        died = die(cloud, Importing(cloud.stores), number, after=after)
        cloud.clock.advance(task.TTL.total_seconds() + 1)
        cloud.settle()
        image = cloud.show(image_id)
        assert image["status"] == "active", (number, cloud.tasks(image_id))
        assert image["stores"] == ("web" if method == "location" else "file,reserve"), number
        told = cloud.ask("GET", f"/images/{image_id}/tasks", by=cloud.admin).json["tasks"]
        assert [one["status"] for one in told] == ["success"]
        assert cloud.data(image_id) == DATA
        assert len(cloud.files()) == (0 if method == "location" else 2), number
        idle(cloud)
        assert cloud.ask("DELETE", f"/images/{image_id}").status == 204
        cloud.settle()
        assert cloud.files() == [], number
        if not died:
            return
    raise AssertionError("the import has more steps than are tried")


def test_a_process_that_dies_again_and_again_gives_up(cloud: ImageCloud) -> None:
    image_id = cloud.make()
    cloud.put(image_id, DATA, "stage")
    cloud.start(image_id, "glance-direct")
    for _ in range(task.ATTEMPTS):
        assert die(cloud, Importing(cloud.stores), 2, after=True)
        cloud.clock.advance(task.TTL.total_seconds() + 1)
    cloud.settle()
    assert cloud.show(image_id)["status"] == "queued"
    assert "too often" in cloud.tasks(image_id)[0]["message"]
    assert cloud.files() == []
    idle(cloud)


def test_the_cache_survives_the_death_of_its_process(cloud: ImageCloud) -> None:
    for number in range(1, STEPS):
        image_id = cloud.make()
        cloud.put(image_id, b"x")
        cloud.ask("PUT", f"/cache/{image_id}", by=cloud.admin)
        died = die(cloud, Caching(cloud.stores), number, after=False)
        cloud.clock.advance(601)
        cloud.settle()
        told = cloud.ask("GET", "/cache", by=cloud.admin).json
        assert [one["image_id"] for one in told["cached_images"]] == [image_id]
        assert cloud.ask("DELETE", f"/images/{image_id}").status == 204
        cloud.settle()
        assert cloud.files() == []
        if not died:
            return
    raise AssertionError("filling the cache has more steps than are tried")
