"""Remote consoles: a guest's screen or serial port in a browser, for whoever has the token of one.

Sources: https://docs.openstack.org/api-ref/compute/#server-consoles-servers-remote-consoles,
https://docs.openstack.org/api-ref/compute/#server-console-authentication-tokens-os-console-auth-tokens and, for the
actions before 2.6, https://docs.openstack.org/api-ref/compute/#show-console-output-os-getconsoleoutput-action ff.

A token is random and good for a while; the store keeps its hash alone.  It is bound to the server, to the host that the
server is on, and to the kind of console: it is worth nothing once the server is elsewhere or gone.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlencode

import msgspec
import sqlalchemy as sa

from pileus.contracts.hypervisor import ConsoleKind
from pileus.core.api import Resource
from pileus.core.config import Config
from pileus.core.context import Context
from pileus.core.errors import BadRequest, NotFound
from pileus.core.fields import UNSET, Body, UnsetType, View, W
from pileus.core.policy import Rule
from pileus.core.store import Instant, Tx, metadata
from pileus.services.compute.resources.server.operations.row import allow, find
from pileus.services.compute.resources.server.table import server
from pileus.services.compute.rules.persona import ADMIN, MEMBER
from pileus.services.compute.rules.status import Verb

PAGE = "/console/vnc.html"
STREAM = "/console/websockify"
SERIAL = "/console/serial"
"""Paths on the API's own address: the page of screens, their WebSocket, and that of serial ports, where plain HTTP gets
the page of it."""

token = sa.Table(
    "compute_console_token",
    metadata,
    sa.Column("hash", sa.String(64), primary_key=True, comment="SHA-256 of the token, in hexadecimal"),
    sa.Column("server_id", sa.ForeignKey("compute_server.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("host_id", sa.String(64), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False, comment="`vnc` or `serial`"),
    sa.Column("origin", sa.String(255), nullable=False, comment="scheme and address under which the API was asked"),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("expires_at", Instant, nullable=False, index=True),
)

_PROTOCOLS = Literal["vnc", "spice", "serial", "rdp"]
_TYPES = Literal["novnc", "xvpvnc", "spice-html5", "serial", "rdp-html5"]
_PROTOCOLS_28 = Literal["vnc", "spice", "serial", "rdp", "mks"]
_TYPES_28 = Literal["novnc", "xvpvnc", "spice-html5", "serial", "rdp-html5", "webmks"]
_TYPES_299 = Literal["novnc", "xvpvnc", "spice-html5", "serial", "rdp-html5", "webmks", "spice-direct"]


class RemoteConsoleCreate(Body):
    """What console is wanted."""

    protocol: Annotated[_PROTOCOLS_28, W(_PROTOCOLS, until="2.7"), W(_PROTOCOLS_28, since="2.8")]
    type: Annotated[
        _TYPES_299,
        W(_TYPES, until="2.7"),
        W(_TYPES_28, since="2.8", until="2.98"),
        W(_TYPES_299, since="2.99"),
    ]


class RemoteConsole(View):
    """A console that was made ready."""

    protocol: str
    type: str
    url: str


class VncConsole(Body):
    """A screen, as clients before 2.6 ask for it."""

    type: Literal["novnc", "xvpvnc"]


class SpiceConsole(Body):
    """A screen by SPICE, as clients before 2.6 ask for it."""

    type: Literal["spice-html5"]


class SerialConsole(Body):
    """A serial port, as clients before 2.6 ask for it."""

    type: Literal["serial"]


class OldConsole(View):
    """A console that was made ready, as clients before 2.6 read it."""

    type: str
    url: str


class ConsoleToken(View):
    """Where a token's console is. Nothing of it is open to the network: it is reached through the API's address only,
    so there is neither a port nor a path on the host."""

    instance_uuid: str
    host: str
    port: int = 0
    internal_access_path: str | None = None
    tls_port: Annotated[int | UnsetType | None, W(since="2.99")] = UNSET


class Console(msgspec.Struct, frozen=True, kw_only=True):
    """What a token is good for."""

    server_id: str
    host_id: str
    host: str
    kind: ConsoleKind
    origin: str
    """Scheme and address under which the API was asked for it, e.g. `https://cloud.example.org`."""
    expires_at: datetime


RULES = (
    Rule("os_compute_api:os-remote-consoles", MEMBER, "Look at a server's screen or serial port"),
    Rule("os_compute_api:os-console-auth-tokens", ADMIN, "See what a console's token is good for"),
)

resource = Resource("remote_console", "remote_consoles", rules=RULES)


def lookup(tx: Tx, text: str) -> Console | None:
    """What a token is good for now; None for nothing."""
    query = (
        sa.select(token, server.c.host)
        .join(server, server.c.id == token.c.server_id)
        .where(
            token.c.hash == _hash(text),
            token.c.expires_at > tx.now,
            token.c.host_id == server.c.host_id,
            server.c.deleting_at.is_(None),
            server.c.deleted_at.is_(None),
        )
    )
    row = tx.first(query)
    if row is None:
        return None
    return Console(
        server_id=row.server_id,
        host_id=row.host_id,
        host=row.host or "",
        kind=row.kind,
        origin=row.origin,
        expires_at=row.expires_at,
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# -- asking for a console --------------------------------------------------------------------------------------------


_VERBS: dict[str, Verb] = {
    "vnc": "get_vnc_console",
    "spice": "get_spice_console",
    "serial": "get_serial_console",
    "mks": "get_mks_console",
}
_OFFERED: dict[tuple[str, str], ConsoleKind] = {("vnc", "novnc"): "vnc", ("serial", "serial"): "serial"}
_UNOFFERED = {("spice", "spice-html5"), ("spice", "spice-direct"), ("mks", "webmks")}
"""Consoles that upstream has where they are configured, and this cloud never."""


@resource.post(
    "/servers/{server_id}/remote-consoles",
    policy="os_compute_api:os-remote-consoles",
    guarded=True,
    since="2.6",
    accepts="remote_console",
    wraps="remote_console",
)
def create(ctx: Context, server_id: str, body: RemoteConsoleCreate) -> RemoteConsole:
    """Let the caller look at a server's screen or serial port; where.

    Raises NotFound, Conflict (the server is on no host yet, or on its way) and BadRequest (a console that this cloud
    does not offer).
    """
    url = _open(ctx, server_id, body.protocol, body.type)
    return RemoteConsole(protocol=body.protocol, type=body.type, url=url)


def _action(name: str) -> dict[str, Any]:
    return {
        "path": "/servers/{server_id}/action",
        "name": name,
        "policy": "os_compute_api:os-remote-consoles",
        "guarded": True,
        "until": "2.5",
        "status": 200,
        "wraps": "console",
    }


@resource.action(**_action("os-getVNCConsole"))
def get_vnc_console(ctx: Context, server_id: str, body: VncConsole) -> OldConsole:
    """A server's screen, before 2.6. Raises as `create` does."""
    return OldConsole(type=body.type, url=_open(ctx, server_id, "vnc", body.type))


