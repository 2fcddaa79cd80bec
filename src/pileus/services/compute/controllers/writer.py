"""Telling hosts what guests they shall hold."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from pileus.core.reconcile import Outcome
from pileus.core.statement import many
from pileus.core.store import Store, Tx
from pileus.services.compute.controllers.batch import together
from pileus.services.compute.resources import aggregate
from pileus.services.compute.resources.server.table import server, set_each
from pileus.services.compute.rules import guest
from pileus.services.compute.rules.placing import ZONE
from pileus.services.fleet import interface as fleet
from pileus.services.network import interface as network

_OPEN = (
    server.c.host_id.is_not(None),
    server.c.deleting_at.is_(None),
    sa.or_(server.c.task.is_(None), server.c.task != "shelving_offloading"),
)


def _nic(port: network.PortInfo) -> guest.Nic:
    return guest.Nic(
        port_id=port.id,
        mac_address=port.mac_address,
        mtu=port.mtu,
        network_id=port.network_id,
        addresses=[
            guest.Address(
                ip_address=one.ip_address,
                floating_ip_address=one.floating_ip_address,
                cidr=one.cidr,
                gateway_ip=one.gateway_ip,
                enable_dhcp=one.enable_dhcp,
                ipv6_address_mode=one.ipv6_address_mode,
                dns_nameservers=one.dns_nameservers,
                host_routes=[(route.destination, route.nexthop) for route in one.host_routes],
            )
            for one in port.addresses
        ],
    )


def _server(row: sa.Row[Any], zone: str, ports: Sequence[network.PortInfo]) -> guest.Server:
    return guest.Server(
        id=row.id,
        name=row.name,
        hostname=row.hostname,
        project_id=row.project_id,
        flavor=row.flavor,
        image_id=row.image_id,
        image=row.image,
        key=row.key,
        user_data=row.user_data,
        admin_pass=row.admin_pass,
        config_drive=row.config_drive,
        metadata=row.metadata,
        reservation_id=row.reservation_id,
        launch_index=row.launch_index,
        zone=zone,
        groups=sorted({name for port in ports for name in port.security_group_names}),
        power=row.power,
        reboot_nonce=row.reboot_nonce,
        reboot_kind=row.reboot_kind,
        disks=row.disks,
        acts=row.acts,
        rescue=row.rescue,
        nic_tags=row.nic_tags,
        sealed_pass=row.sealed_pass,
        files=row.files or (),
    )


_THOSE_OPEN = sa.select(server).where(server.c.id.in_(many("ids")), *_OPEN).order_by(server.c.id).with_for_update()


def write(tx: Tx, ids: Collection[str]) -> None:
    """Let the hosts of these servers hold their guests as they are wanted now; the same spec again changes nothing.

    The rows are locked first, so that a deletion that comes at the same time either sees the assignment or keeps it
    from being made.
    """
    rows = tx.all(_THOSE_OPEN, {"ids": ids})
    if not rows:
        return
    ports = network.ports_of(tx, [row.id for row in rows])
    zones = aggregate.zones(tx, {row.host for row in rows})
    specs = []
    for row in rows:
        own = ports.get(row.id, ())
        nics = [_nic(port) for port in own]
        specs.append(
            fleet.Spec(row.host_id, "guest", row.id, guest.spec(_server(row, zones.get(row.host, ZONE), own), nics))
        )
    fleet.assign(tx, specs)
    set_each(tx, {row.id: {"written": row.revision} for row in rows if row.written != row.revision})
    for row in rows:
        if row.task is not None:
            # A spec that is the same as before is news to nobody but the one who waits for it.
            tx.changed("compute.told", row.id)


class GuestWriter:
    """Writes guests' specs when what is wanted changed, or what Network says of their ports."""

    name = "compute.writer"
    topics = frozenset({"compute.intent", network.DEVICE_TOPIC})
    interval = 30.0
    batch = 64
    parallel = 1

    def __init__(self) -> None:
        self._swept = False

    def keys(self, tx: Tx) -> Iterable[str]:
        """Servers whose hosts have not been told the newest.

        At the first time all servers: what Network said while nobody listened is not in the rows.
        """
        query = sa.select(server.c.id).where(*_OPEN)
        rows = tx.all(query.where(server.c.written < server.c.revision) if self._swept else query)
        self._swept = True
        return [row.id for row in rows]

    async def reconcile(self, store: Store, keys: Sequence[str]) -> Mapping[str, Outcome]:
        """Write all of them in one transaction."""

        async def work(some: Sequence[str]) -> Mapping[str, Outcome]:
            await store.write(lambda tx: write(tx, some))
            return {}

        return await together(self.name, keys, work)
