"""What makes tokens and finds them good or not.

A token that was found good is kept, with what it means, for as long as the revision of identities stays the same: to
ask for it again costs one read of one row.  Nothing is kept of bad ones.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import msgspec
import sqlalchemy as sa

from pileus.core.context import Auth
from pileus.core.errors import Unauthorized
from pileus.core.store import Tx
from pileus.services.identity.resources import catalog as catalogs
from pileus.services.identity.resources import revision
from pileus.services.identity.resources import role as roles
from pileus.services.identity.resources import user as users
from pileus.services.identity.resources.assignment import table as assignments
from pileus.services.identity.resources.key import Keys
from pileus.services.identity.resources.project import table as projects
from pileus.services.identity.resources.token.fields import Delegation, Token, render
from pileus.services.identity.resources.token.operations import delegation as delegations
from pileus.services.identity.resources.token.operations.evidence import Leave
from pileus.services.identity.resources.token.table import revoked
from pileus.services.identity.rules.token import METHODS, BadToken, Keyring, Kind, Payload, audit_id

NO_WINDOW = timedelta(0)

SERVICE_ROLE = "service"
"""The role of those who may use tokens that have expired."""

CATALOGS = 1024
"""How many callers' catalogs are kept in memory, at a few KiB each."""

_SERVICE_TOKEN = b"x-service-token"

_domain = projects.table.alias("domain")
_USER = (
    sa.select(
        users.table.c.id,
        users.table.c.name,
        users.table.c.domain_id,
        users.table.c.generation,
        users.table.c.enabled,
        users.table.c.password_expires_at,
        _domain.c.name.label("domain_name"),
        _domain.c.enabled.label("domain_enabled"),
    )
    .join(_domain, _domain.c.id == users.table.c.domain_id)
    .where(users.table.c.id == sa.bindparam("key"))
)
_SCOPE = (
    sa.select(
        projects.table.c.id,
        projects.table.c.name,
        projects.table.c.domain_id,
        projects.table.c.is_domain,
        projects.table.c.generation,
        projects.table.c.enabled,
        _domain.c.name.label("domain_name"),
        sa.func.coalesce(_domain.c.enabled, sa.true()).label("domain_enabled"),
    )
    .join(_domain, _domain.c.id == projects.table.c.domain_id, isouter=True)
    .where(projects.table.c.id == sa.bindparam("key"))
)


class _Kept:
    """A good token, what it means at a revision, and its documents as they were asked for."""

    __slots__ = ("auth", "documents", "revision", "token")

    def __init__(self, token: Token, number: int) -> None:
        self.token = token
        self.auth = _caller(token)
        self.revision = number
        self.documents: dict[bool, bytes] = {}


class _Catalogs:
    """The catalog at a revision, and what of it users see in projects, as JSON."""

    __slots__ = ("entries", "revision", "seen")

    def __init__(self, number: int, entries: tuple[catalogs.Entry, ...]) -> None:
        self.revision = number
        self.entries = entries
        self.seen: dict[tuple[str, str | None], bytes] = {}


