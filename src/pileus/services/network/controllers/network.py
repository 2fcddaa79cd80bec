"""Networks: each host that holds one is told when it changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pileus.core.reconcile import Outcome
from pileus.core.store import Tx
from pileus.services.fleet import interface as fleet
from pileus.services.network.controllers.batch import BatchController, lock
from pileus.services.network.controllers.state import network_specs
from pileus.services.network.resources.network.table import TOPIC, network


class NetworkController(BatchController):
    """Tells the hosts that hold a network; which ones do is decided by holds."""

    name = "network.network"
    topics = frozenset({TOPIC})

    def keys(self, tx: Tx) -> Iterable[str]:
        """All networks that hosts hold."""
        return {object_id for object_id, _ in fleet.assigned(tx, "network")}

    def work(self, tx: Tx, keys: Sequence[str]) -> Mapping[str, Outcome]:
        """Write the specs of networks; a network that is deleted is let go."""
        lock(tx, network, keys)
        held = fleet.observed(tx, "network", keys)
        specs = network_specs(tx, held.keys())
        fleet.assign(
            tx,
            [
                fleet.Spec(one.host_id, "network", key, specs[key])
                for key, entries in held.items()
                if key in specs
                for one in entries
                if not one.tombstone
            ],
        )
        gone = held.keys() - specs.keys()
        if gone:
            fleet.tombstone(tx, "network", gone)
        return {}
