"""The method `password`.

Whatever is wrong with a user or its password, the answer is the same, and takes as long.

Source: "Password Authentication" of https://docs.openstack.org/api-ref/identity/v3/#authentication-and-token-management.
"""

from __future__ import annotations

from msgspec import UNSET

from pileus.core.context import Request
from pileus.core.errors import BadRequest
from pileus.services.identity.resources.token.fields import Proofs
from pileus.services.identity.resources.token.operations.evidence import Evidence, Proof
from pileus.services.identity.resources.token.operations.reference import check_reference, named_user, naming
from pileus.services.identity.resources.user.operations import login


async def prove(ctx: Request, proofs: Proofs) -> Proof:
    """Compare the password. Raises Unauthorized."""
    if proofs.password is UNSET:
        raise BadRequest("Expecting to find password in identity.")
    user = proofs.password.user
    check_reference("identity/password/user", user.id, user.name, user.domain)
    row = await ctx.read(lambda ctx: named_user(ctx.tx, user))
    row = await login.check(ctx, naming(user), row, user.password)
    found = Evidence(user_id=row.id, methods=("password",), generation=row.generation)
    return Proof(lambda ctx: found)
