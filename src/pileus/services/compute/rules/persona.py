"""Who may do what by default: upstream's personas (Compute administrator guide, "Policies")."""

from __future__ import annotations

from pileus.core.policy import Rule

ADMIN = "rule:context_is_admin"
MEMBER = "rule:project_member_or_admin"
READER = "rule:project_reader_or_admin"
ANYONE = "@"

BASE = (
    Rule("context_is_admin", "role:admin", "What makes an admin"),
    Rule("project_member_api", "role:member and project_id:%(project_id)s", "Members of the project"),
    Rule("project_reader_api", "role:reader and project_id:%(project_id)s", "Readers of the project"),
    Rule("project_member_or_admin", "rule:project_member_api or rule:context_is_admin", "Members, or admins"),
    Rule("project_reader_or_admin", "rule:project_reader_api or rule:context_is_admin", "Readers, or admins"),
)
"""Rules that the others refer to."""
