"""The figures of a control plane, and whether it can serve."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pileus.core import metrics
from pileus.core.errors import Fault
from pileus.core.metrics import Family, Gauge
from pileus.core.probe import Probe
from pileus.services.compute.resources.server.table import server, vm_state_sql
from pileus.services.fleet.resources.host import Fleet, host

if TYPE_CHECKING:
    from pileus.app.control_plane import Control
    from pileus.core.drain import Drain
    from pileus.core.http import Edge
    from pileus.core.reconcile import Loops
    from pileus.core.store import Store, Tx

PATIENCE = 5.0
"""Seconds in which the store has to answer."""

RULE = "fleet:hosts"
"""The policy rule that decides who may see figures: that of who may see the hosts."""


class Figures:
    """All figures of one control plane, and its readiness."""

    def __init__(
        self, control: Control, loops: Loops, edges: Iterable[Edge], draining: Callable[[], bool] = lambda: False
    ) -> None:
        self._store: Store = control.store
        self._fleet: Fleet = control.fleet
        self._control = control
        self._loops = loops
        self._edges = tuple(edges)
        self._draining = draining
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="figures")
        self._kept = [*metrics.process(), *self._store.families(), *loops.families()]

    async def text(self) -> bytes:
        """All figures, in Prometheus' text format."""
        # In a thread of its own: counting ten thousand servers shall keep no request waiting.
        count = functools.partial(self._store.read_here, self._count)
        counted = await asyncio.get_running_loop().run_in_executor(self._thread, count)
        requests = metrics.Joint([edge.answered for edge in self._edges])
        return metrics.render([requests, *self._kept, *counted])

    async def unready(self) -> str:
        """Why requests cannot be served now; empty when they can."""
        if self._fleet.closed or self._draining():
            return "this control plane is about to end"
        if not self._loops.alive or not self._store.alive:
            return "a loop or the writer has ended"
        try:
            up = await asyncio.wait_for(self._store.read(self._up), PATIENCE)
        except (Fault, sa.exc.SQLAlchemyError, TimeoutError):
            return "the store does not answer"
        return "" if up else "no host is heard"

    async def admits(self, headers: dict[bytes, bytes]) -> bool:
        """Whether a request's token lets its caller see the hosts, and so the figures."""
        token = headers.get(b"x-auth-token")
        if token is None:
            return False
        text = token.decode("latin-1")
        try:
            auth = await self._store.read(lambda tx: self._control.tokens.authenticate(tx, text, headers))
        except Fault:
            return False
        if auth.access is not None and not auth.access("fleet", "GET", "/metrics"):
            return False
        return self._control.policy.passes(RULE, {}, auth.credentials)

    def _up(self, tx: Tx) -> bool:
        """Whether any host is heard: by this process, or by another that serves the same store."""
        rows = tx.all(sa.select(host.c.id, host.c.name, host.c.forced_down, host.c.seen_at))
        heard = self._fleet.silences()
        return any(self._fleet.up(row) for row in rows if row.id in heard or not self._store.embedded)

    def _count(self, tx: Tx) -> list[Family]:
        alive = server.c.deleted_at.is_(None)
        states = tx.all(
            sa.select(vm_state_sql.label("state"), sa.func.count().label("number")).where(alive).group_by("state")
        )
        rows = tx.all(sa.select(host.c.id, host.c.name, host.c.forced_down, host.c.disabled, host.c.seen_at))
        hosts = Counter(
            ("up" if self._fleet.up(row) else "down", "yes" if row.disabled else "no", row.id in self._fleet.pulses)
            for row in rows
        )
        silences = self._fleet.silences().values()
        heard = sum(age < self._fleet.silence for age in silences)
        unknown = sum(len(pulse.unknown) for pulse in tuple(self._fleet.pulses.values()))
        return [
            _gauge("pileus_servers", "Servers by state.", {(row.state,): row.number for row in states}, "state"),
            _gauge(
                "pileus_hosts",
                "Hosts, by whether they are up, and whether they are disabled.",
                _sum({(state, disabled): 0 for state in ("up", "down") for disabled in ("yes", "no")}, hosts),
                "state",
                "disabled",
            ),
            _gauge(
                "pileus_link_hosts",
                "Hosts whose agents talk to this process, by whether they were heard of late.",
                {("heard",): heard, ("silent",): len(silences) - heard},
                "state",
            ),
            _gauge("pileus_link_refusals", "Hosts that refuse this store.", {(): len(self._fleet.refusals)}),
            _gauge(
                "pileus_link_silence_seconds",
                "Time since the last heartbeat, of the host that was silent longest.",
                {(): max(silences, default=0)},
            ),
            _gauge("pileus_unknown_objects", "Objects on hosts that this cloud does not know.", {(): unknown}),
            _gauge("pileus_store_bytes", "Size of the store on the disk.", {(): self._store.size()}),
        ]


def probes(control: Control, loops: Loops, edges: Iterable[Edge], served: Drain) -> tuple[Probe, Probe]:
    """What answers before the API that is served, and what answers where everybody may see the figures of `edges`."""

    async def anybody(headers: dict[bytes, bytes]) -> bool:
        return True

    found = Figures(control, loops, edges, lambda: served.draining)
    return (
        Probe(served, found.unready, found.text, found.admits),
        Probe(None, found.unready, found.text, anybody),
    )


def _sum(found: dict[tuple[str, ...], float], hosts: Counter[Any]) -> dict[tuple[str, ...], float]:
    for (state, disabled, _), count in hosts.items():
        found[state, disabled] += count
    return found


def _gauge(name: str, meaning: str, values: dict[tuple[str, ...], float], *labels: str) -> Gauge:
    return Gauge(name, meaning, lambda: sorted(values.items()), labels)
