"""The rules that all of Placement shares.

Source: https://docs.openstack.org/api-ref/placement/ and the administrator guide, "Policies"; the names and defaults
are upstream's.
"""

from __future__ import annotations

from pileus.core.policy import Rule

ADMIN_OR_SERVICE = "rule:admin_or_service_api"
SERVICE = "rule:service_api"

_PROJECT = " and not project_id:None"
"""Every rule here is for tokens of a project alone, as upstream's `scope_types` say."""

SHARED = [
    Rule("admin_api", "role:admin" + _PROJECT, "Administrators"),
    Rule("service_api", "role:service" + _PROJECT, "Other services"),
    Rule("admin_or_service_api", "(role:admin or role:service)" + _PROJECT, "Nearly everything here"),
    Rule("project_reader_api", "role:reader and project_id:%(project_id)s", "Readers of a project"),
    Rule(
        "admin_or_project_reader_or_service_api",
        "(role:admin or rule:project_reader_api or role:service)" + _PROJECT,
        "What readers of a project may know of it",
    ),
]


def rules(check: str = ADMIN_OR_SERVICE, /, **described: str) -> list[Rule]:
    """Rules `placement:NAME`, by default for administrators and services, of names with `__` for `:`."""
    return [Rule(f"placement:{name.replace('__', ':')}", check, text) for name, text in described.items()]
