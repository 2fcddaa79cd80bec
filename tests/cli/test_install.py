"""Units of systemd: what is written, that systemd understands it, and that commands work by it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pileus.cli import install, systemd
from pileus.cli.main import CommandFailure, main
from pileus.core.config import Config
from tests.cli.role import NO_ROLES

UNITS = Path("etc/systemd/system")
NAMES = ("pileus-control.service", "pileus-agent.service", "pileus.target")

SYSTEMCTL = """#!/bin/sh
echo "$@" >> "$PILEUS_TEST_CALLS"
case "$1" in show) printf 'ActiveState=active\\nStatusText=serves https://cloud\\n' ;; esac
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    assert run("install", tmp_path) == 0
    return tmp_path / "root"


def run(command: str, directory: Path, *words: str) -> int:
    state = directory / "state"
    return main([command, "--state", str(state), "--root", str(directory / "root"), *words], lambda: NO_ROLES)


def unit(root: Path, name: str) -> dict[str, list[str]]:
    """The assignments of a unit."""
    found: dict[str, list[str]] = {}
    text = (root / UNITS / name).read_text().replace("\\\n", " ")
    for key, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


def verify(root: Path, *names: str) -> subprocess.CompletedProcess[str]:
    files = [str(root / UNITS / name) for name in names]
    return subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *files], check=False, capture_output=True, text=True
    )


def test_units_start_this_very_installation_at_boot(root: Path, tmp_path: Path) -> None:
    for name in ("control", "agent"):
        (command,) = unit(root, f"pileus-{name}.service")["ExecStart"]
        assert command == f"{sys.executable} -P -m pileus {name} --state {tmp_path / 'state'}"
    assert (root / UNITS / "multi-user.target.wants/pileus.target").readlink() == Path("/") / UNITS / "pileus.target"
    wanted = {path.name: str(path.readlink()) for path in (root / UNITS / "pileus.target.wants").iterdir()}
    assert wanted == {name: f"/{UNITS / name}" for name in NAMES[:2]}
    assert {(root / UNITS / name).stat().st_mode & 0o777 for name in NAMES} == {0o644}


def test_the_services_find_the_package(root: Path) -> None:
    """What the command line and the environment of the unit say is enough to import it, from anywhere."""
    found = unit(root, "pileus-control.service")
    environment = dict(one.split("=", 1) for one in found.get("Environment", []))
    words = found["ExecStart"][0].split()
    done = subprocess.run(
        [*words[: words.index("control")], "--version"],
        check=False,
        capture_output=True,
        text=True,
        cwd="/",
        env={"PATH": os.defpath, **environment},
    )
    assert done.stdout.startswith("pileus "), done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd's own verifier is not installed")
def test_systemd_understands_the_units(root: Path) -> None:
    done = verify(root, *NAMES)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    file = root / UNITS / NAMES[0]
    file.write_text(file.read_text().replace("ProtectSystem=", "ProtectSystm="))
    assert "ProtectSystm" in verify(root, NAMES[0]).stderr


def test_restarts_drop_no_guest(root: Path) -> None:
    agent = unit(root, "pileus-agent.service")
    assert agent["KillMode"] == ["process"]
    assert agent["OOMPolicy"] == ["continue"]
    own_mounts = {"ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices", "ReadWritePaths", "PrivateNetwork"}
    own_mounts |= {"ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups"}
    assert set(agent) & own_mounts == set(), "network namespaces that it makes must be seen by the host"


def test_each_is_confined_as_far_as_it_can_bear(root: Path) -> None:
    control, agent = unit(root, "pileus-control.service"), unit(root, "pileus-agent.service")
    for one in (control, agent):
        assert one["NoNewPrivileges"] == ["yes"]
        assert one["Restart"] == ["always"]
        assert one["Type"] == ["notify"]
        assert one["WatchdogSec"]
        (calls,) = one["SystemCallFilter"]
        assert calls.startswith("~") or "landlock_create_ruleset" in calls, "converters of images are confined by it"
    assert control["ProtectSystem"] == ["strict"]
    assert "CAP_SYS_ADMIN" not in control["CapabilityBoundingSet"][0]
    assert "CAP_SYS_MODULE" not in agent["CapabilityBoundingSet"][0]
    assert "65 78" in control["RestartPreventExitStatus"][0]


