"""Policies of flavors."""

from __future__ import annotations

from pileus.core.policy import Rule
from pileus.services.compute.rules.persona import ADMIN, READER

RULES = (
    Rule("os_compute_api:os-flavor-manage:create", ADMIN, "Create a flavor"),
    Rule("os_compute_api:os-flavor-manage:update", ADMIN, "Change a flavor's description"),
    Rule("os_compute_api:os-flavor-manage:delete", ADMIN, "Delete a flavor"),
    Rule("os_compute_api:os-flavor-extra-specs:index", READER, "List extra specs, and see them in a flavor"),
    Rule("os_compute_api:os-flavor-extra-specs:show", READER, "Show an extra spec"),
    Rule("os_compute_api:os-flavor-extra-specs:create", ADMIN, "Set extra specs"),
    Rule("os_compute_api:os-flavor-extra-specs:update", ADMIN, "Change an extra spec"),
    Rule("os_compute_api:os-flavor-extra-specs:delete", ADMIN, "Delete an extra spec"),
    Rule("os_compute_api:os-flavor-access", ADMIN, "List the projects that may use a private flavor"),
    Rule("os_compute_api:os-flavor-access:add_tenant_access", ADMIN, "Let a project use a private flavor"),
    Rule("os_compute_api:os-flavor-access:remove_tenant_access", ADMIN, "Let a project use a private flavor no more"),
)
