"""What a trust means at this moment for a token that stands on it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from pileus.core.store import Tx
from pileus.services.identity.resources import user as users
from pileus.services.identity.resources.assignment import table as assignments
from pileus.services.identity.resources.delegation import role_rows
from pileus.services.identity.resources.role import effective
from pileus.services.identity.resources.token.fields import Delegation
from pileus.services.identity.resources.trust import table as trusts
from pileus.services.identity.rules import redelegation
from pileus.services.identity.rules.expiry import earliest


def find(tx: Tx, key: str) -> Delegation | None:
    """A trust as a token needs it; None when it was deleted, has ended, or is not lawful any longer.

    A token that took the last use stays good.  Every trustor on the way must still hold all that the last trust
    delegates, and be enabled together with every trustee; tokens of before one of them was disabled or got another
    password are void.
    """
    row = trusts.find(tx, key)
    chain = None if row is None else trusts.chain(tx, row)
    if row is None or chain is None or row.project_id is None:
        return None
    if not redelegation.intact([trusts.terms(one) for one in chain]):
        return None
    if len(role_rows(tx, row.role_ids)) != len(row.role_ids):
        return None
    generation = _generation(tx, chain)
    if generation is None or not all(_holds(tx, one.trustor_user_id, row) for one in chain):
        return None
    return Delegation(
        kind="trust",
        id=row.id,
        holder_id=row.trustee_user_id,
        user_id=row.trustor_user_id if row.impersonation else row.trustee_user_id,
        grantor_id=chain[-1].trustor_user_id,
        project_id=row.project_id,
        role_ids=frozenset(row.role_ids),
        whole=True,
        generation=generation,
        expires_at=earliest(*(one.expires_at for one in chain)),
        document={"OS-TRUST:trust": _document(row)},
        caller={"trustor_id": row.trustor_user_id, "trustee_id": row.trustee_user_id},
    )


def _document(row: sa.Row[Any]) -> dict[str, Any]:
    found = {
        "id": row.id,
        "impersonation": row.impersonation,
        "trustor_user": {"id": row.trustor_user_id},
        "trustee_user": {"id": row.trustee_user_id},
    }
    if row.redelegated_trust_id is not None:
        found |= {"redelegated_trust_id": row.redelegated_trust_id, "redelegation_count": row.redelegation_count}
    return found


def _generation(tx: Tx, chain: list[sa.Row[Any]]) -> int | None:
    """A number that grows with the generation of each trustor; None when somebody in the chain is not enabled."""
    trustors = {one.trustor_user_id for one in chain}
    people = trustors | {one.trustee_user_id for one in chain}
    table = users.table
    query = sa.select(table.c.id, table.c.generation, table.c.enabled).where(table.c.id.in_(people))
    rows = tx.all(query)
    if len(rows) != len(people) or not all(row.enabled for row in rows):
        return None
    return sum(int(row.generation) for row in rows if row.id in trustors)


def _holds(tx: Tx, user_id: str, row: sa.Row[Any]) -> bool:
    """Whether a user holds all roles of a trust in its project, those that they imply included."""
    held = {one.id for one in assignments.roles_of(tx, user_id, "project", row.project_id)}
    return held.issuperset(one.id for one in effective(tx, row.role_ids))
