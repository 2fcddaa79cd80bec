"""`pileus test`: the whole suite from a checkout, installing what it needs.

The steps run in order, but those that need this host's kernel beside the others, each with its time, and all of them
run even when one fails:

- `ruff`, `mypy`, `imports`: the linters, the strict type checker, the import contracts
- `sqlite`: rules, loops, and the API through its real edge, on SQLite
- `postgresql`: those of them that touch a database once more, on a real server that the run starts and stops
- `coverage`: whether docs/coverage.md says what of the documented operations the tests on SQLite exercised
- `fuzz`: generated requests, good and bad ones, to every operation, on both databases
- `simulation`: clouds that are disturbed, from fixed seeds
- `host`: commands with processes of their own, the agent, drivers as far as they need no root, rules of the tree
- `drivers`: the tests of drivers on this host's kernel, as root
- `real`: whole clouds with real guests, as root
- `conformance`: what passes of upstream's acceptance tests and needs few minutes, on a cloud of its own, as root

A group of steps can be asked for as a step can; `BUDGETS` has them, and the time that each may take by itself.

A step that cannot run is said to be so, and is a failure when the environment has CI=true.  `--long` is for a night:
each generated test tries many times as much, and `simulation` plays more than ten thousand seeds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from xml.etree import ElementTree

import pileus
from pileus.cli import package
from pileus.cli.main import CommandFailure
from pileus.cli.progress import Progress

if TYPE_CHECKING:
    from pileus.cli.main import Roles, Subparsers

DATABASE_VARIABLE = "PILEUS_TEST_DATABASE"
"""URL of a PostgreSQL server's maintenance database; without it tests make SQLite files."""

EXERCISED_VARIABLE = "PILEUS_TEST_EXERCISED"
"""Path of a file to which tests add the operations that succeeded."""

LONG_VARIABLE = "PILEUS_TEST_LONG"
"""Set for a long run."""

BY_FILE = ["--dist", "loadfile"]
"""Tests run side by side, those of one file in one process; only drivers' are alone with the host's kernel."""

IN_ORDER = [*BY_FILE, "--no-loadscope-reorder"]
"""The same, and files in the order in which they were collected: tests/conftest.py puts the longest first."""

SPREAD = ["--dist", "load"]
"""Tests run side by side, each for itself."""

QUICK = "not real and not fuzz and not simulation"
"""What needs neither root nor a guest, and is not generated."""

QUICK_STEPS = ("sqlite", "postgresql", "fuzz", "simulation", "host")
"""Steps whose tests need neither root nor a guest."""

HOST_ROOMS = ("agent", "cli", "drivers", "tidy")
"""Folders of tests in which a database decides nothing."""

WAITING = "host"
"""The step whose tests wait most of the time, for processes and clocks: beside other steps too it leaves cores idle."""


@dataclass(frozen=True)
class Budget:
    """The time that some steps may take by themselves, on two cores."""

    steps: tuple[str, ...]
    seconds: int


BUDGETS = {
    "fast": Budget(("sqlite", "postgresql", "coverage"), 360),
    "fuzz": Budget(("fuzz",), 120),
    "simulation": Budget(("simulation",), 120),
    "guests": Budget(("real", "conformance"), 420),
    "rest": Budget(("ruff", "mypy", "imports", "host", "drivers"), 180),
}
"""Groups of steps, 20 minutes if one came after another: whoever adds to one that is over takes as much away."""

WHOLE = 860
"""Seconds that all of them may take side by side: with the making of the environment, a quarter of an hour."""

NO_TESTS = 5
"""pytest's exit status when it found or selected nothing."""

RETRIED = 3
"""How many failed tests of a step are run once more: on a busy machine time runs out now and then. They are named."""

Outcome = Literal["passed", "failed", "nothing ran", "not run"]


