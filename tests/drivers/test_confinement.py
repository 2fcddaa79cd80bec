"""A child that reads what tenants wrote: what it cannot do, tried by a child that would."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from pileus.drivers.host.confinement import NICER, Limits, confined, version
from pileus.drivers.host.process import ChildFailure, Identity

LIMITS = Limits(seconds=20, wait=60, memory=1 << 30, file=1 << 20)
UID = 64731

needs_landlock = pytest.mark.skipif(version() == 0, reason="needs Landlock")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

PYTHON = next(path for path in ("/usr/bin/python3", "/usr/local/bin/python3", sys.executable) if Path(path).exists())
"""One below the directories of programs."""


def does(code: str, *, reads: tuple[Path, ...] = (), writes: tuple[Path, ...] = (), own: bool = True) -> str:
    """What Python code printed, confined; run by this user, or else by one of its own."""
    identity = None if own else Identity(UID, UID)
    argv = [PYTHON, "-I", "-S", "-c", code]
    return confined(argv, identity=identity, limits=LIMITS, reads=reads, writes=writes).decode().strip()


@needs_landlock
def test_it_reads_and_writes_what_it_was_given_and_nothing_else(tmp_path: Path) -> None:
    source, target, secret = (tmp_path / name for name in ("source", "target", "secret"))
    source.write_text("data")
    target.write_text("")
    secret.write_text("of another")
    code = f"open({str(target)!r}, 'w').write(open({str(source)!r}).read().upper())"
    does(code, reads=(source,), writes=(target,))
    assert target.read_text() == "DATA"
    for refused in (
        f"open({str(secret)!r})",
        f"open({str(source)!r}, 'a')",
        f"open({str(tmp_path / 'new')!r}, 'w')",
        f"__import__('os').unlink({str(target)!r})",
        f"__import__('os').listdir({str(tmp_path)!r})",
        "open('/etc/passwd')",
        "open('/proc/1/environ')",
    ):
        with pytest.raises(ChildFailure, match="PermissionError"):
            does(refused, reads=(source,), writes=(target,))
    assert target.read_text() == "DATA"
    secret.read_text()  # it is the child that was confined, not who started it


def test_it_is_bounded(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("")
    code = f"file = open({str(target)!r}, 'wb')\nfor _ in range(64): file.write(bytes(1 << 16)); file.flush()"
    with pytest.raises(ChildFailure):
        does(code, writes=(target,))
    assert target.stat().st_size <= LIMITS.file
    with pytest.raises(ChildFailure, match="MemoryError"):
        does("bytearray(2 << 30)")
    busy = Limits(seconds=1, wait=60, memory=LIMITS.memory, file=0)
    idle = Limits(seconds=1, wait=1, memory=LIMITS.memory, file=0)
    with pytest.raises(ChildFailure) as failure:
        confined([PYTHON, "-I", "-S", "-c", "while True: pass"], identity=None, limits=busy)
    assert failure.value.status in (-9, -24)
    with pytest.raises(ChildFailure, match="in time"):
        confined([PYTHON, "-I", "-S", "-c", "import time; time.sleep(9)"], identity=None, limits=idle)
    before = os.getpriority(os.PRIO_PROCESS, 0)
    assert does("import os; print(os.getpriority(os.PRIO_PROCESS, 0))") == str(min(19, before + NICER))
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


@needs_root
def test_it_has_no_privilege_and_no_network() -> None:
    assert does("import os; print(os.getresuid(), os.getgroups())", own=False) == f"{(UID, UID, UID)} []"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ChildFailure, match=r"unreachable|PermissionError"):
            does(f"import socket; socket.create_connection(('127.0.0.1', {port}))", own=False)
    with pytest.raises(ChildFailure, match="PermissionError"):
        does("import os; os.setuid(0)", own=False)
