"""Agents: one on each host of the fleet, which does all that Network asks of the host.

https://docs.openstack.org/api-ref/network/v2/#networking-agents
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.core.fields import View
from pileus.core.listing import boolean
from pileus.core.policy import Rule
from pileus.services.fleet import interface as fleet
from pileus.services.network.resources.network.fields import ZONE
from pileus.services.network.resources.standard_attribute import ADMIN
from pileus.services.network.rules.fault import AgentNotFound


class Agent(View):
    """An agent in a response."""

    id: str
    agent_type: str
    binary: str
    topic: str
    host: str
    admin_state_up: bool
    alive: bool
    created_at: str
    started_at: str
    heartbeat_timestamp: str
    description: str | None
    availability_zone: str
    configurations: dict[str, Any]
    resources_synced: bool | None


resource = Resource("agent", "agents", rules=[Rule("get_agent", ADMIN, "Show agents")])


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def _view(one: fleet.Host) -> Agent:
    return Agent(
        id=one.id,
        agent_type="Pileus agent",
        binary="pileus-agent",
        topic="N/A",
        host=one.name,
        admin_state_up=not one.disabled,
        alive=one.up,
        created_at=_time(one.created_at),
        started_at=_time(one.created_at),
        heartbeat_timestamp=_time(one.seen_at),
        description=one.disabled_reason,
        availability_zone=ZONE,
        configurations={"packet_filter": one.network_filter},
        resources_synced=None,
    )


@resource.get("/agents", policy="get_agent", guarded=True, wraps="agents")
def index(ctx: Context) -> list[Agent]:
    """The agents that the request's filters let through, by host; none for whom may not see them."""
    if not ctx.allows("get_agent", {}):
        return []
    found = [_view(one) for one in fleet.hosts(ctx.tx, ctx.of(fleet.Fleet))]
    for name in ("id", "agent_type", "binary", "topic", "host", "availability_zone"):
        if wanted := ctx.query.all(name):
            found = [one for one in found if getattr(one, name) in wanted]
    for name in ("admin_state_up", "alive"):
        if wanted := ctx.query.all(name):
            flags = [boolean(text) for text in wanted]
            found = [one for one in found if getattr(one, name) in flags]
    return found


@resource.get("/agents/{agent_id}", policy="get_agent", guarded=True, wraps="agent")
def show(ctx: Context, agent_id: str) -> Agent:
    """An agent."""
    found = fleet.hosts(ctx.tx, ctx.of(fleet.Fleet), [agent_id]) if ctx.allows("get_agent", {}) else []
    if not found:
        raise AgentNotFound(agent_id)
    return _view(found[0])
