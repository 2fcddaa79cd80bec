"""Tests of this folder begin with an empty database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pileus.core.seams import ManualClock, Seams
from pileus.core.store import Store
from tests.conftest import Schema


@pytest.fixture
def database_schema() -> Schema | None:
    return None


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(database_url: str, clock: ManualClock) -> Iterator[Store]:
    found = Store(database_url, Seams(clock))
    found.create()
    yield found
    found.close()
