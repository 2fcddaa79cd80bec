"""Who may do what with users (keystone.common.policies.user)."""

from __future__ import annotations

from pileus.core.policy import Rule
from pileus.services.identity.resources.attribute import ADMIN_OR_SYSTEM_READER

_MANAGES = "rule:admin_required or (role:manager and domain_id:%(target.user.domain_id)s)"

RULES = (
    Rule(
        "identity:get_user",
        f"{ADMIN_OR_SYSTEM_READER} or (role:reader and domain_id:%(target.user.domain_id)s)"
        " or user_id:%(target.user.id)s",
        "Show a user",
    ),
    Rule(
        "identity:list_users",
        f"{ADMIN_OR_SYSTEM_READER} or (role:reader and domain_id:%(target.domain_id)s)",
        "List users",
    ),
    Rule("identity:create_user", _MANAGES, "Create a user"),
    Rule("identity:update_user", _MANAGES, "Update a user"),
    Rule("identity:delete_user", _MANAGES, "Delete a user"),
    Rule("identity:revoke_tokens_for_user", "rule:admin_or_owner", "Revoke all tokens of a user"),
)
