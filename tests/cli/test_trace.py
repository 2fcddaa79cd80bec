"""Stories out of the log: lines that name an id, and those of the requests that had to do with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pileus.cli.main import main
from pileus.cli.trace import log_lines, shown
from tests.cli.role import NO_ROLES

ASKED, OTHER = "req-11111111-1111-1111-1111-111111111111", "req-22222222-2222-2222-2222-222222222222"
SERVER = "33333333-3333-3333-3333-333333333333"

CONTROL = f"""\
2030-01-01T00:00:00.100Z control INFO pileus.request [{ASKED}] POST /compute/v2.1/servers 202 5.0 ms project=p user=u
2030-01-01T00:00:00.200Z control INFO pileus.request [{OTHER}] GET /compute/v2.1/servers/{SERVER} 200 1.0 ms project=p
2030-01-01T00:00:00.300Z control INFO pileus.request [{OTHER}] GET /compute/v2.1/flavors 200 1.0 ms project=p
2030-01-01T00:00:00.400Z control WARNING pileus.core.reconcile [-] loop: {SERVER} is broken: why
  a line of something else that names {SERVER}
"""
AGENT = f"""\
2030-01-01T00:00:00.350Z agent INFO pileus.agent.agent [{ASKED}] guest/{SERVER} is running
2030-01-01T00:00:00.360Z agent INFO pileus.agent.agent [{ASKED}] network/n is ready
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory with a log, of which the older part was put aside."""
    (tmp_path / "log").mkdir()
    lines = CONTROL.splitlines(keepends=True)
    (tmp_path / "log" / "control.log.1").write_text("".join(lines[:1]))
    (tmp_path / "log" / "control.log").write_text("".join(lines[1:]))
    (tmp_path / "log" / "agent.log").write_text(AGENT)
    return tmp_path


def test_a_thing(state: Path) -> None:
    found = [shown(one, SERVER) for one in sorted(log_lines(state, SERVER, {SERVER, ASKED}))]
    assert found == [
        f"2030-01-01 00:00:00.100  request    POST /compute/v2.1/servers 202 5.0 ms project=p user=u  [{ASKED}]",
        f"2030-01-01 00:00:00.200  request    GET /compute/v2.1/servers/{SERVER} 200 1.0 ms project=p  [{OTHER}]",
        f"2030-01-01 00:00:00.350  agent      guest/{SERVER} is running  [{ASKED}]",
        f"2030-01-01 00:00:00.400  control    WARNING: loop: {SERVER} is broken: why",
    ]


def test_a_request(state: Path) -> None:
    found = sorted(log_lines(state, ASKED, {ASKED}))
    assert [one.text.split()[0] for one in found] == ["POST", f"guest/{SERVER}", "network/n"]
    assert shown(found[-1], ASKED) == "2030-01-01 00:00:00.360  agent      network/n is ready"


@pytest.mark.parametrize("wanted", ["a", "../etc", "%", "a b", "x" * 65])
def test_what_is_no_id_is_refused(tmp_path: Path, wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "--state", str(tmp_path), wanted], lambda: NO_ROLES) == 1
    assert "is no id" in capsys.readouterr().err
