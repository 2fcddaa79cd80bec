"""Distribution packages: resolved and fetched with apt, unpacked with dpkg-deb, never installed."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pileus.cli.image.child import BuildFailure, run

LEDGER = "packages.json"
FOLLOWED = ("lib", "zlib", "linux-image-", "linux-modules-")
"""Name prefixes of dependencies that are followed: shared libraries, and what a kernel's meta-package stands for."""


@dataclass(frozen=True)
class Package:
    """A package file in the cache."""

    name: str
    version: str
    file: Path


def dependencies(listing: str) -> list[str]:
    """The real packages that `apt-cache depends` names as needed, of those whose kind is followed, in its order."""
    names: list[str] = []
    for line in listing.splitlines():
        kind, _, name = line.strip().lstrip("|").partition(": ")
        if kind in ("Depends", "PreDepends") and name.startswith(FOLLOWED):
            names.append(name)
    return list(dict.fromkeys(names))


def resolve(wanted: Iterable[str]) -> list[str]:
    """`wanted` and every library package that they need, sorted by name."""
    known: set[str] = set()
    new = set(wanted)
    while new:
        known |= new
        listing = run(
            "apt-cache",
            "depends",
            "--no-recommends",
            "--no-suggests",
            "--no-conflicts",
            "--no-breaks",
            "--no-replaces",
            "--no-enhances",
            *sorted(new),
        )
        new = set(dependencies(listing)) - known
    return sorted(known)


def first_known(candidates: Iterable[str]) -> str:
    """The first of some package names that apt can fetch.

    Raises:
        BuildFailure: apt knows none of them.
    """
    names = list(candidates)
    for name in names:
        if "Candidate: (none)" not in (policy := run("apt-cache", "policy", name)) and "Candidate:" in policy:
            return name
    raise BuildFailure(f"apt knows none of {', '.join(names)}; run apt-get update, or use a Debian mirror")


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _describe(file: Path) -> Package:
    name, version = run("dpkg-deb", "--show", "--showformat=${Package}\n${Version}", file).split("\n")[:2]
    return Package(name, version, file)


def cached(cache: Path, wanted: Iterable[str]) -> list[Package] | None:
    """What an earlier `fetch` of the same wish left in `cache`, or None when a file is missing or has changed."""
    try:
        ledger = json.loads((cache / LEDGER).read_text())
        if ledger["wanted"] != sorted(wanted):
            return None
        packages = [Package(row["name"], row["version"], cache / row["file"]) for row in ledger["packages"]]
        intact = all(_digest(cache / row["file"]) == row["sha256"] for row in ledger["packages"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return packages if intact else None


def _row(package: Package) -> dict[str, str]:
    file = package.file
    return {"name": package.name, "version": package.version, "file": file.name, "sha256": _digest(file)}


def forget(cache: Path) -> None:
    """Delete what earlier builds fetched into `cache`, and nothing else that is there."""
    try:
        rows = json.loads((cache / LEDGER).read_text())["packages"]
        names = [Path(row["file"]).name for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        names = []
    for name in [LEDGER, *names]:
        (cache / name).unlink(missing_ok=True)


def _download(directory: Path, names: list[str]) -> None:
    try:
        run("apt-get", "--quiet", "download", *names, cwd=directory)
    except BuildFailure:
        if os.geteuid() != 0:
            raise
        # A package list older than the mirror names files that are gone.
        run("apt-get", "--quiet", "update")
        run("apt-get", "--quiet", "download", *names, cwd=directory)


def fetch(cache: Path, wanted: Iterable[str], kernels: Iterable[str], progress: Callable[[str], None]) -> list[Package]:
    """Bring packages, with the libraries and the kernel that they need, into `cache`.

    `wanted` are package names; of `kernels`, the first that apt knows is taken. apt itself checks what it fetches
    against the signed lists of the distribution; the ledger that is written beside the files lets later builds run
    without a network, and notices a file that was damaged since.

    Raises:
        BuildFailure: a package is unknown or cannot be fetched.
    """
    wish = sorted([*wanted, *kernels])
    if (packages := cached(cache, wish)) is not None:
        return packages
    cache.mkdir(parents=True, exist_ok=True)
    try:
        kernel = first_known(kernels)
    except BuildFailure:
        if os.geteuid() != 0:
            raise
        run("apt-get", "--quiet", "update")
        kernel = first_known(kernels)
    names = resolve([*wanted, kernel])
    progress(f"fetching {len(names)} packages")
    with tempfile.TemporaryDirectory(prefix="incoming.", dir=cache) as directory:
        incoming = Path(directory)
        _download(incoming, names)
        forget(cache)
        packages = [_describe(file.replace(cache / file.name)) for file in sorted(incoming.glob("*.deb"))]
        draft = incoming / LEDGER
        draft.write_text(json.dumps({"wanted": wish, "packages": [_row(package) for package in packages]}, indent=1))
        draft.replace(cache / LEDGER)
    return packages


def unpack(packages: Iterable[Package], directory: Path) -> None:
    """Unpack the files of packages below `directory`, without running anything that they bring."""
    for package in packages:
        run("dpkg-deb", "--extract", package.file, directory)