@dataclass(kw_only=True)
class Result:
    """How a step ended."""

    step: str
    outcome: Outcome
    seconds: float
    tests: int = 0
    """Tests that ran: neither deselected nor skipped."""
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One run of the suite: where, and which tests."""

    root: Path
    expression: str | None
    progress: Progress
    exercised: Path
    """Where the tests on SQLite note which operations succeeded."""
    long: bool = False
    """Whether generated tests try as much as they can."""
    beside: bool = False
    """Whether other steps run at the same time: then what a program says is shown in one piece when it has ended."""

    def abreast(self, step: str) -> int:
        """How many tests of a step run side by side: tests wait, and leave cores idle that no other step takes."""
        return (os.cpu_count() or 1) * (1 if self.beside and step != WAITING else 2)

    def command(self, step: str, command: Sequence[str], environment: dict[str, str] | None = None) -> Result:
        """Run one program of a step; its output is the user's."""
        title = f"\n── {step}: {' '.join(command)}"
        self.progress.line(f"  … {step}" if self.beside else title)
        started = time.monotonic()
        # Without compiled modules each of hundreds of processes would compile for itself.
        own = (DATABASE_VARIABLE, EXERCISED_VARIABLE, LONG_VARIABLE, "PYTHONDONTWRITEBYTECODE")
        variables = {name: value for name, value in os.environ.items() if name not in own}
        done = subprocess.run(
            command,
            check=False,
            cwd=self.root,
            env={**variables, **(environment or {})},
            stdout=subprocess.PIPE if self.beside else None,
            stderr=subprocess.STDOUT if self.beside else None,
            encoding="utf-8",
            errors="replace",
        )
        if self.beside:
            self.progress.line(f"{title}\n{done.stdout}")
        outcome: Outcome = "passed" if done.returncode == 0 else "failed"
        if done.returncode == NO_TESTS:
            outcome = "nothing ran"
        return Result(step=step, outcome=outcome, seconds=time.monotonic() - started)

    def tool(self, step: str, *commands: Sequence[str]) -> Result:
        """Run the checkers of a step; it passes when all of them do."""
        results = [self.command(step, [str(_program(name)), *arguments]) for name, *arguments in commands]
        outcome: Outcome = "passed" if all(result.outcome == "passed" for result in results) else "failed"
        return Result(step=step, outcome=outcome, seconds=sum(result.seconds for result in results))

    def tests(
        self, step: str, marks: str, *arguments: str, spread: Sequence[str] = (), database: str | None = None
    ) -> Result:
        """Run pytest, and count what really ran; tests run side by side where `spread` says how they are dealt out.

        Tests without guests have their files in memory where there is room: half of their time went by in waiting for
        a disk.
        """
        from pileus.cli.postgresql import spacious_memory

        memory = spacious_memory() if step in QUICK_STEPS else None
        with tempfile.TemporaryDirectory(prefix="pileus-test-", dir=memory) as directory:
            report = Path(directory) / "report.xml"
            environment = {DATABASE_VARIABLE: database} if database else {}
            if step == "sqlite":  # what generated requests reach is not the same on every day
                environment[EXERCISED_VARIABLE] = str(self.exercised)
            if self.long:
                environment[LONG_VARIABLE] = "1"
            places = [f"--junitxml={report}", f"--basetemp={directory}/t", "-o", f"cache_dir={directory}/cache"]
            places += ["-o", "tmp_path_retention_policy=failed"]  # all files of all tests are 4 GiB
            dealt = [*spread, "-n", str(self.abreast(step))] if spread else []
            command = [sys.executable, "-m", "pytest", "-m", marks, *dealt, *arguments, *places]
            if self.expression:
                command += ["-k", self.expression]
            result = self.command(step, command, environment)
            result.tests, lost = _read(report)
            if result.outcome == "failed" and 0 < len(lost) <= RETRIED:
                again = self.command(step, [*command, "--last-failed"], environment)
                if again.outcome == "passed":
                    result.outcome = "passed"
                    result.reason = f", of which only at the second try: {', '.join(lost)}"
        if result.outcome == "passed" and not result.tests:
            result.outcome = "nothing ran"
        return result

    def ruff(self) -> Result:
        """Lint, and the formatter's opinion."""
        return self.tool("ruff", ["ruff", "check", "."], ["ruff", "format", "--check", "."])

    def mypy(self) -> Result:
        """Strict types of package and tests."""
        return self.tool("mypy", ["mypy"])

    def imports(self) -> Result:
        """Who may import whom."""
        return self.tool("imports", ["lint-imports"])

    def sqlite(self) -> Result:
        """Rules, loops and the API."""
        ignored = [f"--ignore=tests/{room}" for room in HOST_ROOMS]
        return self.tests("sqlite", QUICK, *ignored, spread=IN_ORDER)

    def host(self) -> Result:
        """Processes, the agent, and drivers as far as they need no root: most of the time they wait."""
        folders = (f"tests/{room}" for room in HOST_ROOMS)
        return self.tests("host", QUICK, *folders, spread=IN_ORDER)

    def fuzz(self) -> Result:
        """Generated requests to every operation, each on both databases where there is PostgreSQL."""
        result = self._on_postgresql("fuzz", "fuzz", "tests/api", spread=SPREAD)
        return self.tests("fuzz", "fuzz", "tests/api", spread=SPREAD) if result.outcome == "not run" else result

    def simulation(self) -> Result:
        """Seeded clouds."""
        return self.tests("simulation", "simulation", "tests/sim", spread=SPREAD)

    def coverage(self) -> Result:
        """What the tests on SQLite exercised, beside the page that says so."""
        started = time.monotonic()
        if self.expression or not self.exercised.is_file():
            reason = "needs all tests of the step sqlite"
            return Result(step="coverage", outcome="not run", seconds=0, reason=reason)
        command = [sys.executable, "-m", "bench.coverage", str(self.exercised)]
        made = subprocess.run(command, check=False, cwd=self.root, stdout=subprocess.PIPE, text=True)
        page = self.root / "docs" / "coverage.md"
        same = made.returncode == 0 and page.is_file() and page.read_text(encoding="utf-8") == made.stdout
        if made.returncode == 0 and not same:
            page.write_text(made.stdout, encoding="utf-8")
            self.progress.line(f"{page} was not what the tests did; it is now: read its change, and commit it")
        return Result(step="coverage", outcome="passed" if same else "failed", seconds=time.monotonic() - started)

    def postgresql(self) -> Result:
        """The same on PostgreSQL, without the tests that know no database, and those in which it decides nothing."""
        without = (*HOST_ROOMS, "sim", "api/test_policy_matrix.py", "api/test_transcript.py")
        ignored = [f"--ignore=tests/{room}" for room in without]
        return self._on_postgresql("postgresql", QUICK, *ignored, spread=IN_ORDER)

    def _on_postgresql(self, step: str, marks: str, *arguments: str, spread: Sequence[str]) -> Result:
        """Run pytest on a real server, which is started for it and ended."""
        from pileus.cli.postgresql import server

        if missing := package.missing(package.SUITE):
            return Result(step=step, outcome="not run", seconds=0, reason=f"needs {' '.join(missing)}")
        started = time.monotonic()
        try:
            with server() as url:
                result = self.tests(step, marks, *arguments, spread=spread, database=url)
        except CommandFailure as failure:
            self.progress.line(f"{step}: {failure}")
            result = Result(step=step, outcome="failed", seconds=0, reason="the server did not start")
        result.seconds = time.monotonic() - started
        return result

    def drivers(self) -> Result:
        """What drivers do to this host's kernel."""
        return self._privileged("drivers", "tests/drivers")

    def real(self) -> Result:
        """Real clouds with real guests."""
        return self._privileged("real", "tests", "--ignore=tests/drivers", spread=BY_FILE)

    def conformance(self) -> Result:
        """What passed of upstream's tests, and must go on passing; the run installs what it needs."""
        if os.geteuid() != 0:
            return Result(step="conformance", outcome="not run", seconds=0, reason="needs root")
        if self.expression:
            return Result(step="conformance", outcome="nothing ran", seconds=0)
        result = self.command("conformance", [str(self.root / "conformance" / "run"), "subset"])
        lines = (self.root / "conformance" / "subset.txt").read_text(encoding="utf-8").splitlines()
        result.tests = sum(not line.startswith("#") for line in lines) if result.outcome == "passed" else 0
        return result

    def _privileged(self, step: str, *arguments: str, spread: Sequence[str] = ()) -> Result:
        if os.geteuid() != 0:
            return Result(step=step, outcome="not run", seconds=0, reason="needs root")
        if missing := package.missing(package.RUNTIME):
            return Result(step=step, outcome="not run", seconds=0, reason=f"needs {' '.join(missing)}")
        return self.tests(step, "real", *arguments, spread=spread)


