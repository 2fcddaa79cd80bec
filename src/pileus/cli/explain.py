"""`pileus explain server ID`: why a server is where it is, or why no host took it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pileus.cli.client import Api, ApiFailure
from pileus.cli.main import CommandFailure
from pileus.cli.place import add_state

if TYPE_CHECKING:
    from pileus.cli.main import Roles, Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "explain",
        help="say why something is as it is",
        description="Says for each host why it was taken for a server, or refused.",
    )
    add_state(parser)
    parser.add_argument("noun", choices=["server"], help="what kind of thing")
    parser.add_argument("id", help="its id, or its name")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, roles: Roles) -> int:
    """Print the explanation; exit status."""
    api = Api(arguments.state)
    server_id = _find(api, arguments.id)
    found = api.get(f"/compute/v2.1/servers/{server_id}/explain")["explanation"]
    print("\n".join(lines(found)))
    return 0


def _find(api: Api, named: str) -> str:
    try:
        return str(api.get(f"/compute/v2.1/servers/{named}")["server"]["id"])
    except ApiFailure as failure:
        if failure.code != 404:
            raise
    from urllib.parse import quote

    rows = api.get(f"/compute/v2.1/servers?all_tenants=1&name={quote('^' + named + '$')}")["servers"]
    if len(rows) != 1:
        raise CommandFailure(f"there {'is no server' if not rows else f'are {len(rows)} servers'} named {named!r}")
    return str(rows[0]["id"])


def lines(found: dict[str, object]) -> list[str]:
    """An explanation as lines for people."""
    head = [f"server {found['server_id']} ({found['name']}) is {found['status']}"]
    head.append(f"  host: {found['host'] or 'none'}")
    if found.get("fault"):
        head.append(f"  fault: {found['fault']}")
    if found.get("decided_at"):
        head.append(f"  decided at: {found['decided_at']}")
    hosts = found.get("hosts")
    width = max((len(str(one["name"])) for one in hosts), default=0) if isinstance(hosts, list) else 0
    for one in hosts if isinstance(hosts, list) else ():
        mark = "✓" if one["taken"] else "·" if one["fits"] else "✗"
        head.append(f"  {mark} {one['name']:<{width}}  {one['reason']}")
    return head
