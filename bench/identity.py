"""What Identity costs: tokens, their validation, the catalog, and how that grows with users, projects and assignments.

    .venv/bin/python -m bench.identity [--rounds N] [--grow N]

Every loop is bounded; it talks to loopback alone.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from bench.cloud import HEADING, Cloud, measure, row, run, together
from pileus.core.store import Store, Tx
from pileus.services.identity.interface import hash_password
from pileus.services.identity.resources.assignment.table import table as assignments
from pileus.services.identity.resources.project.table import table as projects
from pileus.services.identity.resources.user.table import table as users
from pileus.services.identity.rules import name as names
from pileus.services.identity.rules.password import matches

SIZES = (100, 1_000, 10_000, 100_000)


def hash_cost(rounds: int) -> float:
    """Median of checking one password, in milliseconds: what no login can be cheaper than."""
    digest = hash_password("a secret")
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        matches(digest, "a secret")
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


class Session:
    """The operations that are measured, on one cloud."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.own = {"x-subject-token": cloud.token}

    def validate(self, _: int) -> None:
        """GET the session's own token."""
        self.cloud.call("GET", "/identity/v3/auth/tokens", None, **self.own)

    def catalog(self, _: int) -> None:
        """GET the catalog."""
        self.cloud.call("GET", "/identity/v3/auth/catalog")

    def log_in(self, _: int) -> None:
        """A token by password."""
        self.cloud.log_in()

    def acts(self) -> dict[str, tuple[Callable[[int], Any], float, float, int]]:
        """By name: the act, upstream's median, the most allowed (0: one hash and 2 ms), its share of the rounds."""
        return {
            "token by password": (self.log_in, 317, 0, 8),
            "validate a token": (self.validate, 8.6, 1, 1),
            "catalog": (self.catalog, 7.6, 1, 1),
        }


def figures(rounds: int) -> None:
    """The table, one at a time and sixteen at once."""
    cloud = Cloud(1)
    try:
        session = Session(cloud)
        one_hash = hash_cost(15)
        print(f"one password hash: {one_hash:.1f} ms")
        print(HEADING)
        for name, (act, upstream, most, share) in session.acts().items():
            most = most or one_hash + 2
            print(row(measure(cloud, name, act, max(10, rounds // share), upstream, most)), flush=True)
        for name, (act, _, _, share) in session.acts().items():
            p50, rate, cpu = together(cloud, act, max(32, rounds // share))
            print(f"{name}, 16 at once: p50 {p50:.2f} ms, {rate:.0f}/s, {cpu:.2f} ms CPU each", flush=True)
    finally:
        cloud.close()


def grow(most: int) -> None:
    """How operations that touch one user grow with how many there are."""
    cloud = Cloud(1)
    try:
        call = cloud.call
        role = call("GET", "/identity/v3/roles?name=member")["roles"][0]["id"]
        print(f"{'users, projects, assignments':>30} " + " ".join(f"{name:>18}" for name in GROWING))
        there = 0
        for size in (size for size in SIZES if size <= most):
            fill(cloud, there, size, role)
            there = size
            cloud.token = cloud.log_in()
            medians = [measure(cloud, name, act(cloud, size), 60, None, None).p50 for name, act in GROWING.items()]
            print(f"{size:>30,} " + " ".join(f"{median:>15.2f} ms" for median in medians), flush=True)
    finally:
        cloud.close()


GROWING: dict[str, Callable[[Cloud, int], Callable[[int], Any]]] = {
    "validate": lambda cloud, _: Session(cloud).validate,
    "show user": lambda cloud, size: lambda n: cloud.call("GET", f"/identity/v3/users/{key('u', abs(n) % size)}"),
    "user by name": lambda cloud, size: lambda n: cloud.call("GET", f"/identity/v3/users?name=user-{abs(n) % size}"),
    "user's grants": lambda cloud, size: (
        lambda n: cloud.call("GET", f"/identity/v3/role_assignments?user.id={key('u', abs(n) % size)}&effective")
    ),
    "create user": lambda cloud, size: (
        lambda n: cloud.call(
            "POST", "/identity/v3/users", {"user": {"name": f"new-{size}-{n}", "domain_id": "default"}}
        )
    ),
    "create project": lambda cloud, size: (
        lambda n: cloud.call("POST", "/identity/v3/projects", {"project": {"name": f"new-{size}-{n}"}})
    ),
}
"""Operations whose cost should not grow."""


def key(kind: str, number: int) -> str:
    """The id of a thing that `fill` made."""
    return f"{kind}{number:031d}"


def fill(cloud: Cloud, begin: int, end: int, role: str) -> None:
    """Write users, projects and an assignment for each into the store of a cloud, which is down meanwhile."""
    span = range(begin, end)
    common = {"enabled": True, "options": {}, "extra": {}, "generation": 0, "created_at": datetime.now(UTC)}
    local = {"domain_id": "default", "parent_id": "default", "is_domain": False, "description": ""}

    def named(kind: str, number: int) -> dict[str, Any]:
        name = f"{kind}-{number}"
        return {**common, "id": key(kind[0], number), "name": name, "name_key": names.key(name)}

    def write(tx: Tx) -> None:
        tx.execute(sa.insert(users), [{**named("user", number), "domain_id": "default"} for number in span])
        tx.execute(sa.insert(projects), [{**named("project", number), **local} for number in span])
        tx.execute(sa.insert(assignments), [grant(number, role) for number in span])

    cloud.pileus("down")
    store = Store(f"sqlite:///{cloud.state / 'control' / 'pileus.db'}")
    store.write_here(write)
    store.close()
    cloud.pileus("up", "--detach", "--no-demo", "--fake", "1", "--listen", f"127.0.0.1:{cloud.port}")
    cloud.hang_up()


def grant(number: int, role: str) -> dict[str, Any]:
    """The assignment of one user to one project."""
    found = {"id": key("a", number), "user_id": key("u", number), "project_id": key("p", number)}
    return {**found, "group_id": None, "role_id": role, "inherited": False}


if __name__ == "__main__":
    sys.exit(run(__doc__ or "", figures, grow, 100_000, "users"))
