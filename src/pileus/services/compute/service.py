"""Compute's door plate."""

from __future__ import annotations

from pileus.core.api import Resource, Service
from pileus.core.config import Config
from pileus.core.errors import compute_envelope
from pileus.core.reconcile import Controller
from pileus.core.versions import parse
from pileus.services.compute.controllers import (
    Archive,
    Deadlines,
    Folder,
    GuestWriter,
    HostInventory,
    Scheduler,
    Snapshots,
)
from pileus.services.compute.resources import (
    aggregate,
    baremetal_node,
    console,
    external_event,
    flavor,
    floating_ip,
    host,
    hypervisor,
    image,
    keypair,
    migration,
    network,
    quota,
    removed,
    security_group,
    server_group,
    share,
    usage,
    usage_audit_log,
    version,
    volume,
)
from pileus.services.compute.resources import service as services
from pileus.services.compute.resources.server import operations as server
from pileus.services.compute.resources.server.operations import guest
from pileus.services.compute.rules.persona import BASE
from pileus.services.compute.versions import LEDGER
from pileus.services.fleet.interface import Fleet


def service() -> Service:
    """Compute v2.1. Its operations ask for `Fleet`."""
    return Service(
        name="nova",
        type="compute",
        mounts=("/compute",),
        roots=("/v2.1", "/v2"),
        resources=[
            flavor.resource,
            keypair.resource,
            server.resource,
            migration.resource,
            console.resource,
            server_group.resource,
            quota.resource,
            hypervisor.resource,
            services.resource,
            aggregate.resource,
            host.resource,
            usage.resource,
            usage_audit_log.resource,
            external_event.resource,
            security_group.resource,
            floating_ip.resource,
            network.resource,
            image.resource,
            volume.resource,
            baremetal_node.resource,
            share.resource,
            removed.resource,
            version.resource,
        ],
        outer=[version.discovery],
        envelope=compute_envelope,
        ledger=LEDGER,
        quota=quota.QUOTA,
        rules=BASE,
        strict=False,
        project_segment=True,
        strict_slash=True,
        methods_hidden=True,
        query_closed=parse("2.102"),
        request_id_header="x-compute-request-id",
    )


def host_resources() -> list[Resource]:
    """What hosts ask of Compute over the link."""
    return [guest.resource]


def controllers(fleet: Fleet, config: Config) -> list[Controller]:
    """Compute's loops. They need the fleet of this process and the settings of what hosts offer."""
    return [
        HostInventory(fleet, config),
        Scheduler(fleet),
        GuestWriter(),
        Folder(config),
        Snapshots(config),
        Deadlines(config),
        Archive(),
    ]
