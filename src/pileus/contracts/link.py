"""The link between control plane and agents: JSON over HTTP, on a Unix socket or mutual TLS.

The agent dials out.  It says hello, watches its assignments (long poll, resuming from a revision, or in full), and
reports what it observed.  An assignment is one object that a host shall hold: a guest, a network, a port, a security
group, a router.  Its `spec` is the struct of that kind from `contracts`; `generation` grows with each change of the
spec.  A tombstone is the only thing that deletes: absence never does.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from pileus.contracts.hypervisor import HypervisorFacts

Kind = Literal["security_group", "network", "port", "router", "guest", "snapshot"]
"""In the order in which an agent ensures them; it removes in the opposite order."""

KINDS: tuple[Kind, ...] = ("security_group", "network", "port", "router", "guest", "snapshot")


class Hello(msgspec.Struct, kw_only=True):
    """First message after each connect."""

    host: str
    """The agent's host name: unique in the cloud."""
    facts: HypervisorFacts
    network: str
    """How packets are filtered on this host."""
    version: str
    """Version of the agent's Pileus."""
    store_id: str | None = None
    """The store that this host last obeyed, None on its first day."""
    incarnation: str | None = None
    """Which run of the control plane it last heard."""
    position: int = 0
    """How far that run's store had come, when it was last heard."""


class Welcome(msgspec.Struct, kw_only=True):
    """The answer to `Hello`."""

    host_id: str
    store_id: str
    incarnation: str


class Assignment(msgspec.Struct, kw_only=True):
    """One object that the host shall hold."""

    kind: Kind
    id: str
    generation: int
    spec: msgspec.Raw
    """JSON's null together with `tombstone`. Not `Raw | None`: decoded as that union, nothing but null is taken."""
    tombstone: bool = False
    request_id: str = ""
    """Of the request on account of which the spec is as it is, where that is known: for logs, and to be told back."""


class Call(msgspec.Struct, kw_only=True):
    """A question to the host, answered with an `Answer`; it changes nothing that anybody sees."""

    id: str
    verb: Literal["console_log", "diagnostics", "open_console", "fetch_image"]
    target: str
    """The guest's id; for `fetch_image` the image's."""
    arguments: dict[str, Any] = {}
    """For `console_log`, `lines`: how many of the last lines, null for all.  For `open_console`, `kind` (see
    `contracts.hypervisor.ConsoleKind`) and `stream`: the host opens the stream of that name to the control plane, and
    passes bytes both ways between it and the guest's console.  For `fetch_image`, `format` and `sha512` of the image,
    which the host has ahead of guests that may start from it."""


class Answer(msgspec.Struct, kw_only=True):
    """The answer to a `Call`."""

    id: str
    output: str | None
    """For `console_log` the text, for `diagnostics` the JSON of `contracts.hypervisor.Diagnostics`, for
    `open_console` and `fetch_image` nothing; None together with an error."""
    error: str = ""


class Watch(msgspec.Struct, kw_only=True):
    """Answer to a watch: what changed since a revision, or everything (`full`), and questions."""

    revision: str
    """From where the next watch goes on; digits, colons and commas, which mean nothing to the host."""
    position: int
    """How far the store has come; a host that heard of it refuses a copy that is older."""
    full: bool
    assignments: list[Assignment]
    calls: list[Call] = []


class Observation(msgspec.Struct, kw_only=True):
    """What the agent saw of one assignment."""

    kind: Kind
    id: str
    generation: int
    """The generation of the spec that this observation is of."""
    state: str
    """For guests one of `contracts.hypervisor.Observed`; else `ready`, `failed` or `absent`."""
    detail: str = ""
    """For people: why the state is `failed`."""
    permanent: bool = False
    """Whether trying again without a new spec is useless."""
    reboot_nonce: int = 0
    """For guests: the last reboot that was applied."""
    acts: dict[str, int] = {}
    """For guests: the last nonce of each act that was applied, or could not be."""
    faults: dict[str, str] = {}
    """For guests: why the last of an act could not be applied."""
    nics: list[str] = []
    """For guests: ports whose cards it has."""
    started_at: float | None = None
    """For guests: seconds since the epoch, None when no process runs."""
    request_id: str = ""
    """As the assignment had it."""


class Report(msgspec.Struct, kw_only=True):
    """A batch of observations."""

    observations: list[Observation]


class GuestPassword(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a guest told its metadata service: `POST /guests/{id}/password`; refused (409) when it has told one before.

    A host may say it of the guests that it holds, and of no other (404).
    """

    password: Annotated[str, msgspec.Meta(min_length=1, max_length=1020)]
    """Sealed with the public key of the guest's key pair."""


class Unknown(msgspec.Struct, kw_only=True):
    """An object on the host for which it has neither assignment nor tombstone: quarantined, and shown by `doctor`."""

    kind: Kind
    id: str


class Heartbeat(msgspec.Struct, kw_only=True):
    """Sent every few seconds; kept in memory by the control plane."""

    free_disk_gib: int
    unknown: list[Unknown] = []


class Pace(msgspec.Struct, kw_only=True):
    """The answer to `Heartbeat`."""

    seconds: float
    """The least time until the next one: it grows with the number of hosts, so that all of them cost no more."""
