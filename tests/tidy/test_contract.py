"""The house's own import contracts see what they are there to see."""

from __future__ import annotations

from typing import Any

import grimp
import pytest

from tests.tidy.contract import DirectContract, DoorContract, DriversContract, GuardedContract, room

DOOR = DoorContract("door", {}, {"packages": "p.services", "door": "interface"})
DRIVERS = DriversContract("drivers", {}, {"drivers": "p.drivers", "shared": ["p.drivers.host"]})
GUARDED = GuardedContract("guarded", {}, {"guarded": ["p.drivers.host", "fcntl"], "allowed": ["p.drivers"]})


def kept(contract: DirectContract, importer: str, imported: str) -> bool:
    """Whether one import alone keeps a contract."""
    graph = grimp.ImportGraph()
    graph.add_module(importer)
    graph.add_module(imported, is_squashed=not imported.startswith("p."))
    details: dict[str, Any] = {"line_number": 1, "line_contents": "import"}
    graph.add_import(importer=importer, imported=imported, **details)
    return contract.check(graph, verbose=False).kept


def test_rooms() -> None:
    assert room("p.services.network.rules.x", "p.services", 1) == "p.services.network"
    assert room("p.services", "p.services", 1) is None
    assert room("p.services2.network", "p.services", 1) is None


@pytest.mark.parametrize(
    ("contract", "importer", "imported", "expected"),
    [
        (DOOR, "p.services.compute.resources.server", "p.services.network.interface", True),
        (DOOR, "p.services.compute.resources.server", "p.services.network.interface.port", True),
        (DOOR, "p.services.compute.resources.server", "p.services.network.resources.port", False),
        (DOOR, "p.services.compute.service", "p.services.network", False),
        (DOOR, "p.services.network.service", "p.services.network.resources.port", True),
        (DOOR, "p.app", "p.services.network.service", True),
        (DRIVERS, "p.drivers.network.bridge.dhcp", "p.drivers.network.bridge.nft", True),
        (DRIVERS, "p.drivers.network.bridge", "p.drivers.host.tap", True),
        (DRIVERS, "p.drivers.network.bridge", "p.drivers.network.fake", False),
        (DRIVERS, "p.drivers.network.bridge.dhcp", "p.drivers.hypervisor.qemu.guest", False),
        (DRIVERS, "p.drivers.host.tap", "p.drivers.network.bridge", False),
        (DRIVERS, "p.drivers.host.tap", "p.drivers.host.process", True),
        (GUARDED, "p.core.http", "fcntl", False),
        (GUARDED, "p.agent.agent", "p.drivers.host.tap", False),
        (GUARDED, "p.drivers.network.bridge", "p.drivers.host.tap", True),
        (GUARDED, "p.drivers.host.tap", "fcntl", True),
    ],
)
def test_contract(contract: DirectContract, importer: str, imported: str, expected: bool) -> None:
    assert kept(contract, importer, imported) is expected
