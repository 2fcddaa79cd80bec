"""`pileus explain server ID`: why a server is where it is, or why no host took it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

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
    server = api.get(f"/compute/v2.1/servers/{server_id}")["server"]
    found = api.get(f"/compute/v2.1/servers/{server_id}/explain")["explanation"]
    print("\n".join(lines(server, found)))
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


def lines(server: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """An explanation as lines for people."""
    needs = ", ".join(f"{amount} {name}" for name, amount in found["resources"].items())
    said = [f"server {server['id']} ({server['name']}) is {server['status']}", f"  needs: {needs}"]
    if server.get("fault"):
        said.append(f"  fault: {server['fault']['message']}")
    if found["decided_at"]:
        refused = ", ".join(f"{count} refused by {name}" for name, count in found["refused_by"].items())
        said.append(f"  decided at {found['decided_at']}: {found['chosen'] or 'no host'}{refused and f' ({refused})'}")
    for host, reason in (found["kept"] or {}).items():
        said.append(f"    ✗ {host}: {reason}")
    said.append("  as each host is judged now:")
    width = max((len(one["host"]) for one in found["hosts"]), default=0)
    for one in found["hosts"]:
        mark = {"taken": "✓", "passed": "·"}.get(one["verdict"], "✗")
        weight = f"  weight {one['weight']:.2f}" if one["weight"] is not None else ""
        reason = f"  {one['filter']}: {one['reason']}" if one["reason"] else ""
        said.append(f"    {mark} {one['host']:<{width}}  {one['verdict']}{weight}{reason}")
    return said + [_heard(one) for one in found["heard"]]


def _heard(one: dict[str, Any]) -> str:
    """What a host said of the guest, in one line."""
    if not one["state"]:
        return f"  {one['host']} was told, and has said nothing of it yet"
    state = f"{one['state']} for good" if one["permanent"] else one["state"]
    again = ", and tries again" if one["state"] == "failed" and not one["permanent"] else ""
    older = "" if one["done"] == one["wanted"] else " of what it was told before: the newest is under way"
    detail = f": {one['detail']}" if one["detail"] else ""
    return f"  {one['host']} says {state}{older}{detail}{again}"
