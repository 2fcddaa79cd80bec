"""Children of the agent: started without privilege, named by pidfd, never by a bare pid.

Two attributes of Linux belong to a thread and are inherited by what it forks: `no_new_privs` (prctl(2)) and the
network namespace (setns(2)).  A child is therefore forked by a thread that lives for this purpose only; no code of
ours runs between fork and exec, and no wrapper program is needed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import select
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

NAMESPACES = Path("/run/netns")
"""Where iproute2 keeps named network namespaces (ip-netns(8))."""

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
"""All that a child learns of the agent's environment."""

_LOOK = 0.2
"""Seconds between two questions whether a child is to be given up."""
_BOUND = ("setpriv", "--pdeathsig", "KILL", "--")
"""In front of a program that is to be killed with its parent (setpriv(1); PR_SET_PDEATHSIG of prctl(2)), and behind the
change of its identity, which would undo that.  The parent is the thread that forks: it must outlive the program."""

_CLONE_NEWNET = 0x40000000
_PR_SET_NO_NEW_PRIVS = 38
_LIBC = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


class ChildFailure(Exception):
    """A child ended badly or too late. `output` is the end of what it wrote to its standard error."""

    def __init__(self, program: str, status: int | None, output: str) -> None:
        how = "did not end in time" if status is None else f"ended with status {status}"
        super().__init__(f"{program} {how}" + (f": {output}" if output else ""))
        self.status = status
        self.output = output


@dataclass(frozen=True)
class Identity:
    """Who a child is: numeric user and group, and further groups. None in place of it means the agent's own."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


class Child:
    """One process, held by a pidfd (pidfd_open(2)): it cannot be mistaken for a later one with the same pid.

    It may be a child of this agent or of an earlier one; only in the first case is its exit status known.
    """

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self.fd = fd
        self.status: int | None = None
        """Exit status, negative for a signal; None while it runs or when it was another agent's child."""
        self._reaping = threading.Lock()

    @classmethod
    def adopt(cls, pid: int) -> Child | None:
        """Hold a process by its pid; None when there is none."""
        try:
            return cls(pid, os.pidfd_open(pid))
        except ProcessLookupError:
            return None

    def wait(self, timeout: float | None) -> bool:
        """Wait for the end, at most `timeout` seconds (None: for ever). True when it has ended; a zombie has."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        ended = bool(poll.poll(None if timeout is None else timeout * 1000))
        if ended:
            self._reap()
        return ended

    def alive(self) -> bool:
        """Whether it still runs."""
        return not self.wait(0)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; a process that is gone is fine."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.fd, number)

    def end(self, grace: float) -> bool:
        """SIGTERM, then SIGKILL after `grace` seconds. False when it still runs: stuck inside the kernel."""
        self.kill(signal.SIGTERM)
        if self.wait(grace):
            return True
        self.kill()
        return self.wait(5)

    def close(self) -> None:
        """Let go of it, without touching it.

        Only when no other thread may be waiting on it, since the descriptor's number is soon another file's.  Else
        drop the object: the descriptor goes with the last reference.
        """
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        self.close()

    def _reap(self) -> None:
        with self._reaping:  # who comes second finds no child any more, and is to find its status
            try:
                result = os.waitid(os.P_PIDFD, self.fd, os.WEXITED | os.WNOHANG)
            except ChildProcessError:
                return
            if result is not None:
                self.status = result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


def apart(act: Callable[[], T], namespace: str | None = None) -> T:
    """Run `act` in a thread of its own, inside the network namespace of that name, and give back what it returns.

    The thread ends with it, so whatever `act` changes of its thread is gone too.  Raises what `act` raises, and
    FileNotFoundError when there is no such namespace.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            if namespace is not None:
                _enter(namespace)
            results.append(act())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body, name="host-verb")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def spawn(
    argv: Sequence[str],
    *,
    identity: Identity | None = None,
    namespace: str | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
    stdout: int | None = None,
    stderr: int | None = None,
) -> Child:
    """Start a process that outlives the agent: new session, no standard input, umask 077, `no_new_privs`.

    `stdout` and `stderr` are descriptors (None: /dev/null); besides them only `pass_fds` are open in the child,
    under the same numbers.  Raises OSError when it cannot be executed.
    """

    def start() -> Child:
        _forbid_privileges()
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if stdout is None else stdout,
            stderr=subprocess.DEVNULL if stderr is None else stderr,
            cwd=cwd,
            env=ENVIRONMENT,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
            umask=0o077,
            user=None if identity is None else identity.uid,
            group=None if identity is None else identity.gid,
            extra_groups=None if identity is None else list(identity.groups),
        )
        child = Child(process.pid, os.pidfd_open(process.pid))
        # From here on the pidfd alone waits for it; a Popen that thinks it is unfinished would reap it too.
        process.returncode = 0
        return child

    return apart(start, namespace)


