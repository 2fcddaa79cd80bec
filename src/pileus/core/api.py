"""The API as data: operations, resources, services.

A resource file makes one `Resource` and hangs its operations on it::

    resource = Resource("flavor", "flavors", rules=[Rule("os_compute_api:flavors:index", "role:reader", "List")])

    @resource.get("/flavors/{flavor_id}", policy="os_compute_api:flavors:show", wraps="flavor")
    def show(ctx: Context, flavor_id: str) -> Flavor:
        ...

What an operation is given follows from its signature: `ctx` (a `Context` within one transaction, or a `Request` for
`async def`), path parameters by name, `body` (decoded and checked against its annotated type) and `stream` (the raw
body).  What it gives is a view, a list, a `Page`, a `Reply`, a `Stream`, or None for an empty body.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlencode

from pileus.core.context import Request
from pileus.core.errors import Envelope
from pileus.core.policy import Rule
from pileus.core.quota import Quota
from pileus.core.versions import Ledger, Version, parse

H = TypeVar("H", bound=Callable[..., Any])

JSON = ("application/json",)


@dataclass(slots=True)
class Page:
    """A page of a list; `next_marker` is the last item's key when there may be more."""

    items: Sequence[Any]
    next_marker: str | None = None
    more: dict[str, Any] = field(default_factory=dict)
    """Further top-level keys of the response."""


@dataclass(slots=True)
class Reply:
    """A response with headers or a status of its own."""

    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    status: int | None = None


@dataclass(slots=True)
class Stream:
    """A response whose body is sent as it is read. `length` in bytes, None when unknown."""

    chunks: AsyncIterator[bytes]
    length: int | None
    media: str = "application/octet-stream"
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200


class Parameters:
    """The query parameters that an operation knows: names, and by `later` those that a microversion brought.

    What is not known is passed over, and from the version `closed` on refused.
    """

    __slots__ = ("closed", "known")

    def __init__(self, *names: str, later: Mapping[str, str] | None = None, closed: str | None = None) -> None:
        self.known: dict[str, Version | None] = dict.fromkeys(names)
        self.known |= {name: parse(version) for name, version in (later or {}).items()}
        self.closed = parse(closed) if closed else None

    def unknown(self, names: Iterable[str], version: Version | None, closed: Version | None) -> list[str]:
        """Those of the names that are to be refused at a version; `closed` holds where no version of its own does."""
        limit = self.closed or closed
        if limit is None or version is None or version < limit:
            return []
        return sorted(name for name in names if name not in self.known or version < (self.known[name] or version))


NO_PARAMETERS = Parameters()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One verb on one path: permission, version window, shapes and handler, in one place."""

    resource: Resource
    method: str
    path: str
    handler: Callable[..., Any]
    policy: str | None
    guarded: bool
    public: bool
    since: Version | None
    until: Version | None
    statuses: tuple[tuple[Version | None, int], ...]
    accepts: str | None
    wraps: str | None
    body: Any
    action: str | None
    media: tuple[str, ...]
    parameters: tuple[str, ...]
    """Names of the path parameters, in the path's order."""
    takes: frozenset[str]
    """Which of `body` and `stream` the handler takes."""
    asynchronous: bool
    writes: bool
    query: Parameters
    successes: frozenset[int]
    """Further statuses of a success, which a `Reply` or `Stream` of the handler may have."""
    gives: Any
    """What the handler's signature says that it gives."""
    faults: frozenset[int]
    """Statuses of faults beyond those that follow from the declaration. See `Operation.refusals`."""

    @property
    def name(self) -> str:
        """A name for people and for OpenAPI's operationId, e.g. `flavor.show`."""
        return f"{self.handler.__module__.removeprefix('pileus.services.')}.{self.handler.__name__}"

    def covers(self, version: Version | None) -> bool:
        """Whether the operation exists at a version."""
        if version is None:
            return True
        return (self.since is None or self.since <= version) and (self.until is None or version <= self.until)

    def status(self, version: Version | None) -> int:
        """The status of a success at a version."""
        found = 200
        for since, status in self.statuses:
            if since is None or version is None or since <= version:
                found = status
        return found

    @property
    def refusals(self) -> frozenset[int]:
        """The statuses of all faults that the operation may answer with, whatever the request."""
        found = {400, 404, 409, 429, 503} | self.faults
        if not self.public:
            found |= {401, 403}
        if "body" in self.takes:
            found |= {403, 413, 415}
        return frozenset(found)


