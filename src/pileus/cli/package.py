"""Packages of the distribution that Pileus calls upon: which are missing, and putting them in.

What counts is whether a command or file is there, not who brought it, so that this holds on any distribution.  Only
Debian and Ubuntu are installed on; elsewhere the packages are named by what they are called there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pileus.cli.main import CommandFailure

SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
"""Administrators' tools are not on everyone's PATH."""

LIST_AGE = 24 * 3600
"""Seconds after which the package lists are fetched anew before an installation."""


@dataclass(frozen=True)
class Package:
    """A Debian package, and how to tell that what it brings is there."""

    name: str
    probe: str
    """A command, or a glob of an absolute path."""

    def present(self) -> bool:
        """Whether the command or file is there."""
        if self.probe.startswith("/"):
            return any(Path("/").glob(self.probe.removeprefix("/")))
        return shutil.which(self.probe, path=SEARCH_PATH) is not None


RUNTIME = (
    Package("dnsmasq-base", "dnsmasq"),
    Package("iproute2", "ip"),
    Package("nftables", "nft"),
    Package("openssh-client", "ssh"),
    Package("qemu-system-x86", "qemu-system-x86_64"),
    Package("qemu-utils", "qemu-img"),
)
"""What a host runs guests and networks with, and what its owner reaches them with."""

SUITE = (
    Package("iputils-ping", "ping"),
    Package("postgresql", "/usr/lib/postgresql/*/bin/initdb"),
    Package("strace", "strace"),
)
"""What the suite needs on top."""


def missing(packages: Iterable[Package]) -> list[str]:
    """Names of those packages that are not there."""
    return [package.name for package in packages if not package.present()]


def is_debian() -> bool:
    """Whether this is Debian or descends from it (os-release(5), ID_LIKE)."""
    for path in (Path("/etc/os-release"), Path("/usr/lib/os-release")):
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            fields = dict(line.split("=", 1) for line in lines if "=" in line)
            names = f"{fields.get('ID', '')} {fields.get('ID_LIKE', '')}".replace('"', "").split()
            return bool({"debian", "ubuntu"} & set(names)) and shutil.which("apt-get") is not None
    return False


def can_install() -> bool:
    """Whether packages may be installed by this process."""
    return os.geteuid() == 0 and is_debian()


def install(names: Sequence[str], say: Callable[[str], None]) -> None:
    """Install Debian packages, without those that they only recommend.

    Raises CommandFailure where that is not possible; its message names the packages and the way to install them.
    """
    if not names:
        return
    wanted = " ".join(names)
    if not is_debian():
        raise CommandFailure(f"these packages are missing (by their names in Debian): {wanted}")
    if os.geteuid() != 0:
        raise CommandFailure(f"packages are missing; as root: apt-get install {wanted}")
    if _lists_age() > LIST_AGE:
        say("fetching the lists of packages")
        _apt("update")
    say(wanted)
    try:
        _apt("install", "--yes", "--no-install-recommends", *names)
    except CommandFailure:
        # A list of yesterday may name versions that the archive has dropped since.
        say("fetching the lists of packages")
        _apt("update")
        say(wanted)
        _apt("install", "--yes", "--no-install-recommends", *names)


def _lists_age() -> float:
    lists = list(Path("/var/lib/apt/lists").glob("*_Packages*"))
    newest = max((path.stat().st_ctime for path in lists), default=0.0)
    return time.time() - newest


def _apt(*arguments: str) -> None:
    """Run apt-get without questions, waiting for another package manager to finish."""
    command = ["apt-get", "--quiet", "--option=DPkg::Lock::Timeout=300", "--option=Dpkg::Use-Pty=0", *arguments]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        command,
        check=False,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-12:])
        raise CommandFailure(f"`{' '.join(command)}` failed:\n{tail}")
