"""Upstream's public metadata definitions: data out of another project's package, fetched by `pileus prepare`.

The package is pinned here and not among the requirements, for it is not installed and no code of it runs: a few files
are taken out of it. A cloud without them works; it only has no definitions but those that its operator makes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PIN = "glance==33.0.0 --hash=sha256:680091845b2fb8e395926a6760f82b569facb6fd0521a0cfaa0fa2bc014d3701"
"""The package in the words of a requirements file, with the hash of its wheel."""

PLACE = "data/etc/glance/metadefs/*.json"
"""Where in the wheel the definitions are, below the directory of its data."""

FOREIGN = ("cim-*", "compute-vmware*", "compute-xenapi*")
"""Definitions for hypervisors and standards that mean nothing to this cloud."""


class DefinitionFailure(Exception):
    """The definitions cannot be had; the message says why."""


def directory(state: Path) -> Path:
    """Where `prepare` leaves the definitions, one namespace in each JSON file."""
    return state / "metadefs"


def documents(state: Path) -> list[bytes]:
    """The definitions that are there, in the order of their files' names; operators may add files of their own."""
    return [path.read_bytes() for path in sorted(directory(state).glob("*.json"))]


def fetch(state: Path, say: Callable[[str], None]) -> int:
    """Fetch the definitions and put them in their place, all of them or none; how many there are.

    Raises DefinitionFailure.
    """
    with tempfile.TemporaryDirectory() as scratch:
        say("fetching the package that has them")
        found = dict(_chosen(_download(Path(scratch))))
    if not found:
        raise DefinitionFailure("the package has no definitions")
    place = directory(state)
    new = place.with_name(f"{place.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for name, data in found.items():
        (new / name).write_bytes(data)
        (new / name).chmod(0o644)
    new.chmod(0o755)  # read by the control plane, which runs as another user, whatever this one's umask
    new.replace(place)
    return len(found)


def _download(scratch: Path) -> Path:
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{PIN}\n", encoding="ascii")
    command = [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "--no-input", "download"]
    command += ["--quiet", "--progress-bar=off", "--retries=1", "--timeout=15", "--no-deps", "--only-binary=:all:"]
    command += ["--require-hashes", "--requirement", str(requirements), "--dest", str(scratch)]
    done = subprocess.run(
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = done.stdout.strip().splitlines()
        raise DefinitionFailure(lines[-1] if lines else "pip fetched nothing")
    return wheels[0]


def _chosen(wheel: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files that are wanted. Raises DefinitionFailure for what is no namespace."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            path = PurePosixPath(name)
            if not path.match(PLACE) or any(path.match(pattern) for pattern in FOREIGN):
                continue
            data = archive.read(name)
            try:
                known = isinstance(json.loads(data)["namespace"], str)
            except (ValueError, KeyError, TypeError):
                known = False
            if not known:
                raise DefinitionFailure(f"{path.name} is not a namespace")
            yield path.name, data
