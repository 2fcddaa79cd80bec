"""The Linux network driver against the contract suites, with real packets on a scratch host, by each filter engine."""

from collections.abc import Iterator

import pytest

from pileus.contracts.suite.network import NetworkContract
from pileus.contracts.suite.network_packet import PacketContract
from pileus.drivers.network.bridge.guard import ENGINES, Engine
from pileus.drivers.network.bridge.probe import obstacle
from tests.drivers.network_host import BridgeHarness, needs_host, scratch_host


@needs_host
class TestBridgeNetwork(NetworkContract):
    @pytest.fixture
    def harness(self) -> Iterator[BridgeHarness]:
        with scratch_host():
            harness = BridgeHarness()
            yield harness
            harness.close()


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    engine: Engine = request.param
    if reason := obstacle(engine):
        pytest.skip(f"engine {engine} does not work on this kernel: {reason.splitlines()[0]}")
    return engine


@needs_host
class TestBridgePackets(PacketContract):
    @pytest.fixture
    def harness(self, engine: Engine) -> Iterator[BridgeHarness]:
        with scratch_host():
            harness = BridgeHarness(engine)
            yield harness
            harness.close()
