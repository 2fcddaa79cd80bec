"""`pileus uninstall`: take away what `pileus install` put in place."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pileus.cli import install, systemd
from pileus.cli.main import CommandFailure
from pileus.cli.place import add_state, settings

if TYPE_CHECKING:
    from pileus.cli.main import Roles, Subparsers
    from pileus.core.config import Config


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "uninstall",
        help="let systemd no longer start the cloud",
        description="Stops control plane and agent and takes away their units. Servers go on, and what the cloud "
        "keeps stays: `pileus down` stops servers, `pileus down --purge` deletes what is kept.",
    )
    add_state(parser)
    parser.add_argument("--root", type=Path, metavar="DIR", help="take away what was written below this directory")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, roles: Roles) -> int:
    """Run the command; exit status."""
    state: Path = arguments.state
    root: Path = arguments.root or Path("/")
    if not systemd.serves(state, root / systemd.UNITS.relative_to("/")):
        raise CommandFailure(f"no units are installed for the cloud in {state}: nothing was changed")
    live = arguments.root is None and systemd.booted()
    if live:
        systemd.systemctl("stop", systemd.TARGET, *systemd.SERVICES.values())
    for file in remove(settings(state), root):
        print(f"  ✓ {file} is gone")
    if live:
        systemd.systemctl("daemon-reload")
        print("Servers go on. `pileus up` starts the cloud without systemd.")
    return 0


def remove(config: Config, root: Path) -> list[Path]:
    """Delete the files and links that are ours; which they were."""
    gone = []
    for name in install.links():
        link = root / name
        if link.is_symlink():
            link.unlink()
            gone.append(link)
            if not any(link.parent.iterdir()) and link.parent.name == f"{systemd.TARGET}.wants":
                link.parent.rmdir()
    for name in install.files(config):
        file = root / name
        if file.exists() and install.ours(file):
            file.unlink()
            gone.append(file)
    return gone
