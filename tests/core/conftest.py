"""Tests of this folder begin with an empty database."""

from __future__ import annotations

import pytest

from tests.conftest import Schema


@pytest.fixture
def database_schema() -> Schema | None:
    return None
