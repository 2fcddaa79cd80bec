"""What `pileus doctor` does about what is left over: it says what, asks, and does it line by line."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from pileus.cli.client import Api, ApiFailure
from pileus.cli.main import CommandFailure
from pileus.cli.supervise import runs

if TYPE_CHECKING:
    from pileus.cli.main import Leftover, Roles
    from pileus.core.config import Config

HELD = ("guest", "network", "router", "snapshot")
"""Kinds of what hosts hold: they let it go when they are told to."""

TIMEOUT = 60.0
"""Seconds that a host may take to let something go."""


def leftovers(config: Config, roles: Roles) -> list[Leftover]:
    """What is left over in the store; nothing where there is none yet."""
    return roles.examine_store(config) if config.control.exists() else []


def advice(found: Leftover) -> str:
    """What to do about a finding, for people."""
    if found.by_hand:
        return found.mending
    return f"{found.mending}: pileus doctor " + (f"--remove {found.key}" if found.named else "--repair")


def repair(config: Config, roles: Roles, found: Sequence[Leftover], yes: bool) -> set[str]:
    """Mend what can be mended without a name; the keys of that."""
    keys = [one.key for one in found if not one.named and not one.by_hand]
    if keys:
        _ask(f"mend {len(keys)} of these?", yes)
        roles.mend_store(config, keys, lambda line: print(f"  {line}"))
    return set(keys)


def remove(config: Config, roles: Roles, keys: Collection[str], yes: bool) -> int:
    """Delete what is named; exit status. Raises CommandFailure before anything is done when a name is of nothing."""
    held = {key for key in keys if key.partition("/")[0] in HELD}
    places = _places(config, held) if held else {}
    there = {one.key for one in leftovers(config, roles) if not one.by_hand} if set(keys) - held else set()
    if missing := sorted(set(keys) - there - places.keys()):
        raise CommandFailure(f"nothing of this name is left over or unknown: {', '.join(missing)}; see `pileus doctor`")
    _ask(f"delete {', '.join(sorted(keys))}? It cannot be brought back.", yes)
    for key, hosts in sorted(places.items()):
        _let_go(config, key, hosts)
    if rest := sorted(set(keys) & there):
        roles.mend_store(config, rest, lambda line: print(f"  {line}"))
    return 0


def _ask(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandFailure("nothing was done: give --yes when it shall be")
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise CommandFailure("nothing was done")


def _places(config: Config, keys: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """The hosts that hold these things, which the cloud does not know. Raises CommandFailure when the cloud is down."""
    if not runs(config.state):
        raise CommandFailure("what hosts hold goes while the cloud runs: `pileus up` first")
    found: dict[str, list[dict[str, Any]]] = {}
    for host in Api(config.state).get("/fleet/v1/hosts")["hosts"]:
        for one in host["unknown"]:
            if (key := f"{one['kind']}/{one['id']}") in keys:
                found.setdefault(key, []).append(host)
    return found


def _let_go(config: Config, key: str, hosts: Sequence[dict[str, Any]]) -> None:
    api = Api(config.state)
    for host in hosts:
        print(f"  {key}: host {host['name']} deletes it", flush=True)
        deadline = time.monotonic() + TIMEOUT
        while _asked(api, host, key):
            if time.monotonic() > deadline:
                raise CommandFailure(f"{key} is there still after {TIMEOUT:.0f} s; see the agent's log")
            time.sleep(0.3)
    print(f"  {key} is gone")


def _asked(api: Api, host: dict[str, Any], key: str) -> bool:
    """Ask for something to be let go; whether it was there, or on its way out."""
    try:
        api.delete(f"/fleet/v1/hosts/{host['id']}/unknown/{key}")
    except ApiFailure as failure:
        if failure.code not in (404, 409):
            raise CommandFailure(f"{key} on host {host['name']}: {failure}") from None
        return failure.code == 409
    return True
