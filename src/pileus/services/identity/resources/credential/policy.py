"""Who may do what with credentials."""

from __future__ import annotations

from pileus.core.policy import Rule
from pileus.services.identity.resources.attribute import ADMIN, ADMIN_OR_SYSTEM_READER
from pileus.services.identity.resources.delegation import NOT_DOMAIN

_OWNS = "user_id:%(target.credential.user_id)s"
_SEES = f"{ADMIN_OR_SYSTEM_READER} or {_OWNS}"
_CHANGES = f"{ADMIN} or {_OWNS}"
_MEMBER = f"{NOT_DOMAIN} and ({ADMIN} or (role:member and {_OWNS}))"

RULES = (
    Rule("identity:get_credential", _SEES, "Show a credential"),
    Rule("identity:list_credentials", _SEES, "List credentials"),
    Rule("identity:create_credential", _CHANGES, "Create a credential"),
    Rule("identity:update_credential", _CHANGES, "Change a credential"),
    Rule("identity:delete_credential", _CHANGES, "Delete a credential"),
)

EC2_RULES = (
    Rule("identity:ec2_get_credential", f"{NOT_DOMAIN} and ({_SEES})", "Show EC2 keys"),
    Rule(
        "identity:ec2_list_credentials",
        f"{NOT_DOMAIN} and ({ADMIN_OR_SYSTEM_READER} or rule:owner)",
        "List the EC2 keys of a user",
    ),
    Rule("identity:ec2_create_credential", _MEMBER, "Create EC2 keys"),
    Rule("identity:ec2_delete_credential", _MEMBER, "Delete EC2 keys"),
    Rule("identity:ec2tokens_validate", f"{ADMIN} or rule:service_role", "Make a token of an EC2 signature"),
    Rule("identity:s3tokens_validate", f"{ADMIN} or rule:service_role", "Make a token of an S3 signature"),
)
