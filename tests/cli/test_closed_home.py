"""A checkout in the home directory of root, which nobody else may enter: as most people's first one is."""

from __future__ import annotations

import os
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.simulated import Cloud
from tests.tidy.tree import ROOT

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount"),
    pytest.mark.skipif(not Path(sys.executable).is_relative_to(ROOT), reason="needs the checkout's own environment"),
]


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    cloud = Cloud(closed=True)
    yield cloud
    cloud.remove()


@pytest.mark.parametrize("tls", [[], ["--tls"]])
def test_a_cloud_runs_from_a_place_that_is_closed_to_it(cloud: Cloud, tls: list[str]) -> None:
    cloud.up("--fake", "1", "--listen", cloud.listen, *tls)
    code = cloud.code / "src" / "pileus"
    assert not code.exists(), "it is bound in the namespace of each command alone"
    assert any(name.endswith("ACTIVE") for name in cloud.servers().values())
    if not tls:
        for page in ("vnc.html", "novnc/core/rfb.js", "serial?token=x"):
            with urllib.request.urlopen(f"http://{cloud.listen}/console/{page}") as answer:
                assert answer.status == 200
    archive = cloud.base / "backup.tar"
    cloud.run("backup", "--to", str(archive))
    cloud.run("doctor")
    cloud.run("down")
    cloud.run("restore", str(archive))
    cloud.up()
    assert "hello" in cloud.servers()
