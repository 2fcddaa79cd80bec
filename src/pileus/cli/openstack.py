"""`pileus openstack …`: the unmodified OpenStack client, with this cloud's credentials."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pileus.cli.client import CLOUD, credentials
from pileus.cli.main import CommandFailure
from pileus.cli.place import add_state

if TYPE_CHECKING:
    from pileus.cli.main import Roles, Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "openstack",
        help="run the OpenStack client against this cloud",
        description="Runs python-openstackclient with this cloud's credentials, e.g. `pileus openstack server list`.",
    )
    add_state(parser)
    parser.add_argument("words", nargs=argparse.REMAINDER, help="what to hand to the client", metavar="…")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, roles: Roles) -> int:
    """Become the client; does not return unless it cannot be started."""
    state: Path = arguments.state
    credentials(state)
    client = Path(sys.executable).parent / "openstack"
    if not client.exists():
        raise CommandFailure("the OpenStack client is not installed beside Pileus: pip install python-openstackclient")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
    environment |= {"OS_CLIENT_CONFIG_FILE": str(state / "clouds.yaml"), "OS_CLOUD": os.environ.get("OS_CLOUD", CLOUD)}
    os.execve(client, [str(client), *arguments.words], environment)  # noqa: S606 - an argument list, no shell
