"""Who may do what with consumers and their tokens."""

from __future__ import annotations

from pileus.core.policy import Rule
from pileus.services.identity.resources.attribute import ADMIN, ADMIN_OR_SYSTEM_READER
from pileus.services.identity.resources.delegation import NOT_DOMAIN, PROJECT

_SEES = f"{NOT_DOMAIN} and ({ADMIN_OR_SYSTEM_READER})"
_MANAGES = f"{NOT_DOMAIN} and {ADMIN}"
_IN_PROJECT = f"{PROJECT} and {ADMIN}"

CONSUMER_RULES = (
    Rule("identity:get_consumer", _SEES, "Show a consumer"),
    Rule("identity:list_consumers", _SEES, "List consumers"),
    Rule("identity:create_consumer", _MANAGES, "Create a consumer"),
    Rule("identity:update_consumer", _MANAGES, "Change a consumer"),
    Rule("identity:delete_consumer", _MANAGES, "Delete a consumer"),
)

TOKEN_RULES = (
    Rule("identity:authorize_request_token", _IN_PROJECT, "Authorize a request token"),
    Rule("identity:get_access_token", _IN_PROJECT, "Show an access token of a user"),
    Rule("identity:get_access_token_role", _IN_PROJECT, "Show a role of an access token"),
    Rule("identity:list_access_tokens", _IN_PROJECT, "List the access tokens of a user"),
    Rule("identity:list_access_token_roles", _IN_PROJECT, "List the roles of an access token"),
    Rule("identity:delete_access_token", _IN_PROJECT, "Delete an access token of a user"),
)
