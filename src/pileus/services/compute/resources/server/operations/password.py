"""Passwords of servers: the administrator's, and the one that a guest makes for itself and tells sealed.

https://docs.openstack.org/api-ref/compute/#change-administrative-password-changepassword-action
https://docs.openstack.org/api-ref/compute/#server-passwords-servers-os-server-password
"""

from __future__ import annotations

import msgspec

from pileus.core.context import Context
from pileus.core.fields import Body
from pileus.services.compute.resources.server.fields import AdminPass
from pileus.services.compute.resources.server.operations.row import allow, find, note, resource
from pileus.services.compute.resources.server.table import next_act, want
from pileus.services.compute.rules.machine import wants_agent

_PATH = "/servers/{server_id}/os-server-password"


class ChangePassword(Body):
    """The new password."""

    admin_pass: AdminPass = msgspec.field(name="adminPass")


@resource.action("/servers/{server_id}/action", "changePassword", policy="os_compute_api:os-admin-password")
def change(ctx: Context, server_id: str, body: ChangePassword) -> None:
    """Change the administrator's password.

    A guest whose image says that it runs an agent has it set by that; any other one finds it in its metadata.
    """
    row = find(ctx, server_id)
    allow(ctx, row, "changePassword")
    if wants_agent(row.image.get("properties") or {}):
        acts = next_act(row, "password")
        want(ctx.tx, row, admin_pass=body.admin_pass, acts=acts, task="updating_password")
    else:
        want(ctx.tx, row, admin_pass=body.admin_pass)
    note(ctx, row.id, row.project_id, "changePassword", "compute_set_admin_password", row.host)


@resource.get(_PATH, policy="os_compute_api:os-server-password:show", wraps="password")
def show_sealed(ctx: Context, server_id: str) -> str:
    """The password that the guest made for itself, sealed with the public key of its key pair; empty for none."""
    return find(ctx, server_id).sealed_pass or ""


@resource.delete(_PATH, policy="os_compute_api:os-server-password:clear")
def clear_sealed(ctx: Context, server_id: str) -> None:
    """Forget the password that the guest made for itself; the guest's own stays as it is."""
    row = find(ctx, server_id)
    if row.sealed_pass is not None:
        want(ctx.tx, row, sealed_pass=None)
