"""Operations on tokens (https://docs.openstack.org/api-ref/identity/v3/#authentication-and-token-management).

Whatever is wrong with a user, its password or its scope, the answer is the same, and takes as long.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from msgspec import UNSET

from pileus.core.api import Page, Reply, Resource
from pileus.core.context import Context, Request
from pileus.core.errors import Forbidden, NotFound, Unauthorized
from pileus.core.policy import Rule
from pileus.services.identity.resources import catalog as catalogs
from pileus.services.identity.resources import domain as domains
from pileus.services.identity.resources import revision
from pileus.services.identity.resources import user as users
from pileus.services.identity.resources.assignment import table as assignments
from pileus.services.identity.resources.attribute import permit
from pileus.services.identity.resources.project import fields as project_fields
from pileus.services.identity.resources.project import operations as project_operations
from pileus.services.identity.resources.project import table as projects
from pileus.services.identity.resources.token.fields import AuthRequest
from pileus.services.identity.resources.token.operations import delegation as delegations
from pileus.services.identity.resources.token.operations import scope as scopes
from pileus.services.identity.resources.token.operations.evidence import Evidence, combine
from pileus.services.identity.resources.token.operations.method import METHODS
from pileus.services.identity.resources.token.operations.registry import Tokens
from pileus.services.identity.resources.token.table import revoke
from pileus.services.identity.rules.compliance import factors_suffice
from pileus.services.identity.rules.token import Payload

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


@resource.post("/auth/tokens", accepts="auth", public=True, status=201)
async def issue(ctx: Request, body: AuthRequest) -> Reply:
    """Authenticate and issue a token, which is in the header X-Subject-Token of the answer.

    Raises Unauthorized for anything wrong with user, password or scope, NotFound for a token that is not good.
    """
    scopes.check(body.scope)
    names = tuple(dict.fromkeys(body.identity.methods))
    if not names or not METHODS.keys() >= set(names):
        raise Unauthorized
    proofs = [await METHODS[name](ctx, body.identity) for name in names]

    def write(ctx: Context) -> Reply:
        return _issue(ctx, combine(proof.conclude(ctx) for proof in proofs), body.scope)

    writes = scopes.writes(body.scope) or any(proof.writes for proof in proofs)
    return await (ctx.write(write) if writes else ctx.read(write))


def _issue(ctx: Context, evidence: Evidence, wanted: scopes.Wanted) -> Reply:
    tokens, parent = ctx.of(Tokens), evidence.parent
    user = users.find(ctx.tx, evidence.user_id)
    if user is None or not factors_suffice(user.options, evidence.methods, METHODS):
        raise Unauthorized
    scope = _scope(ctx, user, evidence, wanted)
    if parent is not None and parent.kind == "system" and scope.kind in ("project", "domain"):
        raise Forbidden("A token for the system cannot be exchanged for one for a project or a domain.")
    text = tokens.issue(
        ctx.tx,
        user.id,
        evidence.methods,
        scope.kind,
        scope.id,
        generation=evidence.generation,
        parent=parent,
        leave=scope.leave,
    )
    document = tokens.document(ctx.tx, text, catalog="nocatalog" not in ctx.query.names())
    return Reply(document, {"x-subject-token": text, "vary": "X-Auth-Token"})


def _scope(ctx: Context, user: sa.Row[Any], evidence: Evidence, wanted: scopes.Wanted) -> scopes.Scope:
    """The scope of a new token: what a shown delegation says, or else what is asked for."""
    leave = evidence.leave
    if leave is None:
        return scopes.resolve(ctx, user, wanted)
    if wanted is not UNSET:
        raise Unauthorized("No scope can be asked for beside what names one itself.")
    project_id = delegations.find(ctx.tx, leave.kind, leave.id).project_id
    return scopes.Scope("unscoped" if project_id is None else "project", project_id, leave)


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
