"""`pileus status`: what runs, on one screen."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pileus.cli import systemd
from pileus.cli.client import Api, ApiFailure
from pileus.cli.place import add_state
from pileus.cli.supervise import runs, supervisor

if TYPE_CHECKING:
    from pileus.cli.main import Roles, Subparsers

REFUSED = (
    "servers there go on untouched. Is there a newer copy of the store? Bring that one back. "
    "If not, let the hosts obey this one: ./pileus accept-store"
)
"""What to do about hosts that refuse the store."""


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser("status", help="show what runs", description="Exit status 0 when the cloud serves.")
    add_state(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, roles: Roles) -> int:
    """Run the command; exit status."""
    state: Path = arguments.state
    pid = supervisor(state)
    if not runs(state):
        print(f"the cloud in {state} is down; start it with `pileus up`")
        return 3
    by = f"supervisor {pid}" if pid else "without its supervisor: `pileus up` starts one"
    if systemd.keeps(state):
        by = "by systemd; " + "; ".join(f"{name} {text}" for name, text in systemd.states().items())
    try:
        api = Api(state)
        fleet = api.get("/fleet/v1/hosts")
        servers = server_counts(api)
    except ApiFailure as failure:
        print(f"the cloud in {state} runs ({by}) but does not answer: {failure}")
        return 1
    print(f"the cloud in {state} is up ({by})")
    for host in fleet["hosts"]:
        print(host_line(host))
    for refusal in fleet["refusals"]:
        print(f"  host {refusal['host']} REFUSES this store: {refusal['reason']}")
    if fleet["refusals"]:
        print(f"    → {REFUSED}")
    counts = ", ".join(f"{count} {status}" for status, count in sorted(servers.items())) or "none"
    print(f"  servers: {counts}")
    return 0


def server_counts(api: Api) -> Counter[str]:
    """How many servers have which status."""
    found: Counter[str] = Counter()
    marker = ""
    while True:
        page = api.get(f"/compute/v2.1/servers/detail?all_tenants=1&limit=500{marker}")["servers"]
        found.update(server["status"] for server in page)
        if len(page) < 500:
            return found
        marker = f"&marker={page[-1]['id']}"


def host_line(host: dict[str, Any]) -> str:
    """A host, for people."""
    facts = host["facts"]
    state = "up" if host["up"] else "DOWN"
    unknown = len(host["unknown"])
    more = f", {unknown} unknown object{'s' * (unknown > 1)} (see `pileus doctor`)" if unknown else ""
    return (
        f"  host {host['name']}: {state}, {facts['accelerator']}, {facts['vcpus']} CPUs, "
        f"{facts['memory_mib']} MiB, filter {host['network_filter']}{more}"
    )
