"""The edge: HTTP in, operations run, HTTP out.  An ASGI application; the one place where asyncio meets operations.

Each request goes through `Edge._answer` in this order: request id → service → microversion → route → token → body →
shape → policy → run → render.  A fault at any step is rendered in the service's own envelope.
"""

from __future__ import annotations

import functools
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import msgspec
from sqlalchemy.exc import DataError, IntegrityError

from pileus.core import content, fields, log
from pileus.core.api import Operation, Page, Reply, Service, Stream
from pileus.core.context import Auth, Query, Request
from pileus.core.errors import (
    BadQuery,
    BadRequest,
    Conflict,
    Fault,
    MethodNotAllowed,
    NotFound,
    TooLarge,
    Unauthorized,
    UnsupportedMediaType,
    identity_envelope,
    render,
)
from pileus.core.metrics import Histogram, Labels
from pileus.core.policy import Policy
from pileus.core.pour import pour
from pileus.core.seams import reach
from pileus.core.store import Store, Tx
from pileus.core.versions import Version

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

Authenticator = Callable[[Tx, str, Mapping[bytes, bytes]], Auth]
"""Makes the caller of a token (and of the request's headers). Raises Unauthorized."""

_REQUEST_ID = re.compile(r"req-[0-9a-f-]{36}")
_PROJECT = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|AUTH_[0-9a-f]{32}")
_NOBODY = Auth(user_id="")

logger = logging.getLogger(__name__)


class _Node:
    """A place in the tree of paths: fixed segments, then a parameter, then the operations that end here."""

    __slots__ = ("fixed", "operations", "parameter")

    def __init__(self) -> None:
        self.fixed: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.operations: dict[str, list[Operation]] = {}

    def add(self, operation: Operation, path: str) -> None:
        node = self
        for segment in path.strip("/").split("/") if path.strip("/") else ():
            if segment.startswith("{"):
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.fixed.setdefault(segment, _Node())
        node.operations.setdefault(operation.method, []).append(operation)

    def find(self, segments: list[str], place: int = 0) -> tuple[_Node, list[str]] | None:
        if place == len(segments):
            return (self, []) if self.operations else None
        fixed = self.fixed.get(segments[place])
        if fixed is not None and (found := fixed.find(segments, place + 1)) is not None:
            return found
        if self.parameter is None or not segments[place]:
            return None
        found = self.parameter.find(segments, place + 1)
        return None if found is None else (found[0], [segments[place], *found[1]])


@dataclass(slots=True)
class _Exchange:
    """One request and what is known of it so far."""

    scope: Scope
    receive: Receive
    headers: dict[bytes, bytes]
    request_id: str
    service: Service | None = None
    operation: Operation | None = None
    auth: Auth = _NOBODY
    mount: str = ""
    project_id: str = ""
    version: Version | None = None
    status: int = 500
    body: bytes = b""
    media: bytes = b"application/json"
    extra: list[tuple[bytes, bytes]] = field(default_factory=list)
    stream: Stream | None = None


def _header(name: str, value: str) -> tuple[bytes, bytes]:
    """A header as it is sent. A location may hold what a client named: other than ASCII, or the end of a line."""
    if name.lower() == "location":
        value = quote(value, safe="!#$%&'()*+,/:;=?@[]~")
    return name.lower().encode(), value.encode("latin-1")


