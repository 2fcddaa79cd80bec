"""The method `password`.

Whatever is wrong with a user or its password, the answer is the same, and takes as long.

Source: "Password Authentication" of https://docs.openstack.org/api-ref/identity/v3/#authentication-and-token-management.
"""

from __future__ import annotations

from msgspec import UNSET

from pileus.core.context import Request
from pileus.core.errors import BadRequest, Raced, Unauthorized
from pileus.services.identity.resources import user as users
from pileus.services.identity.resources.token.fields import Proofs
from pileus.services.identity.resources.token.operations.evidence import Evidence, Proof
from pileus.services.identity.resources.token.operations.reference import check_reference, named_user
from pileus.services.identity.rules import password as passwords


async def prove(ctx: Request, proofs: Proofs) -> Proof:
    """Compare the password. Raises Unauthorized."""
    if proofs.password is UNSET:
        raise BadRequest("Expecting to find password in identity.")
    user = proofs.password.user
    check_reference("identity/password/user", user.id, user.name, user.domain)
    row = await ctx.read(lambda ctx: named_user(ctx.tx, user))
    hashed = None if row is None else row.password_hash
    right = await ctx.slow(lambda: passwords.matches(hashed, user.password))
    if row is None or hashed is None or user.password is None or not right:
        raise Unauthorized
    if passwords.stale(hashed):
        await _strengthen(ctx, row.id, hashed, user.password)
    found = Evidence(user_id=row.id, methods=("password",), generation=row.generation)
    return Proof(lambda ctx: found)


async def _strengthen(ctx: Request, user_id: str, hashed: str, password: str) -> None:
    """Hash a password again with today's parameters, now that it is known."""
    fresh = await ctx.slow(lambda: passwords.digest(password))
    where = {"id": user_id, "password_hash": hashed}
    try:
        await ctx.write(lambda ctx: ctx.tx.compare_and_set(users.table, where, {"password_hash": fresh}))
    except Raced:
        raise Unauthorized from None
