"""What is left over on a host that no driver finds by itself: processes of guests and networks that are gone, and
interfaces in the host's own namespace.

Everything else of a host has its place in a guest, a network or a router, by whose names drivers find it: what nobody
assigned of these the agent tells of (`pileus.contracts.link.Unknown`).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pileus.app.host import prefix
from pileus.cli.main import Leftover
from pileus.core.config import Config

PROCESSES, INTERFACES = Path("/proc"), Path("/sys/class/net")

KINDS = frozenset({"process", "interface"})
"""First words of the keys of what is found here."""


class _Owned(NamedTuple):
    pid: int
    place: Path
    """The directory that it works for."""

    @property
    def guest(self) -> bool:
        return self.place.parent.name == "guests"


def examine(config: Config) -> list[Leftover]:
    """All that is left over; nothing on a simulated host, and for those who are not root."""
    if config.fake or os.getuid() or sys.platform != "linux":
        return []
    return [*_processes(config), *(_interfaces(config) if config.network == "bridge" else ())]


def mend(config: Config, key: str) -> str | None:
    """Mend one finding, if it is there still; what was done."""
    kind, _, rest = key.partition("/")
    if key not in {one.key for one in examine(config)}:
        return None
    return _end(int(rest)) if kind == "process" else _delete(rest)


def _processes(config: Config) -> Iterator[Leftover]:
    for one in _owned(config):
        if one.place.exists():
            continue
        kind = {"guests": "guest", "networks": "network", "routers": "router"}[one.place.parent.name]
        text = f"works for {kind} {one.place.name}, of which nothing else is left"
        yield Leftover(f"process/{one.pid}", text, "end it", named=one.guest)


def _owned(config: Config) -> Iterator[_Owned]:
    """Processes whose arguments name a directory of a guest, a network or a router of this cloud."""
    form = re.compile(
        re.escape(str(config.agent)).encode() + rb"/(hypervisor/guests|network/networks|network/routers)/([^/,\0]+)/"
    )
    for entry in PROCESSES.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            found = form.search((entry / "cmdline").read_bytes())
        except OSError:
            continue
        if found is not None:
            yield _Owned(int(entry.name), config.agent / found[1].decode() / found[2].decode(errors="replace"))


def _interfaces(config: Config) -> Iterator[Leftover]:
    from pileus.drivers.host import namespace
    from pileus.drivers.network.bridge.name import Names

    names = Names(prefix(config))
    start = names.network_start
    wanted = {names.uplink(one.removeprefix(start)) for one in namespace.names(start)}
    for entry in sorted(INTERFACES.iterdir()):
        if entry.name.startswith(names.uplinks) and entry.name not in wanted:
            yield Leftover(f"interface/{entry.name}", "leads to a network that is not there", "delete it")


def _end(pid: int) -> str | None:
    from pileus.drivers.host.process import Child

    child = Child.adopt(pid)
    if child is None:
        return None
    return "has ended" if child.end(2) else "does not end: it is stuck inside the kernel"


def _delete(name: str) -> str:
    from pileus.drivers.host import netlink

    netlink.inside(None, lambda link: link.delete(name))
    return "is deleted"
