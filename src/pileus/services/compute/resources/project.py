"""Projects that a request names beside the token's own: quotas are theirs, and access to private flavors.

https://docs.openstack.org/api-ref/compute/#quota-sets-os-quota-sets
https://docs.openstack.org/api-ref/compute/#flavors-access-flavors-os-flavor-access-addtenantaccess-removetenantaccess-action
"""

from __future__ import annotations

from pileus.core.context import Context
from pileus.core.errors import BadRequest
from pileus.services.identity import interface as identity


def check(ctx: Context, project_id: str) -> None:
    """Raise BadRequest for a project that is not there.

    Administrators alone are told: upstream asks Identity with the caller's token, and takes it well when that may not
    know.
    """
    if ctx.auth.is_admin and project_id != ctx.auth.project_id and not identity.project_exists(ctx.tx, project_id):
        raise BadRequest(f"Project ID {project_id} is not a valid project.")
