"""Ports that the cloud makes for itself: one for the DHCP service of each network that has one.

https://docs.openstack.org/api-ref/network/v2/#ports (attribute `device_owner`)

The DHCP port comes with the first subnet that has `enable_dhcp`, in the same transaction, and goes with the last one.
It has an address in each of them; a subnet that has no address left for it is not served.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from pileus.core.store import Tx
from pileus.services.network.resources import address as addresses
from pileus.services.network.resources.address import Ask, Wish
from pileus.services.network.resources.draft import DHCP, Draft, Port, load, make, remove
from pileus.services.network.resources.port.table import TOPIC, address, port
from pileus.services.network.resources.standard_attribute import Row, every
from pileus.services.network.rules.fault import IpAddressGenerationFailure


def dhcp_ports(tx: Tx, network_ids: Collection[str]) -> dict[str, Port]:
    """The DHCP ports of networks, by network; networks without one are not in the answer."""
    query = sa.select(port).where(port.c.network_id.in_(network_ids), port.c.device_owner == DHCP)
    return {one.row["network_id"]: one for one in load(tx, every(tx, query))} if network_ids else {}


def settle_dhcp(tx: Tx, net: Row, subnets: Sequence[Row], *, first: bool = False) -> None:
    """Let a network's DHCP port have an address in each subnet with `enable_dhcp`, and in no other.

    `subnets` are those of `addresses.lock_subnets`; `first`: the network has no DHCP port yet.
    """
    served = [row for row in subnets if row["enable_dhcp"]]
    known = None if first else dhcp_ports(tx, [net["id"]]).get(net["id"])
    if known is None:
        if served:
            _make(tx, net, subnets, served)
        return
    if not served:
        remove(tx, [known])
        return
    have = {one.subnet_id for one in known.addresses}
    gone = have - {row["id"] for row in served}
    if gone:
        tx.execute(sa.delete(address).where(address.c.port_id == known.row["id"], address.c.subnet_id.in_(gone)))
    for row in served:
        if row["id"] not in have:
            _address(tx, net, known, row)
    tx.changed(TOPIC, known.row["id"])


def _make(tx: Tx, net: Row, subnets: Sequence[Row], served: Sequence[Row]) -> None:
    draft = Draft(
        network=net,
        project_id=net["project_id"],
        wishes=[Wish(row["id"]) for row in served],
        values={"device_owner": DHCP, "device_id": f"dhcp-{net['id']}", "port_security_enabled": False},
    )
    try:
        make(tx, [draft], {net["id"]: subnets})
    except IpAddressGenerationFailure:
        return


def _address(tx: Tx, net: Row, known: Port, row: Row) -> None:
    ask = Ask(net["id"], known.row["mac_address"], [Wish(row["id"])])
    try:
        found = addresses.allocate(tx, {net["id"]: [row]}, [ask])[0]
    except IpAddressGenerationFailure:
        return
    tx.insert(address, addresses.rows_of(known.row["id"], found, len(known.addresses)))
