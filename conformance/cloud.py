"""A Pileus of the run's own, in a network namespace of its own, as it is shipped."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from conformance.content import ORIGIN
from conformance.environment import ROOT

if TYPE_CHECKING:
    from openstack.connection import Connection

WORK = Path("/var/tmp/pileus-conformance")  # noqa: S108 - the image and its packages are kept there between runs
STATE = "state"
"""Where below the run's folder the cloud lives."""

PILEUS = ROOT / "pileus"
OUTSIDE = "outside"
"""Name of the bridge to nowhere."""


class CloudFailure(Exception):
    """The cloud could not be had; what it said stands on the terminal."""


def run(*command: str | Path) -> None:
    """Run a program whose output is the user's. Raises CloudFailure when it fails."""
    done = subprocess.run([str(word) for word in command], check=False, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    if done.returncode:
        raise CloudFailure(f"{' '.join(map(str, command))} failed with status {done.returncode}")


def prepare(work: Path) -> None:
    """Do all that needs the network outside. Raises CloudFailure."""
    work.mkdir(mode=0o755, parents=True, exist_ok=True)
    if work.stat().st_uid != os.geteuid():
        raise CloudFailure(f"{work} belongs to somebody else: choose another by --work")
    run(PILEUS, "prepare", "--state", work / STATE)


def _clear(state: Path) -> None:
    """Take down what is there, but for what `prepare` made."""
    if (state / "pileus.toml").exists():
        run(PILEUS, "down", "--purge", "--state", state)


@contextmanager
def namespace(name: str) -> Iterator[None]:
    """A network namespace with nothing in it but loopback and a bridge that stands for the world outside.

    What the cloud shall fetch is served at the bridge's address; some tests ask which address leads outside.
    """
    run("ip", "netns", "add", name)
    try:
        within = ("ip", "-n", name)
        run(*within, "link", "set", "lo", "up")
        run(*within, "link", "add", OUTSIDE, "type", "bridge")
        run(*within, "address", "add", f"{ORIGIN[0]}/24", "dev", OUTSIDE)
        run(*within, "link", "set", OUTSIDE, "up")
        run(*within, "route", "add", "default", "dev", OUTSIDE)
        yield
    finally:
        run("ip", "netns", "delete", name)


@contextmanager
def cloud(work: Path) -> Iterator[dict[str, Any]]:
    """A fresh cloud; what a client needs to log in. To be called inside the namespace. Raises CloudFailure."""
    state = work / STATE
    _clear(state)  # what a run that was killed has left
    try:
        run(PILEUS, "up", "--detach", "--no-demo", "--state", state)
        entry: dict[str, Any] = yaml.safe_load((state / "clouds.yaml").read_text())["clouds"]["pileus"]
        yield entry["auth"]
    finally:
        _clear(state)


def connect(auth: dict[str, Any]) -> Connection:
    """An administrator's session."""
    import openstack  # noqa: PLC0415 - slow, and needed for a real run only

    return openstack.connect(auth=auth, region_name="RegionOne", load_yaml_config=False, load_envvars=False)


def revision() -> str:
    """Which Pileus this is: version and commit, with `+` when files were changed since."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"
