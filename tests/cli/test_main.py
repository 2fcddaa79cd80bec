from __future__ import annotations

import argparse
import os
import subprocess
import sys
from types import ModuleType

import pytest

import pileus
from pileus.cli import main as command_line
from pileus.cli.main import CommandFailure, Roles, build_parser, commands, main
from tests.cli.role import NO_ROLES
from tests.tidy.tree import ROOT

SLOW = {
    "alembic",
    "asyncio",
    "cryptography",
    "httptools",
    "openstack",
    "pileus.app",
    "psycopg",
    "pyroute2",
    "qemu",
    "sqlalchemy",
    "uvicorn",
}
"""What would be felt at each start."""

ENVIRONMENT = {"PATH": os.defpath, "PYTHONPATH": str(ROOT / "src")}


def offer(monkeypatch: pytest.MonkeyPatch, outcome: BaseException | int) -> None:
    """Make `try` the only command; it gives a status or raises."""

    def run(arguments: argparse.Namespace, roles: Roles) -> int:
        if isinstance(outcome, int):
            return outcome
        raise outcome

    module = ModuleType("try")
    module.register = lambda subparsers: subparsers.add_parser("try").set_defaults(run=run)  # type: ignore[attr-defined]
    monkeypatch.setattr(command_line, "commands", lambda only=None: [module])


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"], lambda: NO_ROLES)
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"pileus {pileus.__version__}\n"


def test_help_names_every_command() -> None:
    text = build_parser().format_help()
    assert {"prepare", "test"} <= set(text.split())
    for module in commands():
        assert module.__doc__, module


def test_one_command_loads_one_module() -> None:
    assert [module.__name__ for module in commands("prepare")] == ["pileus.cli.prepare"]


def test_a_command_with_another_name_than_its_module_is_found() -> None:
    assert build_parser("test").parse_args(["test", "--fast"]).fast is True


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["fly"], lambda: NO_ROLES)
    assert ended.value.code == 2
    assert "fly" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("outcome", "status", "said"),
    [
        (0, 0, ""),
        (3, 3, ""),
        (CommandFailure("no disk"), 1, "pileus: no disk\n"),
        (CommandFailure("no Linux", status=69), 69, "pileus: no Linux\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_exit_status(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    outcome: BaseException | int,
    status: int,
    said: str,
) -> None:
    offer(monkeypatch, outcome)
    assert main(["try"], lambda: NO_ROLES) == status
    assert capsys.readouterr().err == said


def test_a_reader_that_left_is_no_error() -> None:
    command = f"{sys.executable} -P -m pileus --help | true"
    done = subprocess.run(["bash", "-c", command], check=False, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.stderr == ""


def test_help_loads_nothing_slow() -> None:
    probe = "import sys, pileus.__main__, pileus.cli.main as m; m.build_parser().format_help(); print(*sys.modules)"
    command = [sys.executable, "-P", "-c", probe]
    loaded = set(subprocess.run(command, check=True, capture_output=True, text=True, env=ENVIRONMENT).stdout.split())
    assert "pileus.cli.prepare" in loaded
    assert loaded & SLOW == set()
