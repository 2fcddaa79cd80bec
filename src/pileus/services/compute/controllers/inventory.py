"""Offering what hosts have."""

from __future__ import annotations

from collections.abc import Iterable

from pileus.core.config import Config
from pileus.core.reconcile import DONE, KeyController, Outcome
from pileus.core.store import Tx
from pileus.services.fleet import interface as fleet
from pileus.services.placement import interface as placement


class HostInventory(KeyController):
    """Keeps a provider for each host, with what the host measured of itself."""

    name = "compute.inventory"
    topics = frozenset({"fleet.host"})
    interval = 600.0

    def __init__(self, hosts: fleet.Fleet, config: Config) -> None:
        self._fleet = hosts
        self._config = config

    def keys(self, tx: Tx) -> Iterable[str]:
        """All hosts: offering the same again writes nothing."""
        return fleet.host_ids(tx)

    def work(self, tx: Tx, key: str) -> Outcome:
        """Let the host's provider offer what the host has."""
        for host in fleet.hosts(tx, self._fleet, [key]):
            facts, config = host.facts, self._config
            reserved = min(config.reserved_memory_mib, facts.memory_mib // 2)
            placement.ensure_provider(tx, host.id, host.name)
            offered = {
                "VCPU": placement.Inventory(
                    total=facts.vcpus, max_unit=facts.vcpus, allocation_ratio=config.cpu_allocation_ratio
                ),
                "MEMORY_MB": placement.Inventory(
                    total=facts.memory_mib,
                    reserved=reserved,
                    max_unit=facts.memory_mib,
                    allocation_ratio=config.ram_allocation_ratio,
                ),
                "DISK_GB": placement.Inventory(
                    total=facts.disk_gib, max_unit=facts.disk_gib, allocation_ratio=config.disk_allocation_ratio
                ),
            }
            placement.set_inventory(
                tx, host.id, {name: one for name, one in offered.items() if one.total > 0}, keep="CUSTOM_"
            )
        return DONE
