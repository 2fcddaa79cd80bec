"""What guests tell through their hosts: the password that a guest made for itself.

https://docs.openstack.org/api-ref/compute/#server-passwords-servers-os-server-password

A guest sends it to its metadata service, sealed with the public key of its key pair, and the host passes it on over the
link: a host speaks for the guests that it holds, and for no other.
"""

from __future__ import annotations

import sqlalchemy as sa

from pileus.contracts.link import GuestPassword
from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.core.errors import Conflict, NotFound
from pileus.services.compute.resources.server.table import server, want
from pileus.services.fleet import interface as fleet

resource = Resource("guest", "guests")


@resource.post("/guests/{guest_id}/password", status=204)
def tell_password(ctx: Context, guest_id: str, body: GuestPassword) -> None:
    """Keep a guest's password. Raises Conflict when it has told one that was not cleared since."""
    held = fleet.observed(ctx.tx, "guest", [guest_id]).get(guest_id, [])
    row = ctx.tx.first(sa.select(server).where(server.c.id == guest_id, server.c.deleted_at.is_(None)))
    if row is None or not any(one.host_id == ctx.auth.user_id and not one.tombstone for one in held):
        raise NotFound(f"This host holds no guest {guest_id}.")
    if row.sealed_pass:
        raise Conflict(f"The guest {guest_id} has told its password already.")
    want(ctx.tx, row, sealed_pass=body.password)
