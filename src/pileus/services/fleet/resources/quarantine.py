"""What hosts hold and nobody assigned: it is left alone until an operator says that it shall go.

Upstream has nothing like it; what comes closest is the deletion of a host's service, after which nobody asks what it
held (https://docs.openstack.org/api-ref/compute/#delete-compute-service).
"""

from __future__ import annotations

import sqlalchemy as sa

from pileus.contracts.link import KINDS
from pileus.core import changes
from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.core.errors import Conflict, NotFound
from pileus.core.policy import Rule
from pileus.services.fleet.resources.assignment import assignment
from pileus.services.fleet.resources.host import Fleet

resource = Resource(
    "unknown",
    "unknown",
    rules=[Rule("fleet:remove_unknown", "role:admin", "Have a host delete what nobody assigned to it")],
)


@resource.delete("/hosts/{host_id}/unknown/{kind}/{object_id}", policy="fleet:remove_unknown", status=202)
def remove(ctx: Context, host_id: str, kind: str, object_id: str) -> None:
    """Have a host delete something that it holds and nobody assigned, by a tombstone.

    Raises Conflict when it was assigned since, or is on its way out, and NotFound when the host's last heartbeat did
    not name it: so it is gone when asking again is answered so.
    """
    tx, pulse = ctx.tx, ctx.of(Fleet).pulses.get(host_id)
    same = (assignment.c.host_id == host_id, assignment.c.kind == kind, assignment.c.id == object_id)
    if tx.first(sa.select(assignment.c.generation).where(*same)) is not None:
        raise Conflict(f"The {kind} {object_id} was assigned to the host, or is on its way out already.")
    rest = [one for one in pulse.unknown if (one.kind, one.id) != (kind, object_id)] if pulse is not None else []
    if pulse is None or kind not in KINDS or len(rest) == len(pulse.unknown):
        raise NotFound(f"The host {host_id} holds no {kind} {object_id} that is unknown.")
    pulse.unknown = rest  # until the next heartbeat, which names it again if it is there still
    tx.execute(
        sa.insert(assignment).values(
            host_id=host_id,
            kind=kind,
            id=object_id,
            generation=(1 + changes.position(tx)) << 10,
            tombstone=True,
            updated_at=tx.now,
            request_id=tx.cause(object_id),
        )
    )
    tx.changed(f"host.{host_id}", f"{kind}/{object_id}")
