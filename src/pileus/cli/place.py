"""Where a cloud keeps its things, as every command finds it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

STATE = Path("/var/lib/pileus")
"""Where a cloud of root's keeps everything."""


def default_state() -> Path:
    """The state directory when none is named: root's cloud, or one of the user's own."""
    if given := os.environ.get("PILEUS_STATE"):
        return Path(given)
    if os.getuid() == 0:
        return STATE
    return Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local" / "state")) / "pileus"


def add_state(parser: argparse.ArgumentParser) -> None:
    """Add `--state`."""
    parser.add_argument(
        "--state",
        type=lambda text: Path(text).absolute(),
        default=default_state(),
        metavar="DIR",
        help="state directory, also PILEUS_STATE (default: %(default)s)",
    )
