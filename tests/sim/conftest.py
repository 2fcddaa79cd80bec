"""Simulations play on what the tests of agents play on."""

from __future__ import annotations

from tests.agent.conftest import database_schema, impatient

__all__ = ["database_schema", "impatient"]
