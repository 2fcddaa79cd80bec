"""systemd, where it runs: the units of a cloud that `pileus install` put in place, and what they do."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pileus.cli.main import CommandFailure

RUNS = Path("/run/systemd/system")
"""Is there where systemd was booted (sd_booted(3))."""

UNITS = Path("/etc/systemd/system")
"""Where an administrator's units are (systemd.unit(5))."""

TARGET = "pileus.target"
SERVICES = {"control": "pileus-control.service", "agent": "pileus-agent.service"}

MARK = "# Written by `pileus install`, taken away by `pileus uninstall`."
"""The first line of every file that is ours."""


def booted() -> bool:
    """Whether systemd is this machine's service manager."""
    return RUNS.is_dir()


def keeps(state: Path) -> bool:
    """Whether systemd keeps the cloud of a state directory running, now or when it is told to."""
    return booted() and serves(state)


def serves(state: Path, units: Path = UNITS) -> bool:
    """Whether units are in place for this state directory."""
    try:
        text = (units / SERVICES["control"]).read_text()
    except OSError:
        return False
    return f"\n# State: {state}\n" in text


def systemctl(*words: str) -> str:
    """Run systemctl(1); what it printed. Raises CommandFailure with what it says is wrong."""
    done = subprocess.run(
        ["systemctl", *words], check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        raise CommandFailure(f"systemctl {' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def states() -> dict[str, str]:
    """What each of the two services does, e.g. `active: serves https://…`."""
    found = {}
    for name, unit in SERVICES.items():
        said = systemctl("show", "--property=ActiveState,StatusText", unit)
        values = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
        text = values.get("StatusText", "")
        found[name] = values.get("ActiveState", "unknown") + (f": {text}" if text else "")
    return found


def journal(lines: int) -> list[str]:
    """The last lines that each service logged."""
    found = []
    for unit in SERVICES.values():
        done = subprocess.run(
            ["journalctl", f"--unit={unit}", f"--lines={lines}", "--no-pager", "--output=short-iso"],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
        found += [f"  journalctl --unit={unit}:", *(f"    {line}" for line in done.stdout.splitlines())]
    return found
