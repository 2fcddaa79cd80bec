"""Who sees and who changes which image, against a brute-force model: visibility x membership x persona x question."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from pileus.core.store import Tx
from pileus.services.image.resources.image.table import image, member
from pileus.services.image.resources.usage import QUOTA
from tests.api.edge import PERSONAS, Client, Served
from tests.api.test_image_images import PATCH, served
from tests.conftest import Databases, whole_schema
from tests.effort import examples

PROJECTS = ("p1", "p2", "p3")
VISIBILITIES = ("private", "shared", "community", "public")
STATUSES = ("pending", "accepted", "rejected")
KEYS = ("name", "size", "created_at", "updated_at", "id", "status")


class Image(Struct, frozen=True):
    """An image of the model."""

    id: str
    owner: str
    visibility: str
    hidden: bool
    name: str | None
    age: int
    members: tuple[tuple[str, str], ...]

    def status(self, project: str) -> str | None:
        return dict(self.members).get(project)


class Caller(Struct, frozen=True):
    role: str
    project: str

    @property
    def token(self) -> str:
        return f"{self.role}:{self.project}"

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"

    def may(self, role: str) -> bool:
        return role in PERSONAS[self.role]


def sees(who: Caller, one: Image) -> bool:
    if who.is_admin:
        return True
    shared = one.visibility == "shared" and one.status(who.project) is not None
    return who.may("reader") and (one.owner == who.project or one.visibility in ("public", "community") or shared)


def lists(who: Caller, one: Image, visibility: str | None, status: str, hidden: bool) -> bool:
    """Whether the image is in the list that these parameters ask for."""
    own = one.owner == who.project
    there = who.is_admin or own or one.visibility in ("public", "community")
    if one.visibility == "shared":
        there = there or one.status(who.project) == status or (status == "all" and one.status(who.project) is not None)
    if visibility is None:
        there = there and (own or one.visibility != "community")
    elif visibility != "all":
        there = there and one.visibility == visibility
    return there and one.hidden == hidden


def fill(tx: Tx, world: list[Image]) -> None:
    tx.execute(sa.delete(image))
    for one in world:
        QUOTA.take(tx, one.owner, {"image_count_total": 1})
        at = tx.now - timedelta(seconds=one.age)
        values = {"id": one.id, "owner": one.owner, "visibility": one.visibility, "os_hidden": one.hidden}
        row = {"name": one.name, "status": "queued", "protected": False, "min_ram": 0, "min_disk": 0}
        tx.execute(sa.insert(image).values(**values, **row, created_at=at, updated_at=at))
        for project, status in one.members:
            known = {"image_id": one.id, "member_id": project, "status": status}
            tx.execute(sa.insert(member).values(**known, created_at=at, updated_at=at))


@pytest.fixture(name="cloud", scope="module")
def one_cloud(tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> Iterator[Served]:
    place = tmp_path_factory.mktemp("visibility")
    url = databases.make(place, whole_schema)
    with served(place, url) as found:
        yield found
    databases.drop(url)


@st.composite
def worlds(draw: st.DrawFn) -> list[Image]:
    return [
        Image(
            id=f"{number:08x}-0000-0000-0000-000000000000",
            owner=draw(st.sampled_from(PROJECTS)),
            visibility=draw(st.sampled_from(VISIBILITIES)),
            hidden=draw(st.sampled_from([False, False, False, True])),
            name=draw(st.sampled_from([None, "a", "b"])),
            age=draw(st.integers(0, 3)),
            members=tuple(draw(st.dictionaries(st.sampled_from(PROJECTS), st.sampled_from(STATUSES))).items()),
        )
        for number in range(draw(st.integers(0, 8)))
    ]


callers = st.builds(Caller, st.sampled_from(["reader", "member", "manager", "admin"]), st.sampled_from(PROJECTS))


def pages(client: Client, query: str) -> list[list[str]]:
    """The ids of all pages of a list."""
    path: str | None = f"/v2/images?{query}"
    found = []
    while path is not None:
        answer = client.request("GET", f"/image{path}")
        assert answer.status == 200, answer
        found.append([one["id"] for one in answer.json["images"]])
        path = answer.json.get("next")
    return found


class Asked(Struct, frozen=True):
    """The parameters of a list."""

    visibility: str | None
    status: str | None
    hidden: bool
    limit: int
    keys: dict[str, str]
    named: str | None

    @property
    def query(self) -> str:
        parts = {"visibility": self.visibility, "member_status": self.status, "name": self.named}
        parts |= {"os_hidden": str(self.hidden).lower(), "limit": str(self.limit)}
        parts["sort"] = ",".join(f"{key}:{way}" for key, way in self.keys.items()) or None
        return "&".join(f"{name}={value}" for name, value in parts.items() if value is not None)


asked = st.builds(
    Asked,
    visibility=st.sampled_from([None, "all", *VISIBILITIES]),
    status=st.sampled_from([None, "all", *STATUSES]),
    hidden=st.sampled_from([False, False, True]),
    limit=st.integers(1, 4),
    keys=st.dictionaries(st.sampled_from(KEYS), st.sampled_from(["asc", "desc"]), max_size=3),
    named=st.sampled_from([None, None, "a"]),
)


@settings(max_examples=examples(120), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(world=worlds(), who=callers, what=asked)
def test_lists_hold_what_the_model_says_in_its_order(
    cloud: Served, world: list[Image], who: Caller, what: Asked
) -> None:
    cloud.store.write_here(lambda tx: fill(tx, world))
    found = pages(cloud.client(who.token), what.query)
    assert all(len(page) == what.limit for page in found[:-1])
    expected = [one for one in world if lists(who, one, what.visibility, what.status or "accepted", what.hidden)]
    expected = [one for one in expected if what.named is None or one.name == what.named]
    first = next(iter(what.keys.values()), "desc")
    orders = what.keys | {key: first for key in ("created_at", "id") if key not in what.keys}
    for key, way in reversed(orders.items()):
        expected.sort(key=lambda one: rank(one, key), reverse=way == "desc")
    assert list(itertools.chain(*found)) == [one.id for one in expected]


def rank(one: Image, key: str) -> Any:
    """Where an image stands by a key: what is missing comes first."""
    if key in ("created_at", "updated_at"):
        return -one.age
    return one.id if key == "id" else (one.name is not None, one.name or "") if key == "name" else 0


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(world=worlds().filter(bool), who=callers)
def test_seeing_and_changing(cloud: Served, world: list[Image], who: Caller) -> None:
    client = cloud.client(who.token)
    cloud.store.write_here(lambda tx: fill(tx, world))
    for one in world:
        path = f"/image/v2/images/{one.id}"
        hidden = not sees(who, one)
        mine = who.is_admin or (who.may("member") and one.owner == who.project)
        assert client.request("GET", path).status == (404 if hidden else 200)
        change = 404 if hidden else 200 if mine else 403
        rename = [{"op": "add", "path": "/new", "value": "x"}]
        assert client.request("PATCH", path, json=rename, headers=PATCH).status == change
        publish = [{"op": "replace", "path": "/visibility", "value": "public"}]
        published = client.request("PATCH", path, json=publish, headers=PATCH).status
        assert published == (404 if hidden else 200 if who.is_admin else 403)
        if published == 200:
            back = [{"op": "replace", "path": "/visibility", "value": one.visibility}]
            assert client.request("PATCH", path, json=back, headers=PATCH).status == 200
        assert client.request("PUT", f"{path}/tags/t").status == (204 if change == 200 else change)
        assert client.request("DELETE", f"{path}/tags/t").status == (204 if change == 200 else change)
        for act in ("deactivate", "reactivate"):  # there is no data: it is forbidden to those who might, as well
            assert client.request("POST", f"{path}/actions/{act}").status == (404 if hidden else 403)
        check_members(client, who, one)
        assert client.request("DELETE", path).status == (204 if change == 200 else change)


def check_members(client: Client, who: Caller, one: Image) -> None:
    path = f"/image/v2/images/{one.id}/members"
    owns = who.is_admin or one.owner == who.project
    status = 404 if not sees(who, one) else 200 if one.visibility == "shared" else 403
    listed = client.request("GET", path)
    assert listed.status == status
    seen = {project for project, _ in one.members if owns or project == who.project}
    if status == 200:
        assert {each["member_id"] for each in listed.json["members"]} == seen
    for project in PROJECTS:
        there = status == 200 and project in seen
        assert client.request("GET", f"{path}/{project}").status == (200 if there else 404)
        member_of = one.status(who.project) is not None and one.owner != who.project
        may = who.is_admin or (who.may("member") and member_of)
        if one.owner == who.project and one.status(who.project) is not None:
            may = who.may("member")  # a project that is a member of its own image
        answer = client.request("PUT", f"{path}/{project}", json={"status": one.status(project) or "pending"})
        assert answer.status == (status if status != 200 else 404 if not there else 200 if may else 403)
    share = client.request("POST", path, json={"member": "p9"})
    writes = who.is_admin or (who.may("member") and one.owner == who.project)
    assert share.status == (status if status != 200 else 200 if writes else 403)
    drop = client.request("DELETE", f"{path}/p9").status
    if status != 200:
        assert drop == status
    else:
        assert drop == (204 if writes else 404)  # nobody shared it with p9


@pytest.mark.parametrize(
    ("token", "query", "served_by"),
    [
        ("member:p1", "", {"owner_created_at_id", "visibility_created_at_id"}),
        ("member:p1", "?visibility=all&limit=3", {"owner_created_at_id", "visibility_created_at_id"}),
        ("member:p1", "?name=a", {"name"}),
        ("admin:p1", "", {"created_at_id"}),
        ("admin:p1", "?visibility=public", {"visibility_created_at_id"}),
    ],
)
def test_a_page_is_found_by_indexes(cloud: Served, token: str, query: str, served_by: set[str]) -> None:
    if cloud.store.engine.dialect.name != "sqlite":
        pytest.skip("SQLite plans by rules; another engine weighs what is in the tables")
    noted: list[tuple[str, Any]] = []

    def note(connection: object, cursor: object, statement: str, parameters: Any, *_: object) -> None:
        if "FROM image_image" in statement:
            noted.append((statement, parameters))

    engine = cloud.store.engine
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        assert cloud.client(token).request("GET", f"/image/v2/images{query}").status == 200
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
    assert len(noted) == 1
    with engine.connect() as connection:
        explained = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {noted[0][0]}", noted[0][1]).all()
    reads = [row[3] for row in explained if " image_image" in row[3]]
    used = {match[1] for read in reads if (match := re.search(r"INDEX ix_image_image_(\w+)", read))}
    assert served_by <= used, reads
    assert [read for read in reads if read.startswith("SCAN") and "INDEX" not in read] == []
