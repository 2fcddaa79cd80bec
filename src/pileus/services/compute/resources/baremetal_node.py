"""Bare-metal nodes by way of Compute, until microversion 2.35.

https://docs.openstack.org/api-ref/compute/#bare-metal-nodes-os-baremetal-nodes-deprecated

There is no Bare Metal service in this cloud: what would be asked of it is answered with 503.
"""

from __future__ import annotations

from typing import NoReturn

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Unavailable
from pileus.core.policy import Rule
from pileus.services.compute.rules.persona import ADMIN

RULES = (
    Rule("os_compute_api:os-baremetal-nodes:list", ADMIN, "List bare-metal nodes"),
    Rule("os_compute_api:os-baremetal-nodes:show", ADMIN, "Show a bare-metal node"),
)

resource = Resource("node", "nodes", rules=RULES)


def _absent() -> NoReturn:
    raise Unavailable("This cloud has no Bare Metal service.")


def _elsewhere(command: str) -> NoReturn:
    raise BadRequest(f"Command not supported. Please use Ironic command {command} to perform this action.")


@resource.get("/os-baremetal-nodes", policy="os_compute_api:os-baremetal-nodes:list", until="2.35")
def list_all(ctx: Context) -> None:
    """All nodes. Raises Unavailable."""
    _absent()


@resource.get("/os-baremetal-nodes/{node_id}", policy="os_compute_api:os-baremetal-nodes:show", until="2.35")
def show(ctx: Context, node_id: str) -> None:
    """One node. Raises Unavailable."""
    _absent()


@resource.post("/os-baremetal-nodes", until="2.35", writes=False)
def create(ctx: Context) -> None:
    """Nodes are made by their own service. Raises BadRequest."""
    _elsewhere("node-create")


@resource.delete("/os-baremetal-nodes/{node_id}", until="2.35", writes=False)
def delete(ctx: Context, node_id: str) -> None:
    """Nodes are deleted by their own service. Raises BadRequest."""
    _elsewhere("node-delete")


@resource.action("/os-baremetal-nodes/{node_id}/action", "add_interface", until="2.35", writes=False)
def add_interface(ctx: Context, node_id: str) -> None:
    """Ports of nodes are made by their own service. Raises BadRequest."""
    _elsewhere("port-create")


@resource.action("/os-baremetal-nodes/{node_id}/action", "remove_interface", until="2.35", writes=False)
def remove_interface(ctx: Context, node_id: str) -> None:
    """Ports of nodes are deleted by their own service. Raises BadRequest."""
    _elsewhere("port-delete")
