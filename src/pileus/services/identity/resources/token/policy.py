"""Who may do what with tokens (keystone.common.policies.token and .auth).

Upstream has a rule of its own for HEAD, `identity:check_token`; here HEAD is GET without a body, and its rule the same.
"""

from __future__ import annotations

from pileus.core.policy import Rule

RULES = (
    Rule(
        "identity:validate_token",
        "rule:admin_required or (role:reader and system_scope:all) or rule:service_role or rule:token_subject",
        "Show or check a token",
    ),
    Rule("identity:revoke_token", "rule:admin_required or rule:token_subject", "Revoke a token"),
)

REACH_RULES = (
    Rule("identity:get_auth_catalog", "", "Show the catalog"),
    Rule("identity:get_auth_projects", "", "List projects that a token can be scoped to"),
    Rule("identity:get_auth_domains", "", "List domains that a token can be scoped to"),
    Rule("identity:get_auth_system", "", "Show whether a token can be scoped to the system"),
)
