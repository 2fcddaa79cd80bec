"""What an application credential means at this moment for a token that stands on it."""

from __future__ import annotations

import functools
from typing import Any

from pileus.core.store import Tx
from pileus.services.identity.resources import access_rule as access_rules
from pileus.services.identity.resources.application_credential import table as credentials
from pileus.services.identity.resources.delegation import role_rows
from pileus.services.identity.resources.token.fields import Delegation
from pileus.services.identity.rules.access_rule import AccessRule, permits

_VALIDATION = "/v3/auth/tokens"


def find(tx: Tx, key: str) -> Delegation | None:
    """An application credential as a token needs it; None when it is gone, or a role of it is.

    Its user must still hold all that it carries: a role that was taken away voids it.
    """
    row = credentials.find(tx, key)
    if row is None or len(role_rows(tx, row.role_ids)) != len(row.role_ids):
        return None
    shown: dict[str, Any] = {"id": row.id, "name": row.name, "restricted": not row.unrestricted}
    caller: dict[str, Any] = {"restricted": not row.unrestricted}
    if row.access_rules:
        shown["access_rules"] = row.access_rules
        caller["access"] = functools.partial(_access, tuple(access_rules.pure(one) for one in row.access_rules))
    return Delegation(
        kind="application_credential",
        id=row.id,
        holder_id=row.user_id,
        user_id=row.user_id,
        grantor_id=row.user_id,
        project_id=row.project_id,
        role_ids=frozenset(row.role_ids),
        whole=True,
        expires_at=row.expires_at,
        document={"application_credential": shown},
        caller=caller,
    )


def _access(rules: tuple[AccessRule, ...], service: str, method: str, path: str) -> bool:
    """Whether rules let a request pass; to ask whether a token is good they always do."""
    if service == "identity" and method == "GET" and path == _VALIDATION:
        return True
    return permits(rules, service, method, (path,))