STEPS: dict[str, Callable[[Suite], Result]] = {
    "ruff": Suite.ruff,
    "mypy": Suite.mypy,
    "imports": Suite.imports,
    "sqlite": Suite.sqlite,
    "postgresql": Suite.postgresql,
    "coverage": Suite.coverage,
    "fuzz": Suite.fuzz,
    "simulation": Suite.simulation,
    "host": Suite.host,
    "drivers": Suite.drivers,
    "real": Suite.real,
    "conformance": Suite.conformance,
}

PRIVILEGED = ("drivers", "real", "conformance")
"""Steps that run beside all others, one after another: half of their time they wait for guests and for the kernel."""

SLOW = ("real", "conformance")
"""Steps that `--fast` leaves out."""


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "test",
        help="run the whole suite of a checkout, installing what it needs",
        description="Runs the whole suite: linters, types, import contracts, tests on SQLite and on PostgreSQL, "
        "drivers, real clouds and conformance. As root on Debian and Ubuntu it installs what is missing.",
    )
    parts = {**STEPS, **BUDGETS}
    parser.add_argument("--only", action="append", choices=parts, metavar="PART", help=f"one of {', '.join(parts)}")
    parser.add_argument("-k", dest="expression", metavar="EXPR", help="only tests that match, in pytest's syntax")
    parser.add_argument("--fast", action="store_true", help="leave out the steps real and conformance")
    parser.add_argument("--long", action="store_true", help="let generated tests try many times as much")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, roles: Roles) -> int:
    """Run the command; exit status."""
    root = Path(pileus.__file__).resolve().parents[2]
    if not (root / "tests").is_dir() or not (root / "pyproject.toml").is_file():
        raise CommandFailure("the suite is part of a checkout, and this is an installed package", status=69)
    steps = _chosen(arguments.only or STEPS, fast=arguments.fast)
    progress = Progress(sys.stdout)
    _install(steps, progress)
    with tempfile.TemporaryDirectory(prefix="pileus-test-") as directory:
        exercised = Path(directory) / "exercised"
        lanes = [[name for name in steps if (name in PRIVILEGED) == privileged] for privileged in (False, True)]
        suite = Suite(
            root=root,
            expression=arguments.expression,
            progress=progress,
            exercised=exercised,
            long=arguments.long,
            beside=all(lanes),
        )
        started = time.monotonic()
        results = _run(suite, lanes)
    failures = verdict(results, partly=bool(arguments.expression), strict=os.environ.get("CI") == "true")
    seconds = time.monotonic() - started
    summarize(results, failures, progress, seconds, 0 if arguments.long else _budget(steps))
    return 1 if failures else 0


