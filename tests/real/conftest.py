"""Clouds for the tests of this folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pileus.cli.image import build_tiny, default_cache
from tests.real.cloud import Cloud


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image tiny, built once."""
    output = tmp_path_factory.mktemp("image") / "tiny.qcow2"
    return build_tiny(output, cache=default_cache(), progress=lambda line: None)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Iterator[Cloud]:
    """A cloud that is prepared, and not up yet; one for each module."""
    # Unix sockets have short names, and users of their own must be able to walk here.
    state = Path(f"/var/tmp/pileus-test-{os.getpid()}-{tmp_path_factory.mktemp('c').name}")
    found = Cloud(state, f"pt{os.getpid()}{tmp_path_factory.mktemp('n').name}"[:14])
    (state / "images").mkdir()
    shutil.copy(tiny, state / "images" / "tiny.qcow2")
    try:
        yield found
    finally:
        found.close()
