"""Child processes of a build, and the host's programs that a build needs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

PROGRAM_PACKAGE: Mapping[str, str] = {
    "apt-cache": "apt",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "debugfs": "e2fsprogs",
    "mke2fs": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "mcopy": "mtools",
    "qemu-img": "qemu-utils",
    "sfdisk": "fdisk",
    "syslinux": "syslinux",
}
"""Each program that every build runs, and the Debian package that brings it."""

INSTALLER_PACKAGE: Mapping[str, str] = {"mmdebstrap": "mmdebstrap", "tar": "tar"}
"""Those that a build of a whole Debian system runs besides."""

FILE_PACKAGE: Mapping[str, str] = {
    "/usr/lib/syslinux/mbr/mbr.bin": "syslinux-common",
}
"""Each file of the host that a build reads, and the Debian package that brings it."""


class BuildFailure(Exception):
    """An image could not be built; the message is for people."""


def missing_packages(more: Mapping[str, str] | None = None) -> list[str]:
    """Debian packages that must be installed on this host before `build_tiny` can run, sorted; empty when ready.

    `more` are further programs, e.g. INSTALLER_PACKAGE for `build_debian`.
    """
    wanted = {**PROGRAM_PACKAGE, **(more or {})}
    programs = {package for name, package in wanted.items() if shutil.which(name, path=SEARCH_PATH) is None}
    files = {package for path, package in FILE_PACKAGE.items() if not Path(path).is_file()}
    return sorted(programs | files)


def run(
    *arguments: str | Path,
    cwd: Path | None = None,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    complaints: bool = False,
) -> str:
    """Run a program of the host and return what it printed; with `complaints`, also to its standard error.

    The child sees a fixed path and locale, whatever the caller's environment is, so that its output can be parsed
    and a build does not depend on who runs it. Proxy settings are kept, as apt needs them.

    Raises:
        BuildFailure: the program is missing, or ended with another status than 0.
    """
    words = [str(argument) for argument in arguments]
    kept = {
        name: value for name, value in os.environ.items() if name.lower().endswith("_proxy") or name == "APT_CONFIG"
    }
    variables = {**kept, "PATH": SEARCH_PATH, "LC_ALL": "C", "TZ": "UTC", **(environment or {})}
    try:
        stderr = subprocess.STDOUT if complaints else subprocess.PIPE
        done = subprocess.run(
            words, cwd=cwd, input=stdin, env=variables, stdout=subprocess.PIPE, stderr=stderr, check=False
        )
    except FileNotFoundError as failure:
        package = {**PROGRAM_PACKAGE, **INSTALLER_PACKAGE}.get(words[0])
        hint = f" (Debian package {package})" if package else ""
        raise BuildFailure(f"{words[0]} is not installed{hint}") from failure
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise BuildFailure(f"{words[0]} ended with status {done.returncode}: {said[-2000:]}")
    return done.stdout.decode(errors="replace")
