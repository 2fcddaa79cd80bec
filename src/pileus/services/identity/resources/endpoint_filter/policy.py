"""Who may filter endpoints (keystone.common.policies.endpoint_group and .project_endpoint)."""

from __future__ import annotations

from pileus.core.policy import Rule
from pileus.services.identity.resources.attribute import CLOUD_ADMIN, CLOUD_ADMIN_OR_SYSTEM_READER

GROUP_RULES = (
    Rule("identity:create_endpoint_group", CLOUD_ADMIN, "Create an endpoint group"),
    Rule("identity:list_endpoint_groups", CLOUD_ADMIN_OR_SYSTEM_READER, "List endpoint groups"),
    Rule("identity:get_endpoint_group", CLOUD_ADMIN_OR_SYSTEM_READER, "Show an endpoint group"),
    Rule("identity:update_endpoint_group", CLOUD_ADMIN, "Update an endpoint group"),
    Rule("identity:delete_endpoint_group", CLOUD_ADMIN, "Delete an endpoint group"),
    Rule(
        "identity:list_projects_associated_with_endpoint_group",
        CLOUD_ADMIN_OR_SYSTEM_READER,
        "List the projects that are associated with an endpoint group",
    ),
    Rule(
        "identity:list_endpoints_associated_with_endpoint_group",
        CLOUD_ADMIN_OR_SYSTEM_READER,
        "List the endpoints of an endpoint group",
    ),
    Rule(
        "identity:get_endpoint_group_in_project",
        CLOUD_ADMIN_OR_SYSTEM_READER,
        "Check whether an endpoint group is associated with a project",
    ),
    Rule(
        "identity:list_endpoint_groups_for_project",
        CLOUD_ADMIN_OR_SYSTEM_READER,
        "List the endpoint groups of a project",
    ),
    Rule("identity:add_endpoint_group_to_project", CLOUD_ADMIN, "Associate an endpoint group with a project"),
    Rule("identity:remove_endpoint_group_from_project", CLOUD_ADMIN, "Take an endpoint group from a project"),
)

ENDPOINT_RULES = (
    Rule(
        "identity:list_projects_for_endpoint",
        CLOUD_ADMIN_OR_SYSTEM_READER,
        "List the projects that are associated with an endpoint",
    ),
    Rule("identity:add_endpoint_to_project", CLOUD_ADMIN, "Associate an endpoint with a project"),
    Rule(
        "identity:check_endpoint_in_project",
        CLOUD_ADMIN_OR_SYSTEM_READER,
        "Check whether an endpoint is associated with a project",
    ),
    Rule("identity:list_endpoints_for_project", CLOUD_ADMIN_OR_SYSTEM_READER, "List the endpoints of a project"),
    Rule("identity:remove_endpoint_from_project", CLOUD_ADMIN, "Take an endpoint from a project"),
)
