"""Who may do what with subnet pools."""

from __future__ import annotations

from pileus.core.policy import Rule
from pileus.services.network.resources.kind import Kind
from pileus.services.network.resources.standard_attribute import (
    ADMIN,
    ADMIN_OR_PROJECT_MEMBER,
    ADMIN_OR_PROJECT_READER,
)
from pileus.services.network.resources.subnetpool.table import subnetpool
from pileus.services.network.rules.fault import SubnetPoolNotFound

RULES = (
    Rule("shared_subnetpools", "True:%(shared)s", "Subnet pools that are everybody's"),
    Rule("create_subnetpool", ADMIN_OR_PROJECT_MEMBER, "Create a subnet pool"),
    Rule("create_subnetpool:shared", ADMIN, "Create one that is everybody's"),
    Rule("create_subnetpool:is_default", ADMIN, "Create the default one"),
    Rule("get_subnetpool", f"{ADMIN_OR_PROJECT_READER} or rule:shared_subnetpools", "Show a subnet pool"),
    Rule("update_subnetpool", ADMIN_OR_PROJECT_MEMBER, "Update a subnet pool"),
    Rule("update_subnetpool:is_default", ADMIN, "Make a subnet pool the default one"),
    Rule("delete_subnetpool", ADMIN_OR_PROJECT_MEMBER, "Delete a subnet pool"),
    Rule("onboard_network_subnets", ADMIN_OR_PROJECT_MEMBER, "Let a pool have the subnets of a network"),
    Rule("add_prefixes", ADMIN_OR_PROJECT_MEMBER, "Add prefixes to a subnet pool"),
    Rule("remove_prefixes", ADMIN_OR_PROJECT_MEMBER, "Take prefixes from a subnet pool"),
)

kind = Kind("subnetpool", subnetpool, SubnetPoolNotFound)
