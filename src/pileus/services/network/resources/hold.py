"""Holds: what a host may hold for its ports' sake, a network or a security group, and may be able to let go.

They have no API of their own; upstream's agents work them out from messages
(https://docs.openstack.org/api-ref/network/v2/#agents).  A hold is the key of a control loop: `KIND/ID@HOST`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from pileus.core.store import Tx

TOPIC = "network.hold"

HeldKind = Literal["network", "security_group"]


class Hold(NamedTuple):
    """An object that a host may hold."""

    kind: HeldKind
    id: str
    host_id: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.id}@{self.host_id}"


def parse(text: str) -> Hold:
    """A hold of its text."""
    kind, _, rest = text.partition("/")
    object_id, _, host_id = rest.partition("@")
    return Hold("network" if kind == "network" else "security_group", object_id, host_id)


def review(tx: Tx, host_id: str, network_ids: Iterable[str], group_ids: Iterable[str]) -> None:
    """Let the loop look whether a host still needs these."""
    for network_id in network_ids:
        tx.changed(TOPIC, str(Hold("network", network_id, host_id)))
    for group_id in group_ids:
        tx.changed(TOPIC, str(Hold("security_group", group_id, host_id)))