def _chosen(names: Iterable[str], *, fast: bool) -> list[str]:
    """The steps that these steps and groups are, in their order."""
    wanted = {step for name in names for step in (BUDGETS[name].steps if name in BUDGETS else (name,))}
    return [name for name in STEPS if name in wanted and not (fast and name in SLOW)]


def _budget(steps: Sequence[str]) -> int:
    """The seconds that these steps may take: what their groups may together; 0 if they are not whole groups."""
    if set(steps) == set(STEPS):
        return WHOLE
    groups = [budget for budget in BUDGETS.values() if set(budget.steps) <= set(steps)]
    whole = sum(len(budget.steps) for budget in groups) == len(steps)
    return sum(budget.seconds for budget in groups) if whole else 0


def _run(suite: Suite, lanes: Sequence[Sequence[str]]) -> list[Result]:
    """Run the steps of each lane in order, the lanes side by side; the results in the order of STEPS."""
    ended = threading.Event()

    def follow(lane: Sequence[str]) -> list[Result]:
        return [STEPS[name](suite) for name in lane if not ended.is_set()]

    with ThreadPoolExecutor(len(lanes)) as pool:
        running = [pool.submit(follow, lane) for lane in lanes]
        try:
            results = [result for lane in running for result in lane.result()]
        except BaseException:  # an interrupt ends the programs that run; no more shall begin
            ended.set()
            raise
    return sorted(results, key=lambda result: list(STEPS).index(result.step))


