"""Users (https://docs.openstack.org/api-ref/identity/v3/#users)."""

from pileus.services.identity.resources.user.fields import view
from pileus.services.identity.resources.user.table import (
    DEFAULT_DOMAIN,
    find,
    find_named,
    get,
    insert,
    names_of,
    table,
    void_tokens,
)

__all__ = ["DEFAULT_DOMAIN", "find", "find_named", "get", "insert", "names_of", "table", "view", "void_tokens"]
