"""The environment in which Tempest lives: of its own, beside the one of Pileus, made from pinned requirements."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from conformance.area import HOME

ROOT = HOME.parent
PLACE = ROOT / ".venv-conformance"
REQUIREMENTS = HOME / "requirements.txt"


class EnvironmentFailure(Exception):
    """Tempest could not be installed; the message has the end of what pip said."""


def program(name: str) -> Path:
    """A program of the environment."""
    return PLACE / "bin" / name


def fingerprint() -> str:
    """What the environment is made from."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes())
    digest.update(f"{PLACE} {sys.version_info[:2]}".encode())
    return digest.hexdigest()


def ready() -> None:
    """Make the environment if it is missing or stale. Raises EnvironmentFailure."""
    stamp = PLACE / "conformance.stamp"
    if stamp.is_file() and stamp.read_text(encoding="ascii") == fingerprint():
        return
    shutil.rmtree(PLACE, ignore_errors=True)
    print(f"installing Tempest into {PLACE} …", file=sys.stderr, flush=True)
    _run([sys.executable, "-I", "-m", "venv", str(PLACE)])
    pip = [str(program("python")), "-I", "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    # Wheels only: a source package would be built by a back end that no hash pins.
    # Not compiled: of what it brings few modules are ever imported, and those are compiled then.
    _run([*pip, "--quiet", "--no-compile", "--only-binary=:all:", "--require-hashes", "-r", str(REQUIREMENTS)])
    stamp.write_text(fingerprint(), encoding="ascii")


def _run(command: list[str]) -> None:
    done = subprocess.run(command, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        raise EnvironmentFailure(f"{' '.join(command[:6])} … failed:\n{tail}")
