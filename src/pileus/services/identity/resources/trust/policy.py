"""Who may do what with trusts."""

from __future__ import annotations

from pileus.core.policy import Rule
from pileus.services.identity.resources.attribute import ADMIN, ADMIN_OR_SYSTEM_READER
from pileus.services.identity.resources.delegation import NOT_DOMAIN, PROJECT

_TRUSTOR = "user_id:%(target.trust.trustor_user_id)s"
_TRUSTEE = "user_id:%(target.trust.trustee_user_id)s"
_SEES = f"{NOT_DOMAIN} and ({ADMIN_OR_SYSTEM_READER} or {_TRUSTOR} or {_TRUSTEE})"

RULES = (
    Rule("identity:create_trust", f"{PROJECT} and {_TRUSTOR}", "Create a trust"),
    Rule("identity:list_trusts", f"{NOT_DOMAIN} and ({ADMIN_OR_SYSTEM_READER})", "List trusts"),
    Rule(
        "identity:list_trusts_for_trustor",
        f"{NOT_DOMAIN} and ({ADMIN_OR_SYSTEM_READER} or {_TRUSTOR})",
        "List the trusts of a trustor",
    ),
    Rule(
        "identity:list_trusts_for_trustee",
        f"{NOT_DOMAIN} and ({ADMIN_OR_SYSTEM_READER} or {_TRUSTEE})",
        "List the trusts of a trustee",
    ),
    Rule("identity:list_roles_for_trust", _SEES, "List the roles that a trust delegates"),
    Rule("identity:get_role_for_trust", _SEES, "Check whether a trust delegates a role"),
    Rule("identity:delete_trust", f"{NOT_DOMAIN} and ({ADMIN} or {_TRUSTOR})", "Delete a trust"),
    Rule("identity:get_trust", _SEES, "Show a trust"),
)
