"""Tests of agents play on a store that holds the fleet's tables."""

from __future__ import annotations

import pytest

from pileus.agent import agent
from pileus.core.store import Store
from pileus.services.fleet import service
from tests.conftest import Schema


def fleet_schema(url: str) -> None:
    """The fleet's tables, and those of whatever else was imported."""
    assert service.link_service().resources
    store = Store(url)
    store.create()
    store.close()


@pytest.fixture
def database_schema() -> Schema | None:
    return fleet_schema


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that does not wait long for anything."""
    monkeypatch.setattr(agent, "HEARTBEAT", 0.05)
    monkeypatch.setattr(agent, "PAUSE", 0.05)
    monkeypatch.setattr(agent, "REFUSED", 0.1)
