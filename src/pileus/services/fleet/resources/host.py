"""Hosts: machines on which an agent runs.

Upstream shows them as Compute's services and hypervisors
(https://docs.openstack.org/api-ref/compute/#compute-services-os-services); what only operators of Pileus need is here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa

from pileus.contracts.hypervisor import HypervisorFacts
from pileus.contracts.link import Heartbeat, Unknown
from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.core.fields import View
from pileus.core.policy import Rule
from pileus.core.seams import Clock
from pileus.core.store import Change, Instant, Store, metadata
from pileus.services.fleet.resources.stream import Streams

host = sa.Table(
    "fleet_host",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False, unique=True),
    sa.Column("facts", sa.JSON, nullable=False),
    sa.Column("network_filter", sa.String(32), nullable=False),
    sa.Column("version", sa.String(32), nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("disabled_reason", sa.String(255)),
    sa.Column("forced_down", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant),
    sa.Column("seen_at", Instant, nullable=False),
)
"""`seen_at` is when an agent was last heard, to about a minute: heartbeats themselves stay in memory."""

store = sa.Table(
    "fleet_store",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("store_id", sa.String(64), nullable=False),
    sa.Column("incarnation", sa.String(64), nullable=False, unique=True),
    sa.Column("start", sa.BigInteger, nullable=False),
    sa.Column("at", Instant, nullable=False),
)
"""The store's identity, and one row for each run of the control plane on it."""

SILENCE = 15.0
"""Seconds after which a host that is not heard counts as down, for the process that its agent talks to; in a large
fleet three of its heartbeats."""

TRUST = 300.0
"""Seconds for which nothing is read for who hears of each commit: what is told is a hint, and may be lost."""

BEATS = 200
"""Heartbeats that a process wants in a second: with more hosts, each sends them less often."""

FORGOTTEN = "forgotten"
"""What the change log says of a host that is removed, to whoever watches as that host."""

SEEN = timedelta(seconds=60)
"""How often `seen_at` is written, in a large fleet with every fourth heartbeat; for other processes a host is up for
twice as long after it."""


class Pulse(msgspec.Struct):
    """What the last heartbeat of a host said, and when."""

    at: float
    free_disk_gib: int
    unknown: list[Unknown]


class Refusal(View):
    """A host that will not obey this store, and why: what it holds is left as it is."""

    host: str
    reason: str


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """A host as upper services see it."""

    id: str
    name: str
    facts: HypervisorFacts
    network_filter: str
    up: bool
    disabled: bool
    disabled_reason: str | None
    forced_down: bool
    created_at: datetime
    seen_at: datetime


