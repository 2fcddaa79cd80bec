"""Shared file systems that are attached to servers, from microversion 2.97 on.

https://docs.openstack.org/api-ref/compute/#servers-with-shares-attachments-servers-shares

No host here can attach one: the operations answer as upstream's do on hosts without virtiofs.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import sqlalchemy as sa

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.core.errors import Conflict, NotFound
from pileus.core.fields import Body
from pileus.core.policy import Rule
from pileus.services.compute.resources.server.operations.row import find
from pileus.services.compute.resources.server.table import facts
from pileus.services.compute.rules.persona import MEMBER, READER
from pileus.services.compute.rules.shape import Uuid
from pileus.services.compute.rules.status import vm_state


class ShareAttach(Body):
    """Body of create: the value of `share`."""

    share_id: Uuid
    tag: Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"^[a-zA-Z0-9-]*$")] | None = None


RULES = (
    Rule("os_compute_api:os-server-shares:index", READER, "List a server's shares"),
    Rule("os_compute_api:os-server-shares:show", READER, "Show a server's share"),
    Rule("os_compute_api:os-server-shares:create", MEMBER, "Attach a share to a server"),
    Rule("os_compute_api:os-server-shares:delete", MEMBER, "Detach a share from a server"),
)

resource = Resource("share", "shares", rules=RULES)


@resource.get(
    "/servers/{server_id}/shares",
    policy="os_compute_api:os-server-shares:index",
    guarded=True,
    since="2.97",
    wraps="shares",
)
def index(ctx: Context, server_id: str) -> list[dict[str, Any]]:
    """A server's shares: none."""
    find(ctx, server_id)
    return []


@resource.get(
    "/servers/{server_id}/shares/{share_id}",
    policy="os_compute_api:os-server-shares:show",
    guarded=True,
    since="2.97",
)
def show(ctx: Context, server_id: str, share_id: str) -> None:
    """A server's share. Raises NotFound."""
    find(ctx, server_id)
    raise NotFound(f"Share {share_id} could not be found.")


def _check_state(row: sa.Row[Any], verb: str, *states: str) -> None:
    state = vm_state(facts(row))
    if state not in states:
        raise Conflict(f"Cannot '{verb}' instance {row.id} while it is in vm_state {state}")


@resource.post(
    "/servers/{server_id}/shares",
    policy="os_compute_api:os-server-shares:create",
    guarded=True,
    since="2.97",
    accepts="share",
    status=201,
)
def create(ctx: Context, server_id: str, body: ShareAttach) -> None:
    """Attach a share. Raises Conflict for a server that is not stopped, and where no host can attach one."""
    _check_state(find(ctx, server_id), "create share", "stopped")
    raise Conflict("The server's host cannot attach shares: it has no virtiofs.")


@resource.delete(
    "/servers/{server_id}/shares/{share_id}",
    policy="os_compute_api:os-server-shares:delete",
    guarded=True,
    since="2.97",
    status=200,
)
def delete(ctx: Context, server_id: str, share_id: str) -> None:
    """Detach a share. Raises Conflict for a server that is neither stopped nor in error, and NotFound."""
    _check_state(find(ctx, server_id), "delete share", "stopped", "error")
    raise NotFound(f"Share {share_id} could not be found.")
