"""A whole Debian system, installed by mmdebstrap(1) from the host's own sources of packages into a tar archive."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pileus.cli.image.child import BuildFailure, run

ARCHIVES = "debian-*.tar"
SYSTEM = (
    *("linux-image-cloud-amd64", "initramfs-tools", "zstd", "systemd-sysv", "systemd-resolved", "udev", "dbus"),
    *("libpam-systemd", "netplan.io", "iproute2", "iputils-ping", "isc-dhcp-client", "ca-certificates", "e2fsprogs"),
    *("dosfstools", "fdisk", "curl", "less", "vim-tiny", "sudo", "openssh-server", "openssh-sftp-server"),
    *("cloud-init", "cloud-guest-utils", "qemu-guest-agent"),
)
"""What is installed beside the packages that every Debian system has."""
LEFT_OUT = ("/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/doc/*")
KEPT = ("/usr/share/locale/locale.alias", "/usr/share/doc/*/copyright")


@dataclass(frozen=True)
class Origin:
    """Where Debian's packages come from: the release's code name, and lines as in sources.list(5)."""

    suite: str
    lines: tuple[str, ...]


def parse_origin(listing: str) -> Origin:
    """What `apt-get indextargets` in the format of `origin` says of Debian itself; other vendors' are left out.

    Raises:
        BuildFailure: apt has no list of a release of Debian.
    """
    lines: list[str] = []
    suites: list[str] = []
    for row in sorted(set(listing.splitlines())):
        vendor, label, suite, component, uri = (row.split("\t") + [""] * 5)[:5]
        if vendor != "Debian" or not uri:
            continue
        lines.append(f"deb {uri} {suite} {component}")
        if label == "Debian" and "-" not in suite:
            suites.append(suite)
    if not suites:
        raise BuildFailure("apt has no package lists of a Debian release; run apt-get update, on Debian")
    return Origin(suites[0], tuple(lines))


def origin() -> Origin:
    """The sources of Debian's packages that this host's apt has lists of.

    Raises:
        BuildFailure: it has none.
    """
    shape = "$(ORIGIN)\t$(LABEL)\t$(RELEASE)\t$(COMPONENT)\t$(REPO_URI)"
    return parse_origin(run("apt-get", "indextargets", "--format", shape, "Created-By: Packages"))


def forget(cache: Path) -> None:
    """Delete the systems that earlier builds left in `cache`, and nothing else that is there."""
    for file in cache.glob(ARCHIVES):
        file.unlink()


def bootstrap(cache: Path, progress: Callable[[str], None]) -> Path:
    """Install a Debian system into a tar archive in `cache`, which a later build of the same wish takes as it is.

    mmdebstrap does it as root, or without root where the host lets users have namespaces of their own. The packages
    are checked against the signatures of the archive, as apt does. Takes some minutes and about 1 GB.

    Raises:
        BuildFailure: apt has no sources of Debian's packages, or mmdebstrap failed.
    """
    found = origin()
    options = [
        *("--variant=minbase", "--format=tar", f"--include={','.join(SYSTEM)}", "--skip=output/dev"),
        "--aptopt=Apt::Install-Recommends false",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
        *(f"--dpkgopt=path-include={pattern}" for pattern in KEPT),
        found.suite,
    ]
    wish = hashlib.sha256("\n".join([*options, *found.lines]).encode()).hexdigest()[:16]
    archive = cache / ARCHIVES.replace("*", wish)
    if archive.is_file():
        progress(f"Debian {found.suite} is in the cache")
        return archive
    cache.mkdir(parents=True, exist_ok=True)
    progress(f"installing Debian {found.suite} with {len(SYSTEM)} packages and what they need")
    with tempfile.TemporaryDirectory(prefix="incoming.", dir=cache) as directory:
        draft = Path(directory) / "system.tar"
        run("mmdebstrap", *options, draft, "-", stdin="".join(f"{line}\n" for line in found.lines).encode())
        forget(cache)
        draft.replace(archive)
    return archive
