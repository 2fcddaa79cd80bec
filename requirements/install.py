"""Makes the virtual environment of a checkout from its pinned requirements; `pileus`, the launcher, runs it.

    install.py [--check] {runtime,dev}

With `--check`, run by the environment's own interpreter, it exits 0 when the environment is what it should be, and
else 1.  Without, run by any Python, it makes it so.  Standard library only, and what making needs is imported late:
each start of `pileus` runs the check.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".venv"
PYTHON = HOME / "bin" / "python"
STAMP = HOME / "pileus.stamp"
LOG = HOME / "install.log"
COVERS = {"runtime": ("runtime",), "dev": ("runtime", "dev")}
"""Which levels an environment of a level also is: each lock holds all that the one before it does."""


class InstallFailure(Exception):
    """The environment could not be made; the message is for people and says what to do."""


def lock(level: str) -> Path:
    """The pinned requirements of a level."""
    return ROOT / "requirements" / f"{level}.txt"


def fingerprint(level: str) -> str:
    """One line of the stamp: what an environment of this level is made from."""
    digest = hashlib.sha256(repr((str(ROOT), sys.implementation.name, sys.version_info[:2])).encode())
    for path in (lock(level), ROOT / "pyproject.toml", Path(__file__)):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"{level} {digest.hexdigest()}"


def fresh(level: str) -> bool:
    """Whether the stamp says that the environment was made from what the checkout now holds."""
    try:
        return fingerprint(level) in STAMP.read_text(encoding="ascii").splitlines()
    except OSError:
        return False


def answers(*arguments: str) -> bool:
    """Whether the environment's interpreter runs with these arguments and says yes."""
    import subprocess

    try:
        return subprocess.run([PYTHON, "-I", *arguments], check=False, stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def say(text: str, end: str = "\n") -> None:
    """Progress goes to standard error: what a command prints may be read by a program."""
    print(text, end=end, file=sys.stderr, flush=True)


def watch(lines: Iterable[str], total: int) -> None:
    """Write pip's output to the log; on a terminal, count the packages that it gathers."""
    shown = sys.stderr.isatty()
    count = 0
    with LOG.open("a", encoding="utf-8") as log:
        for line in lines:
            log.write(line)
            log.flush()
            if shown and line.startswith("Collecting "):
                count += 1
                say(f"\r  {min(count, total)} of {total}  {line.split()[1].split('=')[0]:<40.40}", end="")
    if shown:
        say(f"\r{'':<60}\r", end="")


def run(command: Sequence[str | Path], title: str, total: int = 0) -> None:
    """Run one step, with its time; its output goes to the log, whose end is shown when it fails."""
    import subprocess
    import time

    started = time.monotonic()
    say(f"pileus: {title} …")
    # A user's own pip settings may name a mirror; they may not send packages elsewhere.
    kept = {name: value for name, value in os.environ.items() if name not in {"PIP_PREFIX", "PIP_TARGET", "PIP_USER"}}
    with subprocess.Popen(
        command, env=kept, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as child:
        try:
            watch(child.stdout or (), total)
        except BaseException:
            child.kill()
            raise
    if child.returncode:
        tail = "\n".join(LOG.read_text(encoding="utf-8").splitlines()[-15:])
        raise InstallFailure(f"{title} failed; the end of {LOG}:\n{tail}")
    say(f"pileus: {title}: {time.monotonic() - started:.1f} s")


def make() -> None:
    """Make an empty environment in place of what is there."""
    import importlib.util
    import shutil
    import subprocess

    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
        raise InstallFailure(
            f"{sys.executable} cannot make virtual environments: it comes without ensurepip.\n"
            f"On Debian and Ubuntu, as root: apt-get install python{version}-venv\n"
            "Elsewhere, install the package that holds Python's ensurepip, or set PILEUS_PYTHON to another Python."
        )
    shutil.rmtree(HOME, ignore_errors=True)
    say(f"pileus: making {HOME} with Python {version}")
    command: list[str | Path] = [sys.executable, "-I", "-m", "venv", HOME]
    made = subprocess.run(command, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if made.returncode:
        raise InstallFailure(f"{sys.executable} could not make {HOME}:\n{made.stdout.strip()}")


def install(level: str) -> None:
    """Bring .venv to what the lock of this level says.  What a newer lock no longer names may linger."""
    same = f"import sys, pip; sys.exit(sys.version_info[:2] != {sys.version_info[:2]} or sys.prefix == sys.base_prefix)"
    if not answers("-c", same):
        make()
    STAMP.unlink(missing_ok=True)
    LOG.write_text("", encoding="utf-8")
    total = sum("==" in line for line in lock(level).read_text(encoding="utf-8").splitlines())
    pip: list[str | Path] = [PYTHON, "-I", "-m", "pip", "--disable-pip-version-check", "--no-input"]
    pip += ["install", "--progress-bar=off"]
    # Wheels only: a source package would be built by a back end that no hash pins.
    wheels: list[str | Path] = [*pip, "--only-binary=:all:", "--require-hashes", "--no-compile", "-r", lock(level)]
    run(wheels, f"installing {total} packages", total)
    # As pip would, but on all cores; like pip it does not mind a file that is no Python of this version.
    say("pileus: compiling them …")
    answers("-m", "compileall", "-qq", "-j", "0", str(HOME / "lib"))
    run([*pip, "--no-deps", "--no-build-isolation", "--editable", ROOT], "installing pileus itself")
    new = STAMP.with_suffix(".new")
    new.write_text("".join(f"{fingerprint(covered)}\n" for covered in COVERS[level]), encoding="ascii")
    new.replace(STAMP)


def main(arguments: Sequence[str]) -> int:
    """Do what the module's docstring says; exit status."""
    level = arguments[-1]
    if "--check" in arguments:
        return 0 if fresh(level) else 1
    import fcntl

    directory = os.open(ROOT / "requirements", os.O_RDONLY)
    try:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("pileus: waiting for another pileus that is installing …")
            fcntl.flock(directory, fcntl.LOCK_EX)
        if not answers("-S", __file__, "--check", level):
            install(level)
    except (InstallFailure, OSError) as failure:
        say(f"pileus: {failure}")
        return 1
    except KeyboardInterrupt:
        say("\npileus: interrupted; the next start takes up the installation again")
        return 130
    finally:
        os.close(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
