"""Operations on tokens (https://docs.openstack.org/api-ref/identity/v3/#authentication-and-token-management).

Whatever is wrong with a user, its password or its scope, the answer is the same, and takes as long.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from pileus.core.api import Page, Reply, Resource
from pileus.core.context import Context, Request
from pileus.core.errors import BadRequest, Forbidden, NotFound, Raced, Unauthorized
from pileus.core.policy import Rule
from pileus.core.store import Tx
from pileus.services.identity.resources import catalog as catalogs
from pileus.services.identity.resources import domain as domains
from pileus.services.identity.resources import revision
from pileus.services.identity.resources import user as users
from pileus.services.identity.resources.assignment import table as assignments
from pileus.services.identity.resources.attribute import permit
from pileus.services.identity.resources.project import fields as project_fields
from pileus.services.identity.resources.project import operations as project_operations
from pileus.services.identity.resources.project import table as projects
from pileus.services.identity.resources.token.fields import (
    AuthRequest,
    DomainReference,
    ProjectReference,
    Proofs,
    ScopeReference,
    UserReference,
)
from pileus.services.identity.resources.token.operations.registry import Tokens
from pileus.services.identity.resources.token.table import revoke
from pileus.services.identity.rules import password as passwords
from pileus.services.identity.rules.token import Kind, Payload

_SUBJECT = b"x-subject-token"

resource = Resource(
    "token",
    "tokens",
    rules=[
        Rule(
            "identity:validate_token",
            "rule:admin_required or (role:reader and system_scope:all) or rule:service_role or rule:token_subject",
            "Validate a token",
        ),
        Rule("identity:revoke_token", "rule:admin_required or rule:token_subject", "Revoke a token"),
        Rule("identity:get_auth_catalog", "", "Show the catalog"),
        Rule("identity:get_auth_projects", "", "List projects that a token can be scoped to"),
        Rule("identity:get_auth_domains", "", "List domains that a token can be scoped to"),
        Rule("identity:get_auth_system", "", "Show whether a token can be scoped to the system"),
    ],
)


class _Known(NamedTuple):
    """Who the caller has proved to be: by password (its hash), by a token, or both."""

    methods: tuple[str, ...]
    user_id: str | None
    hashed: str | None
    token: str | None


class _Scope(NamedTuple):
    kind: Kind
    id: str | None


@resource.post("/auth/tokens", accepts="auth", public=True, status=201)
async def issue(ctx: Request, body: AuthRequest) -> Reply:
    """Authenticate and issue a token, which is in the header X-Subject-Token of the answer.

    Raises Unauthorized for anything wrong with user, password or scope, NotFound for a token that is not good.
    """
    _check_scope(body.scope)
    known = await _prove(ctx, body.identity)
    return await ctx.read(lambda ctx: _issue(ctx, known, body.scope))


async def _prove(ctx: Request, proofs: Proofs) -> _Known:
    methods = tuple(dict.fromkeys(proofs.methods))
    if not methods or not set(methods) <= {"password", "token"}:
        raise Unauthorized
    user_id = hashed = token = None
    if "token" in methods:
        if proofs.token is UNSET:
            raise BadRequest("Expecting to find token in identity.")
        token = proofs.token.id
    if "password" in methods:
        if proofs.password is UNSET:
            raise BadRequest("Expecting to find password in identity.")
        user_id, hashed = await _prove_by_password(ctx, proofs.password.user)
    return _Known(methods, user_id, hashed, token)


async def _prove_by_password(ctx: Request, user: UserReference) -> tuple[str, str]:
    """The id of a user and the hash of its password, once it was shown. Raises Unauthorized."""
    _check_reference("identity/password/user", user.id, user.name, user.domain)
    row = await ctx.read(lambda ctx: _named_user(ctx.tx, user))
    hashed = None if row is None else row.password_hash
    right = await ctx.slow(lambda: passwords.matches(hashed, user.password))
    # Limits on failed logins belong here: after the hash, so that those locked out wait as long as others.
    if row is None or hashed is None or user.password is None or not right:
        raise Unauthorized
    if passwords.stale(hashed):
        hashed = await _strengthen(ctx, row.id, hashed, user.password)
    return row.id, hashed


async def _strengthen(ctx: Request, user_id: str, hashed: str, password: str) -> str:
    """Hash a password again with today's parameters, now that it is known; the hash that is kept."""
    fresh = await ctx.slow(lambda: passwords.digest(password))
    where = {"id": user_id, "password_hash": hashed}
    try:
        await ctx.write(lambda ctx: ctx.tx.compare_and_set(users.table, where, {"password_hash": fresh}))
    except Raced:
        raise Unauthorized from None
    return fresh


