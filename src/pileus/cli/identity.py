"""`pileus identity rotate-keys`: seal tokens and secrets with the next key."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pileus.cli.main import CommandFailure
from pileus.cli.place import add_state, settings

if TYPE_CHECKING:
    from pileus.cli.main import Roles, Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "identity",
        help="rotate the keys that seal tokens",
        description="Looks after the keys that seal tokens and secrets. All control planes use the new keys before "
        "their next answer, whether or not the cloud runs on this machine.",
    )
    add_state(parser)
    verbs = parser.add_subparsers(metavar="VERB", dest="verb", required=True)
    rotate = verbs.add_parser("rotate-keys", help="make the staged key the primary, and stage a new one")
    rotate.add_argument(
        "--forget", action="store_true", help="forget all older keys of tokens: every token is void at once"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, roles: Roles) -> int:
    """Rotate the keys; exit status. Raises CommandFailure."""
    config = settings(arguments.state)
    if not (config.control / "keys" / "master").exists():
        raise CommandFailure(f"no control plane has run in {arguments.state}: there are no keys yet")
    roles.rotate_keys(config, arguments.forget)
    print("new tokens are sealed with the next key" + ("; all others are void" if arguments.forget else ""))
    return 0
