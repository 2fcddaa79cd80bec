"""`pileus trace ID`: the whole story of a request or of a thing, across services and hosts, in the order of time."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pileus.cli import systemd
from pileus.cli.main import CommandFailure, Told
from pileus.cli.place import add_state, settings
from pileus.cli.supervise import log_file

if TYPE_CHECKING:
    from pileus.cli.main import Roles, Subparsers

ID = re.compile(r"req-[0-9a-f-]{36}|[0-9A-Za-z][0-9A-Za-z._-]{2,63}")
_REQUEST = re.compile(r"req-[0-9a-f-]{36}")
_LINE = re.compile(r"(\S+Z) (\w+) (\w+) (\S+) \[([^\]]*)\] (.*)")
_ENTRY = re.compile(r"(\w+) (\S+) \[([^\]]*)\] (.*)", re.DOTALL)

REQUESTS = 200
"""The most requests whose own lines are looked for in the log, the newest."""


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "trace",
        help="tell the whole story of a request or of a thing",
        description="Tells what was asked and by whom, what was changed on account of it, what was decided, what hosts "
        "did and saw, and what went wrong: from the store and from the log of this machine, in the order of time.",
    )
    add_state(parser)
    parser.add_argument("id", help="id of a request (req-…), or of a server, port, network, router or image")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, roles: Roles) -> int:
    """Print the story; exit status 1 when nothing is known of the id."""
    state: Path = arguments.state
    wanted: str = arguments.id
    if not ID.fullmatch(wanted):
        raise CommandFailure(f"{wanted!r} is no id")
    config = settings(state)
    try:
        found = roles.tell_story(config, wanted)
    except CommandFailure as failure:
        print(f"(of the log alone: {failure})")
        found = []
    requests = {wanted} if _REQUEST.fullmatch(wanted) else {one.request_id for one in found if one.request_id}
    recent = sorted(requests, key=lambda one: -max((each.at for each in found if each.request_id == one), default=0))
    names = {wanted, *recent[:REQUESTS]}
    lines = [*found, *log_lines(state, wanted, names)]
    for one in sorted(set(lines)):
        print(shown(one, wanted))
    if not lines:
        raise CommandFailure(f"nothing is known of {wanted}: what is kept, and for how long, is in docs/limits.md")
    return 0


def shown(told: Told, wanted: str) -> str:
    """A line for people; it ends with the request that it belongs to, unless the story is that request's."""
    at = datetime.fromtimestamp(told.at, UTC)
    cause = f"  [{told.request_id}]" if told.request_id not in ("", wanted) else ""
    return f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d}  {told.where:<10} {told.text}{cause}"


def log_lines(state: Path, wanted: str, names: Collection[str]) -> Iterator[Told]:
    """Lines of the log that name an id, and the lines about the requests themselves."""
    for told in _entries(state, names):
        own = wanted in told.text or told.request_id == wanted
        if own or (told.request_id in names and told.where == "request"):
            yield told


def _entries(state: Path, names: Collection[str]) -> Iterator[Told]:
    for process in ("control", "agent"):
        file = log_file(state, process)
        for path in sorted(file.parent.glob(f"{file.name}*")):
            with path.open(errors="replace") as stream:
                yield from _parsed(line for line in stream if any(name in line for name in names))
    if systemd.keeps(state):
        yield from _journal(names)


def _parsed(lines: Iterable[str]) -> Iterator[Told]:
    for line in lines:
        if (found := _LINE.match(line)) is not None:
            at, process, level, logger, request_id, text = found.groups()
            yield _told(datetime.fromisoformat(at).timestamp(), process, logger, request_id, text, level)


def _told(at: float, process: str, logger: str, request_id: str, text: str, level: str = "INFO") -> Told:
    where = "request" if logger == "pileus.request" else process
    mark = f"{level}: " if level not in ("INFO", "DEBUG") else ""
    return Told(at, where, mark + text.strip(), request_id if request_id != "-" else "")


def _journal(names: Collection[str]) -> Iterator[Told]:
    units = [f"--unit={unit}" for unit in systemd.SERVICES.values()]
    pattern = "|".join(map(re.escape, sorted(names)))
    done = subprocess.run(
        ["journalctl", *units, "--output=json", "--no-pager", f"--grep={pattern}"],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    for line in done.stdout.splitlines():
        entry = json.loads(line)
        if isinstance(entry.get("MESSAGE"), str) and (found := _ENTRY.match(entry["MESSAGE"])) is not None:
            yield _told(int(entry["__REALTIME_TIMESTAMP"]) / 1e6, *found.groups())
