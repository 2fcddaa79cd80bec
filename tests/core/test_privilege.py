"""What a process has read before it is somebody who may read no code."""

from __future__ import annotations

import subprocess
import sys

_WITHOUT_FILES = """
import sys
from datetime import datetime
from pileus.core import privilege

privilege.preload("pileus.core", but="pileus.core.nothing")
sys.path.clear()
sys.path_importer_cache.clear()
assert datetime.strptime("2026-11-21 18:00:00", "%Y-%m-%d %H:%M:%S").year == 2026
assert "bücher.example".encode("idna") == b"xn--bcher-kva.example"
try:
    import this
except ModuleNotFoundError:
    print("sealed")
"""


def test_what_is_imported_late_was_loaded_before() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_FILES], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "sealed", done.stderr
