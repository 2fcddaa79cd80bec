"""What neighbours and the composition root ask of Identity."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from pileus.core.store import Store, Tx, change
from pileus.services.identity import interface
from pileus.services.identity.interface import Offer, Started, bootstrap
from pileus.services.identity.resources import endpoint, role, service, user
from pileus.services.identity.resources.assignment import table as assignments
from pileus.services.identity.rules import password
from tests.services.identity.cloud import OFFERS, PASSWORD, hashed, make_cloud, ok


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = Store(database_url)
    store.create()
    yield store
    store.close()


def _bootstrap(store: Store, secret: str | None = PASSWORD, offers: tuple[Offer, ...] = OFFERS) -> Started:
    first = None if secret is None else hashed(secret)
    return store.write_here(lambda tx: bootstrap(tx, admin_password_hash=first, region="RegionOne", offers=offers))


def _everything(tx: Tx) -> list[object]:
    tables = (user.table, role.table, role.implication, assignments.table, service.table, endpoint.table)
    return [tx.all(sa.select(table).order_by(*table.primary_key)) for table in tables]


def test_bootstrap_makes_what_every_cloud_begins_with_and_only_once(store: Store) -> None:
    started = _bootstrap(store)
    before = store.read_here(_everything)
    seq = store.read_here(lambda tx: tx.scalar(sa.select(sa.func.max(change.c.seq))))
    assert _bootstrap(store) == started
    assert store.read_here(_everything) == before
    assert store.read_here(lambda tx: tx.scalar(sa.select(sa.func.max(change.c.seq)))) == seq
    names = store.read_here(lambda tx: {row.name for row in role.all_by_id(tx).values()})
    assert names == {"admin", "manager", "member", "reader", "service"}
    held = store.read_here(lambda tx: [row.name for row in assignments.roles_of(tx, started.admin_id, "system", None)])
    assert held == ["admin", "manager", "member", "reader"]


def test_bootstrap_never_replaces_a_password(store: Store) -> None:
    _bootstrap(store, None)
    started = _bootstrap(store)
    _bootstrap(store, "another password")
    _bootstrap(store, None)
    row = store.read_here(lambda tx: user.get(tx, started.admin_id))
    assert password.matches(row.password_hash, PASSWORD)


def test_bootstrap_moves_endpoints_and_adds_services(store: Store) -> None:
    _bootstrap(store)
    moved = (Offer("nova", "compute", "https://elsewhere/compute/v2.1"), Offer("glance", "image", "https://elsewhere"))
    _bootstrap(store, offers=moved)
    urls = store.read_here(lambda tx: tx.all(sa.select(endpoint.table.c.url).distinct()))
    assert {row.url for row in urls} == {
        "https://elsewhere/compute/v2.1",
        "https://elsewhere",
        OFFERS[0].url,
        OFFERS[2].url,
    }
    assert store.read_here(lambda tx: tx.scalar(sa.select(sa.func.count()).select_from(endpoint.table))) == 12


def test_names_and_existence(database_url: str, tmp_path: Path) -> None:
    with make_cloud(database_url, tmp_path) as cloud:
        project_id, user_id = cloud.project("p"), cloud.user("u")
        read = cloud.served.store.read_here
        assert read(lambda tx: interface.project_exists(tx, project_id))
        assert not read(lambda tx: interface.project_exists(tx, "default"))
        assert not read(lambda tx: interface.project_exists(tx, "nowhere"))
        assert read(lambda tx: interface.project_names(tx, [project_id, "nowhere"])) == {project_id: "p"}
        assert read(lambda tx: interface.project_names(tx, [])) == {}
        assert read(lambda tx: interface.user_names(tx, [user_id, user_id, "nobody"])) == {user_id: "u"}
        assert read(lambda tx: interface.find_user(tx, "U")) == user_id
        assert read(lambda tx: interface.find_user(tx, "nobody")) is None


def test_a_password_is_given_only_to_who_has_none(database_url: str, tmp_path: Path) -> None:
    with make_cloud(database_url, tmp_path) as cloud:
        user_id = cloud.user("u")
        write = cloud.served.store.write_here
        assert write(lambda tx: interface.ensure_password_hash(tx, user_id, hashed(PASSWORD)))
        assert not write(lambda tx: interface.ensure_password_hash(tx, user_id, hashed("other")))
        who = {"id": user_id, "password": PASSWORD}
        ok(cloud.login({"identity": {"methods": ["password"], "password": {"user": who}}}), 201)
