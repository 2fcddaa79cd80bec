"""Who may do what with application credentials."""

from __future__ import annotations

from pileus.core.policy import Rule
from pileus.services.identity.resources.attribute import ADMIN, ADMIN_OR_SYSTEM_READER
from pileus.services.identity.resources.delegation import NOT_DOMAIN, PROJECT

_SEES = f"{NOT_DOMAIN} and ({ADMIN_OR_SYSTEM_READER} or rule:owner)"

RULES = (
    Rule("identity:get_application_credential", _SEES, "Show an application credential"),
    Rule("identity:list_application_credentials", _SEES, "List the application credentials of a user"),
    Rule(
        "identity:create_application_credential",
        f"{PROJECT} and rule:owner",
        "Create an application credential",
    ),
    Rule(
        "identity:delete_application_credential",
        f"{NOT_DOMAIN} and ({ADMIN} or rule:owner)",
        "Delete an application credential",
    ),
)