class Edge:
    """Serves services over ASGI.

    `authenticate` is injected by the composition root, `provided` holds the instances that operations may ask for by
    type, and `public_url` (None: what the client's Host header says) is the root of the links in responses.
    `level` is that of the log's line for each request.
    """

    def __init__(
        self,
        services: Iterable[Service],
        store: Store,
        policy: Policy,
        authenticate: Authenticator,
        provided: Mapping[type[Any], Any],
        *,
        public_url: str | None = None,
        level: int = logging.INFO,
    ) -> None:
        self.store = store
        self.policy = policy
        self.authenticate = authenticate
        self.provided = provided
        self.level = level
        self.public_url = public_url.rstrip("/") if public_url else None
        self.routes: list[tuple[str, Service, _Node]] = []
        for service in services:
            tree = _Node()
            for resource in service.resources:
                for operation in resource.operations:
                    for root in service.roots:
                        tree.add(operation, root + operation.path)
            for resource in service.outer:
                for operation in resource.operations:
                    tree.add(operation, operation.path)
            self.routes += [(mount, service, tree) for mount in service.mounts]
        self.routes.sort(key=lambda route: -len(route[0]))
        self.answered = Histogram(
            "pileus_request_duration_seconds",
            "Time from a request's headers to its answer's, by the operation that it asked for; empty for none.",
            ("service", "method", "operation", "status"),
        )
        self._labels: dict[tuple[int, int], Labels] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request (ASGI 3)."""
        if scope["type"] != "http":
            return
        began = time.perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-openstack-request-id", b"").decode("latin-1")
        request_id = given if _REQUEST_ID.fullmatch(given) else f"req-{self.store.seams.uuid()}"
        token = log.request_id.set(request_id)
        exchange = _Exchange(scope, receive, headers, request_id)
        try:
            try:
                await self._answer(exchange)
            except Fault as fault:
                self._fail(exchange, fault)
            except (IntegrityError, DataError, OverflowError) as error:
                logger.warning("%s %s: %s", scope["method"], scope["path"], type(error).__name__)
                kind = Conflict if isinstance(error, IntegrityError) else BadRequest
                self._fail(exchange, kind("The request cannot be stored: it conflicts with what is there."))
            except Exception:
                logger.exception("%s %s failed", scope["method"], scope["path"])
                self._fail(exchange, Fault("The server has either erred or is incapable of performing the request."))
            self._count(exchange, time.perf_counter() - began)
            await self._send(exchange, send)
        finally:
            self._note(exchange, time.perf_counter() - began)
            log.request_id.reset(token)

    def _note(self, exchange: _Exchange, seconds: float) -> None:
        """One line in the log: what was asked, by whom, and what came of it; nothing that is secret."""
        if log.requests.isEnabledFor(self.level):
            scope, auth = exchange.scope, exchange.auth
            log.requests.log(
                self.level,
                "%s %s %d %.1f ms project=%s user=%s from=%s",
                scope["method"],
                log.shown_path(scope["path"], scope["query_string"]),
                exchange.status,
                seconds * 1000,
                auth.project_id or "-",
                auth.user_id or "-",
                (scope.get("client") or ("-",))[0],
            )

    def _count(self, exchange: _Exchange, seconds: float) -> None:
        operation, status = exchange.operation, exchange.status // 100
        labels = self._labels.get((id(operation), status))
        if labels is None:
            # By what was declared alone: whatever else a client may send, there are only so many.
            named = ("", "", "")
            if operation is not None and exchange.service is not None:
                named = (exchange.service.type, operation.method, operation.name)
            labels = self._labels[id(operation), status] = (*named, f"{status}xx")
        self.answered.observe(seconds, labels)

    async def _answer(self, exchange: _Exchange) -> None:
        scope = exchange.scope
        path: str = scope["path"]
        if "\x00" in path or "\x00" in scope["query_string"].decode("latin-1"):
            raise BadRequest("A path or query holds a NUL character.")
        try:
            service, node, values, inner = self._route(exchange, path)
        except NotFound:
            self._negotiate(exchange)  # what is said of an unknown path differs by version, too
            raise
        self._negotiate(exchange)
        method = scope["method"]
        if method == "HEAD" and "HEAD" not in node.operations:
            method = "GET"  # what GET says, without its body
        candidates = node.operations.get(method)
        if candidates is None:
            if service.methods_hidden:
                raise NotFound("The resource could not be found.")
            allow = ", ".join(sorted(node.operations))
            raise MethodNotAllowed(f"The method {method} is not allowed for this resource.", headers={"allow": allow})
        exchange.operation = candidates[0]
        auth = exchange.auth = await self._identify(exchange, candidates)
        if auth.access is not None and not candidates[0].public:
            _admit(auth.access, service.type, scope["method"], inner, path)
        if exchange.project_id not in ("", auth.project_id) and not candidates[0].public:
            raise BadRequest(
                f"Malformed request URL: URL's project_id '{exchange.project_id}' doesn't match Context's project_id "
                f"'{auth.project_id}'"
            )
        # An action is chosen by the body, everything else by the version alone, before a body is looked at.
        first = candidates[0] if candidates[0].action is not None else self._choose(candidates, exchange.version, None)
        raw = None
        if first.action is not None or "body" in first.takes:
            raw = await self._body(exchange, first, service)
        operation = exchange.operation = self._choose(candidates, exchange.version, raw)
        request = self._request(exchange, service, operation, auth, inner)
        unknown = operation.query.unknown(request.query.names(), exchange.version, service.query_closed)
        if unknown:
            names = ", ".join(map(repr, unknown))
            verb = "was" if len(unknown) == 1 else "were"
            raise BadQuery(f"Additional properties are not allowed ({names} {verb} unexpected)")
        request.arguments = dict(zip(operation.parameters, values, strict=True))
        arguments: dict[str, Any] = dict(request.arguments)
        if operation.policy is not None and not operation.guarded:
            target = request.own | arguments
            request.enforce(operation.policy, target if operation.policy in self.policy.rules else None)
        if "body" in operation.takes:
            arguments["body"] = self._shape(request, service, operation, raw)
        if "stream" in operation.takes:
            arguments["stream"] = _chunks(exchange.receive)
        await self._run(exchange, service, operation, request, arguments)

    def _negotiate(self, exchange: _Exchange) -> None:
        ledger = exchange.service.ledger if exchange.service is not None else None
        if ledger is not None:
            exchange.version = ledger.negotiate(exchange.headers)
            exchange.extra += ledger.response_headers(exchange.version)

    def _route(self, exchange: _Exchange, path: str) -> tuple[Service, _Node, list[str], str]:
        for mount, service, tree in self.routes:
            if mount and path != mount and not path.startswith(mount + "/"):
                continue
            exchange.service, exchange.mount = service, mount
            inner = path[len(mount) :]
            segments = inner.strip("/").split("/") if inner.strip("/") else []
            if service.strict_slash and len(segments) > 1 and inner.endswith("/"):
                break
            found = tree.find(segments)
            if found is None and service.project_segment and len(segments) > 1 and _PROJECT.fullmatch(segments[1]):
                found, exchange.project_id = tree.find([segments[0], *segments[2:]]), segments[1]
            if found is not None:
                return (service, *found, inner)
            if mount:
                break
        raise NotFound("The resource could not be found.")

    async def _identify(self, exchange: _Exchange, candidates: list[Operation]) -> Auth:
        token, headers = exchange.headers.get(b"x-auth-token"), exchange.headers
        try:
            if token is None:
                raise Unauthorized
            text = token.decode("latin-1")
            return await self.store.read(lambda tx: self.authenticate(tx, text, headers))
        except Unauthorized as fault:
            if candidates[0].public:
                return _NOBODY
            fault.headers = {"www-authenticate": f'Keystone uri="{self._root(exchange)}/identity"'}
            raise

    async def _body(self, exchange: _Exchange, operation: Operation, service: Service) -> Any:
        media = exchange.headers.get(b"content-type", b"").split(b";")[0].strip().lower().decode("latin-1")
        data = bytearray()
        async for chunk in _chunks(exchange.receive):
            data += chunk
            if len(data) > service.body_limit:
                raise TooLarge(f"The body is larger than {service.body_limit} bytes.")
        if not data:
            return None
        if media and media not in operation.media:
            raise UnsupportedMediaType(f"The content type {media} is not one of {', '.join(operation.media)}.")
        return content.body(data)

    def _choose(self, candidates: list[Operation], version: Version | None, raw: Any) -> Operation:
        if candidates[0].action is not None:
            if not isinstance(raw, dict) or len(raw) != 1:
                raise BadRequest("There must be exactly one action in the request body.")
            name = next(iter(raw))
            candidates = [one for one in candidates if one.action == name]
            if not candidates:
                raise BadRequest(f"There is no such action: {name}")
        for operation in candidates:
            if operation.covers(version):
                return operation
        raise NotFound("The resource could not be found.")

    def _root(self, exchange: _Exchange) -> str:
        if self.public_url:
            return self.public_url
        host = exchange.headers.get(b"host", b"").decode("latin-1")
        return f"{exchange.scope['scheme']}://{host}"

    def _request(self, exchange: _Exchange, service: Service, operation: Operation, auth: Auth, inner: str) -> Request:
        return Request(
            store=self.store,
            policy=self.policy,
            auth=auth,
            request_id=exchange.request_id,
            operation=operation.policy or "",
            version=exchange.version,
            url=self._root(exchange) + exchange.mount,
            path=inner,
            query=Query(content.query(exchange.scope["query_string"])),
            headers=exchange.headers,
            provided=self.provided,
            address=(exchange.scope.get("client") or ("",))[0],
            # What hosts report is on account of what they were asked before.
            cause=None if service.type == "link" else exchange.request_id,
        )

    def _shape(self, request: Request, service: Service, operation: Operation, raw: Any) -> Any:
        key = operation.action or operation.accepts
        if key is not None:
            if not isinstance(raw, dict) or key not in raw:
                raise BadRequest(f"Malformed request body: {key!r} is a required property")
            if len(raw) > 1 and service.strict is False:
                others = ", ".join(sorted(repr(name) for name in raw if name != key))
                raise BadRequest(f"Additional properties are not allowed ({others} were unexpected)")
            raw = raw[key]
        kind = operation.body
        if isinstance(kind, type) and issubclass(kind, fields.OpenBody) and isinstance(raw, dict):
            request.extra = {name: raw[name] for name in raw.keys() - set(kind.__struct_encode_fields__)}
        return fields.accept(raw, kind, request.version, strict=service.strict, allowed=request.allows)

    async def _run(
        self,
        exchange: _Exchange,
        service: Service,
        operation: Operation,
        request: Request,
        arguments: dict[str, Any],
    ) -> None:
        handler = operation.handler

        def work(tx: Tx) -> Any:
            found = handler(request.bind(tx), **arguments)
            _must_have_asked(operation, request)
            return found

        if operation.asynchronous:
            result = await handler(request, **arguments)
            _must_have_asked(operation, request)
        else:
            result = await (self.store.write(work) if operation.writes else self.store.read(work))
        if operation.writes:
            reach(f"edge.{operation.name}")
        exchange.status = operation.status(request.version)
        if isinstance(result, Reply):
            exchange.status = result.status or exchange.status
            exchange.extra += [_header(name, value) for name, value in result.headers.items()]
            result = result.body
        if isinstance(result, Stream):
            exchange.stream, exchange.status = result, result.status
            exchange.extra += [_header(name, value) for name, value in result.headers.items()]
            return
        if isinstance(result, bytes):
            exchange.body = result
            return
        if result is not None:
            exchange.body = msgspec.json.encode(self._view(request, service, operation, result))

    def _view(self, request: Request, service: Service, operation: Operation, result: Any) -> Any:
        page = result if isinstance(result, Page) else None
        allowed = functools.cache(request.allows)  # a rule guards a field of every item of a list
        found = fields.present(page.items if page else result, request.version, allowed=allowed)
        if service.field_selection and (wanted := request.query.all("fields")):
            found = _select(msgspec.to_builtins(found), set(wanted))
        if page is not None:
            page.items = found
            return service.paging(request, operation.wraps or operation.resource.plural, page)
        return {operation.wraps: found} if operation.wraps else found

    def _fail(self, exchange: _Exchange, fault: Fault) -> None:
        envelope = exchange.service.envelope if exchange.service else identity_envelope
        fault.version = exchange.version
        exchange.stream = None
        exchange.status = fault.status
        exchange.body = render(fault, envelope, exchange.request_id)
        exchange.extra += [(name.encode(), value.encode("latin-1")) for name, value in fault.headers.items()]

    async def _send(self, exchange: _Exchange, send: Send) -> None:
        name = exchange.service.request_id_header if exchange.service else "x-openstack-request-id"
        headers = [(b"x-openstack-request-id", exchange.request_id.encode()), *exchange.extra]
        if name != "x-openstack-request-id":
            headers.append((name.encode(), exchange.request_id.encode()))
        stream, head = exchange.stream, exchange.scope["method"] == "HEAD"
        if stream is not None:
            headers.append((b"content-type", stream.media.encode()))
            if stream.length is not None:
                headers.append((b"content-length", str(stream.length).encode()))
        else:
            if exchange.body and not any(key == b"content-type" for key, _ in headers):
                headers.append((b"content-type", exchange.media))
            if exchange.status != 204:
                headers.append((b"content-length", str(len(exchange.body)).encode()))
        await send({"type": "http.response.start", "status": exchange.status, "headers": headers})
        if stream is not None and not head:
            mine = exchange.operation is None or "stream" not in exchange.operation.takes
            await pour(stream.chunks, send, exchange.receive if mine else None)
        await send({"type": "http.response.body", "body": b"" if head or stream else exchange.body})


def _admit(access: Callable[[str, str, str], bool], service: str, method: str, *paths: str) -> None:
    """Raise Unauthorized unless a token is good for a request.

    A path is known as the API reference has it, and as it is behind the service's mount.
    """
    if not any(access(service, method, path) for path in paths):
        raise Unauthorized("The token is not good for this request.")


def _must_have_asked(operation: Operation, request: Request) -> None:
    """Raise RuntimeError, which undoes what was written, when a guarded operation forgot to ask its rule."""
    if operation.guarded and operation.policy not in request.asked:
        raise RuntimeError(f"{operation.name} did not ask the policy rule {operation.policy}")


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    """The parts of a request's body. Raises BadRequest when the client goes away in the middle."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BadRequest("The client closed the connection before the whole body had come.")
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body"):
            return


def _select(found: Any, wanted: set[str]) -> Any:
    if isinstance(found, list):
        return [_select(one, wanted) for one in found]
    return {key: value for key, value in found.items() if key in wanted}
