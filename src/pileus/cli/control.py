"""`pileus control`: one of the two processes of a cloud, in the foreground."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pileus.cli.place import add_state

if TYPE_CHECKING:
    from pileus.cli.main import Roles, Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "control",
        help="run the control plane (the supervisor does)",
        description="The control plane: API and loops. Started as root it drops its privilege before it serves.",
    )
    add_state(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, roles: Roles) -> int:
    """Run the process to its end; exit status."""
    return roles.control(arguments)
