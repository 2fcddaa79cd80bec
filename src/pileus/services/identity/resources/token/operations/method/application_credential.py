"""The method `application_credential`: a program shows a secret that its user had made for it.

Whatever is wrong with the credential, its secret or its user, the answer is the same, and takes as long.

Source: "Authenticating with an Application Credential" of
https://docs.openstack.org/api-ref/identity/v3/#authentication-and-token-management.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from msgspec import UNSET

from pileus.core.context import Context, Request
from pileus.core.errors import BadRequest, Unauthorized
from pileus.core.store import Tx
from pileus.services.identity.resources import user as users
from pileus.services.identity.resources.application_credential import table as credentials
from pileus.services.identity.resources.token.fields import ApplicationCredentialProof, Proofs, UserReference
from pileus.services.identity.resources.token.operations.evidence import Evidence, Leave, Proof
from pileus.services.identity.resources.token.operations.reference import check_reference, named_user, naming
from pileus.services.identity.resources.user.operations.login import Attempt
from pileus.services.identity.rules import name as names
from pileus.services.identity.rules import password as passwords

NAME: Final = "application_credential"


async def prove(ctx: Request, proofs: Proofs) -> Proof:
    """Compare the secret. Raises Unauthorized."""
    shown = proofs.application_credential
    if shown is UNSET:
        raise BadRequest("Expecting to find application_credential in identity.")
    _check(shown)
    attempt = Attempt(ctx, NAME, *_naming(shown))
    attempt.check()
    row = await ctx.read(lambda ctx: _named(ctx.tx, shown))
    hashed = None if row is None else row.secret_hash
    right = await ctx.slow(lambda: passwords.matches(hashed, shown.secret))
    attempt.check()
    if row is None or not right:
        raise attempt.fail(None if row is None else row.id)
    attempt.succeed()
    key, user_id = str(row.id), str(row.user_id)

    def conclude(ctx: Context) -> Evidence:
        user = users.find(ctx.tx, user_id)
        if user is None:
            raise Unauthorized
        return Evidence(user_id=user_id, methods=(NAME,), generation=user.generation, leave=Leave(NAME, key))

    return Proof(conclude)


def _check(shown: ApplicationCredentialProof) -> None:
    """Raise BadRequest unless a credential is named by id, or by name together with its user."""
    place = f"identity/{NAME}"
    if shown.secret is None:
        raise BadRequest(f"Expecting to find secret in {place}.")
    if shown.id:
        return
    if not shown.name:
        raise BadRequest(f"Invalid input for field {place}: id or name must be present.")
    if shown.user is None:
        raise BadRequest(f"Expecting to find user in {place}.")
    check_reference(f"{place}/user", shown.user.id, shown.user.name, shown.user.domain)


def _naming(shown: ApplicationCredentialProof) -> tuple[str, ...]:
    """What `_named` goes by, for counting failures."""
    if shown.id:
        return ("id", shown.id)
    return ("name", names.key(shown.name or ""), *naming(shown.user or UserReference()))


def _named(tx: Tx, shown: ApplicationCredentialProof) -> sa.Row[Any] | None:
    if shown.id:
        return credentials.find(tx, shown.id)
    user = named_user(tx, shown.user or UserReference())
    return None if user is None else credentials.find_named(tx, user.id, shown.name or "")