@resource.action(**_action("os-getSerialConsole"))
def get_serial_console(ctx: Context, server_id: str, body: SerialConsole) -> OldConsole:
    """A server's serial port, before 2.6. Raises as `create` does."""
    return OldConsole(type=body.type, url=_open(ctx, server_id, "serial", body.type))


@resource.action(**_action("os-getSPICEConsole"))
def get_spice_console(ctx: Context, server_id: str, body: SpiceConsole) -> OldConsole:
    """A server's screen by SPICE, before 2.6: this cloud has none. Raises BadRequest, NotFound and Conflict."""
    return OldConsole(type=body.type, url=_open(ctx, server_id, "spice", body.type))


@resource.action(**_action("os-getRDPConsole"))
def get_rdp_console(ctx: Context, server_id: str, body: Any) -> OldConsole:
    """A server's screen by RDP, which went with Hyper-V. Raises BadRequest and NotFound."""
    find(ctx, server_id)
    raise BadRequest("RDP consoles were for Hyper-V, and are no more.")


def _open(ctx: Context, server_id: str, protocol: str, kind: str) -> str:
    row = find(ctx, server_id)
    if protocol == "rdp":
        raise BadRequest("Unavailable console type rdp.")
    allow(ctx, row, _VERBS[protocol])
    if (protocol, kind) in _UNOFFERED:
        raise BadRequest(f"Unavailable console type {kind}.")
    offered = _OFFERED.get((protocol, kind))
    if offered is None:
        raise BadRequest(f"Invalid console type {kind}")
    text = ctx.seams.uuid()
    root = ctx.url.rsplit("/", 1)[0]
    seconds = ctx.of(Config).console_token_seconds
    ctx.tx.execute(sa.delete(token).where(token.c.expires_at < ctx.now))
    values = {
        "hash": _hash(text),
        "server_id": row.id,
        "host_id": row.host_id,
        "kind": offered,
        "origin": root[:255],
        "created_at": ctx.now,
        "expires_at": ctx.now + timedelta(seconds=seconds),
    }
    ctx.tx.insert(token, values)
    return _url(root, offered, text)


def _url(root: str, kind: ConsoleKind, text: str) -> str:
    if kind == "serial":
        # Upstream names the WebSocket itself; with http in place of ws a browser gets the page that opens it.
        return f"ws{root.removeprefix('http')}{SERIAL}?{urlencode({'token': text})}"
    path = quote(f"{STREAM.lstrip('/')}?token={text}", safe="")
    return f"{root}{PAGE}?path={path}"


# -- what a token is good for ----------------------------------------------------------------------------------------


@resource.get(
    "/os-console-auth-tokens/{console_token}",
    policy="os_compute_api:os-console-auth-tokens",
    wraps="console",
    until="2.30",
)
def show_rdp(ctx: Context, console_token: str) -> ConsoleToken:
    """What a token of RDP is good for, the only kind that was shown before 2.31. Raises BadRequest."""
    raise BadRequest("Only tokens of RDP consoles were shown up to 2.30, and there are none any more.")


@resource.get(
    "/os-console-auth-tokens/{console_token}",
    policy="os_compute_api:os-console-auth-tokens",
    wraps="console",
    since="2.31",
)
def show(ctx: Context, console_token: str) -> ConsoleToken:
    """What a token is good for. Raises NotFound."""
    found = lookup(ctx.tx, console_token)
    if found is None:
        raise NotFound("Token not found")
    return ConsoleToken(instance_uuid=found.server_id, host=found.host)