def verdict(results: Sequence[Result], *, partly: bool, strict: bool) -> list[str]:
    """Why the run as a whole failed; empty when it did not.

    `partly` says that tests were selected by an expression, so that a step may be left without any; `strict`, that
    nothing may be left out.
    """
    failures = [f"{result.step} failed" for result in results if result.outcome == "failed"]
    if strict:
        failures += [f"{result.step} did not run: {result.reason}" for result in results if result.outcome == "not run"]
    empty = [result.step for result in results if result.outcome == "nothing ran"]
    if not partly:
        failures += [f"{step} ran no test" for step in empty]
    elif empty and not any(result.tests for result in results):
        failures.append("no test ran")
    return failures


def summarize(
    results: Sequence[Result], failures: Sequence[str], progress: Progress, seconds: float, budget: int
) -> None:
    """Print one line for each step, and the verdict with the seconds that all took together.

    What took longer than `budget` seconds is said to; 0 for no budget.  It is no failure: the machine may be busy.
    """
    progress.line("\n── summary")
    for result in results:
        tests = f"{result.tests} tests" if result.tests else ""
        progress.line(f"{result.step:<11} {result.outcome:<12} {result.seconds:7.1f} s  {tests}{result.reason}")
    total = sum(result.tests for result in results)
    ending = f"FAILED: {'; '.join(failures)}" if failures else "passed"
    over = "over the" if seconds > budget else "of a"
    limit = f", {over} budget of {budget} s" if budget else ""
    progress.line(f"suite {ending} ({total} tests, {seconds:.1f} s{limit})")


def _install(steps: Sequence[str], progress: Progress) -> None:
    """Install the packages that the steps need; what cannot be installed is left for the steps to report."""
    wanted: list[str] = []
    if {"drivers", "real"} & set(steps):
        wanted += package.missing(package.RUNTIME)
    if "real" in steps:
        from pileus.cli.image import missing_packages

        wanted += missing_packages()
    if {"postgresql", "fuzz"} & set(steps):
        wanted += package.missing(package.SUITE)
    if wanted and package.can_install():
        with progress.step("system packages") as step:
            package.install(sorted(set(wanted)), step.say)
            step.result(" ".join(sorted(set(wanted))))


def _program(name: str) -> Path:
    """A program of the virtual environment that runs this."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise CommandFailure(f"{name} is not in {path.parent}; `./pileus test` installs it")
    return path


def _read(report: Path) -> tuple[int, list[str]]:
    """Of pytest's JUnit report: how many tests ran, and the names of those that failed.

    None did when pytest did not come to write it.
    """
    if not report.is_file():
        return 0, []
    root = ElementTree.parse(report).getroot()  # noqa: S314  # written by our own child
    ran = sum(int(suite.get("tests", 0)) - int(suite.get("skipped", 0)) for suite in root.iter("testsuite"))
    lost = [
        case for case in root.iter("testcase") if case.find("failure") is not None or case.find("error") is not None
    ]
    return ran, [f"{case.get('classname')}::{case.get('name')}" for case in lost]
