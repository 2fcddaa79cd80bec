"""The network driver in memory against the contract, and what it costs."""

import time
import uuid

import pytest

from pileus.contracts.network import Network
from pileus.contracts.suite.network import Lan, NetworkContract
from pileus.drivers.network.fake import FakeHost, FakeNetwork


class _Harness:
    def __init__(self) -> None:
        self.host = FakeHost()

    def open(self) -> Network:
        return FakeNetwork(host=self.host)

    def leftovers(self) -> list[str]:
        return sorted([*self.host.networks, *self.host.routers])


class TestFakeNetwork(NetworkContract):
    @pytest.fixture
    def harness(self) -> _Harness:
        return _Harness()


def test_a_plug_costs_the_same_beside_thousands_of_ports() -> None:
    def cost(lans: int) -> float:
        driver, ports = FakeNetwork(), []
        for _ in range(lans):
            lan = Lan()
            ports = [lan.port(f"host{number}", number) for number in range(200)]
            driver.ensure_network(lan.state)
        found = []
        for _ in range(5):
            began = time.thread_time()
            for port in ports:
                driver.plug(port.id)
            found.append(time.thread_time() - began)
        return min(found)

    assert cost(20) < 5 * cost(1)


def test_thousands_of_ports_have_plugs() -> None:
    driver = FakeNetwork()
    ports = []
    for _ in range(20):
        lan = Lan()
        ports += [lan.port(f"host{number}", number) for number in range(200)]
        driver.ensure_network(lan.state)
    assert len({driver.plug(port.id).port_id for port in ports}) == 4000
    assert str(uuid.uuid4()) not in driver.networks()