class Tokens:
    """Makes and validates the tokens of one cloud. Safe from several threads.

    `lifetime` is that of a token by password; `window` how long after its end a token can be validated by those who ask
    for it; `rescope_scoped` whether a token that has a scope can be exchanged for another; `size` how many good tokens
    are kept in memory, at a few KiB each.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        lifetime: timedelta = timedelta(hours=1),
        window: timedelta = timedelta(hours=48),
        rescope_scoped: bool = True,
        size: int = 4096,
    ) -> None:
        self.keys = keys
        self.lifetime = lifetime
        self.window = window
        self.rescope_scoped = rescope_scoped
        self._size = size
        self._kept: dict[str, _Kept] = {}
        self._catalogs = _Catalogs(-1, ())
        self._ring: tuple[tuple[bytes, ...], Keyring] | None = None
        self._lock = threading.Lock()

    def authenticate(self, tx: Tx, text: str, headers: Mapping[bytes, bytes]) -> Auth:
        """The caller of a request, for the edge. Raises Unauthorized.

        With the token of a service beside it, which must be good, the caller's own may have expired within the window:
        so a service finishes what was begun with it.
        """
        service = headers.get(_SERVICE_TOKEN)
        if service is None:
            return self._find(tx, text).auth
        roles = self._find(tx, service.decode("latin-1")).auth.roles
        auth = self._find(tx, text, self.window if SERVICE_ROLE in roles else NO_WINDOW).auth
        # What a service sends was not asked for by the caller itself, as the access rules would have it.
        access = None if SERVICE_ROLE in roles else auth.access
        return msgspec.structs.replace(auth, service_roles=roles, access=access)

    def validate(self, tx: Tx, text: str, window: timedelta = NO_WINDOW) -> Token:
        """A token that is good at this moment, or was until `window` ago. Raises Unauthorized."""
        return self._find(tx, text, window).token

    def document(self, tx: Tx, text: str, *, catalog: bool, window: timedelta = NO_WINDOW) -> bytes:
        """The JSON document of a good token. Raises Unauthorized."""
        kept = self._find(tx, text, window)
        found = kept.documents.get(catalog)
        if found is None:
            shown = msgspec.Raw(self.catalog(tx, kept.auth, kept.revision)) if catalog else None
            found = kept.documents[catalog] = msgspec.json.encode(render(kept.token, shown))
        return found

    def limited(self, tx: Tx, text: str, window: timedelta = NO_WINDOW) -> bool:
        """Whether a good token is good for some requests only. Raises Unauthorized."""
        return self._find(tx, text, window).auth.access is not None

    def catalog(self, tx: Tx, auth: Auth, number: int | None = None) -> bytes:
        """The catalog as JSON, as a caller sees it; `number` is the revision, when it was read in this transaction."""
        number = revision.current(tx) if number is None else number
        held = self._catalogs
        if held.revision != number:
            held = _Catalogs(number, catalogs.read(tx))
            if not tx.writable:
                self._catalogs = held
        key = (auth.user_id, auth.project_id)
        found = held.seen.get(key)
        if found is None:
            found = msgspec.json.encode(catalogs.render(tx, held.entries, *key))
            if len(held.seen) < CATALOGS:
                held.seen[key] = found
        return found

    def issue(
        self,
        tx: Tx,
        user_id: str,
        methods: tuple[str, ...],
        kind: Kind,
        scope_id: str | None,
        *,
        generation: int,
        parent: Payload | None = None,
        leave: Leave | None = None,
    ) -> str:
        """A new token. One made from another (`parent`), or by a delegation (`leave`), lives no longer than that.

        `generation` is the user's as it was when the user proved who it is; when it has grown since, there is no
        token. Raises Unauthorized.
        """
        number = revision.current(tx)
        user = _good(tx.execute(_USER, {"key": user_id}).first())
        if user.generation != generation:
            raise Unauthorized
        scope = None if scope_id is None else _good(tx.execute(_SCOPE, {"key": scope_id}).first())
        delegation = None if leave is None else delegations.find(tx, leave.kind, leave.id)
        expires_at = tx.now + self.lifetime
        if parent is not None:
            expires_at = min(expires_at, parent.expires_at)
        if delegation is not None and delegation.expires_at is not None:
            expires_at = min(expires_at, delegation.expires_at)
        payload = Payload(
            user_id=user_id,
            user_generation=user.generation,
            methods=tuple(sorted(methods, key=METHODS.index)),
            kind=kind,
            scope_id=scope_id,
            scope_generation=0 if scope is None else scope.generation,
            delegation=None if leave is None else leave.kind,
            delegation_id=None if leave is None else leave.id,
            delegation_generation=0 if delegation is None else delegation.generation,
            issued_at=tx.now,
            expires_at=expires_at.replace(microsecond=0),
            audit_id=audit_id(tx.seams.random.getrandbits(128).to_bytes(16, "big")),
            parent_audit_id=None if parent is None else parent.chain_id,
        )
        token = _assemble(tx, payload, user, scope, delegation)
        text = self._keyring(tx, number).seal(payload)
        self._keep(tx, text, _Kept(token, number))
        return text

    def _find(self, tx: Tx, text: str, window: timedelta = NO_WINDOW) -> _Kept:
        number = revision.current(tx)
        kept = self._kept.get(text)
        if kept is None or kept.revision != number:
            kept = _Kept(self._look(tx, text, window, number), number)
            self._keep(tx, text, kept)
        if kept.token.payload.expires_at + window <= tx.now:
            raise Unauthorized
        return kept

    def _keyring(self, tx: Tx, number: int) -> Keyring:
        keys, held = self.keys.current(tx, number), self._ring
        if held is None or held[0] is not keys:
            held = self._ring = (keys, Keyring(keys))
        return held[1]

    def _look(self, tx: Tx, text: str, window: timedelta, number: int) -> Token:
        try:
            payload = self._keyring(tx, number).open(text)
        except BadToken:
            raise Unauthorized from None
        if payload.expires_at + window <= tx.now or revoked(tx, payload.audit_id, payload.parent_audit_id):
            raise Unauthorized
        user = _good(tx.execute(_USER, {"key": payload.user_id}).first())
        scope = None if payload.scope_id is None else _good(tx.execute(_SCOPE, {"key": payload.scope_id}).first())
        if user.generation != payload.user_generation:
            raise Unauthorized
        if scope is not None and scope.generation != payload.scope_generation:
            raise Unauthorized
        delegation = None
        if payload.delegation is not None:
            delegation = delegations.find(tx, payload.delegation, payload.delegation_id or "")
            if delegation.generation != payload.delegation_generation:
                raise Unauthorized
        return _assemble(tx, payload, user, scope, delegation)

    def _keep(self, tx: Tx, text: str, kept: _Kept) -> None:
        if tx.writable:  # its revision may be one that is never committed
            return
        with self._lock:
            self._kept.pop(text, None)
            self._kept[text] = kept
            while len(self._kept) > self._size:
                del self._kept[next(iter(self._kept))]


def _good(row: sa.Row[Any] | None) -> sa.Row[Any]:
    """A user or scope that is there and enabled, together with its domain. Raises Unauthorized."""
    if row is None or not row.enabled or not row.domain_enabled:
        raise Unauthorized
    return row


def _assemble(
    tx: Tx, payload: Payload, user: sa.Row[Any], scope: sa.Row[Any] | None, delegation: Delegation | None
) -> Token:
    """What a token means now. Raises Unauthorized when its user holds no role in its scope any more."""
    if scope is not None and scope.is_domain != (payload.kind == "domain"):
        raise Unauthorized
    if delegation is not None:
        user = _stand_for(tx, payload, user, delegation)
    grantor_id = payload.user_id if delegation is None else delegation.grantor_id
    held = assignments.roles_of(tx, grantor_id, payload.kind, payload.scope_id)
    if delegation is not None:
        held = _delegated(tx, held, delegation)
    if payload.kind != "unscoped" and not held:
        raise Unauthorized
    roles_held = tuple((row.id, row.name) for row in held)
    return Token(payload=payload, user=user, scope=scope, roles=roles_held, delegation=delegation)


def _stand_for(tx: Tx, payload: Payload, user: sa.Row[Any], delegation: Delegation) -> sa.Row[Any]:
    """The user whom a token by delegation stands for. Raises Unauthorized when it may not (any more)."""
    if (delegation.holder_id, delegation.project_id) != (payload.user_id, payload.scope_id):
        raise Unauthorized
    others = {delegation.grantor_id, delegation.user_id} - {payload.user_id}
    found = {key: _good(tx.execute(_USER, {"key": key}).first()) for key in others}
    return found.get(delegation.user_id, user)


def _delegated(tx: Tx, held: list[sa.Row[Any]], delegation: Delegation) -> list[sa.Row[Any]]:
    """Those of the grantor's roles that were given. Raises Unauthorized when one is missing that must be there."""
    given = {row.id for row in roles.effective(tx, list(delegation.role_ids))}
    left = [row for row in held if row.id in given]
    if delegation.whole and len(left) != len(given):
        raise Unauthorized
    return left


def _caller(token: Token) -> Auth:
    payload, user, scope = token.payload, token.user, token.scope
    on_project = payload.kind == "project" and scope is not None
    more: dict[str, Any] = {}
    if token.delegation is not None:
        more = {f"{token.delegation.kind}_id": token.delegation.id, **token.delegation.caller}
    return Auth(
        user_id=user.id,
        user_name=user.name,
        user_domain_id=user.domain_id,
        project_id=payload.scope_id if on_project else None,
        project_name=scope.name if on_project and scope is not None else None,
        project_domain_id=scope.domain_id if on_project and scope is not None else None,
        domain_id=payload.scope_id if payload.kind == "domain" else None,
        system_scope="all" if payload.kind == "system" else None,
        roles=frozenset(name.lower() for _, name in token.roles),
        audit_id=payload.audit_id,
        expires_at=payload.expires_at,
        token=token,
        **more,
    )