def _parameters(handler: Callable[..., Any], path: str) -> tuple[list[str], frozenset[str]]:
    """The path's parameters, and which of `body` and `stream` the handler takes. Raises TypeError."""
    given = set(inspect.signature(handler).parameters)
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    missing = given - {"ctx", *names, "body", "stream"}
    if missing or not set(names) <= given:
        raise TypeError(f"{handler.__qualname__}: parameters do not fit the path {path}: {missing or names}")
    return names, frozenset(given & {"body", "stream"})


class Resource:
    """A noun of a service: the keys that wrap it, its policy rules, its operations."""

    def __init__(self, singular: str, plural: str, *, rules: Sequence[Rule] = ()) -> None:
        self.singular = singular
        self.plural = plural
        self.rules = tuple(rules)
        self.operations: list[Operation] = []

    def get(self, path: str, **more: Any) -> Callable[[H], H]:
        """An operation that reads. See `operation`."""
        return self.operation("GET", path, **more)

    def post(self, path: str, **more: Any) -> Callable[[H], H]:
        """An operation that makes something. See `operation`."""
        return self.operation("POST", path, **more)

    def put(self, path: str, **more: Any) -> Callable[[H], H]:
        """An operation that replaces or changes something. See `operation`."""
        return self.operation("PUT", path, **more)

    def patch(self, path: str, **more: Any) -> Callable[[H], H]:
        """An operation that changes something. See `operation`."""
        return self.operation("PATCH", path, **more)

    def delete(self, path: str, **more: Any) -> Callable[[H], H]:
        """An operation that removes something; answers 204 unless told otherwise. See `operation`."""
        return self.operation("DELETE", path, **{"status": 204, **more})

    def action(self, path: str, name: str, **more: Any) -> Callable[[H], H]:
        """A named act behind `POST …/action`; answers 202 unless told otherwise. See `operation`."""
        return self.operation("POST", path, action=name, **{"status": 202, **more})

    def operation(  # noqa: PLR0913 - a declaration, all by keyword
        self,
        method: str,
        path: str,
        *,
        policy: str | None = None,
        guarded: bool = False,
        public: bool = False,
        since: str | None = None,
        until: str | None = None,
        status: int | Mapping[str, int] = 200,
        accepts: str | None = None,
        wraps: str | None = None,
        action: str | None = None,
        media: tuple[str, ...] = JSON,
        writes: bool | None = None,
        query: Parameters = NO_PARAMETERS,
        successes: Iterable[int] = (),
        faults: Iterable[int] = (),
    ) -> Callable[[H], H]:
        """Declare an operation.

        `policy`: the rule that the caller must pass (None: any authenticated caller).  `guarded`: the handler asks the
        rule itself, about the thing that it finds; when it answers without having asked, the edge fails the request.
        `public`: no token is needed.
        `since`, `until`: the microversions in which it exists.  `status`: of a success; a mapping gives it by the
        version from which it holds (`""` for the first).  `accepts`, `wraps`: the key around request and response.
        `writes`: whether it needs a writing transaction (default: everything but GET does).  `query`: the query
        parameters that it knows.  `successes`, `faults`: statuses that it may answer with beyond the usual ones.
        """

        def declare(handler: H) -> H:
            names, takes = _parameters(handler, path)
            hints = typing.get_type_hints(handler, include_extras=True)
            if guarded and policy is None:
                raise TypeError(f"{handler.__qualname__} is guarded by no rule")
            by_version = status if isinstance(status, Mapping) else {"": status}
            self.operations.append(
                Operation(
                    resource=self,
                    method=method,
                    path=path,
                    handler=handler,
                    policy=policy,
                    guarded=guarded,
                    public=public,
                    since=parse(since) if since else None,
                    until=parse(until) if until else None,
                    statuses=tuple((parse(key) if key else None, value) for key, value in by_version.items()),
                    accepts=accepts,
                    wraps=wraps,
                    body=hints.get("body"),
                    action=action,
                    media=media,
                    parameters=tuple(names),
                    takes=takes,
                    asynchronous=inspect.iscoroutinefunction(handler),
                    writes=(method != "GET") if writes is None else writes,
                    query=query,
                    successes=frozenset(successes),
                    gives=hints.get("return"),
                    faults=frozenset(faults),
                )
            )
            return handler

        return declare


