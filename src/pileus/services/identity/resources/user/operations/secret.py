"""Operations on what lets a user in: its password and its tokens."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa

from pileus.core.api import Resource
from pileus.core.context import Context, Request
from pileus.core.errors import BadRequest
from pileus.services.identity.resources import revision, revoke_event
from pileus.services.identity.resources.user.fields import PasswordChange, compliance
from pileus.services.identity.resources.user.operations import login
from pileus.services.identity.resources.user.operations.account import check_password
from pileus.services.identity.resources.user.table import (
    find,
    get,
    keep_past,
    password_values,
    past_hashes,
    table,
    void_tokens,
)
from pileus.services.identity.rules import password as passwords

resource = Resource("user", "users")


@resource.post("/users/{user_id}/password", accepts="user", public=True, status=204, faults=(401, 403))
async def change_password(ctx: Request, user_id: str, body: PasswordChange) -> None:
    """Change one's own password, which the old one proves, also when it has expired. All tokens become void.

    Raises Unauthorized alike for a wrong password and for a user who is not there, BadRequest for a new password that
    is not lawful, and where an administrator has locked the password.
    """
    row = await ctx.read(lambda ctx: find(ctx.tx, user_id))
    try:
        row = await login.check(ctx, login.naming(user_id), row, body.original_password)
    except login.PasswordExpired:
        if row is None:
            raise
    check_password(ctx, body.password)
    if row.options.get("lock_password"):
        raise BadRequest("The password of this user is locked: only an administrator can change it.")
    asked = compliance(ctx)
    asked.check_age(row.password_changed_at, ctx.seams.clock.now())
    await _check_past(ctx, row, body, asked.unique_last_password_count)
    fresh = await ctx.slow(lambda: passwords.digest(body.password))
    held = row

    def write(ctx: Context) -> None:
        keep_past(ctx.tx, held, asked.unique_last_password_count)
        expires_at = asked.expiry(held.options, ctx.now, reset=False)
        values = password_values(fresh, expires_at=expires_at, changed_at=ctx.now)
        ctx.tx.compare_and_set(table, {"id": held.id, "password_hash": held.password_hash}, values)
        ctx.tx.changed("identity.user", held.id)
        revoke_event.note(ctx.tx, user_id=held.id)
        revision.grow(ctx.tx)

    await ctx.write(write)


async def _check_past(ctx: Request, row: sa.Row[Any], body: PasswordChange, count: int) -> None:
    """Raise BadRequest for a new password that is one of the last `count`."""
    if count < 1:
        return
    hashes = await ctx.read(lambda ctx: past_hashes(ctx.tx, row.id, count - 1))
    for hashed in (row.password_hash, *hashes):
        if await ctx.slow(functools.partial(passwords.matches, hashed, body.password)):
            raise BadRequest(
                f"The new password cannot be one of the last {count}, which must all differ from each other."
            )


@resource.delete("/users/{user_id}/tokens", policy="identity:revoke_tokens_for_user")
def revoke_tokens(ctx: Context, user_id: str) -> None:
    """Make all tokens of a user void."""
    get(ctx.tx, user_id)
    void_tokens(ctx.tx, table.c.id == user_id)
    revoke_event.note(ctx.tx, user_id=user_id)
    revision.grow(ctx.tx)
