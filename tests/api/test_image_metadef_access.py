"""Metadata definitions: who sees and who changes them, where public ones come from, and what their lists cost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from pileus.services.image.interface import offer_definitions
from pileus.services.image.resources.metadef.operations.content import OFFERED
from tests.api.edge import Client, Served
from tests.api.test_image_images import served
from tests.api.test_image_metadef import DISK, ROOT, SPACES, make, names, ok


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


@pytest.fixture(name="other")
def one_other(cloud: Served) -> Client:
    return cloud.client("member:p2")


def test_who_sees_and_who_changes(cloud: Served, admin: Client, member: Client, other: Client) -> None:
    for visibility in ("public", "private"):
        make(
            admin,
            visibility,
            visibility=visibility,
            resource_type_associations=[{"name": "t"}],
            properties={"p": DISK},
            objects=[{"name": "o"}],
            tags=[{"name": "g"}],
        )
    reads = ("", "/objects", "/objects/o", "/properties", "/properties/p", "/tags", "/tags/g", "/resource_types")
    writes: list[tuple[str, str, Any]] = [
        ("PUT", "", {"namespace": "x"}),
        ("DELETE", "", None),
        ("POST", "/objects", {"name": "n"}),
        ("PUT", "/objects/o", {"name": "n"}),
        ("DELETE", "/objects/o", None),
        ("DELETE", "/objects", None),
        ("POST", "/properties", {"name": "n", **DISK}),
        ("PUT", "/properties/p", {"name": "n", **DISK}),
        ("DELETE", "/properties/p", None),
        ("DELETE", "/properties", None),
        ("POST", "/tags", {"tags": [{"name": "n"}]}),
        ("POST", "/tags/n", None),
        ("PUT", "/tags/g", {"name": "n"}),
        ("DELETE", "/tags/g", None),
        ("DELETE", "/tags", None),
        ("POST", "/resource_types", {"name": "n"}),
        ("DELETE", "/resource_types/t", None),
    ]
    reader, stranger = cloud.client("reader:p1"), cloud.client("reader:p2")
    for space, seers, blind in (
        ("public", (member, reader, other, stranger), ()),
        ("private", (member, reader), (other, stranger)),
    ):
        for path in reads:
            assert {one.request("GET", f"{SPACES}/{space}{path}").status for one in seers} == {200}, path
            assert {one.request("GET", f"{SPACES}/{space}{path}").status for one in blind} <= {404}, path
        for method, path, body in writes:
            asked = [one.request(method, f"{SPACES}/{space}{path}", json=body).status for one in seers]
            assert set(asked) == {403}, (method, path, asked)
            asked = [one.request(method, f"{SPACES}/{space}{path}", json=body).status for one in blind]
            assert set(asked) <= {404}, (method, path, asked)
    assert member.request("POST", SPACES, json={"namespace": "x"}).status == 403
    assert sorted(names(reader)) == ["private", "public"]
    assert names(other) == ["public"]
    for token in ("admin@system", "reader@system", "admin@domain:default"):
        scoped = cloud.client(token)
        assert scoped.request("GET", SPACES).status == 403
        assert scoped.request("GET", f"{ROOT}/resource_types").status == 403
        assert scoped.request("POST", SPACES, json={"namespace": "x"}).status == 403
        assert scoped.request("GET", f"{SPACES}/public").status == 404


def test_lists_ask_as_often_whatever_they_hold(cloud: Served, admin: Client) -> None:
    counts = []
    for amount in (1, 20):
        for number in range(amount):
            make(admin, f"n{amount}-{number}", resource_type_associations=[{"name": "a"}, {"name": f"b{number}"}])
        statements: list[str] = []
        with Watched(cloud, statements):
            assert len(names(admin)) >= amount
        counts.append(len(statements))
    assert counts[0] == counts[1] <= 3


def document(name: str, **more: Any) -> bytes:
    return msgspec.json.encode({"namespace": name, **more})


def test_public_definitions_are_offered_once(cloud: Served, admin: Client, member: Client) -> None:
    def offer(*documents: bytes) -> list[str]:
        return cloud.store.write_here(lambda tx: offer_definitions(tx, documents))

    make(admin, "mine", description="my own")
    first = document("one", properties={"p": DISK}, resource_type_associations=[{"name": "OS::Nova::Flavor"}])
    wrong = (b"{", b"[]", b'"x"', document("x" * 81), document("x", properties={"p": {"type": "box"}}))
    assert offer(first, document("two", protected=True), document("mine", description="theirs"), *wrong) == [
        "one",
        "two",
    ]
    assert offer(first, document("two"), document("mine")) == []
    types = [one["name"] for one in ok(member.request("GET", f"{ROOT}/resource_types"))["resource_types"]]
    assert types == sorted(OFFERED)
    shown = ok(cloud.client("reader:p7").request("GET", f"{SPACES}/one"))
    assert (shown["visibility"], shown["owner"], shown["properties"]) == ("public", "admin", {"p": DISK})
    assert ok(admin.request("GET", f"{SPACES}/mine"))["description"] == "my own"
    # What an operator did to them stays.
    ok(admin.request("DELETE", f"{SPACES}/one/properties/p"), 204)
    ok(admin.request("PUT", f"{SPACES}/two", json={"namespace": "deux"}))
    assert offer(first, document("two"), document("three")) == ["three"]
    ok(admin.request("DELETE", f"{SPACES}/one"), 204)
    assert offer(first, document("two"), document("three")) == []
    assert sorted(names(admin)) == ["deux", "mine", "three"]


class Watched:
    """Notes the statements that the store runs."""

    def __init__(self, cloud: Served, statements: list[str]) -> None:
        self.engine = cloud.store.engine
        self.statements = statements

    def note(self, connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement.lstrip().upper().startswith("SELECT"):
            self.statements.append(statement)

    def __enter__(self) -> None:
        sa.event.listen(self.engine, "before_cursor_execute", self.note)

    def __exit__(self, *_: object) -> None:
        sa.event.remove(self.engine, "before_cursor_execute", self.note)


@pytest.mark.parametrize(
    "name",
    [
        *("namespace", "namespaces", "object", "objects", "property", "properties"),
        *("resource_type", "resource_types", "tag", "tags"),
    ],
)
def test_schemas(member: Client, name: str) -> None:
    found = ok(member.request("GET", f"/image/v2/schemas/metadefs/{name}"))
    plain = {"resource_type": "resource_type_association", "resource_types": "resource_type_associations"}
    assert found["name"] == plain.get(name, name)
    assert found["properties"]
