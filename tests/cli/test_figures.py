"""Whether a control plane can serve, and who may see its figures, asked of one that is whole but for its hosts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from pileus.app.figures import Figures
from pileus.contracts.link import Heartbeat
from pileus.core.errors import Unavailable
from pileus.core.reconcile import Loops
from pileus.core.store import Tx
from pileus.services.fleet.resources.host import host
from tests.api.whole import Whole, login, whole_cloud


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with whole_cloud(tmp_path_factory.mktemp("cloud")) as found:

        def join(tx: Tx) -> None:
            values = {"id": "h", "name": "h", "facts": {}, "network_filter": "", "version": ""}
            tx.execute(sa.insert(host).values(**values, created_at=tx.now, seen_at=tx.now))

        found.control.store.write_here(join)
        yield found


def reasons(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Why it cannot serve, at each step of a life."""
    draining: list[bool] = []

    async def life() -> list[str]:
        loops = Loops(whole.control.store, [])
        figures = Figures(whole.control, loops, [], lambda: bool(draining))
        found = [await figures.unready()]
        loops._tasks = [asyncio.create_task(asyncio.sleep(60))]
        found.append(await figures.unready())
        whole.control.fleet.beat("h", Heartbeat(free_disk_gib=1))
        found.append(await figures.unready())

        async def away(work: Any) -> Any:
            raise Unavailable("away")

        with monkeypatch.context() as patched:
            patched.setattr(whole.control.store, "read", away)
            found.append(await figures.unready())
        draining.append(True)
        found.append(await figures.unready())
        await loops.stop()
        return found

    return asyncio.run(life())


def test_readiness_has_four_conditions(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reasons(whole, monkeypatch) == [
        "a loop or the writer has ended",
        "no host is heard",
        "",
        "the store does not answer",
        "this control plane is about to end",
    ]


def test_figures_are_for_administrators(whole: Whole) -> None:
    figures = Figures(whole.control, Loops(whole.control.store, []), [whole.served.edge])
    token = login(whole.served.client())
    member = whole.admin.request("POST", "/identity/v3/users", {"user": {"name": "m", "password": "p"}}).json["user"]
    identity = {"methods": ["password"], "password": {"user": {"id": member["id"], "password": "p"}}}
    unscoped = whole.served.client().request("POST", "/identity/v3/auth/tokens", {"auth": {"identity": identity}})

    async def ask() -> list[bool]:
        tokens = [token, unscoped.headers["x-subject-token"], "nonsense"]
        return [await figures.admits({b"x-auth-token": one.encode()}) for one in tokens] + [await figures.admits({})]

    assert asyncio.run(ask()) == [True, False, False, False]


def test_figures_tell_of_the_cloud(whole: Whole) -> None:
    text = asyncio.run(Figures(whole.control, Loops(whole.control.store, []), [whole.served.edge]).text()).decode()
    assert 'pileus_hosts{state="up",disabled="no"} 1\n' in text
    assert 'service="identity",method="POST",operation="identity.resources.token' in text
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
