"""Which tokens there are: what `Tokens` issues and finds good, against a model that looks at everything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from pileus.core.errors import Unauthorized
from pileus.core.store import Tx
from pileus.services.identity.resources import group as groups
from pileus.services.identity.resources import user as users
from pileus.services.identity.resources.assignment import table as assignments
from pileus.services.identity.resources.project import table as projects
from pileus.services.identity.rules.role import IMPLICATIONS, PERSONAS
from pileus.services.identity.rules.token import Kind
from tests.conftest import whole_schema
from tests.services.identity.cloud import Cloud, make_cloud

ABOVE = {"domain": (), "project": ("domain",), "child": ("project", "domain")}
"""What a place inherits from; the system from nothing."""

KINDS: dict[str, Kind] = {"domain": "domain", "project": "project", "child": "project", "system": "system"}


class Grant(NamedTuple):
    """A role that is held at a place, and, with `inherited`, only below it."""

    role: str
    place: str
    inherited: bool
    by_group: bool


@dataclass
class World:
    """A cloud and the ids of its places, its user and that user's group and domain."""

    cloud: Cloud
    places: dict[str, str]
    user_id: str
    group_id: str
    user_domain_id: str
    roles: dict[str, str]


class RolledBack(Exception):
    """Nothing of an example stays."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    place = tmp_path_factory.mktemp("cloud")
    url = f"sqlite:///{place / 'store.sqlite'}"
    whole_schema(url)
    with make_cloud(url, place) as cloud:
        domain, home = cloud.domain("d"), cloud.domain("home")
        project = cloud.project("p", domain_id=domain)
        child = cloud.project("c", domain_id=domain, parent_id=project)
        user_id = cloud.user("u", home)
        body = {"group": {"name": "g", "domain_id": home}}
        group_id = cloud.admin.request("POST", "/v3/groups", body).json["group"]["id"]
        assert cloud.admin.request("PUT", f"/v3/groups/{group_id}/users/{user_id}").status == 204
        places = {"domain": domain, "project": project, "child": child}
        yield World(cloud, places, user_id, group_id, home, {name: cloud.role(name) for name in PERSONAS})


@st.composite
def grants(draw: st.DrawFn) -> list[Grant]:
    one = st.builds(
        Grant, st.sampled_from(PERSONAS), st.sampled_from(sorted(KINDS)), st.booleans(), st.booleans()
    ).filter(lambda grant: not (grant.inherited and grant.place in ("child", "system")))
    return draw(st.lists(one, max_size=5, unique=True))


def expected(held: list[Grant], place: str, off: set[str]) -> set[str] | None:
    """The names of the roles of a token for a place, None where there is none."""
    if off & {"user", "home", place} or (place in ("project", "child") and "domain" in off):
        return None
    names = {grant.role for grant in held if grant.place == place and not grant.inherited}
    names |= {grant.role for grant in held if grant.inherited and grant.place in ABOVE.get(place, ())}
    while more := {implied for prior, implied in IMPLICATIONS if prior in names} - names:
        names |= more
    return names or None


def arrange(tx: Tx, world: World, held: list[Grant], off: set[str]) -> None:
    """Write the grants, and disable what is off."""
    for grant in held:
        actor = {"group_id": world.group_id} if grant.by_group else {"user_id": world.user_id}
        project_id = world.places.get(grant.place)
        assignments.insert(tx, world.roles[grant.role], project_id=project_id, inherited=grant.inherited, **actor)
    disabled = {world.places.get(one, world.user_domain_id) for one in off - {"user"}}
    tx.execute(sa.update(projects.table).where(projects.table.c.id.in_(disabled)).values(enabled=False))
    if "user" in off:
        tx.execute(sa.update(users.table).where(users.table.c.id == world.user_id).values(enabled=False))


def ask(tx: Tx, world: World, place: str) -> set[str] | None:
    """The names of the roles of a token for a place that was just issued, None where there was none."""
    tokens, kind = world.cloud.tokens, KINDS[place]
    try:
        text = tokens.issue(tx, world.user_id, ("password",), kind, world.places.get(place), generation=0)
    except Unauthorized:
        return None
    return {name for _, name in tokens.validate(tx, text).roles}


@given(held=grants(), off=st.sets(st.sampled_from(["user", "home", "domain", "project", "child"]), max_size=2))
@settings(max_examples=150, deadline=None)
def test_there_is_a_token_where_roles_are_held_and_all_is_enabled(
    world: World, held: list[Grant], off: set[str]
) -> None:
    def example(tx: Tx) -> None:
        arrange(tx, world, held, off)
        found = {place: ask(tx, world, place) for place in KINDS}
        assert found == {place: expected(held, place, off) for place in KINDS}
        raise RolledBack

    with pytest.raises(RolledBack):
        world.cloud.served.store.write_here(example)


@given(held=grants(), off=st.sets(st.sampled_from(["user", "home", "domain", "project", "child"]), max_size=2))
@settings(max_examples=75, deadline=None)
def test_a_token_is_worth_what_a_new_one_would_be(world: World, held: list[Grant], off: set[str]) -> None:
    """Whatever happens after a token was issued, it is good exactly when another could be had, with the same roles."""
    tokens = world.cloud.tokens
    first = [Grant("reader", place, False, False) for place in KINDS]

    def value(tx: Tx, text: str) -> set[str] | None:
        try:
            return {name for _, name in tokens.validate(tx, text).roles}
        except Unauthorized:
            return None

    def example(tx: Tx) -> None:
        arrange(tx, world, first, set())
        scopes: dict[str, Any] = {place: (kind, world.places.get(place)) for place, kind in KINDS.items()}
        texts = {
            place: tokens.issue(tx, world.user_id, ("password",), *scope, generation=0)
            for place, scope in scopes.items()
        }
        tx.execute(sa.delete(assignments.table).where(assignments.table.c.user_id == world.user_id))
        arrange(tx, world, held, off)
        assert {place: value(tx, text) for place, text in texts.items()} == {
            place: expected(held, place, off) for place in KINDS
        }
        raise RolledBack

    with pytest.raises(RolledBack):
        world.cloud.served.store.write_here(example)


def test_a_member_of_no_group_gets_nothing_of_it(world: World) -> None:
    def example(tx: Tx) -> None:
        arrange(tx, world, [Grant("member", "project", False, True)], set())
        assert ask(tx, world, "project") == {"member", "reader"}
        tx.execute(sa.delete(groups.membership))
        assert ask(tx, world, "project") is None
        raise RolledBack

    with pytest.raises(RolledBack):
        world.cloud.served.store.write_here(example)
