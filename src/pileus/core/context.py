"""Who asks, and with what: the request as operations see it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NoReturn, TypeVar

import msgspec

from pileus.core.errors import Fault, Forbidden
from pileus.core.policy import Policy
from pileus.core.seams import Seams
from pileus.core.store import Store, Tx
from pileus.core.versions import Version

T = TypeVar("T")

_UNSEEN = frozenset({"token", "access"})
"""Fields of `Auth` that policy rules do not see."""


class Auth(msgspec.Struct, kw_only=True, dict=True):
    """The caller, as the token says. At most one of project, domain and system is set; none when unscoped.

    Shared between requests: nothing changes one after it was made.
    """

    user_id: str
    user_name: str = ""
    user_domain_id: str = ""
    project_id: str | None = None
    project_name: str | None = None
    project_domain_id: str | None = None
    domain_id: str | None = None
    system_scope: str | None = None
    roles: frozenset[str] = frozenset()
    """Role names in lower case, implied ones included."""
    trust_id: str | None = None
    trustor_id: str | None = None
    trustee_id: str | None = None
    application_credential_id: str | None = None
    access_token_id: str | None = None
    restricted: bool = False
    """Whether the token may not make, change or end what gives access: by an application credential that may not."""
    access: Callable[[str, str, str], bool] | None = None
    """Whether the token is good for a request, given the service's type, method and path; None: for every one."""
    service_roles: frozenset[str] = frozenset()
    """Roles of the service that sends the request on behalf of the caller (X-Service-Token)."""
    audit_id: str | None = None
    expires_at: datetime | None = None
    token: Any = None
    """What the authenticator knows besides; only Identity looks at it."""

    @functools.cached_property
    def credentials(self) -> dict[str, Any]:
        """What policy rules see."""
        return {name: getattr(self, name) for name in self.__struct_fields__ if name not in _UNSEEN}

    @property
    def delegated(self) -> bool:
        """Whether the token is by a trust, an application credential or an access token."""
        return bool(self.trust_id or self.application_credential_id or self.access_token_id)

    @property
    def is_admin(self) -> bool:
        """Whether the caller holds the role admin in the token's scope."""
        return "admin" in self.roles


class Query:
    """The query string: names to their values, in order."""

    __slots__ = ("_values",)

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)

    def get(self, name: str, default: str | None = None) -> str | None:
        """The last value of a name."""
        values = self._values.get(name)
        return values[-1] if values else default

    def all(self, name: str) -> list[str]:
        """All values of a name, empty when it is not there."""
        return self._values.get(name, [])

    def names(self) -> set[str]:
        """The names that are there."""
        return set(self._values)

    def pairs(self) -> list[tuple[str, str]]:
        """All pairs."""
        return [(name, value) for name, values in self._values.items() for value in values]


@dataclass(kw_only=True)
class Request:
    """One request, before and between transactions. Asynchronous operations are given this."""

    store: Store
    policy: Policy
    auth: Auth
    request_id: str
    operation: str
    """Name of the policy rule of the operation that runs; empty when it has none."""
    version: Version | None
    url: str
    """The service's public root, without a trailing slash, e.g. `http://127.0.0.1:5000/network`."""
    path: str
    """Path of the request below the server's root."""
    query: Query
    headers: Mapping[bytes, bytes]
    provided: Mapping[type[Any], Any]
    extra: dict[str, Any] = field(default_factory=dict)
    """Keys of an OpenBody that no field took."""
    address: str = ""
    """The client's network address, empty where it has none."""
    arguments: Mapping[str, str] = field(default_factory=dict)
    """The parameters of the path."""
    cause: str | None = None
    """The id under which what is written can be traced: the request's own, None where another's is carried on."""
    asked: set[str] = field(default_factory=set)
    """Names of the policy rules that were asked about this request."""

    @property
    def seams(self) -> Seams:
        """Clock, ids and randomness."""
        return self.store.seams

    def of(self, kind: type[T]) -> T:
        """The one instance of a type that the composition root provides."""
        found: T = self.provided[kind]
        return found

    async def read(self, work: Callable[[Context], T]) -> T:
        """Run a function that only reads, in a transaction."""
        return await self.store.read(lambda tx: work(self.bind(tx)))

    async def write(self, work: Callable[[Context], T]) -> T:
        """Run a function in a transaction of its own; it may be run again when it loses a race."""
        return await self.store.write(lambda tx: work(self.bind(tx)))

    async def slow(self, work: Callable[[], T]) -> T:
        """Run work that costs much CPU or blocks, outside transactions."""
        return await self.store.slow(work)

    def bind(self, tx: Tx) -> Context:
        """The request within a transaction."""
        tx.request_id = self.cause
        return Context(
            **{name: getattr(self, name) for name in Request.__dataclass_fields__},
            tx=tx,
        )

    def allows(self, rule: str, target: Mapping[str, Any] | None = None) -> bool:
        """Whether a policy rule lets the caller act on a target; by default on what is the caller's own."""
        self.asked.add(rule)
        return self.policy.passes(rule, self.own if target is None else target, self.auth.credentials)

    def enforce(self, rule: str, target: Mapping[str, Any] | None = None) -> None:
        """Raise Forbidden unless `allows`."""
        if not self.allows(rule, target):
            raise Forbidden(f"Policy doesn't allow {rule} to be performed.")

    @property
    def own(self) -> dict[str, Any]:
        """The target that is the caller's own."""
        auth = self.auth
        return {
            "project_id": auth.project_id,
            "tenant_id": auth.project_id,
            "user_id": auth.user_id,
            "domain_id": auth.domain_id,
        }


@dataclass(kw_only=True)
class Context(Request):
    """One request within a transaction. Synchronous operations are given this."""

    tx: Tx

    @property
    def now(self) -> datetime:
        """The instant of this transaction."""
        return self.tx.now

    def guard(self, target: Mapping[str, Any], missing: Fault) -> None:
        """Check the operation's policy against the thing it is about.

        A caller who may not even see it gets `missing` (404); the project's own members get Forbidden.
        """
        if self.operation and not self.allows(self.operation, target):
            self.refuse(target, missing)

    def refuse(self, target: Mapping[str, Any], missing: Fault) -> NoReturn:
        """Answer that the caller may not, without telling other projects that the thing is there."""
        if self.auth.project_id is not None and target.get("project_id") == self.auth.project_id:
            raise Forbidden(f"Policy doesn't allow {self.operation} to be performed.")
        raise missing

    def acting_as(self, **changes: Any) -> Context:
        """The same request with other attributes, for work on behalf of somebody."""
        return replace(self, **changes)