def _check_reference(place: str, key: str | None, name: str | None, domain: DomainReference | None) -> None:
    if not key and not name:
        raise BadRequest(f"Invalid input for field {place}: id or name must be present.")
    if not key and domain is None:
        raise BadRequest(f"Expecting to find domain in {place}.")
    if domain is not None and not domain.id and not domain.name:
        raise BadRequest(f"Invalid input for field {place}/domain: id or name must be present.")


def _check_scope(scope: ScopeReference | str | UnsetType) -> None:
    """Raise BadRequest unless exactly one scope is asked for, in words that can be understood."""
    if scope is UNSET or scope == "unscoped":
        return
    wanted = [] if isinstance(scope, str) else [scope.project, scope.domain, scope.system, scope.unscoped, scope.trust]
    if isinstance(scope, str) or sum(one is not UNSET for one in wanted) != 1:
        raise BadRequest("Expecting to find system, project, domain, OS-TRUST:trust or unscoped in scope.")
    if scope.project is not UNSET:
        _check_reference("scope/project", scope.project.id, scope.project.name, scope.project.domain)
    if scope.domain is not UNSET and not scope.domain.id and not scope.domain.name:
        raise BadRequest("Invalid input for field scope/domain: id or name must be present.")
    if scope.system is not UNSET and not scope.system.all:
        raise BadRequest("Invalid input for field scope/system: all must be true.")


def _named_domain(tx: Tx, domain: DomainReference) -> sa.Row[Any] | None:
    return projects.find_named(tx, domain.name, None) if domain.name else projects.find_domain(tx, domain.id or "")


def _named_user(tx: Tx, user: UserReference) -> sa.Row[Any] | None:
    if user.id:
        return users.find(tx, user.id)
    domain = None if user.domain is None else _named_domain(tx, user.domain)
    return None if domain is None else users.find_named(tx, user.name or "", domain.id)


def _named_project(tx: Tx, project: ProjectReference) -> sa.Row[Any] | None:
    if project.id:
        return projects.find(tx, project.id)
    domain = None if project.domain is None else _named_domain(tx, project.domain)
    return None if domain is None else projects.find_named(tx, project.name or "", domain.id)


def _issue(ctx: Context, known: _Known, wanted: ScopeReference | str | UnsetType) -> Reply:
    tokens = ctx.of(Tokens)
    parent: Payload | None = None
    user_id, methods = known.user_id, known.methods
    if known.token is not None:
        try:
            parent = tokens.validate(ctx.tx, known.token).payload
        except Unauthorized:
            raise NotFound("Could not find token.") from None
        if user_id is not None and user_id != parent.user_id:
            raise Unauthorized
        user_id = parent.user_id
        methods = tuple(dict.fromkeys((*methods, *parent.methods)))
    user = users.find(ctx.tx, user_id or "")
    if user is None or (known.hashed is not None and user.password_hash != known.hashed):
        raise Unauthorized
    generation = user.generation if parent is None else parent.user_generation
    scope = _resolve(ctx.tx, user, wanted)
    if parent is not None and parent.kind == "system" and scope.kind in ("project", "domain"):
        raise Forbidden("A token for the system cannot be exchanged for one for a project or a domain.")
    text = tokens.issue(ctx.tx, user.id, methods, scope.kind, scope.id, generation=generation, parent=parent)
    document = tokens.document(ctx.tx, text, catalog="nocatalog" not in ctx.query.names())
    return Reply(document, {"x-subject-token": text, "vary": "X-Auth-Token"})


def _resolve(tx: Tx, user: sa.Row[Any], wanted: ScopeReference | str | UnsetType) -> _Scope:
    """The scope that is asked for, or else the user's default project where it can be had. Raises Unauthorized."""
    if wanted is UNSET:
        return _default(tx, user)
    if isinstance(wanted, str) or wanted.unscoped is not UNSET:
        return _Scope("unscoped", None)
    if wanted.system is not UNSET:
        return _Scope("system", None)
    if wanted.project is not UNSET:
        row, kind = _named_project(tx, wanted.project), "project"
    elif wanted.domain is not UNSET:
        row, kind = _named_domain(tx, wanted.domain), "domain"
    else:
        raise Unauthorized  # no trust is known here
    if row is None:
        raise Unauthorized
    return _Scope("project" if kind == "project" else "domain", row.id)