def run(
    argv: Sequence[str],
    *,
    identity: Identity | None = None,
    namespace: str | None = None,
    content: bytes = b"",
    timeout: float = 30.0,
    limits: Mapping[int, int] | None = None,
    pass_fds: Sequence[int] = (),
    given_up: Callable[[], bool] | None = None,
) -> bytes:
    """Run a program to its end with `content` as its input, and give its output.

    `limits` are resource limits (getrlimit(2)) as RLIMIT constants of `resource` to a value, in force before the
    program's first instruction.  `timeout` is in seconds, and `given_up` is asked again and again whether it is to be
    ended at once.  It is killed when this process dies: nobody else could go on with its work.  Raises ChildFailure
    when it ends with a status other than zero, not in time or given up, and FileNotFoundError when there is none.
    """

    if not any(os.access(Path(folder, argv[0]), os.X_OK) for folder in ENVIRONMENT["PATH"].split(":")):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), argv[0])

    def act() -> bytes:
        _forbid_privileges()
        with subprocess.Popen(
            [*_BOUND, *_limited(limits or {}), *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            pass_fds=tuple(pass_fds),
            umask=0o077,
            user=None if identity is None else identity.uid,
            group=None if identity is None else identity.gid,
            extra_groups=None if identity is None else list(identity.groups),
        ) as process:
            found = _await(process, content, timeout, given_up)
            if found is None:
                process.kill()
                raise ChildFailure(argv[0], None, "")
            output, errors = found
        if process.returncode:
            raise ChildFailure(argv[0], process.returncode, errors[-2000:].decode(errors="replace").strip())
        return output

    return apart(act, namespace)


def _await(
    process: subprocess.Popen[bytes], content: bytes, timeout: float, given_up: Callable[[], bool] | None
) -> tuple[bytes, bytes] | None:
    """What a process wrote until its end; None when that does not come in time, or is not awaited any more."""
    deadline = time.monotonic() + timeout
    told: bytes | None = content
    while (left := deadline - time.monotonic()) > 0 and not (given_up is not None and given_up()):
        try:
            return process.communicate(told, left if given_up is None else min(left, _LOOK))
        except subprocess.TimeoutExpired:
            told = None
    return None


def lock_holder(path: Path) -> int | None:
    """The pid of the live process that holds a write lock on a file, as F_GETLK names it (fcntl(2)).

    QEMU and dnsmasq lock their pidfile for as long as they live, so a pidfile that a dead process left behind, or
    whose number another process has by now, is not taken for a live one.  None when nobody holds it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        question = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack("hhqqi4x", fcntl.fcntl(fd, fcntl.F_GETLK, question))
    finally:
        os.close(fd)
    return None if kind == fcntl.F_UNLCK or pid <= 0 else int(pid)


def _enter(namespace: str) -> None:
    fd = os.open(NAMESPACES / namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_LIBC.setns(fd, _CLONE_NEWNET), f"setns {namespace}")
    finally:
        os.close(fd)


def enter_new_namespace() -> None:
    """Put the calling thread, which is one that `apart` made, into a network namespace that nobody else is in."""
    _check(_LIBC.unshare(_CLONE_NEWNET), "unshare")


def _forbid_privileges() -> None:
    _check(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl no_new_privs")


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


_PRLIMIT = {
    resource.RLIMIT_AS: "--as",
    resource.RLIMIT_CPU: "--cpu",
    resource.RLIMIT_FSIZE: "--fsize",
    resource.RLIMIT_NOFILE: "--nofile",
    resource.RLIMIT_CORE: "--core",
}


def _limited(limits: Mapping[int, int]) -> list[str]:
    """prlimit(1) in front of a program: limits are of a process, so the agent must not set them on itself."""
    if not limits:
        return []
    return ["prlimit", *(f"{_PRLIMIT[kind]}={value}" for kind, value in limits.items()), "--"]
