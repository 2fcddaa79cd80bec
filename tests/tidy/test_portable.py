"""The control plane imports, and so can run, where nothing of Linux is to be had."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.tidy.tree import PACKAGE, ROOT, files

PORTABLE = ("app", "cli", "contracts", "core", "services")

LINUX = ("_ctypes", "ctypes", "fcntl", "pty", "pyroute2", "qemu", "resource", "spwd", "termios", "tty")
"""What drivers alone may load."""

BLOCKED = f"""
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {LINUX!r}:
            raise ModuleNotFoundError(f"{{name}} is not of this host", name=name)

for name in {LINUX!r}:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Absent())
for name in sys.argv[1:]:
    importlib.import_module(name)
foreign = [name for name in sys.modules if name.startswith("pileus.drivers.host")]
sys.exit(f"loaded: {{foreign}}" if foreign else 0)
"""


def portable() -> list[str]:
    """Names of all modules that must import anywhere."""
    paths = [ROOT / path for path in files() if path.suffix == ".py" and (ROOT / path).is_relative_to(PACKAGE)]
    names = [path.relative_to(PACKAGE.parent).with_suffix("").parts for path in paths]
    return [".".join(parts).removesuffix(".__init__") for parts in names if len(parts) > 1 and parts[1] in PORTABLE]


def load(*names: str) -> subprocess.CompletedProcess[str]:
    """Import modules in a new interpreter from which Linux is absent."""
    command = [sys.executable, "-c", BLOCKED, *names]
    environment = {"PYTHONPATH": str(PACKAGE.parent), "PATH": str(Path(sys.executable).parent)}
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)


def test_what_is_blocked_is_absent() -> None:
    assert load("fcntl").returncode == 1
    assert load("pyroute2.netlink").returncode == 1


def test_all_but_agent_and_drivers_imports_anywhere() -> None:
    names = portable()
    assert {"pileus.app", "pileus.core", "pileus.contracts", "pileus.services"} <= set(names)
    done = load(*names)
    assert done.returncode == 0, done.stderr
