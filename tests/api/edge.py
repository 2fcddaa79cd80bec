"""The real edge in one process, for tests: a store, some services, and a client that calls the ASGI application.

::

    with make_edge(tmp_path, flavor_service(), provided={Scheduler: scheduler}) as edge:
        admin = edge.client("admin:PROJECT")
        assert admin.request("POST", "/compute/v2.1/flavors", json={...}).status == 200

Tests of other services than Identity need no users: the text of a token says who asks (see `named_caller`).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, MutableMapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from pileus.core.api import Service
from pileus.core.context import Auth
from pileus.core.errors import Unauthorized
from pileus.core.http import Authenticator, Edge
from pileus.core.policy import Policy
from pileus.core.seams import Seams
from pileus.core.store import Store, Tx
from pileus.services.identity import interface as identity
from pileus.services.identity.resources.project.operations import project

T = TypeVar("T")

PERSONAS: Mapping[str, frozenset[str]] = {
    "reader": frozenset({"reader"}),
    "member": frozenset({"member", "reader"}),
    "manager": frozenset({"manager", "member", "reader"}),
    "admin": frozenset({"admin", "manager", "member", "reader"}),
    "service": frozenset({"service"}),
}
"""Each default role with those that it implies."""


def named_caller(tx: Tx, token: str, headers: Mapping[bytes, bytes]) -> Auth:
    """The caller that a token's text names. Raises Unauthorized for other texts.

    `ROLE:PROJECT` or `ROLE:PROJECT:USER` (user `PROJECT-user` by default), `ROLE@system`, `ROLE@domain:DOMAIN`; ROLE is
    a persona or several with `+` between them, e.g. `member+service:p1`.
    """
    who, at, scope = token.partition("@")
    named, _, project = who.partition(":")
    roles = frozenset[str]()
    for role in named.split("+"):
        if role not in PERSONAS:
            raise Unauthorized
        roles |= PERSONAS[role]
    caller: dict[str, Any] = {"user_domain_id": "default", "roles": roles, "expires_at": tx.now + timedelta(hours=1)}
    if at and scope == "system":
        return Auth(user_id="system-user", user_name="system-user", system_scope="all", **caller)
    if at and scope.startswith("domain:"):
        domain = scope.removeprefix("domain:")
        return Auth(user_id=f"{domain}-user", user_name=f"{domain}-user", domain_id=domain, **caller)
    project, _, user = project.partition(":")
    if at or not project:
        raise Unauthorized
    user = user or f"{project}-user"
    return Auth(
        user_id=user,
        user_name=user,
        project_id=project,
        project_name=project,
        project_domain_id="default",
        **caller,
    )


class Response:
    """What the application answered. Header names are in lower case; `json` is None for an empty body."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return msgspec.json.decode(self.body) if self.body else None

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.body[:1000]!r}>"


Application = Callable[[MutableMapping[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Any]


class Client:
    """Sends requests to an ASGI application and waits for the answers; may be used from several threads."""

    def __init__(self, application: Application, loop: asyncio.AbstractEventLoop, token: str | None = None) -> None:
        self.application = application
        self.loop = loop
        self.token = token

    def request(
        self,
        method: str,
        path: str,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        data: bytes | Iterable[bytes] | None = None,
    ) -> Response:
        """Send a request. `path` may hold a query; `data` is a raw body, in one piece or in several."""
        return self.submit(method, path, json, headers, data).result(60)

    def submit(
        self,
        method: str,
        path: str,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        data: bytes | Iterable[bytes] | None = None,
    ) -> Future[Response]:
        """`request`, without waiting."""
        given = {name.lower(): value for name, value in (headers or {}).items()}
        if self.token is not None:
            given.setdefault("x-auth-token", self.token)
        chunks = [data] if isinstance(data, bytes) else list(data or ())
        if json is not None:
            chunks = [msgspec.json.encode(json)]
            given.setdefault("content-type", "application/json")
        return asyncio.run_coroutine_threadsafe(self._send(method, path, given, chunks), self.loop)

    async def _send(self, method: str, path: str, headers: Mapping[str, str], chunks: list[bytes]) -> Response:
        bare, _, query = path.partition("?")
        scope = {
            "type": "http",
            "scheme": "http",
            "method": method,
            "path": bare,
            "query_string": query.encode("ascii"),
            "headers": [
                (b"host", b"testserver"),
                *((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()),
            ],
        }
        waiting = chunks or [b""]
        status = 0
        found: dict[str, str] = {}
        body = bytearray()

        async def receive() -> dict[str, Any]:
            if not waiting:
                await asyncio.Event().wait()  # the client stays
            return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

        async def send(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                found.update((name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"])
            else:
                body.extend(message.get("body", b""))

        await self.application(scope, receive, send)
        return Response(status, found, bytes(body))


@dataclass
class Served:
    """An edge that answers, and what it stands on. A context manager: leaving it closes the store."""

    edge: Edge
    store: Store
    loop: asyncio.AbstractEventLoop
    thread: threading.Thread

    def client(self, token: str | None = None) -> Client:
        """A client that sends this token with each request."""
        return Client(self.edge, self.loop, token)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the edge's event loop, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
        self.store.close()


def make_edge(
    place: Path | str,
    *services: Service,
    provided: Mapping[type[Any], Any] | None = None,
    authenticate: Authenticator = named_caller,
    seams: Seams | None = None,
    overrides: Mapping[str, str] | None = None,
    public_url: str | None = None,
) -> Served:
    """An edge over services.

    `place` is the URL of a database that has its tables, or a directory that gets an SQLite file with those of all that
    is imported.  `overrides` are policy rules by name.
    """
    store = Store(place if isinstance(place, str) else f"sqlite:///{place / 'store.sqlite'}", seams)
    if isinstance(place, Path):
        store.create()
    policy = Policy()
    for service in services:
        policy.add(service.rules)
        for resource in (*service.resources, *service.outer):
            policy.add(resource.rules)
    policy.override(overrides or {})
    return serve(
        Edge(services, store, policy, authenticate, {} if provided is None else provided, public_url=public_url)
    )


def make_projects(store: Store, *ids: str) -> None:
    """Projects of Identity, for edges whose callers are but named; each is called as its id is."""

    def write(tx: Tx) -> None:
        project.insert(tx, "Default", key=identity.DEFAULT_DOMAIN, domain_id=None)
        for one in ids:
            project.insert(tx, one, key=one, domain_id=identity.DEFAULT_DOMAIN)

    store.write_here(write)


def serve(edge: Edge) -> Served:
    """Let an edge answer, on an event loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="edge", daemon=True)
    thread.start()
    return Served(edge, edge.store, loop, thread)
