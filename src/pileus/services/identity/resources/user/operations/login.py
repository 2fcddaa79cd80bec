"""Logging in by a password: the comparison, and what limits it.

Whatever is wrong, the answer is the same and takes as long: one hash is made for a user who is not there, who has no
password, who is locked out or disabled, as for one whose password is wrong.  That a password has expired is told to
those alone who know it, because they have to change it.

Source: "Password Authentication" of https://docs.openstack.org/api-ref/identity/v3/; Keystone administration guide,
"Security compliance and PCI-DSS".
"""

from __future__ import annotations

import logging
from typing import Any

import sqlalchemy as sa

from pileus.core.context import Context, Request
from pileus.core.errors import Raced, Unauthorized
from pileus.services.identity.resources.user.fields import active, compliance
from pileus.services.identity.resources.user.table import find, table
from pileus.services.identity.rules import name as names
from pileus.services.identity.rules import password as passwords
from pileus.services.identity.rules.compliance import expired
from pileus.services.identity.rules.throttle import Throttle

logger = logging.getLogger(__name__)


class PasswordExpired(Unauthorized):
    """401: the password is right, and must be changed before it is of use."""


def naming(key: str | None, name: str | None) -> str:
    """What stands for a user that is named by id or by name, whether or not there is such a one, in whatever domain."""
    return f"id {key}" if key else f"name {names.key(name or '')}"


async def check(ctx: Request, named: str, row: sa.Row[Any] | None, password: str | None) -> sa.Row[Any]:
    """The user whose password this is. Raises Unauthorized, PasswordExpired, and TooManyRequests after many failures.

    `named` is how the request names the user (see `naming`), `row` that user as it was read a moment ago.
    """
    throttle = ctx.provided.get(Throttle)
    key = (named, ctx.address)  # of the request alone: it must not tell who exists
    if isinstance(throttle, Throttle):
        throttle.check(key, ctx.seams.clock.monotonic())
    hashed = None if row is None else row.password_hash
    right = await ctx.slow(lambda: passwords.matches(hashed, password))
    if isinstance(throttle, Throttle):
        throttle.check(key, ctx.seams.clock.monotonic())
    found = await _settle(ctx, row, right=right)
    if found is None or password is None or hashed is None:
        failures = throttle.fail(key, ctx.seams.clock.monotonic()) if isinstance(throttle, Throttle) else 1
        who = "unknown user" if row is None else row.id
        logger.warning("failed login: %s from %s, %d in a row", who, ctx.address or "?", failures)
        raise Unauthorized
    if isinstance(throttle, Throttle):
        throttle.succeed(key)
    if expired(found.options, found.password_expires_at, ctx.seams.clock.now()):
        raise PasswordExpired(f"The password is expired and needs to be changed for user: {found.id}.")
    if passwords.stale(hashed):
        await _strengthen(ctx, found.id, hashed, password)
    return found


async def _settle(ctx: Request, row: sa.Row[Any] | None, *, right: bool) -> sa.Row[Any] | None:
    """Note what the comparison showed, where a setting asks for it; the user when it may log in."""
    asked = compliance(ctx)
    if row is None:
        return None

    def judge(ctx: Context) -> sa.Row[Any] | None:
        found = find(ctx.tx, row.id)
        if found is None or found.password_hash != row.password_hash:
            return None
        if asked.locked(found.options, found.failed_logins, found.failed_at, ctx.now):
            return None
        changes: dict[str, Any] = {}
        if not right and asked.lockout_failure_attempts:
            over = found.failed_logins >= asked.lockout_failure_attempts  # and the lock has ended
            changes = {"failed_logins": 1 if over else table.c.failed_logins + 1, "failed_at": ctx.now}
        elif right and found.failed_logins:
            changes = {"failed_logins": 0, "failed_at": None}
        allowed = right and active(ctx, found)
        if allowed and asked.disable_user_account_days_inactive:
            changes["active_at"] = ctx.now
        if changes:
            ctx.tx.execute(sa.update(table).where(table.c.id == found.id).values(**changes))
        return found if allowed else None

    writes = asked.lockout_failure_attempts or asked.disable_user_account_days_inactive or row.failed_logins
    if writes:
        return await ctx.write(judge)
    return await ctx.read(judge) if right else None


async def _strengthen(ctx: Request, user_id: str, hashed: str, password: str) -> None:
    """Hash a password again with today's parameters, now that it is known."""
    fresh = await ctx.slow(lambda: passwords.digest(password))
    where = {"id": user_id, "password_hash": hashed}
    try:
        await ctx.write(lambda ctx: ctx.tx.compare_and_set(table, where, {"password_hash": fresh}))
    except Raced:
        raise Unauthorized from None