class Fleet:
    """What one process keeps in memory of the hosts: heartbeats, refusals, and who waits for changes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.pulses: dict[str, Pulse] = {}
        self.streams = Streams()
        self.closed = False
        """Whether this process is about to end, so that nobody shall wait for news any more."""
        self._refused: dict[str, tuple[float, str]] = {}
        self.noted: dict[str, datetime] = {}
        """`seen_at` of hosts, as this process has written or read it."""
        self._waiters: dict[str, asyncio.Event] = {}
        self._told: dict[str, tuple[str, float]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def beat(self, host_id: str, heartbeat: Heartbeat) -> None:
        """Take in a heartbeat."""
        self.pulses[host_id] = Pulse(self._clock.monotonic(), heartbeat.free_disk_gib, heartbeat.unknown)

    def refuse(self, name: str, reason: str) -> None:
        """Note that a host of this name must not obey this store."""
        self._refused[name] = (self._clock.monotonic(), reason)

    def welcome(self, name: str) -> None:
        """Note that a host of this name obeys this store."""
        self._refused.pop(name, None)

    @property
    def refusals(self) -> dict[str, str]:
        """Hosts that asked of late and must not obey this store: the reasons by name."""
        now = self._clock.monotonic()
        return {name: reason for name, (at, reason) in sorted(self._refused.items()) if now - at < self.silence}

    @property
    def pace(self) -> float:
        """The least seconds between two heartbeats of a host."""
        return len(self.pulses) / BEATS

    @property
    def silence(self) -> float:
        """Seconds after which a host that is not heard counts as down."""
        return max(SILENCE, 3 * self.pace)

    @property
    def seen(self) -> timedelta:
        """How often `seen_at` is written."""
        return max(SEEN, timedelta(seconds=4 * self.pace))

    def silences(self) -> dict[str, float]:
        """Seconds since the last heartbeat of each host whose agent talks to this process, by the host's id."""
        now = self._clock.monotonic()
        return {host_id: now - pulse.at for host_id, pulse in self.pulses.copy().items()}

    def up(self, row: sa.Row[Any] | Host) -> bool:
        """Whether a host, or that of a `host` row, can be given work."""
        if row.forced_down:
            return False
        pulse = self.pulses.get(row.id)
        if pulse is not None and self._clock.monotonic() - pulse.at < self.silence:
            return True
        return pulse is None and row.name not in self._refused and bool(self._clock.now() - row.seen_at < 2 * self.seen)

    def attach(self, store: Store) -> None:
        """Be told of this process's commits, from the event loop that serves the link."""
        self._loop = asyncio.get_running_loop()
        store.observers.append(self._observe)

    def expect(self, topic: str) -> None:
        """Begin to listen: what is committed from now on ends the next `changed` at once."""
        self._waiters.setdefault(topic, asyncio.Event()).clear()

    def tell(self, topic: str, revision: str) -> None:
        """Note how far a topic was read, since it was last expected."""
        self._told[topic] = revision, self._clock.monotonic()

    def quiet(self, topic: str, revision: str | None) -> bool:
        """Whether this process has committed nothing of a topic since it was read, of late, as far as a revision."""
        event, told = self._waiters.get(topic), self._told.get(topic)
        if event is None or event.is_set() or told is None:
            return False
        return told[0] == revision and self._clock.monotonic() - told[1] < TRUST

    def close(self) -> None:
        """End all waiting, now and from now on: this process is about to end."""
        self.closed = True
        self.streams.close()
        self._wake(set(self._waiters))

    async def changed(self, topic: str, seconds: float) -> bool:
        """Wait until a topic is named by a commit, for some seconds, or until `close`; whether it was."""
        if self.closed:
            return False
        event = self._waiters.setdefault(topic, asyncio.Event())
        try:
            await asyncio.wait_for(event.wait(), seconds)
            named = True
        except TimeoutError:
            named = event.is_set()
        event.clear()
        return named

    def forget(self, topic: str) -> None:
        """Nobody waits for this topic any more."""
        self._waiters.pop(topic, None)
        self._told.pop(topic, None)

    def _observe(self, found: Sequence[Change]) -> None:
        topics = {one.topic for one in found} & self._waiters.keys()
        if topics and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake, topics)

    def _wake(self, topics: set[str]) -> None:
        for topic in topics:
            if (event := self._waiters.get(topic)) is not None:  # else forgotten since the commit
                event.set()


class HostView(View):
    """A host as operators see it."""

    id: str
    name: str
    up: bool
    disabled: bool
    version: str
    network_filter: str
    facts: dict[str, Any]
    free_disk_gib: int | None
    unknown: list[Unknown]
    """Objects that the host holds and nobody assigned: left alone until an operator decides."""


resource = Resource("host", "hosts", rules=[Rule("fleet:hosts", "role:admin", "List hosts and what they found")])


@resource.get("/hosts", policy="fleet:hosts")
def index(ctx: Context) -> Page:
    """All hosts, by name, and beside them `refusals`: hosts that will not obey this store."""
    fleet = ctx.of(Fleet)
    views = []
    for row in ctx.tx.all(sa.select(host).order_by(host.c.name)):
        pulse = fleet.pulses.get(row.id)
        views.append(
            HostView(
                id=row.id,
                name=row.name,
                up=fleet.up(row),
                disabled=row.disabled,
                version=row.version,
                network_filter=row.network_filter,
                facts=row.facts,
                free_disk_gib=None if pulse is None else pulse.free_disk_gib,
                unknown=[] if pulse is None else pulse.unknown,
            )
        )
    refusals = [Refusal(host=name, reason=reason) for name, reason in fleet.refusals.items()]
    return Page(views, more={"refusals": refusals})
