"""What Placement costs, and how that grows with the number of providers.

    .venv/bin/python -m bench.placement [--rounds N] [--grow N]

Providers are hosts with three resource classes and three traits each.  Candidates are asked for with the newest
microversion and, where no limit is named, all given: the answer has an entry for each provider.  `after a change` is
the same question right after a provider was made, so with what it costs to take that in.  Every loop is bounded; it
talks to loopback alone.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from bench.cloud import HEADING, Cloud, measure, row, run, together
from pileus.core.store import Store, Tx
from pileus.services.placement.resources.provider.table import inventory, provider, provider_trait

SIZES = (10, 100, 1_000, 10_000)
VERSION = {"openstack-api-version": "placement 1.39"}
OFFER = {"VCPU": 64, "MEMORY_MB": 262_144, "DISK_GB": 2_000}
TRAITS = ("COMPUTE_NODE", "HW_CPU_X86_AVX2", "HW_CPU_X86_SSE42")
WISH = "resources=VCPU:2,MEMORY_MB:4096,DISK_GB:20"
LARGEST = 2**31 - 1


class Session:
    """The operations that are measured, on one cloud, and the providers that are there."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.there = 0

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One request at the newest microversion."""
        return self.cloud.call(method, f"/placement{path}", body, **VERSION)

    def provide(self, number: int) -> str:
        """POST a provider and PUT its inventories: two requests; its uuid."""
        key = str(uuid.uuid4())
        self.call("POST", "/resource_providers", {"name": f"made-{number}-{key}", "uuid": key})
        offer = {name: {"total": total} for name, total in OFFER.items()}
        body = {"resource_provider_generation": 0, "inventories": offer}
        self.call("PUT", f"/resource_providers/{key}/inventories", body)
        return key

    def provide_and_forget(self, number: int) -> None:
        """`provide`, and DELETE it again, so that the number of providers stays."""
        self.call("DELETE", f"/resource_providers/{self.provide(number)}")

    def candidates(self, more: str = "") -> Callable[[int], None]:
        """GET candidates."""

        def act(_: int) -> None:
            assert self.call("GET", f"/allocation_candidates?{WISH}{more}")["allocation_requests"]

        return act

    def after_change(self, number: int) -> None:
        """PUT a trait of one provider, and GET ten candidates."""
        path = f"/resource_providers/{key_of(0)}/traits"
        known = self.call("GET", path)
        known["traits"] = [*TRAITS, "CUSTOM_BENCH"] if number % 2 else list(TRAITS)
        self.call("PUT", path, known)
        self.candidates("&limit=10")(number)

    def claim(self, number: int) -> None:
        """PUT allocations of a new consumer."""
        holding = {key_of(number % self.there): {"resources": {"VCPU": 1, "MEMORY_MB": 64}}}
        body = {"allocations": holding, "project_id": "bench", "user_id": "bench", "consumer_generation": None}
        self.call("PUT", f"/allocations/{uuid.uuid4()}", {**body, "consumer_type": "INSTANCE"})

    def fill(self, size: int) -> None:
        """Write providers into the store of the cloud, which is down meanwhile, until there are so many."""
        self.cloud.pileus("down")
        store = Store(f"sqlite:///{self.cloud.state / 'control' / 'pileus.db'}")
        store.write_here(lambda tx: write(tx, range(self.there, size)))
        store.close()
        self.there = size
        self.cloud.pileus("up", "--detach", "--no-demo", "--fake", "1", "--listen", f"127.0.0.1:{self.cloud.port}")
        self.cloud.hang_up()
        self.call("PUT", "/traits/CUSTOM_BENCH")


def key_of(number: int) -> str:
    """The uuid of a provider that `write` made."""
    return f"00000000-0000-4000-8000-{number:012d}"


def write(tx: Tx, numbers: range) -> None:
    """Let there be these providers; the simulated host that the cloud began with goes, so that the number is round."""
    now = datetime.now(UTC)
    if not numbers.start:
        others = ~provider.c.uuid.startswith("00000000-0000-4000-8000-")
        tx.execute(sa.delete(provider).where(others))
    keys = [key_of(number) for number in numbers]
    stamps = {"generation": 0, "parent": None, "created_at": now, "updated_at": now}
    tx.execute(sa.insert(provider), [{"uuid": key, "name": key, "root": key, **stamps} for key in keys])
    plain = {"reserved": 0, "min_unit": 1, "max_unit": LARGEST, "step_size": 1, "allocation_ratio": 4.0, "used": 0}
    offers = [
        {"provider_uuid": key, "resource_class": name, "custom_class": None, "total": total, "updated_at": now, **plain}
        for key in keys
        for name, total in OFFER.items()
    ]
    tx.execute(sa.insert(inventory), offers)
    traits = [{"provider_uuid": key, "trait": name, "custom_trait": None} for key in keys for name in TRAITS]
    tx.execute(sa.insert(provider_trait), traits)


def figures(rounds: int) -> None:
    """The table of what has a limit, one at a time and sixteen at once."""
    cloud = Cloud(1)
    try:
        session = Session(cloud)
        print(HEADING)
        rows: list[tuple[int, str, Callable[[int], Any], float | None, float]] = [
            (1, "candidates, 1 provider", session.candidates(), 36, 2),
            (100, "candidates, 100 providers", session.candidates(), 59, 4),
            (1_000, "candidates, 1,000 providers", session.candidates(), 271, 15),
            (1_000, "provider + inventories, 1,000 providers", session.provide, 42, 6),
            (10_000, "candidates, 10,000 providers, limit 10", session.candidates("&limit=10"), None, 40),
        ]
        for size, name, act, upstream, most in rows:
            if size != session.there:
                session.fill(size)
            figure = measure(cloud, name, act, rounds, upstream, most)
            print(row(figure), flush=True)
            p50, rate, spent = together(cloud, act, rounds)
            print(f"{'  16 at once':42} {p50:8.2f} {'':8} {spent:8.2f} {rate:9.0f}/s", flush=True)
    finally:
        cloud.close()


def grow(most: int, rounds: int = 50) -> None:
    """How operations grow with the number of providers."""
    cloud = Cloud(1)
    try:
        session = Session(cloud)
        acts: dict[str, Callable[[int], Any]] = {
            "all": session.candidates(),
            "limit 10": session.candidates("&limit=10"),
            "after a change": session.after_change,
            "make + delete": session.provide_and_forget,
            "claim": session.claim,
            "show": lambda _: session.call("GET", f"/resource_providers/{key_of(0)}"),
        }
        print(f"{'providers':>10} " + " ".join(f"{name:>14}" for name in acts) + f" {'MiB':>7}")
        for size in (size for size in SIZES if size <= most):
            session.fill(size)
            medians = [measure(cloud, name, act, rounds, None, None).p50 for name, act in acts.items()]
            cells = " ".join(f"{median:>11.2f} ms" for median in medians)
            print(f"{size:>10,} {cells} {cloud.pss():>7.0f}", flush=True)
    finally:
        cloud.close()


if __name__ == "__main__":
    sys.exit(run(__doc__ or "", figures, grow, 10_000, "providers"))
