"""A machine to record a session on: namespaces of its own for all that a kernel gives to a machine.

It has this machine's files, but for its own state directory, checkout, `/run` and `/tmp`; its own processes, host
name, mounts and network.  When the power is cut, all of that is gone at once, as on any machine, and what lies on its
disk is there at the next boot.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

NAME = "lab"
STATE = Path("/var/lib/pileus")
CHECKOUT = Path("/opt/pileus")
COLUMNS = 132
CGROUPS = Path("/sys/fs/cgroup")
ERASED = "\x1b[2K"
"""What is sent to a terminal to clear a line."""


class Machine:
    """One machine; `disk` is the directory that outlives it."""

    def __init__(self, disk: Path) -> None:
        self.disk = disk
        self._init: subprocess.Popen[bytes] | None = None
        self._pid = 0
        (disk / "state").mkdir(mode=0o755, parents=True, exist_ok=True)
        (disk / "checkout").mkdir(exist_ok=True)
        disk.chmod(0o755)

    def boot(self, *, network: bool = False) -> None:
        """Start it, with the network of this machine or with nothing but a loopback of its own."""
        remove_cgroups()
        spaces = ["--mount", "--uts", "--ipc", "--pid", *([] if network else ["--net"])]
        words = ["unshare", *spaces, "--fork", "--kill-child", "--mount-proc", sys.executable, __file__, str(self.disk)]
        self._init = subprocess.Popen([*words, *([] if network else ["alone"])], stdout=subprocess.PIPE)
        assert self._init.stdout is not None
        if self._init.stdout.readline() != b"booted\n":
            raise RuntimeError("the machine does not boot")
        task = f"/proc/{self._init.pid}/task/{self._init.pid}/children"
        self._pid = int(Path(task).read_text())

    def cut_power(self) -> None:
        """SIGKILL to every process at once, which is what the kernel does when its first process dies."""
        if self._init is None:
            return
        first = os.pidfd_open(self._pid)
        self._init.kill()
        self._init.wait()
        select.select([first], [], [])  # it ends when all others have
        os.close(first)
        self._init = None
        remove_cgroups()

    def type(self, command: str, seconds: float = 900) -> tuple[int, str]:
        """Give a line to a shell on a terminal: its status, and what stands on the terminal at its end."""
        kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        own = {"HOME": "/root", "LANG": "C.UTF-8", "TERM": "xterm", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        words = ["nsenter", "--target", str(self._pid), "--mount", "--uts", "--ipc", "--net", "--pid"]
        words += [f"--wd={self._inside(CHECKOUT)}", "bash", "-c", command]
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=kept | own, start_new_session=True
        )
        os.close(theirs)
        text = _read(ours, process, time.monotonic() + seconds)
        os.close(ours)
        return process.wait(timeout=10), text

    def _inside(self, path: Path) -> Path:
        """A path of the machine, as it is reached from here."""
        return Path(f"/proc/{self._pid}/root") / path.relative_to("/")


def _read(terminal: int, process: subprocess.Popen[bytes], deadline: float) -> str:
    """All that is written to a terminal until a program ends, or has it no more; lines as they stand at the end."""
    found = b""
    while time.monotonic() < deadline:
        ended = process.poll() is not None  # asked before: what it wrote last is there when it is
        if not select.select([terminal], [], [], 0 if ended else 0.1)[0]:
            if ended:
                break
            continue
        try:
            found += os.read(terminal, 1 << 16)
        except OSError:  # EIO: nobody has it open
            break
    lines = found.decode(errors="replace").replace("\r\n", "\n").split("\n")
    shown = [line.rstrip("\r").rpartition("\r")[2].replace(ERASED, "").rstrip() for line in lines]
    return "\n".join(shown).rstrip("\n")


def remove_cgroups() -> None:
    """Remove the control groups that a machine's cloud has left: the one thing of it that the host holds."""
    name = f"pileus-{hashlib.sha256(str(STATE / 'agent' / 'hypervisor').encode()).hexdigest()[:12]}"
    for top in [*CGROUPS.glob(name), *CGROUPS.glob(f"*/{name}")]:
        for folder in sorted((each for each in top.rglob("*") if each.is_dir()), reverse=True):
            folder.rmdir()
        top.rmdir()


def _mount(*words: str | Path) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


def first_process(disk: Path, *, alone: bool) -> None:
    """What the first process of a machine does: mount what is its own, say so, and wait for its end."""
    kept = Path(tempfile.mkdtemp(prefix="pileus-boot-"))
    _mount("--rbind", CGROUPS, kept)
    if alone:
        _mount("-t", "sysfs", "sysfs", "/sys")
        _mount("--rbind", kept, CGROUPS)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["umount", "--recursive", "--lazy", str(kept)], check=True)
    kept.rmdir()
    for place, mode in (("/run", "0755"), ("/tmp", "1777"), (CHECKOUT.parent, "0755")):
        _mount("-t", "tmpfs", "-o", f"mode={mode}", "tmpfs", place)
    CHECKOUT.mkdir()
    _mount("--bind", disk / "checkout", CHECKOUT)
    STATE.mkdir(exist_ok=True)
    _mount("--bind", disk / "state", STATE)
    subprocess.run(["hostname", NAME], check=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever loses its parent is ours, and nobody asks how it ended
    print("booted", flush=True)
    while True:
        signal.pause()


def export(source: Path, target: Path) -> None:
    """What is committed of a checkout, without its history."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    archive = subprocess.run(["git", "-C", source, "archive", "HEAD"], check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", target], check=True, input=archive.stdout)


if __name__ == "__main__":
    first_process(Path(sys.argv[1]), alone="alone" in sys.argv[2:])
