"""Asking for a token (https://docs.openstack.org/api-ref/identity/v3/#authentication-and-token-management).

Whatever is wrong with a user, its password or its scope, the answer is the same, and takes as long.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from msgspec import UNSET

from pileus.core.api import Parameters, Reply, Resource
from pileus.core.context import Context, Request
from pileus.core.errors import Forbidden, Unauthorized
from pileus.services.identity.resources import user as users
from pileus.services.identity.resources.token.fields import AuthRequest
from pileus.services.identity.resources.token.operations import delegation as delegations
from pileus.services.identity.resources.token.operations import scope as scopes
from pileus.services.identity.resources.token.operations.evidence import Evidence, combine
from pileus.services.identity.resources.token.operations.method import METHODS
from pileus.services.identity.resources.token.operations.registry import Tokens
from pileus.services.identity.rules.compliance import factors_suffice

resource = Resource("token", "tokens")


@resource.post(
    "/auth/tokens", accepts="auth", public=True, status=201, query=Parameters("nocatalog"), faults=(401, 403)
)
async def issue(ctx: Request, body: AuthRequest) -> Reply:
    """Authenticate and issue a token, which is in the header X-Subject-Token of the answer.

    Raises Unauthorized for anything wrong with user, password or scope, NotFound for a token that is not good.
    """
    text = await authenticate(ctx, body)

    def show(ctx: Context) -> bytes:
        return ctx.of(Tokens).document(ctx.tx, text, catalog="nocatalog" not in ctx.query.names())

    return Reply(await ctx.read(show), {"x-subject-token": text, "vary": "X-Auth-Token"})


async def authenticate(ctx: Request, body: AuthRequest) -> str:
    """A new token. Raises what `issue` raises."""
    scopes.check(body.scope)
    names = tuple(dict.fromkeys(body.identity.methods))
    if not names or not METHODS.keys() >= set(names):
        raise Unauthorized
    proofs = [await METHODS[name](ctx, body.identity) for name in names]

    def write(ctx: Context) -> str:
        return _issue(ctx, combine(proof.conclude(ctx) for proof in proofs), body.scope)

    writes = scopes.writes(body.scope) or any(proof.writes for proof in proofs)
    return await (ctx.write(write) if writes else ctx.read(write))


def _issue(ctx: Context, evidence: Evidence, wanted: scopes.Wanted) -> str:
    parent = evidence.parent
    user = users.find(ctx.tx, evidence.user_id)
    if user is None or not factors_suffice(user.options, evidence.methods, METHODS):
        raise Unauthorized
    scope = _scope(ctx, user, evidence, wanted)
    if parent is not None and parent.kind == "system" and scope.kind in ("project", "domain"):
        raise Forbidden("A token for the system cannot be exchanged for one for a project or a domain.")
    return ctx.of(Tokens).issue(
        ctx.tx,
        user.id,
        evidence.methods,
        scope.kind,
        scope.id,
        generation=evidence.generation,
        parent=parent,
        leave=scope.leave,
    )


def _scope(ctx: Context, user: sa.Row[Any], evidence: Evidence, wanted: scopes.Wanted) -> scopes.Scope:
    """The scope of a new token: what a shown delegation says, or else what is asked for."""
    leave = evidence.leave
    if leave is None:
        return scopes.resolve(ctx, user, wanted)
    if wanted is not UNSET:
        raise Unauthorized("No scope can be asked for beside what names one itself.")
    project_id = delegations.find(ctx.tx, leave.kind, leave.id).project_id
    return scopes.Scope("unscoped" if project_id is None else "project", project_id, leave)
