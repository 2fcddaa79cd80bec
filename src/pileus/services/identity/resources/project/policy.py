"""Who may do what with projects (keystone.common.policies.project)."""

from __future__ import annotations

from pileus.core.policy import Rule

_READER = "rule:admin_required or (role:reader and system_scope:all)"
_DOMAIN = "domain_id:%(target.project.domain_id)s and not None:%(target.project.domain_id)s"
_SEES = f"{_READER} or (role:reader and {_DOMAIN}) or project_id:%(target.project.id)s"
_MANAGES = f"rule:admin_required or (role:manager and {_DOMAIN})"

RULES = (
    Rule("identity:get_project", _SEES, "Show a project"),
    Rule("identity:list_projects", f"{_READER} or (role:reader and domain_id:%(target.domain_id)s)", "List projects"),
    Rule("identity:create_project", _MANAGES, "Create a project"),
    Rule("identity:update_project", _MANAGES, "Update a project"),
    Rule("identity:delete_project", _MANAGES, "Delete a project"),
)

TAG_RULES = (
    Rule("identity:list_project_tags", _SEES, "List the tags of a project"),
    Rule("identity:get_project_tag", _SEES, "Check whether a project has a tag"),
    Rule("identity:update_project_tags", _MANAGES, "Replace the tags of a project"),
    Rule("identity:create_project_tag", _MANAGES, "Give a project a tag"),
    Rule("identity:delete_project_tags", _MANAGES, "Take all tags from a project"),
    Rule("identity:delete_project_tag", _MANAGES, "Take a tag from a project"),
)
