"""`pileus openstack …`: the unmodified OpenStack client, with this cloud's credentials."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pileus.cli.client import CLOUD, credentials
from pileus.cli.main import CommandFailure
from pileus.cli.place import default_state

if TYPE_CHECKING:
    from pileus.cli.main import Roles, Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "openstack",
        help="run the OpenStack client against this cloud",
        description="Runs python-openstackclient with this cloud's credentials, e.g. `pileus openstack server list`. "
        "--state DIR is understood before the first other word; all the rest is the client's, --help included.",
        usage="pileus openstack [--state DIR] …",
        # No word begins with this character: what looks like an option is the client's to understand.
        prefix_chars="\0",
        add_help=False,
    )
    parser.add_argument("words", nargs=argparse.REMAINDER, help="what to hand to the client", metavar="…")
    parser.set_defaults(run=run)


def split(words: list[str]) -> tuple[Path, list[str]]:
    """The state directory, and what is the client's. Raises CommandFailure when `--state` names nothing."""
    first, equals, named = words[0].partition("=") if words else ("", "", "")
    if first != "--state":
        return default_state(), words
    if equals:
        return Path(named).absolute(), words[1:]
    if len(words) == 1:
        raise CommandFailure("--state wants a directory", status=2)
    return Path(words[1]).absolute(), words[2:]


def run(arguments: argparse.Namespace, roles: Roles) -> int:
    """Become the client; does not return unless it cannot be started."""
    state, words = split(arguments.words)
    credentials(state)
    client = Path(sys.executable).parent / "openstack"
    if not client.exists():
        raise CommandFailure("the OpenStack client is not installed beside Pileus: pip install python-openstackclient")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
    environment |= {"OS_CLIENT_CONFIG_FILE": str(state / "clouds.yaml"), "OS_CLOUD": CLOUD}
    os.execve(client, [str(client), *words], environment)  # noqa: S606 - an argument list, no shell
