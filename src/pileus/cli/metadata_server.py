"""`pileus metadata-server`: the agent's child that answers guests, without privilege."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pileus.cli.main import Roles, Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser("metadata-server", help="answer guests' metadata requests (the agent starts it)")
    parser.add_argument("channel", type=int, help="file descriptor of the socket to the agent")
    parser.add_argument("--uid", type=int, required=True, help="user and group to become when started as root")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, roles: Roles) -> int:
    """Run the process to its end; exit status."""
    return roles.metadata_server(arguments)
