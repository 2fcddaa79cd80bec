"""`pileus accept-store`: let the hosts of this machine obey a store that they refuse."""

from __future__ import annotations

import argparse
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pileus.cli import systemd
from pileus.cli.client import Api
from pileus.cli.main import CommandFailure
from pileus.cli.place import add_state, settings
from pileus.cli.supervise import kept, runs, supervisor

if TYPE_CHECKING:
    from pileus.cli.main import Roles, Subparsers
    from pileus.core.config import Config

TIMEOUT = 30.0
"""Seconds that the agent may take to come back."""


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "accept-store",
        help="let this machine obey a store that was restored from an older copy, or made anew",
        description="A host refuses a store that is another than the one it obeyed, or an older copy of it. This makes "
        "it forget which one that was. Servers that the store does not know are left alone and shown by `doctor`; what "
        "it wants otherwise than they are is changed.",
    )
    add_state(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, roles: Roles) -> int:
    """Run the command; exit status."""
    state: Path = arguments.state
    if runs(state) and not _refusing(state):
        print("no host refuses the store: nothing to do")
        return 0
    forgotten = forget(settings(state))
    if pid := supervisor(state):
        os.kill(pid, signal.SIGHUP)  # the agent remembers in memory, too
        _wait(state, forgotten)
        print(f"{', '.join(sorted(forgotten))}: obeys the store that is there")
    elif kept(state):
        systemd.systemctl("restart", systemd.SERVICES["agent"])
        _wait(state, forgotten)
        print(f"{', '.join(sorted(forgotten))}: obeys the store that is there")
    else:
        print("the store that is there at the next `pileus up` will be obeyed")
    return 0


def _refusing(state: Path) -> set[str]:
    return {one["host"] for one in Api(state).get("/fleet/v1/hosts")["refusals"]}


def forget(config: Config) -> set[str]:
    """Let the hosts of this machine forget whom they obey; their names."""
    forgotten = set()
    for file in (*config.agent.glob("identity.json"), *config.agent.glob("fake-*/identity.json")):
        file.unlink()
        forgotten.add(config.host_name if file.parent == config.agent else file.parent.name)
    return forgotten


def _wait(state: Path, names: set[str]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while waiting := _refusing(state) & names:
        if time.monotonic() > deadline:
            raise CommandFailure(f"{', '.join(sorted(waiting))}: refuses the store still; see `pileus doctor`")
        time.sleep(0.2)