def test_what_the_control_plane_writes_is_writable() -> None:
    config = Config(
        state=Path("/srv/cloud"), image_stores=["a=/srv/images", "b=images"], database="sqlite:////srv/db/pileus.db"
    )
    text = install.files(config)[str(UNITS / NAMES[0])]
    assert "\nReadWritePaths=/srv/cloud /srv/images /srv/db\n" in text
    assert f"\nTimeoutStopSec={60 + 10 + 20}\n" in text


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign = tmp_path / "root" / UNITS / NAMES[2]
    foreign.parent.mkdir(parents=True)
    foreign.write_text("[Unit]\n")
    assert run("install", tmp_path) == 1
    assert "was written by somebody else" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "root").rglob("*") if path.is_file()] == [NAMES[2]]


def test_the_units_of_another_cloud_are_left_alone(root: Path, tmp_path: Path) -> None:
    before = (root / UNITS / NAMES[0]).read_text()
    arguments = ["install", "--state", str(tmp_path / "another"), "--root", str(root)]
    assert main(arguments, lambda: NO_ROLES) == 1
    assert (root / UNITS / NAMES[0]).read_text() == before


@pytest.mark.parametrize("name", ["with space", "100%", 'a"b', "back\\slash"])
def test_a_directory_that_units_cannot_name_is_refused(tmp_path: Path, name: str) -> None:
    assert main(["install", "--state", str(tmp_path / name), "--root", str(tmp_path / "r")], lambda: NO_ROLES) == 1
    assert not (tmp_path / "r").exists()


def test_uninstall_takes_away_what_install_wrote_and_nothing_else(root: Path, tmp_path: Path) -> None:
    assert run("install", tmp_path) == 0  # again: nothing is in its own way
    other = root / UNITS / "other.service"
    other.write_text("[Unit]\n")
    assert run("uninstall", tmp_path) == 0
    assert [path for path in root.rglob("*") if path.is_file() or path.is_symlink()] == [other]
    assert run("uninstall", tmp_path) == 1


def test_without_systemd_it_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "RUNS", tmp_path / "nowhere")
    assert main(["install", "--state", str(tmp_path / "state")], lambda: NO_ROLES) == 69
    said = capsys.readouterr().err
    assert "systemd does not run this machine, so nothing was installed" in said
    assert f"up --detach --state {tmp_path / 'state'}" in said
    assert not (tmp_path / "state").exists()


@pytest.fixture
def booted(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that seems to be run by systemd, with the units in place; what systemctl is told."""
    programs, calls = tmp_path / "bin", tmp_path / "calls"
    programs.mkdir()
    for name in ("systemctl", "journalctl"):
        (programs / name).write_text(SYSTEMCTL)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("PILEUS_TEST_CALLS", str(calls))
    monkeypatch.setattr(systemd, "RUNS", programs)
    monkeypatch.setattr(systemd, "UNITS", root / UNITS)
    monkeypatch.setattr(systemd.serves, "__defaults__", (root / UNITS,))
    return calls


def test_systemd_keeps_the_cloud_of_its_units_and_no_other(booted: Path, tmp_path: Path) -> None:
    assert systemd.keeps(tmp_path / "state")
    assert not systemd.keeps(tmp_path / "stat")
    assert systemd.states() == {"control": "active: serves https://cloud", "agent": "active: serves https://cloud"}
    assert booted.read_text().count("show --property=ActiveState,StatusText pileus-") == 2


def test_down_stops_the_units(booted: Path, tmp_path: Path) -> None:
    from pileus.cli.down import _stop

    (tmp_path / "state").mkdir()
    _stop(tmp_path / "state")
    assert booted.read_text() == "stop pileus.target pileus-control.service pileus-agent.service\n"


def test_a_unit_that_does_not_start_is_told(booted: Path, tmp_path: Path) -> None:
    (tmp_path / "bin" / "systemctl").write_text("#!/bin/sh\necho 'Job failed.' >&2\nexit 1\n")
    with pytest.raises(CommandFailure, match="systemctl start x: Job failed"):
        systemd.systemctl("start", "x")
    assert not booted.exists()
