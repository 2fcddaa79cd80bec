"""Role assignments in their effect, against a model that says plainly what they mean."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from pileus.core.store import Tx
from pileus.services.identity.resources import group as groups
from pileus.services.identity.resources import role as roles
from pileus.services.identity.resources import user as users
from pileus.services.identity.resources.assignment import table as assignments
from tests.effort import examples
from tests.services.identity.cloud import Cloud, make_cloud, ok

PARENTS = {"d": None, "e": None, "a": "d", "b": "a", "c": "a", "x": "e", "y": "x"}
"""Two domains and what is in them."""

USERS, GROUPS, ROLES = ("u1", "u2", "u3"), ("g1", "g2"), ("r1", "r2", "r3", "local")
SYSTEM = "system"


class World(NamedTuple):
    """Who is in which group, which role implies which, and what was given: (actor, target, role, inherited)."""

    members: frozenset[tuple[str, str]]
    implied: frozenset[tuple[str, str]]
    given: frozenset[tuple[str, str, str, bool]]


def _given() -> st.SearchStrategy[tuple[str, str, str, bool]]:
    one = st.tuples(
        st.sampled_from(USERS + GROUPS), st.sampled_from((*PARENTS, SYSTEM)), st.sampled_from(ROLES), st.booleans()
    )
    return one.filter(lambda given: not (given[1] == SYSTEM and given[3]))


WORLDS = st.builds(
    World,
    st.frozensets(st.tuples(st.sampled_from(USERS), st.sampled_from(GROUPS)), max_size=4),
    st.frozensets(st.tuples(st.sampled_from(ROLES), st.sampled_from(ROLES)), max_size=4),
    st.frozensets(_given(), max_size=8),
)


def below(target: str) -> set[str]:
    """All projects below a project or a domain."""
    children = {key for key, parent in PARENTS.items() if parent == target}
    return children | {inner for child in children for inner in below(child)}


def meaning(world: World) -> set[tuple[str, str, str]]:
    """Who holds which global role where."""
    found = set()
    for actor, target, role, inherited in world.given:
        held, before = {role}, set[str]()
        while held != before:
            before = set(held)
            held |= {implied for prior, implied in world.implied if prior in held}
        actors = {actor} if actor in USERS else {user for user, group in world.members if group == actor}
        found |= set(product(actors, below(target) if inherited else {target}, held - {"local"}))
    return found


@pytest.fixture
def cloud(database_url: str, tmp_path: Path) -> Iterator[Cloud]:
    with make_cloud(database_url, tmp_path) as made:
        yield made


def build(cloud: Cloud) -> dict[str, str]:
    """Make all that worlds are about; ids by name."""
    keys = {SYSTEM: SYSTEM}
    for name, parent in PARENTS.items():
        top = {"a": "d", "b": "d", "c": "d", "x": "e", "y": "e"}.get(name)
        if parent is None:
            keys[name] = cloud.domain(name)
        else:
            keys[name] = cloud.project(name, domain_id=keys[top or ""], parent_id=keys[parent])
    keys |= {name: cloud.user(name, keys["d"]) for name in USERS}
    for name in GROUPS:
        body = {"group": {"name": name, "domain_id": keys["d"]}}
        keys[name] = ok(cloud.admin.request("POST", "/v3/groups", body), 201)["group"]["id"]
    for name in ROLES:
        wanted = {"name": name, "domain_id": keys["d"] if name == "local" else None}
        keys[name] = ok(cloud.admin.request("POST", "/v3/roles", {"role": wanted}), 201)["role"]["id"]
    return keys


def realize(tx: Tx, keys: dict[str, str], world: World) -> None:
    """Write a world in place of the one before."""
    mine = [keys[name] for name in ROLES]
    tx.execute(sa.delete(groups.membership))
    tx.execute(sa.delete(roles.implication).where(roles.implication.c.prior_id.in_(mine)))
    tx.execute(sa.delete(assignments.table).where(assignments.table.c.role_id.in_(mine)))
    for user, group in world.members:
        tx.execute(sa.insert(groups.membership).values(user_id=keys[user], group_id=keys[group]))
    for prior, implied in world.implied:
        tx.execute(sa.insert(roles.implication).values(prior_id=keys[prior], implied_id=keys[implied]))
    for actor, target, role, inherited in world.given:
        actor_kind = "user_id" if actor in USERS else "group_id"
        place = None if target == SYSTEM else keys[target]
        assignments.insert(tx, keys[role], project_id=place, inherited=inherited, **{actor_kind: keys[actor]})


def listed(cloud: Cloud, names: dict[str, str], query: str) -> set[tuple[str, str, str]]:
    """What the API says of the users of the worlds: (user, target, role) by name."""
    found = set()
    for one in ok(cloud.admin.request("GET", f"/v3/role_assignments?effective&{query}"))["role_assignments"]:
        scope: dict[str, Any] = one["scope"]
        place = SYSTEM if "system" in scope else (scope.get("project") or scope.get("domain") or {})["id"]
        found.add((names.get(one["user"]["id"], ""), names.get(place, ""), names.get(one["role"]["id"], "")))
    return {entry for entry in found if entry[0] in USERS}


def test_assignments_mean_what_the_model_says(cloud: Cloud) -> None:
    keys = build(cloud)
    names = {key: name for name, key in keys.items()}
    store = cloud.served.store

    @given(WORLDS)
    @settings(max_examples=examples(60), deadline=None)
    def check(world: World) -> None:
        store.write_here(lambda tx: realize(tx, keys, world))
        wanted = meaning(world)
        assert listed(cloud, names, "") == wanted
        assert listed(cloud, names, "scope.system=all") == {one for one in wanted if one[1] == SYSTEM}
        for user in USERS:
            assert listed(cloud, names, f"user.id={keys[user]}") == {one for one in wanted if one[0] == user}
        for role in ("r1", "r2"):
            assert listed(cloud, names, f"role.id={keys[role]}") == {one for one in wanted if one[2] == role}
        assert listed(cloud, names, f"scope.domain.id={keys['d']}") == {one for one in wanted if one[1] == "d"}
        for place in ("a", "b", "y"):
            at = f"scope.project.id={keys[place]}"
            assert listed(cloud, names, at) == {one for one in wanted if one[1] == place}
            tree = {place, *below(place)}
            assert listed(cloud, names, f"{at}&include_subtree") == {one for one in wanted if one[1] in tree}
            mine = {one for one in wanted if one[1] == place and one[0] == "u1"}
            assert listed(cloud, names, f"{at}&user.id={keys['u1']}") == mine
        for user, place in product(USERS, ("a", "b", "y")):
            ask = partial(assignments.roles_of, user_id=keys[user], kind="project", scope_id=keys[place])
            held = store.read_here(ask)
            assert {names[row.id] for row in held} == {one[2] for one in wanted if one[:2] == (user, place)}
        for user in USERS:
            reached = store.read_here(partial(Tx.all, statement=assignments.targets(keys[user])))
            assert {names[row.project_id] for row in reached} >= {one[1] for one in wanted if one[0] == user} - {SYSTEM}

    check()


def test_a_domains_reader_sees_what_is_in_it_alone(cloud: Cloud) -> None:
    keys = build(cloud)
    given_all = frozenset(("u1", place, "r1", False) for place in (*PARENTS, SYSTEM))
    world = World(frozenset(), frozenset(), given_all | {("u2", "d", "r1", True), ("u2", "e", "r1", True)})
    cloud.served.store.write_here(lambda tx: realize(tx, keys, world))
    reader = cloud.persona("reader", "domain", keys["d"])
    for query in ("", "?effective", f"?user.id={keys['u1']}", f"?effective&user.id={keys['u2']}"):
        found = ok(reader.request("GET", f"/v3/role_assignments{query}"))["role_assignments"]
        places = {(one["scope"].get("project") or one["scope"].get("domain") or {"id": SYSTEM})["id"] for one in found}
        assert places
        assert places <= {keys[name] for name in ("d", "a", "b", "c")}
    ok(reader.request("GET", f"/v3/role_assignments?include_subtree&scope.project.id={keys['a']}"))
    ok(reader.request("GET", f"/v3/role_assignments?include_subtree&scope.project.id={keys['x']}"), 403)
    member = cloud.persona("member", "project", keys["a"])
    ok(member.request("GET", "/v3/role_assignments"), 403)


def test_more_members_than_one_statement_can_name(cloud: Cloud) -> None:
    """Lists whose keys are more than an engine takes in one statement are put together of several."""
    count = 33_000
    role = cloud.role("reader")
    template = cloud.served.store.read_here(lambda tx: users.get(tx, cloud.started.admin_id))

    def write(tx: Tx) -> None:
        fresh = dict(template._mapping) | {"password_hash": None}
        made = [{**fresh, "id": f"{n:032x}", "name": f"n{n}", "name_key": f"n{n}"} for n in range(count)]
        tx.execute(sa.insert(users.table), made)
        rows = [{"id": f"{n:032x}", "user_id": f"{n:032x}", "role_id": role, "inherited": False} for n in range(count)]
        tx.execute(sa.insert(assignments.table), rows)

    cloud.served.store.write_here(write)
    found = ok(cloud.admin.request("GET", f"/v3/role_assignments?scope.system=all&include_names&role.id={role}"))
    assert len(found["role_assignments"]) == count
