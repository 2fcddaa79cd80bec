"""Why a server is where it is, or is nowhere: an addition of this cloud to the API."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from pileus.core.context import Context
from pileus.core.fields import View
from pileus.core.statement import at
from pileus.services.compute.resources import server_group
from pileus.services.compute.resources.hypervisor import candidates
from pileus.services.compute.resources.server.fields import host_hash
from pileus.services.compute.resources.server.operations.companion import NOBODY, Companions, companions
from pileus.services.compute.resources.server.operations.row import find, resource
from pileus.services.compute.resources.server.table import decision
from pileus.services.compute.rules import placing
from pileus.services.compute.rules.group import Group
from pileus.services.compute.rules.machine import MachineError, machine
from pileus.services.compute.rules.shape import bare
from pileus.services.fleet import interface as fleet

_CAPABILITY = "capabilities:"


class Verdict(View):
    """What is said of one host: `taken`, `passed` or `refused`."""

    host: str
    verdict: str
    filter: str | None
    reason: str | None
    weight: float | None


class Heard(View):
    """What a host said last of the guest that it is to hold, or to let go."""

    host: str
    wanted: int
    """The generation of what the host was told."""
    done: int
    """That of what it speaks of; 0 before it said anything."""
    state: str
    """Empty before it said anything; `failed` is tried again, unless it is `permanent`."""
    permanent: bool
    detail: str | None


class Explanation(View):
    """The decision as it was kept, and how each host would be judged now."""

    server_id: str
    resources: dict[str, int]
    """What the server needs, by resource class."""
    decided_at: str | None
    chosen: str | None
    refused_by: dict[str, int]
    """How many hosts each filter refused, when the decision was made."""
    best: list[dict[str, Any]]
    """The best few of then, with weights and the generations that were seen."""
    kept: dict[str, str] | None
    """Reasons by host of then; kept when no host was found."""
    hosts: list[Verdict]
    """Each host, judged now."""
    heard: list[Heard]


def wish(row: sa.Row[Any], group: Group | None = None, company: Companions = NOBODY) -> placing.Wish:
    """What a server needs of a host, given the server group that it is in and where its companions are."""
    target, specs = row.target, row.flavor.get("extra_specs") or {}
    try:
        like = machine(row.flavor, row.image.get("properties") or {})
    except MachineError:
        like = None  # older than the rule that refuses such servers
    return placing.Wish(
        server_id=row.id,
        resources=placing.resources(row.flavor, row.image.get("virtual_size")),
        zone=row.availability_zone,
        host=target.get("host"),
        forced=bool(target.get("forced")),
        group=group,
        machine=like,
        capabilities={
            name.removeprefix(_CAPABILITY): value for name, value in specs.items() if name.startswith(_CAPABILITY)
        },
        beside=company.beside,
        apart=company.apart,
    )


@resource.get("/servers/{server_id}/explain", policy="os_compute_api:servers:explain", wraps="explanation")
def explain(ctx: Context, server_id: str) -> Explanation:
    """Say for each host why it was taken or refused.

    Admins see hosts by name and in their words; others see the names that hosts have for their project, and which
    filter spoke.
    """
    row = find(ctx, server_id)
    company = companions(ctx.tx, [row]).get(row.id, NOBODY)
    wanted = wish(row, server_group.placed(ctx.tx, [row.id]).get(row.id), company)
    kept = ctx.tx.first(at(decision, "server_id"), {"value": row.id})
    found = []
    hosts = fleet.hosts(ctx.tx, ctx.of(fleet.Fleet))
    for host in candidates(ctx.tx, hosts):
        taken = host.id == row.host_id
        # What the server holds itself does not speak against its host.
        judged = placing.take(host, {name: -amount for name, amount in wanted.resources.items()}) if taken else host
        found.append(_verdict(wanted, judged, taken=taken))
    seen = fleet.observed(ctx.tx, "guest", [row.id]).get(row.id, ())
    names = {one.id: one.name for one in hosts}
    explained = Explanation(
        server_id=row.id,
        resources=dict(wanted.resources),
        decided_at=None if kept is None else bare(kept.at),
        chosen=None if kept is None else kept.chosen,
        refused_by={} if kept is None else kept.counts,
        best=[] if kept is None else kept.best,
        kept=None if kept is None else kept.hosts,
        hosts=found,
        heard=[
            Heard(
                host=names.get(one.host_id, one.host_id),
                wanted=one.generation,
                done=one.observed_generation,
                state=one.state,
                permanent=one.permanent,
                detail=one.detail,
            )
            for one in seen
        ],
    )
    return explained if ctx.auth.is_admin else _veil(explained, row.project_id)


def _verdict(wanted: placing.Wish, host: placing.Host, *, taken: bool) -> Verdict:
    refusal = placing.judge(wanted._replace(group=None) if taken else wanted, host)
    name, reason = refusal or (None, None)
    word = "taken" if taken else "passed" if refusal is None else "refused"
    return Verdict(host=host.name, verdict=word, filter=name, reason=reason, weight=round(placing.weight(host), 6))


def _veil(found: Explanation, project_id: str) -> Explanation:
    for one in found.hosts:
        one.host, one.reason, one.weight = host_hash(one.host, project_id), None, None
    for told in found.heard:
        told.host, told.detail = host_hash(told.host, project_id), None
    found.chosen = None if found.chosen is None else host_hash(found.chosen, project_id)
    found.best, found.kept = [], None
    return found