Paging = Callable[[Request, str, Page], dict[str, Any]]
"""Makes the response of a page, given the key that wraps its items."""


def next_query(request: Request, marker: str) -> str:
    """The query of the page that begins behind a marker: what was asked, but for that."""
    pairs = [(name, value) for name, value in request.query.pairs() if name != "marker"]
    return "?" + urlencode([*pairs, ("marker", marker)])


def links_paging(request: Request, key: str, page: Page) -> dict[str, Any]:
    """Compute's and Network's: `<plural>_links` with a `next` link when there may be more."""
    found: dict[str, Any] = {key: page.items, **page.more}
    if page.next_marker is not None:
        root = request.url.rsplit("/", 1)[0] if request.path.startswith(request.url) else request.url
        found[f"{key}_links"] = [{"rel": "next", "href": root + request.path + next_query(request, page.next_marker)}]
    return found


def identity_paging(request: Request, key: str, page: Page) -> dict[str, Any]:
    """Identity's: `links` with `self`, `next` and `previous`, always."""
    here = request.url + request.path
    following = here + next_query(request, page.next_marker) if page.next_marker is not None else None
    return {key: page.items, "links": {"next": following, "self": here, "previous": None}, **page.more}


def image_paging(request: Request, key: str, page: Page) -> dict[str, Any]:
    """Image's: `first`, and `next` when there may be more, as paths; `schema` names the shape."""
    pairs = [(name, value) for name, value in request.query.pairs() if name != "marker"]
    first = request.path + ("?" + urlencode(pairs) if pairs else "")
    found: dict[str, Any] = {key: page.items, "first": first, "schema": f"/v2/schemas/{key}", **page.more}
    if page.next_marker is not None:
        found["next"] = request.path + next_query(request, page.next_marker)
    return found


@dataclass(kw_only=True)
class Service:
    """A cloud service: its door plate.

    `mounts` are paths below the server's root at which it answers, the first being the one that the catalog names;
    `roots` the version prefixes below a mount (`/v2.1`) that come before the paths of `resources`.  `outer` resources
    have paths below the mount itself: version discovery.
    """

    name: str
    type: str
    mounts: tuple[str, ...]
    roots: tuple[str, ...]
    resources: Sequence[Resource]
    outer: Sequence[Resource] = ()
    envelope: Envelope
    paging: Paging = links_paging
    ledger: Ledger | None = None
    quota: Quota | None = None
    rules: Sequence[Rule] = ()
    """Rules that many operations share, e.g. `rule:admin_api`."""
    strict: bool = True
    """Whether numbers and booleans must be JSON's own; Compute and Network also take them in strings."""
    project_segment: bool = False
    """Whether `/v2.1/{project_id}/servers` means `/v2.1/servers`, for tokens of that project alone."""
    field_selection: bool = False
    """Whether `?fields=` narrows a response to the named keys."""
    strict_slash: bool = False
    """Whether a slash at the end of a path means an empty name after it, which nothing has (404)."""
    methods_hidden: bool = False
    """Whether a method that a path does not have is answered as an unknown path is (404), rather than by 405."""
    query_closed: Version | None = None
    """The microversion from which operations refuse query parameters that they do not know; None: never."""
    request_id_header: str = "x-openstack-request-id"
    body_limit: int = 1 << 20
    """The largest body, in bytes, of an operation that does not stream."""
