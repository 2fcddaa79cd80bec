from __future__ import annotations

import io
import re
import sys
import threading
from pathlib import Path

import pytest

from pileus.cli import suite
from pileus.cli.main import CommandFailure, build_parser, main
from pileus.cli.progress import Progress
from pileus.cli.suite import Outcome, Result, Suite, summarize, verdict
from tests.cli.role import NO_ROLES
from tests.tidy.tree import ROOT


@pytest.fixture(autouse=True)
def _no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """What pytest starts here needs none, and would take most of its time to load them."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def result(step: str, outcome: Outcome, tests: int = 0) -> Result:
    return Result(
        step=step, outcome=outcome, seconds=1.0, tests=tests, reason="needs root" if outcome == "not run" else ""
    )


PASSED, FAILED = result("sqlite", "passed", 9), result("real", "failed", 2)
EMPTY, SKIPPED = result("drivers", "nothing ran"), result("real", "not run")


@pytest.mark.parametrize(
    ("results", "partly", "strict", "failures"),
    [
        ([PASSED], False, True, []),
        ([PASSED, FAILED], False, False, ["real failed"]),
        ([PASSED, SKIPPED], False, False, []),
        ([PASSED, SKIPPED], False, True, ["real did not run: needs root"]),
        ([PASSED, EMPTY], False, False, ["drivers ran no test"]),
        ([PASSED, EMPTY], True, False, []),
        ([EMPTY], True, False, ["no test ran"]),
        ([EMPTY, FAILED], True, False, ["real failed"]),
    ],
)
def test_verdict(results: list[Result], partly: bool, strict: bool, failures: list[str]) -> None:
    assert verdict(results, partly=partly, strict=strict) == failures


def test_summary_tells_each_step_and_the_end() -> None:
    stream = io.StringIO()
    summarize([PASSED, SKIPPED], ["real did not run: needs root"], Progress(stream), 2.0, 0)
    text = stream.getvalue().splitlines()
    assert text[-3].split() == ["sqlite", "passed", "1.0", "s", "9", "tests"]
    assert text[-2].split() == ["real", "not", "run", "1.0", "s", "needs", "root"]
    assert text[-1] == "suite FAILED: real did not run: needs root (9 tests, 2.0 s)"


@pytest.mark.parametrize(
    ("budget", "told"), [(0, "2.0 s)"), (2, "2.0 s, of a budget of 2 s)"), (1, "2.0 s, over the budget of 1 s)")]
)
def test_who_takes_longer_than_planned_is_told(budget: int, told: str) -> None:
    stream = io.StringIO()
    summarize([PASSED], [], Progress(stream), 2.0, budget)
    assert stream.getvalue().splitlines()[-1] == f"suite passed (9 tests, {told}"


@pytest.mark.parametrize(
    ("arguments", "steps", "budget"),
    [
        (["--only", "fuzz"], ["fuzz"], 120),
        (["--only", "fast"], ["sqlite", "postgresql", "coverage"], 360),
        (
            ["--only", "real", "--only", "conformance", "--only", "simulation"],
            ["simulation", "real", "conformance"],
            540,
        ),
        (["--only", "sqlite"], ["sqlite"], 0),
        (["--only", "fuzz", "--only", "real"], ["fuzz", "real"], 0),
        (["--only", "guests", "--fast"], [], 0),
        ([], list(suite.STEPS), 860),
    ],
)
def test_what_is_run_and_how_long_it_may_take(arguments: list[str], steps: list[str], budget: int) -> None:
    parsed = build_parser("test").parse_args(["test", *arguments])
    chosen = suite._chosen(parsed.only or suite.STEPS, fast=parsed.fast)
    assert (chosen, suite._budget(chosen)) == (steps, budget)


def test_every_step_is_in_one_group_and_the_groups_are_as_their_page_says() -> None:
    assert sorted(step for group in suite.BUDGETS.values() for step in group.steps) == sorted(suite.STEPS)
    page = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (\d+) s \|$", page, re.MULTILINE)
    told = {name: suite.Budget(tuple(re.findall(r"`(\w+)`", steps)), int(seconds)) for name, steps, seconds in rows}
    assert told == suite.BUDGETS
    assert f"at most {suite.WHOLE} s" in page


def suite_in(root: Path) -> Suite:
    return Suite(root=root, expression=None, progress=Progress(io.StringIO()), exercised=root / "exercised")


@pytest.mark.parametrize(
    ("body", "outcome", "ran"),
    [
        ("def test_one(): pass\ndef test_two(): pass", "passed", 2),
        ("def test_one(): assert 0\ndef test_two(): pass", "failed", 2),
        ("import pytest\ndef test_one(): pytest.skip('no')", "nothing ran", 0),
        ("", "nothing ran", 0),
        ("import nothing_of_this_name", "failed", 1),
    ],
)
def test_what_pytest_did_is_counted(tmp_path: Path, body: str, outcome: str, ran: int) -> None:
    (tmp_path / "test_it.py").write_text(body, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = real: x\n", encoding="utf-8")
    found = Suite(
        root=tmp_path, expression=None, progress=Progress(io.StringIO()), exercised=tmp_path / "exercised"
    ).tests("sqlite", "not real")
    assert (found.outcome, found.tests) == (outcome, ran)


def test_a_test_that_passes_at_the_second_try_is_named(tmp_path: Path) -> None:
    body = (
        "import pathlib\ndef test_one():\n    mark = pathlib.Path('mark')\n    seen = mark.exists()\n    mark.touch()\n"
    )
    (tmp_path / "test_it.py").write_text(body + "    assert seen\ndef test_two(): pass\n", encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = real: x\n", encoding="utf-8")
    found = Suite(
        root=tmp_path, expression=None, progress=Progress(io.StringIO()), exercised=tmp_path / "exercised"
    ).tests("sqlite", "not real")
    assert (found.outcome, found.tests) == ("passed", 2)
    assert "test_it::test_one" in found.reason


def test_a_step_that_needs_root_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    found = Suite(
        root=tmp_path, expression=None, progress=Progress(io.StringIO()), exercised=tmp_path / "exercised"
    ).real()
    assert (found.outcome, found.reason) == ("not run", "needs root")


def test_fast_leaves_real_out_and_failure_is_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def step(name: str) -> Result:
        ran.append(name)
        return result(name, "failed" if name == "mypy" else "passed", 1)

    monkeypatch.setattr(suite, "STEPS", {name: lambda _, name=name: step(name) for name in suite.STEPS})
    monkeypatch.setattr(suite, "_install", lambda steps, progress: None)
    assert main(["test", "--fast"], lambda: NO_ROLES) == 1
    assert sorted(ran) == sorted(name for name in suite.STEPS if name not in ("real", "conformance"))
    assert {"mypy", "sqlite", "postgresql", "fuzz", "simulation", "drivers"} <= set(ran)
    ran.clear()
    assert main(["test", "--only", "ruff", "--only", "real"], lambda: NO_ROLES) == 0
    assert sorted(ran) == ["real", "ruff"]


def test_what_needs_the_kernel_runs_beside_the_rest(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    met = threading.Barrier(2, timeout=60)
    script = "import sys, time; print('one', flush=True); time.sleep(0.1); print('two', file=sys.stderr)"

    def step(found: Suite, name: str) -> Result:
        met.wait()
        return found.command(name, [sys.executable, "-c", script])

    names = ("sqlite", "postgresql", "drivers", "real")
    steps = {name: lambda found, name=name: step(found, name) for name in names}
    monkeypatch.setattr(suite, "STEPS", steps)
    monkeypatch.setattr(suite, "_install", lambda steps, progress: None)
    assert suite.run(build_parser("test").parse_args(["test"]), NO_ROLES) == 0
    shown = capfd.readouterr().out
    assert sorted(re.findall(r"^── (\w+): .*\none\ntwo$", shown, re.MULTILINE)) == sorted(names)
    assert re.findall(r"^(\w+) +passed", shown, re.MULTILINE) == [*names, "suite"]


def test_the_page_of_coverage_is_compared_with_what_tests_did(tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "bench" / "coverage.py").write_text("import sys; print(open(sys.argv[1]).read(), end='')")
    found = suite_in(tmp_path)
    assert found.coverage().outcome == "not run", "the tests did not run"
    found.exercised.write_text("image GET /images\n")
    assert found.coverage().outcome == "failed", "there is no page"
    (tmp_path / "docs" / "coverage.md").write_text("image GET /tasks\n")
    assert found.coverage().outcome == "failed", "the page says something else"
    assert (tmp_path / "docs" / "coverage.md").read_text() == "image GET /images\n"
    assert found.coverage().outcome == "passed"


def test_an_installed_package_has_no_suite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("pileus.__file__", str(tmp_path / "a" / "b" / "pileus" / "__init__.py"))
    with pytest.raises(CommandFailure, match="checkout"):
        suite.run(build_parser("test").parse_args(["test"]), NO_ROLES)
