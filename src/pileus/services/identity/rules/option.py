"""Options that a domain may have a configuration of its own for, and what they are where it has none.

Source: Identity API v3, "Domain configuration"; Keystone configuration reference, "identity" and "ldap", for names
and defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "identity": {"driver": "sql", "list_limit": None},
    "ldap": {
        "url": "ldap://localhost",
        "user": None,
        "suffix": "cn=example,cn=com",
        "query_scope": "one",
        "page_size": 0,
        "alias_dereferencing": "default",
        "debug_level": None,
        "chase_referrals": None,
        "user_tree_dn": None,
        "user_filter": None,
        "user_objectclass": "inetOrgPerson",
        "user_id_attribute": "cn",
        "user_name_attribute": "sn",
        "user_mail_attribute": "mail",
        "user_description_attribute": "description",
        "user_pass_attribute": "userPassword",
        "user_enabled_attribute": "enabled",
        "user_enabled_invert": False,
        "user_enabled_mask": 0,
        "user_enabled_default": "True",
        "user_attribute_ignore": ["default_project_id"],
        "user_default_project_id_attribute": None,
        "user_enabled_emulation": False,
        "user_enabled_emulation_dn": None,
        "user_enabled_emulation_use_group_config": False,
        "user_additional_attribute_mapping": [],
        "group_tree_dn": None,
        "group_filter": None,
        "group_objectclass": "groupOfNames",
        "group_id_attribute": "cn",
        "group_name_attribute": "ou",
        "group_members_are_ids": False,
        "group_member_attribute": "member",
        "group_desc_attribute": "description",
        "group_attribute_ignore": [],
        "group_additional_attribute_mapping": [],
        "tls_cacertfile": None,
        "tls_cacertdir": None,
        "use_tls": False,
        "tls_req_cert": "demand",
        "use_pool": True,
        "pool_size": 10,
        "pool_retry_max": 3,
        "pool_retry_delay": 0.1,
        "pool_connection_timeout": -1,
        "pool_connection_lifetime": 600,
        "use_auth_pool": True,
        "auth_pool_size": 100,
        "auth_pool_connection_lifetime": 60,
    },
}
"""Group to option to its default, of those that may be shown."""

SENSITIVE: Mapping[str, frozenset[str]] = {"ldap": frozenset({"password"})}
"""Group to the options that are never shown."""


def refusal(group: str, option: str | None = None) -> str | None:
    """Why there can be no configuration of a group, or of an option in it; None when there can be."""
    if group not in DEFAULTS:
        return f"Group {group} is not supported for domain specific configurations"
    if option is not None and option not in DEFAULTS[group] and option not in SENSITIVE.get(group, ()):
        return f"Option {option} in group {group} is not supported for domain specific configurations"
    return None


def sensitive(group: str, option: str) -> bool:
    """Whether an option is never shown."""
    return option in SENSITIVE.get(group, ())
