"""Who may do what by default: upstream's personas (Compute administrator guide, "Policies")."""

from __future__ import annotations

from pileus.core.policy import Rule

ADMIN = "rule:project_admin"
MANAGER = "rule:project_manager_or_admin"
MEMBER = "rule:project_member_or_admin"
READER = "rule:project_reader_or_admin"
SERVICE = "rule:service_or_admin"
ANYONE = "system_scope:None and domain_id:None"
"""Compute's rules are for tokens of projects: one of the system or of a domain passes none of them."""

BASE = (
    Rule("context_is_admin", "role:admin", "What makes an admin"),
    Rule("project_admin", f"rule:context_is_admin and {ANYONE}", "Admins, by a token that is of no system or domain"),
    Rule("service_api", "role:service and not project_id:None", "Other services, as Placement has it too"),
    Rule("project_manager_api", "role:manager and project_id:%(project_id)s", "Managers of the project"),
    Rule("project_member_api", "role:member and project_id:%(project_id)s", "Members of the project"),
    Rule("project_reader_api", "role:reader and project_id:%(project_id)s", "Readers of the project"),
    Rule("project_manager_or_admin", "rule:project_manager_api or rule:project_admin", "Managers, or admins"),
    Rule("project_member_or_admin", "rule:project_member_api or rule:project_admin", "Members, or admins"),
    Rule("project_reader_or_admin", "rule:project_reader_api or rule:project_admin", "Readers, or admins"),
    Rule("service_or_admin", "rule:service_api or rule:project_admin", "Other services, or admins"),
)
"""Rules that the others refer to."""
