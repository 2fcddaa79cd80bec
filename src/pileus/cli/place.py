"""Where a cloud keeps its things and which settings it has, as every command finds it."""

from __future__ import annotations

import argparse
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pileus.cli.main import CommandFailure

if TYPE_CHECKING:
    from pileus.core.config import Config

EX_CONFIG = 78
"""Exit status of a process whose settings cannot be used (sysexits.h)."""

STATE = Path("/var/lib/pileus")
"""Where a cloud of root's keeps everything."""


def default_state() -> Path:
    """The state directory when none is named: root's cloud, or one of the user's own."""
    if given := os.environ.get("PILEUS_STATE"):
        return Path(given)
    if os.getuid() == 0:
        return STATE
    return Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local" / "state")) / "pileus"


def hint(state: Path) -> str:
    """For whoever finds no cloud in a directory: that root has one on this machine; empty where that is no news."""
    if os.getuid() == 0 or state == STATE or not (STATE / "run").exists():
        return ""
    return f". Root's cloud is in {STATE}: use sudo"


def add_state(parser: argparse.ArgumentParser) -> None:
    """Add `--state`."""
    parser.add_argument(
        "--state",
        type=lambda text: Path(text).absolute(),
        default=default_state(),
        metavar="DIR",
        help="state directory, also PILEUS_STATE (default: %(default)s)",
    )


def settings(state: Path, overrides: dict[str, Any] | None = None) -> Config:
    """The settings of the cloud in a state directory. Raises CommandFailure when they cannot be read."""
    from pileus.core.config import ConfigError
    from pileus.core.config_origin import load

    try:
        return load(state, overrides)
    except ConfigError as error:
        raise CommandFailure(f"the settings cannot be used:\n  {error}", status=EX_CONFIG) from None


def exposed(config: Config) -> None:
    """Refuse to serve where passwords would travel in the clear. Raises CommandFailure."""
    from pileus.core.config import ConfigError, check_exposure

    try:
        check_exposure(config)
    except ConfigError as error:
        raise CommandFailure(str(error), status=EX_CONFIG) from None


def occupied(address: tuple[str, int]) -> str | None:
    """Why nobody could listen on an address just now; None when somebody could."""
    with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            return error.strerror or str(error)
    return None
