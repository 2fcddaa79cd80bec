"""What tests of agents share."""

from __future__ import annotations

import pytest

from pileus.agent import agent, rounds


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that does not wait long for anything."""
    monkeypatch.setattr(agent, "HEARTBEAT", 0.05)
    monkeypatch.setattr(rounds, "NURSE", 0.02)
    monkeypatch.setattr(agent, "PAUSE", 0.05)
    monkeypatch.setattr(agent, "REFUSED", 0.1)
