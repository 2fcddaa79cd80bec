"""What became of the tests of an area, and the file in which that is kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conformance.area import HOME, base
from conformance.stream import Report

RESULTS = HOME / "results"

PASSED, FAILED, SKIPPED, ABSENT = "passed", "failed", "skipped", "absent"
STRONGEST_LAST = (SKIPPED, PASSED, FAILED)
"""Of the scenarios of one test, the strongest outcome counts: it passed when one did and none failed."""

FIXTURE = re.compile(r"^(setUpClass|tearDownClass|setUpModule|tearDownModule) \((?P<owner>[\w.]+)\)")

REASON_LENGTH = 200
VARYING = (
    # Where a test that Tempest holds for unstable skips, it says so at length before it says why.
    (re.compile(r"^Marked as unstable\b.*?, failure was: (?=Skipped )"), ""),
    (re.compile(r"\b(tempest\.lib\.exceptions|testtools\.matchers\._impl|tempest\.exceptions)\."), ""),
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "…"),
    (re.compile(r"\breq-\S+"), "…"),
    (re.compile(r"\b[0-9a-f]{32,}\b"), "…"),
    (re.compile(r"tempest-[\w-]*-\d{5,}"), "tempest-…"),
    (re.compile(r"-\d{6,}\b"), "-…"),
    (re.compile(r"0x[0-9a-f]{6,}"), "0x…"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?"), "…"),
    (re.compile(r"/\S+/(pileus-conformance[\w-]*|site-packages)/"), "…/"),
    (re.compile(r"\s+"), " "),
)
"""What differs from run to run in a reason, and would make two equal failures look different."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one test ended."""

    result: str
    """`passed`, `failed`, `skipped` or `absent`."""
    reason: str = ""


NOT_INSTALLED = Outcome(result=ABSENT, reason="not among the tests that are installed")


@dataclass(kw_only=True)
class Measure:
    """The outcomes of the tests that an area lists."""

    area: str
    revision: str = ""
    """Of Pileus, when all of the area was last measured; `+` says that files differed from the commit."""
    partly: str = ""
    """Of Pileus, when a part of the area was measured after that; empty when none was."""
    configurations: list[str] = field(default_factory=list)
    """Tempest's, in the order in which they were tried."""
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def count(self, result: str, tests: Iterable[str] | None = None) -> int:
        """How many of the tests ended so."""
        chosen = self.outcomes if tests is None else tests
        return sum(self.of(test).result == result for test in chosen)

    def of(self, test: str) -> Outcome:
        """What became of a test; `absent` when nothing is known."""
        return self.outcomes.get(test, Outcome(result=ABSENT, reason="never run"))

    def with_result(self, result: str) -> dict[str, str]:
        """The tests that ended so, and why."""
        return {test: one.reason for test, one in sorted(self.outcomes.items()) if one.result == result}


def why(text: str) -> str:
    """One line that says why: a skip's reason, or what stands below the frames of the last traceback."""
    lines = text.strip().splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith("  ")]
    told = lines[frames[-1] + 1 :] if frames and frames[-1] + 1 < len(lines) else lines
    if frames and not told[0].startswith((" ", "Traceback")):
        # Details of an exception may be indented as well: begin at the exception's own line.
        starts = [number for number in frames if lines[number].lstrip().startswith("File ")]
        after = lines[starts[-1] + 1 :] if starts else told
        told = [line for line in after if not line.startswith("    ")] or told
    line = " ".join(told)
    for pattern, replacement in VARYING:
        line = pattern.sub(replacement, line)
    line = line.strip()
    return line if len(line) <= REASON_LENGTH else line[: REASON_LENGTH - 1] + "…"


def fold(wanted: Sequence[str], reports: Iterable[Report]) -> tuple[dict[str, Outcome], list[str]]:
    """Outcomes of the wanted tests, by base name, and beside them the fixtures that failed after their tests.

    A test that runs in several scenarios passed when one of them did and none failed. A class whose preparation failed
    or was skipped passes that on to its tests; a test of which nothing was heard is absent.
    """
    heard: dict[str, Outcome] = {}
    fixtures: dict[str, Outcome] = {}
    trailing: list[str] = []
    for report in reports:
        outcome = _outcome(report)
        match = FIXTURE.match(report.test)
        if match is None:
            name = base(report.test)
            known = heard.get(name)
            if known is None or STRONGEST_LAST.index(known.result) < STRONGEST_LAST.index(outcome.result):
                heard[name] = outcome
        elif match[1].startswith("setUp"):
            fixtures[match["owner"]] = outcome
        elif outcome.result == FAILED:
            trailing.append(f"{match['owner']}: {outcome.reason}")
    found = {}
    for test in wanted:
        owner = test.rpartition(".")[0]
        passed_on = fixtures.get(owner) or fixtures.get(owner.rpartition(".")[0])
        found[test] = heard.get(test) or passed_on or Outcome(result=ABSENT, reason="no result")
    return found, trailing


def _outcome(report: Report) -> Outcome:
    if report.status in ("success", "xfail"):
        return Outcome(result=PASSED)
    return Outcome(result=SKIPPED if report.status == "skip" else FAILED, reason=why(report.reason))


def merge(first: Mapping[str, Outcome], second: Mapping[str, Outcome]) -> dict[str, Outcome]:
    """What a test is worth that ran in two configurations: it passed if it passed in either."""
    return {**first, **{test: one for test, one in second.items() if one.result == PASSED or test not in first}}


def regressions(kept: Measure, now: Mapping[str, Outcome]) -> dict[str, Outcome]:
    """Tests that passed when the area was measured, and do not now."""
    return {test: one for test, one in now.items() if one.result != PASSED and kept.of(test).result == PASSED}


def load(area: str, folder: Path = RESULTS) -> Measure:
    """What is kept of an area; empty when it was never measured."""
    file = folder / f"{area}.json"
    measure = Measure(area=area)
    if not file.exists():
        return measure
    data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    measure.revision, measure.partly = data["revision"], data["partly"]
    measure.configurations = data["configurations"]
    for owner, tests in data[PASSED].items():
        measure.outcomes |= {f"{owner}.{test}": Outcome(result=PASSED) for test in tests}
    for result in (FAILED, SKIPPED, ABSENT):
        for owner, reasons in data[result].items():
            for reason, tests in reasons.items():
                measure.outcomes |= {f"{owner}.{test}": Outcome(result=result, reason=reason) for test in tests}
    return measure


def save(measure: Measure, folder: Path = RESULTS) -> Path:
    """Keep a measure; its file, in which tests are grouped by class and reason."""
    data: dict[str, Any] = {
        "area": measure.area,
        "revision": measure.revision,
        "partly": measure.partly,
        "configurations": measure.configurations,
        "listed": len(measure.outcomes),
        "counts": {result: measure.count(result) for result in (PASSED, FAILED, SKIPPED, ABSENT)},
        PASSED: {},
    }
    for test in measure.with_result(PASSED):
        owner, _, name = test.rpartition(".")
        data[PASSED].setdefault(owner, []).append(name)
    for result in (FAILED, SKIPPED, ABSENT):
        data[result] = {}
        for test, reason in measure.with_result(result).items():
            owner, _, name = test.rpartition(".")
            data[result].setdefault(owner, {}).setdefault(reason, []).append(name)
    folder.mkdir(exist_ok=True)
    file = folder / f"{measure.area}.json"
    file.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return file