def _default(tx: Tx, user: sa.Row[Any]) -> _Scope:
    key = user.default_project_id
    row = None if key is None else projects.find(tx, key)
    if row is None or row.is_domain or not row.enabled:
        return _Scope("unscoped", None)
    domain = projects.find_domain(tx, row.domain_id)
    if domain is None or not domain.enabled or not assignments.roles_of(tx, user.id, "project", row.id):
        return _Scope("unscoped", None)
    return _Scope("project", row.id)


def _subject(ctx: Context, rule: str) -> tuple[str, Payload]:
    """The token that the request is about. Raises NotFound when it is not good, Forbidden for who may not ask."""
    text = ctx.headers.get(_SUBJECT, b"").decode("latin-1")
    if not text:
        permit(ctx, rule)
        raise NotFound("No token in the request")
    try:
        payload = ctx.of(Tokens).validate(ctx.tx, text).payload
    except Unauthorized:
        raise NotFound("Could not find token.") from None
    permit(ctx, rule, token={"user_id": payload.user_id})
    return text, payload


@resource.get("/auth/tokens")
def validate(ctx: Context) -> Reply:
    """Show (GET) or check (HEAD) the token in the header X-Subject-Token."""
    text, _ = _subject(ctx, "identity:validate_token")
    document = ctx.of(Tokens).document(ctx.tx, text, catalog="nocatalog" not in ctx.query.names())
    return Reply(document, {"x-subject-token": text, "vary": "X-Auth-Token"})


@resource.delete("/auth/tokens")
def revoke_one(ctx: Context) -> None:
    """Revoke the token in the header X-Subject-Token and, unless `cascade` is false, those made from it."""
    _, payload = _subject(ctx, "identity:revoke_token")
    chain = (ctx.query.get("cascade") or "true").lower() not in ("0", "f", "false", "off", "n", "no")
    revoke(ctx.tx, payload.audit_id, payload.expires_at, chain=chain)
    revision.grow(ctx.tx)


@resource.get("/auth/catalog", policy="identity:get_auth_catalog")
def show_catalog(ctx: Context) -> Mapping[str, Any]:
    """The catalog for the token's project. Raises Forbidden for other scopes."""
    if ctx.auth.project_id is None:
        raise Forbidden("A project-scoped token is required to produce a service catalog.")
    entries = ctx.of(Tokens).entries(ctx.tx)
    found = catalogs.render(entries, ctx.auth.user_id, ctx.auth.project_id)
    return {"catalog": found, "links": {"next": None, "self": f"{ctx.url}/v3/auth/catalog", "previous": None}}


@resource.get("/auth/projects", policy="identity:get_auth_projects", wraps="projects")
def list_projects(ctx: Context) -> Page:
    """The projects that the caller's token can be scoped to."""
    table = projects.table
    mine = assignments.targets_of(ctx.tx, ctx.auth.user_id)
    query = sa.select(table).where(table.c.id.in_(mine), ~table.c.is_domain, table.c.enabled)
    found = project_operations.listing.page(ctx, query)
    return Page(project_fields.views(ctx, found.rows), found.next_marker)


@resource.get("/auth/domains", policy="identity:get_auth_domains", wraps="domains")
def list_domains(ctx: Context) -> Page:
    """The domains that the caller's token can be scoped to."""
    table = projects.table
    mine = assignments.targets_of(ctx.tx, ctx.auth.user_id)
    rows = ctx.tx.all(sa.select(table).where(table.c.id.in_(mine), table.c.is_domain, table.c.enabled))
    return Page(domains.views(ctx, rows))


@resource.get("/auth/system", policy="identity:get_auth_system")
def show_system(ctx: Context) -> Mapping[str, Any]:
    """Whether the caller's token can be scoped to the system."""
    held = assignments.roles_of(ctx.tx, ctx.auth.user_id, "system", None)
    found = [{"all": True}] if held else []
    return {"system": found, "links": {"self": f"{ctx.url}/v3/auth/system"}}
