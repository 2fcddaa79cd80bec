"""`pileus doctor`: each host fact that matters, and how to mend it."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pileus.cli import package, repair
from pileus.cli.client import Api, ApiFailure
from pileus.cli.main import CommandFailure
from pileus.cli.place import add_state, occupied, settings
from pileus.cli.status import REFUSED
from pileus.cli.supervise import kept, runs

if TYPE_CHECKING:
    from pileus.cli.main import Leftover, Roles, Subparsers
    from pileus.core.config import Config

MARKS = {"good": "✓", "note": "·", "bad": "✗"}


class Fact(NamedTuple):
    """What was found, and what to do when it is not good."""

    verdict: Literal["good", "note", "bad"]
    name: str
    found: str
    fix: str = ""


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "doctor",
        help="examine this host and say what to mend",
        description="Looks at each host fact that matters by trying it, and for what is left over in the cloud. Exit "
        "status 1 when something is bad.",
    )
    add_state(parser)
    parser.add_argument("--repair", action="store_true", help="mend what is left over, and say what is done")
    parser.add_argument("--yes", action="store_true", help="do not ask before")
    parser.add_argument(
        "--remove",
        action="append",
        default=[],
        metavar="KIND/ID",
        help="delete something that this cloud does not know, or that may be dear to somebody, e.g. guest/UUID",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, roles: Roles) -> int:
    """Run the command; exit status."""
    config = settings(arguments.state)
    if arguments.remove:
        return repair.remove(config, roles, arguments.remove, arguments.yes)
    bad = 0
    for fact in examine(config, roles):
        bad += fact.verdict == "bad"
        print(f"{MARKS[fact.verdict]} {fact.name}: {fact.found}")
        if fact.fix:
            print(f"    → {fact.fix}")
    left: list[Leftover] = []
    try:
        left = repair.leftovers(config, roles)
    except CommandFailure as failure:
        bad += 1
        print(f"{MARKS['bad']} store: {failure}")
    for one in left:
        print(f"{MARKS['bad']} {one.key}: {one.found}\n    → {repair.advice(one)}")
    if arguments.repair and (mended := repair.repair(config, roles, left, arguments.yes)):
        left = [one for one in left if one.key not in mended]
    bad += len(left)
    print(f"{bad} to mend" if bad else "nothing to mend")
    return 1 if bad else 0


def examine(config: Config, roles: Roles) -> Iterator[Fact]:
    """All facts, one by one as they are found."""
    if not config.fake:
        yield _privilege()
        yield _packages()
        for name, verdict, found, fix in roles.examine_host(config):
            yield Fact(verdict, name, found, fix)
    yield _memory()
    yield _disk(config)
    yield _port(config)
    yield _clock()
    if config.scheme == "https":
        yield _certificate(config)
    yield from _cloud(config)


def _privilege() -> Fact:
    if os.getuid() == 0:
        return Fact("good", "privilege", "root")
    return Fact("bad", "privilege", "not root", "real servers need root: sudo ./pileus …, or use --fake N")


def _packages() -> Fact:
    missing = package.missing(package.RUNTIME)
    if missing:
        return Fact("bad", "system packages", f"missing: {' '.join(missing)}", "./pileus prepare")
    return Fact("good", "system packages", "all there")


def _memory() -> Fact:
    free = _available_memory() / 2**30
    if free < 1:
        return Fact(
            "bad", "memory", f"{free:.1f} GiB free", "stop something, or add memory: a small server needs 0.3 GiB"
        )
    return Fact("good", "memory", f"{free:.1f} GiB free")


def _available_memory() -> int:
    """Bytes that programs can have, what only caches files among them (proc_meminfo(5)); else those that are unused."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _disk(config: Config) -> Fact:
    place = config.state
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 2**30
    if free < 2:
        return Fact("bad", "disk", f"{free:.1f} GiB free at {place}", "make room, or choose another place by --state")
    return Fact("good", "disk", f"{free:.1f} GiB free at {place}")


def _port(config: Config) -> Fact:
    running = runs(config.state)
    reason = occupied(config.address)
    if reason and running:
        return Fact("good", "port", f"{config.listen} is served by this cloud")
    if reason:
        return Fact("bad", "port", f"{config.listen}: {reason}", "end who uses it, or choose another by --listen")
    if running:
        return Fact("bad", "port", f"nobody serves {config.listen}", f"see {config.state / 'log' / 'control.log'}")
    return Fact("good", "port", f"{config.listen} is free")


def _clock() -> Fact:
    now = time.time()
    if now < 1_767_225_600:  # 2026-01-01: older than this software
        return Fact(
            "bad", "clock", time.strftime("%Y-%m-%d %H:%M", time.gmtime(now)), "set the clock: tokens expire by it"
        )
    return Fact("good", "clock", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now)))


def _certificate(config: Config) -> Fact:
    from datetime import UTC, datetime

    from pileus.core import tls

    certificate = tls.files(config)[0]
    if config.tls and not certificate.exists():
        return Fact("note", "certificate", "none yet", "./pileus up")
    try:
        end = tls.ends(certificate)
    except (OSError, ValueError) as error:
        return Fact(
            "bad", "certificate", f"{certificate}: {error}", "put a certificate in PEM there, or set tls = true"
        )
    found = f"{certificate} is good until {end:%Y-%m-%d %H:%M} UTC"
    if end < datetime.now(UTC):
        return Fact("bad", "certificate", found, "clients refuse it: put a new one there, it is read within a minute")
    return Fact("good", "certificate", found)


def _cloud(config: Config) -> Iterator[Fact]:
    if not runs(config.state):
        found = "down" if config.control.exists() else "none yet"
        yield Fact("note", "cloud", found, "./pileus up")
        return
    if not kept(config.state):
        yield Fact("bad", "supervisor", "is not there: who ends will not be started again", "./pileus up")
    try:
        fleet = Api(config.state).get("/fleet/v1/hosts")
    except (ApiFailure, CommandFailure) as failure:
        yield Fact("bad", "cloud", str(failure), f"see {config.state / 'log' / 'control.log'}")
        return
    yield Fact("good", "cloud", f"serves {config.root_url}")
    refusals = {one["host"]: one["reason"] for one in fleet["refusals"]}
    for name, reason in refusals.items():
        yield Fact("bad", f"host {name}", f"refuses this store: {reason}", REFUSED)
    for host in fleet["hosts"]:
        if not host["up"] and host["name"] not in refusals:
            yield Fact("bad", f"host {host['name']}", "is not heard", f"see {config.state / 'log' / 'agent.log'} there")
        for one in host["unknown"]:
            yield Fact(
                "bad",
                f"host {host['name']}",
                f"holds {one['kind']} {one['id']}, which this cloud does not know",
                "it is left alone; if the store was restored from a backup, it may be younger than that. When nobody "
                f"needs it: pileus doctor --remove {one['kind']}/{one['id']}",
            )
