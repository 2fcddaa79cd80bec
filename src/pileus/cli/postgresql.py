"""A PostgreSQL server of one's own, for as long as a block runs: the suite's second database.

It lives in a new directory, in memory where there is room, listens on a Unix socket there and on nothing else, and
keeps the server's own defaults, durability included: to sync the hundreds of files of a new database takes 25 ms in
memory and 600 ms on a slow disk.  The server refuses to run as root, so root runs it as the user of Debian's package.
"""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

from pileus.cli.main import CommandFailure

ACCOUNT = "postgres"
"""Who runs the server when root asks for it."""

MEMORY = Path("/dev/shm")  # noqa: S108  # a directory of our own is made in it, by mkdtemp
MEMORY_BYTES = 4 << 30
"""Free bytes from which on memory is used: a run holds up to 1 GiB of log and a few databases."""

START_SECONDS = 60.0
STOP_SECONDS = 30.0


def find_programs() -> Path | None:
    """The directory of the newest server's programs, as Debian and its kin lay them out; else where the PATH says."""
    found = list(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return max(found, key=lambda path: [int(part) for part in re.findall(r"\d+", path.parts[-3])]).parent
    initdb = shutil.which("initdb")
    return Path(initdb).resolve().parent if initdb else None


@contextmanager
def server() -> Iterator[str]:
    """Run a server; gives the SQLAlchemy URL of its maintenance database, whose user may create others.

    Afterwards the server has stopped and its directory is gone.  Raises CommandFailure when it does not start.
    """
    programs = find_programs()
    if programs is None:
        raise CommandFailure("PostgreSQL's server is not installed; its package is called postgresql in Debian")
    owner = pwd.getpwnam(ACCOUNT) if os.geteuid() == 0 else None
    home = Path(tempfile.mkdtemp(prefix="pileus-postgresql-", dir=spacious_memory()))
    try:
        # Others may pass to the socket: the control plane under test has a user of its own.
        home.chmod(0o711)
        password = secrets.token_urlsafe(24)
        _initialize(programs, home, password, owner)
        command = [str(programs / "postgres"), "-D", str(home / "data"), "-k", str(home)]
        settings = ["-c", "listen_addresses=", "-c", "max_connections=200"]
        with (home / "log").open("wb") as log:
            child = subprocess.Popen(
                [*command, *settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=home,
                # An interrupt from the terminal is for the suite, which stops the server once its tests have ended.
                start_new_session=True,
                **_identity(owner),
            )
        try:
            _wait(child, home)
            yield f"postgresql+psycopg://pileus:{password}@/postgres?host={home}"
        finally:
            _stop(child)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def spacious_memory() -> Path | None:
    """A file system in memory with room; None where there is none, or where TMPDIR says where to work."""
    if "TMPDIR" in os.environ or not MEMORY.is_dir() or not os.access(MEMORY, os.W_OK):
        return None
    return MEMORY if shutil.disk_usage(MEMORY).free >= MEMORY_BYTES else None


class _Identity(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


def _identity(owner: pwd.struct_passwd | None) -> _Identity:
    """Whom a child runs as; nothing where it runs as the caller."""
    return {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []} if owner else {}


def _initialize(programs: Path, home: Path, password: str, owner: pwd.struct_passwd | None) -> None:
    """Make the cluster; its one user needs the password, as anyone on this machine can reach the socket."""
    secret = home / "password"
    secret.touch(mode=0o600)
    secret.write_text(f"{password}\n", encoding="ascii")
    if owner:
        for path in (home, secret):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    done = subprocess.run(
        [
            str(programs / "initdb"),
            *("--pgdata", str(home / "data"), "--username", "pileus", "--encoding", "UTF8", "--locale", "C.UTF-8"),
            # Tests connect thousands of times; SCRAM's thousands of rounds would take them longer than all else of it.
            *("--auth", "md5", "--pwfile", str(secret), "--no-instructions"),
        ],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        cwd=home,
        **_identity(owner),
    )
    secret.unlink()
    if done.returncode:
        raise CommandFailure(f"initdb failed:\n{done.stdout.strip()}")


def _wait(child: subprocess.Popen[bytes], home: Path) -> None:
    """Wait until the server takes connections: it says so in its pidfile's last line."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if child.poll() is not None:
            break
        try:
            if (home / "data" / "postmaster.pid").read_text(encoding="ascii").splitlines()[7].strip() == "ready":
                return
        except (OSError, IndexError):
            pass
        time.sleep(0.05)
    tail = "\n".join((home / "log").read_text(encoding="utf-8", errors="replace").splitlines()[-12:])
    raise CommandFailure(f"PostgreSQL did not start:\n{tail}")


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Fast shutdown: SIGINT ends sessions and writes a checkpoint; a server that does not obey is killed."""
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
