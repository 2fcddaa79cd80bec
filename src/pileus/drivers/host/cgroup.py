"""Control groups of one owner: a parent group, and below it one group for each process tree.

Both of the kernel's interfaces are served, whichever is mounted: version 2 (Linux admin-guide/cgroup-v2) and version 1
(admin-guide/cgroup-v1).  Where neither can be written nothing here has an effect, and `reason` says why: these
limits are a second wall, not the first.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Literal

_V1_CONTROLLERS = ("memory", "pids", "cpu")


class Cgroups:
    """The groups below one parent, e.g. all guests of one state directory.  The parent lives while they do."""

    def __init__(self, parent: str, mountinfo: Path = Path("/proc/self/mountinfo")) -> None:
        self.kind: Literal["v1", "v2", "none"] = "none"
        self.reason = ""
        """Why there are none; empty when there are."""
        self._roots: list[Path] = []
        self.parent = parent
        """Name of the parent group."""
        mounted = _mounted(mountinfo)
        if "memory" in mounted:
            kind, roots = "v1", [mounted[name] for name in _V1_CONTROLLERS if name in mounted]
        elif "" in mounted:
            kind, roots = "v2", [mounted[""]]
        else:
            self.reason = "no control groups are mounted"
            return
        if os.geteuid() != 0 or not all(os.access(root, os.W_OK) for root in roots):
            self.reason = "control groups may not be written"
            return
        self.kind, self._roots = ("v1", roots) if kind == "v1" else ("v2", roots)

    def create(
        self,
        name: str,
        *,
        memory_mib: int,
        pids: int,
        cpu_shares: int = 0,
        cpu_quota: int = 0,
        cpu_period: int = 100_000,
    ) -> list[str]:
        """Make the group, or set the limits of the one there is.

        `cpu_shares` is a weight whose usual value is 1024, `cpu_quota` microseconds in each period of `cpu_period`; 0
        for none.  A limit that the kernel refuses is left out, and named in the answer if it is one of processors.
        """
        refused: list[str] = []
        for root in self._roots:
            group = root / self.parent / name
            group.parent.mkdir(exist_ok=True)
            if self.kind == "v2":
                for above in (root, group.parent):
                    for controller in ("+memory", "+pids", "+cpu"):
                        _write(above / "cgroup.subtree_control", controller)
            group.mkdir(exist_ok=True)
            _write(group / ("memory.max" if self.kind == "v2" else "memory.limit_in_bytes"), str(memory_mib << 20))
            _write(group / "pids.max", str(pids))
        for file, value in self._processors(cpu_shares, cpu_quota, cpu_period):
            if not any(_write(group / file, value) for group in self._groups(name) if (group / file).exists()):
                refused.append(file)
        return refused

    def add(self, name: str, pid: int) -> None:
        """Move a process into the group. A process that is gone is fine."""
        for group in self._groups(name):
            _write(group / "cgroup.procs", str(pid))

    def pids(self, name: str) -> list[int]:
        """The processes in the group."""
        found: set[int] = set()
        for group in self._groups(name):
            try:
                found.update(int(line) for line in (group / "cgroup.procs").read_text().split())
            except OSError:
                continue
        return sorted(found)

    def names(self) -> list[str]:
        """The groups that exist."""
        found: set[str] = set()
        for root in self._roots:
            try:
                found.update(entry.name for entry in os.scandir(root / self.parent) if entry.is_dir())
            except FileNotFoundError:
                continue
        return sorted(found)

    def remove(self, name: str, timeout: float = 5.0) -> None:
        """Kill what is in the group and delete it, and the parent with the last one. Absent is fine.

        Raises TimeoutError when a process in it does not die within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        for group in self._groups(name):
            while not _gone(group):
                for pid in self.pids(name):
                    _kill(pid)
                if time.monotonic() > deadline:
                    raise TimeoutError(f"control group {group} does not empty")
                time.sleep(0.005)
            try:
                group.parent.rmdir()
            except OSError:
                # Other groups still live below it.
                continue

    def _processors(self, shares: int, quota: int, period: int) -> list[tuple[str, str]]:
        """The files of limits of processors, in the order in which they are to be written."""
        found: list[tuple[str, str]] = []
        if self.kind == "v1":
            found += [("cpu.shares", str(shares))] if shares else []
            found += [("cpu.cfs_period_us", str(period)), ("cpu.cfs_quota_us", str(quota))] if quota else []
        elif self.kind == "v2":
            # The mapping of the kernel's own documentation of weights: 2 to 262144 becomes 1 to 10000.
            weight = 1 + (max(2, shares) - 2) * 9999 // 262142
            found += [("cpu.weight", str(min(10_000, weight)))] if shares else []
            found += [("cpu.max", f"{quota} {period}")] if quota else []
        return found

    def _groups(self, name: str) -> list[Path]:
        return [root / self.parent / name for root in self._roots]


def _mounted(mountinfo: Path) -> dict[str, Path]:
    """Controller name (version 1) or the empty string (version 2) to its mount point (proc_pid_mountinfo(5))."""
    found: dict[str, Path] = {}
    try:
        lines = mountinfo.read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        where = Path(before.split(" ")[4])
        if kind == "cgroup2":
            found.setdefault("", where)
        elif kind == "cgroup":
            found.update((name, where) for name in options.split(",") if name in _V1_CONTROLLERS)
    return found


def _write(file: Path, value: str) -> bool:
    """Whether the kernel took it. A controller that is missing, busy or not delegated is no error."""
    try:
        file.write_text(value)
    except OSError:
        return False
    return True


def _gone(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
