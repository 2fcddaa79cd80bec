"""`pileus backup`: everything that a cloud cannot be brought back without, in one file."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pileus.cli.main import CommandFailure
from pileus.cli.place import add_state, settings
from pileus.cli.progress import Progress

if TYPE_CHECKING:
    from pileus.cli.main import Roles, Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "backup",
        help="write a backup of the cloud, which may run, to one file",
        description="Writes the store as it is at one moment, the keys and the settings to a tar archive that only its "
        "owner can read. It holds secrets: keep it where you keep them. `pileus restore` brings the cloud back to it. "
        "Disks of servers are not in it.",
    )
    add_state(parser)
    parser.add_argument("--to", type=Path, metavar="FILE", help="where to write (default: backups/ in the state)")
    parser.add_argument("--images", action="store_true", help="also the data of images")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, roles: Roles) -> int:
    """Run the command; exit status."""
    state: Path = arguments.state
    config = settings(state)
    if not config.control.exists():
        raise CommandFailure(f"there is no cloud in {state} to back up")
    name = f"pileus-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.tar"
    target: Path = (arguments.to or state / "backups").absolute()
    if arguments.to is None:
        target.mkdir(mode=0o700, exist_ok=True)
    if target.is_dir():
        target /= name
    with Progress().step("backup") as step:
        step.result(roles.backup(config, target, arguments.images, step.say))
    print(target)
    return 0
