"""Logging in by a password: the comparison, and what limits it.

Whatever is wrong, the answer is the same and takes as long: one hash is made for a user who is not there, who has no
password, who is locked out or disabled, as for one whose password is wrong.  That a password has expired is told to
those alone who know it, because they have to change it.

Source: "Password Authentication" of https://docs.openstack.org/api-ref/identity/v3/; Keystone administration guide,
"Security compliance and PCI-DSS".
"""

from __future__ import annotations

import hashlib
import logging
from typing import Any

import sqlalchemy as sa

from pileus.core.context import Context, Request
from pileus.core.errors import Raced, Unauthorized
from pileus.services.identity.resources.user.fields import active, compliance
from pileus.services.identity.resources.user.table import decoy, find, table
from pileus.services.identity.rules import name as names
from pileus.services.identity.rules import password as passwords
from pileus.services.identity.rules.compliance import Compliance, expired
from pileus.services.identity.rules.throttle import Throttle

logger = logging.getLogger(__name__)


class PasswordExpired(Unauthorized):
    """401: the password is right, and must be changed before it is of use."""


class Attempt:
    """One attempt to log in, as somebody who is `named` in the request (see `naming`): by that alone it is counted.

    So what it is answered does not tell who exists.
    """

    def __init__(self, ctx: Request, *named: str) -> None:
        self._throttle = ctx.of(Throttle) if Throttle in ctx.provided else Throttle(0)
        self._clock = ctx.seams.clock
        self._key = (hashlib.sha256(repr(named).encode()).hexdigest(), ctx.address)

    def check(self) -> None:
        """Raise TooManyRequests while there is a wait. Ask before a secret is compared, and again after."""
        self._throttle.check(self._key, self._clock.monotonic())

    def fail(self, who: str | None) -> Unauthorized:
        """Note that it has failed; the fault. `who` is the id of what was named, None where there is no such."""
        failures = self._throttle.fail(self._key, self._clock.monotonic())
        logger.warning("failed login: %s from %s, %d in a row", who or "nobody known", self._key[1] or "?", failures)
        return Unauthorized()

    def succeed(self) -> None:
        """Note that it has not failed."""
        self._throttle.succeed(self._key)


def naming(
    key: str | None, name: str | None = None, domain_id: str | None = None, domain_name: str | None = None
) -> tuple[str, ...]:
    """What of a request finds the user that it names, and nothing else that it says; whether there is one or not.

    Whoever has a user of the same name in another domain is another one, whose logins end no wait.
    """
    if key:
        return ("id", key)
    domain = ("domain name", names.key(domain_name)) if domain_name else ("domain id", domain_id or "")
    return ("name", names.key(name or ""), *domain)


async def check(ctx: Request, named: tuple[str, ...], row: sa.Row[Any] | None, password: str | None) -> sa.Row[Any]:
    """The user whose password this is. Raises Unauthorized, PasswordExpired, and TooManyRequests after many failures.

    `named` is how the request names the user (see `naming`), `row` that user as it was read a moment ago.
    """
    attempt = Attempt(ctx, *named)
    attempt.check()
    hashed = None if row is None else row.password_hash
    right = await ctx.slow(lambda: passwords.matches(hashed, password))
    attempt.check()
    found = await _settle(ctx, row, right=right)
    if found is None or password is None or hashed is None:
        raise attempt.fail(None if row is None else row.id)
    attempt.succeed()
    if expired(found.options, found.password_expires_at, ctx.seams.clock.now()):
        raise PasswordExpired(f"The password is expired and needs to be changed for user: {found.id}.")
    if passwords.stale(hashed):
        await _strengthen(ctx, found.id, hashed, password)
    return found


async def _settle(ctx: Request, row: sa.Row[Any] | None, *, right: bool) -> sa.Row[Any] | None:
    """Note what the comparison showed, where a setting asks for it; the user when it may log in.

    Where failures are written, one is written for whoever was named: the time that it takes must not tell who exists.
    """
    asked = compliance(ctx)
    failed = row is not None and row.failed_logins
    writes = bool(asked.disable_user_account_days_inactive or failed or (asked.lockout_failure_attempts and not right))

    def judge(ctx: Context) -> sa.Row[Any] | None:
        found = None if row is None else find(ctx.tx, row.id)
        if found is not None and (row is None or found.password_hash != row.password_hash):
            found = None
        if found is not None and asked.locked(found.options, found.failed_logins, found.failed_at, ctx.now):
            found = None
        changes = _changes(ctx, found, asked, right=right) if found is not None and writes else {}
        if found is not None and changes:
            ctx.tx.execute(sa.update(table).where(table.c.id == found.id).values(**changes))
        elif not right and asked.lockout_failure_attempts:
            ctx.tx.upsert(decoy, {"id": 1, "at": ctx.now}, key=("id",))
        return found if right and found is not None and active(ctx, found) else None

    if writes:
        return await ctx.write(judge)
    return await ctx.read(judge) if right else None


def _changes(ctx: Context, found: sa.Row[Any], asked: Compliance, *, right: bool) -> dict[str, Any]:
    """The columns of a user that is not locked out, after a comparison."""
    changes: dict[str, Any] = {}
    if not right and asked.lockout_failure_attempts:
        over = found.failed_logins >= asked.lockout_failure_attempts  # and the lock has ended
        changes = {"failed_logins": 1 if over else table.c.failed_logins + 1, "failed_at": ctx.now}
    elif right and found.failed_logins:
        changes = {"failed_logins": 0, "failed_at": None}
    if right and asked.disable_user_account_days_inactive and active(ctx, found):
        changes["active_at"] = ctx.now
    return changes


async def _strengthen(ctx: Request, user_id: str, hashed: str, password: str) -> None:
    """Hash a password again with today's parameters, now that it is known."""
    fresh = await ctx.slow(lambda: passwords.digest(password))
    where = {"id": user_id, "password_hash": hashed}
    try:
        await ctx.write(lambda ctx: ctx.tx.compare_and_set(table, where, {"password_hash": fresh}))
    except Raced:
        raise Unauthorized from None
