from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tidy.tree import ROOT

ECHO = """#!/usr/bin/env bash
case "$*" in
    *--check*) echo "check ${@: -1}" >>"@LOG@"; exec "@PYTHON@" "$@" ;;
esac
printf '%s\\n' "$@"
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose environment's interpreter repeats what it is asked to run, and logs the checks."""
    root = tmp_path / "check out"
    (root / "requirements").mkdir(parents=True)
    (root / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(ROOT / "pileus", root)
    shutil.copy(ROOT / "requirements" / "install.py", root / "requirements")
    for name in ("requirements/runtime.txt", "requirements/dev.txt", "pyproject.toml"):
        (root / name).write_text("", encoding="utf-8")
    python = root / ".venv" / "bin" / "python"
    python.write_text(ECHO.replace("@LOG@", str(root / "checks")).replace("@PYTHON@", sys.executable), encoding="utf-8")
    python.chmod(0o755)
    return root


def stamp(root: Path, *levels: str) -> None:
    """Say that the environment is what the checkout asks for."""
    probe = "import runpy, sys; m = runpy.run_path(sys.argv[1]); print(*map(m['fingerprint'], sys.argv[2:]), sep='\\n')"
    command = [sys.executable, "-I", "-c", probe, str(root / "requirements" / "install.py"), *levels]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    (root / ".venv" / "pileus.stamp").write_text(printed, encoding="ascii")


def launch(path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the launcher from a directory of no meaning."""
    variables = {"PATH": "/usr/bin:/bin", **environment}
    return subprocess.run([path, *arguments], check=False, cwd="/", env=variables, capture_output=True, text=True)


def test_a_fresh_environment_is_used_from_anywhere(checkout: Path, tmp_path: Path) -> None:
    stamp(checkout, "runtime")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "absolute").symlink_to(checkout / "pileus")
    (tmp_path / "bin" / "relative").symlink_to("../check out/pileus")
    (tmp_path / "twice").symlink_to("bin/relative")
    for path in (checkout / "pileus", tmp_path / "bin" / "absolute", tmp_path / "bin" / "relative", tmp_path / "twice"):
        done = launch(path, "server list", "--long")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == ["-P", "-m", "pileus", "server list", "--long"]


@pytest.mark.parametrize(
    ("arguments", "level"),
    [
        (("up",), "runtime"),
        (("test", "--fast"), "dev"),
        (("--flag", "test"), "dev"),
        (("openstack", "test"), "runtime"),
        ((), "runtime"),
    ],
)
def test_only_the_suite_needs_development_packages(checkout: Path, arguments: tuple[str, ...], level: str) -> None:
    stamp(checkout, "runtime", "dev")
    assert launch(checkout / "pileus", *arguments).returncode == 0
    assert (checkout / "checks").read_text(encoding="utf-8") == f"check {level}\n"


@pytest.mark.parametrize("changed", ["requirements/runtime.txt", "pyproject.toml", "requirements/install.py"])
def test_what_the_environment_is_made_from_makes_it_stale(checkout: Path, changed: str) -> None:
    stamp(checkout, "runtime")
    with (checkout / changed).open("a", encoding="utf-8") as file:
        file.write("\n")
    check = [sys.executable, "-I", "-S", str(checkout / "requirements" / "install.py"), "--check"]
    assert subprocess.run([*check, "runtime"], check=False).returncode == 1
    stamp(checkout, "runtime")
    assert subprocess.run([*check, "runtime"], check=False).returncode == 0
    assert subprocess.run([*check, "dev"], check=False).returncode == 1


def test_a_moved_checkout_is_stale(checkout: Path, tmp_path: Path) -> None:
    stamp(checkout, "runtime")
    moved = checkout.rename(tmp_path / "moved")
    check = [sys.executable, "-I", "-S", str(moved / "requirements" / "install.py"), "--check", "runtime"]
    assert subprocess.run(check, check=False).returncode == 1


def test_without_python_it_says_what_to_install(checkout: Path, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("bash", "dirname", "env", "readlink"):
        (programs / name).symlink_to(shutil.which(name) or name)
    done = launch(checkout / "pileus", "up", PATH=str(programs))
    assert done.returncode == 69
    assert "apt-get install python3 python3-venv" in done.stderr


def test_without_ensurepip_it_says_what_to_install(checkout: Path) -> None:
    shutil.rmtree(checkout / ".venv")
    probe = """
import importlib.util, runpy, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "ensurepip" else find(name, *more)
module = runpy.run_path(sys.argv[1])
sys.exit(module["main"](["runtime"]))
"""
    command = [sys.executable, "-I", "-c", probe, str(checkout / "requirements" / "install.py")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"apt-get install python3.{sys.version_info[1]}-venv" in done.stderr
    assert not (checkout / ".venv").exists()
