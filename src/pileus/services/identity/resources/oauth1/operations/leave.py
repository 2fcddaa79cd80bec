"""What an access token of OAuth means at this moment for an Identity token that stands on it."""

from __future__ import annotations

from pileus.core.store import Tx
from pileus.services.identity.resources.delegation import role_rows
from pileus.services.identity.resources.oauth1 import table as tables
from pileus.services.identity.resources.token.fields import Delegation


def find(tx: Tx, key: str) -> Delegation | None:
    """An access token as an Identity token needs it; None when it is gone, or a role of it is.

    Its user must still hold all that it carries: a role that was taken away voids it.
    """
    row = tables.find(tx, tables.access_token, key)
    if row is None or len(role_rows(tx, row.role_ids)) != len(row.role_ids):
        return None
    return Delegation(
        kind="access_token",
        id=row.id,
        holder_id=row.authorizing_user_id,
        user_id=row.authorizing_user_id,
        grantor_id=row.authorizing_user_id,
        project_id=row.project_id,
        role_ids=frozenset(row.role_ids),
        whole=True,
        expires_at=row.expires_at,
        document={"OS-OAUTH1": {"access_token_id": row.id, "consumer_id": row.consumer_id}},
    )
