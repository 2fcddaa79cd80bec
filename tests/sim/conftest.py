"""Simulations play on what the tests of agents play on."""

from __future__ import annotations

from tests.agent.conftest import impatient

__all__ = ["impatient"]
