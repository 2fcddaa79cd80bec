"""Network's door plate."""

from __future__ import annotations

from pileus.core.api import Service
from pileus.core.errors import network_envelope
from pileus.services.network.controllers import controllers
from pileus.services.network.resources import (
    address_scope,
    agent,
    auto_allocated_topology,
    availability_zone,
    discovery,
    extension,
    floatingip_pool,
    ip_availability,
    metering,
    quota,
    service_provider,
    standard_attribute,
)
from pileus.services.network.resources.floatingip import operations as floatingip
from pileus.services.network.resources.network import operations as network
from pileus.services.network.resources.port import operations as port
from pileus.services.network.resources.rbac_policy import operations as rbac_policy
from pileus.services.network.resources.router import operations as router
from pileus.services.network.resources.security_group import operations as security_group
from pileus.services.network.resources.subnet import operations as subnet
from pileus.services.network.resources.subnetpool import operations as subnetpool

__all__ = ["controllers", "service"]


def service() -> Service:
    """Network v2.0, below /network."""
    return Service(
        name="network",
        type="network",
        mounts=("/network",),
        roots=("/v2.0",),
        resources=[
            network.resource,
            subnet.resource,
            subnetpool.resource,
            address_scope.resource,
            port.resource,
            router.resource,
            floatingip.resource,
            security_group.resource,
            security_group.rule_resource,
            quota.resource,
            rbac_policy.resource,
            metering.resource,
            agent.resource,
            ip_availability.resource,
            auto_allocated_topology.resource,
            floatingip_pool.resource,
            extension.resource,
            availability_zone.resource,
            service_provider.resource,
        ],
        outer=[discovery.resource],
        envelope=network_envelope,
        paging=standard_attribute.paging,
        quota=quota.quota,
        rules=standard_attribute.RULES,
        strict=False,
        field_selection=True,
    )
