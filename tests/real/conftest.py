"""Clouds for the tests of this folder."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pileus.cli.image import build_tiny, default_cache
from tests.real.cloud import Cloud


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image tiny, built once, whichever of a run's processes comes first; what its building said lies beside it."""
    directory = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        directory = directory.parent
    output = directory / "tiny.qcow2"
    with (directory / "tiny.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not output.exists():
            said: list[str] = []
            new = directory / "tiny.new"
            assert build_tiny(new, cache=default_cache(), progress=said.append) == new
            output.with_suffix(".log").write_text("\n".join(said))
            new.rename(output)
    return output


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
