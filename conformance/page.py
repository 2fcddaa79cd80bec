"""Writes docs/conformance.md from what is kept of each area.

.venv/bin/python -m conformance.page
"""

from __future__ import annotations

from pathlib import Path

from conformance import ceiling, outcome
from conformance.area import AREAS, HOME, Area

PAGE = HOME.parent / "docs" / "conformance.md"

NAMED = 6
"""How many tests a line names before it says how many more there are."""

HEAD = """# Conformance

Upstream's own acceptance tests, run against a Pileus as it is shipped: Tempest 47.0.0, keystone-tempest-plugin 0.22.0
and glance-tempest-plugin 0.17.0. `conformance/run SUITE` measures, `conformance/results` keeps the outcome of each
test, and this page is made from there (`.venv/bin/python -m conformance.page`).

The lists of tests are frozen (`conformance/lists`), and what counts is **passed ÷ listed**: a test that was skipped,
failed or is absent is not passed, whoever is to blame. The ceiling is what could pass at all: it leaves out the tests
that Tempest itself skips whatever the cloud can do, those of services that Pileus does not have, and those that need a
second host, since the measured cloud has one; all are named below. The last column names the revision of Pileus that
was measured.
"""


def render(folder: Path = outcome.RESULTS) -> str:
    """The page."""
    measures = {name: outcome.load(name, folder) for name in AREAS}
    lines = [HEAD, "## The table", ""]
    lines += ["| area | listed | passed | | failed | skipped | absent | ceiling | measured |"]
    lines += ["|---|--:|--:|--:|--:|--:|--:|--:|---|"]
    for area in AREAS.values():
        kept = measures[area.name]
        measured = kept.revision or "never"
        measured += f", in part {kept.partly}" if kept.partly else ""
        lines.append(_row(area.name, area.tests(), kept, measured))
        lines += [_row(f"· {part.replace('_', '-')}", area.part(part), kept, "") for part in area.parts]
    lines += ["", "## What lies above the ceiling", ""]
    for area in AREAS.values():
        lines += _above(area, measures[area.name])
    lines += ["## What did not pass", ""]
    for area in AREAS.values():
        lines += _rest(area, measures[area.name])
    return "\n".join(lines).rstrip() + "\n"


def _row(name: str, tests: tuple[str, ...], kept: outcome.Measure, revision: str) -> str:
    passed = kept.count(outcome.PASSED, tests)
    cells = [name, len(tests), passed, f"{100 * passed / len(tests):.1f} %"]
    cells += [kept.count(result, tests) for result in (outcome.FAILED, outcome.SKIPPED, outcome.ABSENT)]
    cells += [len(tests) - len(ceiling.above(kept, tests)), revision]
    return f"| {' | '.join(map(str, cells))} |"


def _above(area: Area, kept: outcome.Measure) -> list[str]:
    groups: dict[str, list[str]] = {}
    for test, reason in ceiling.above(kept, area.tests()).items():
        groups.setdefault(reason, []).append(test)
    if not groups:
        return []
    lines = [f"### {area.name}", ""]
    for reason, tests in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        whole = len(tests) == len(area.tests())
        named = f"all {len(tests)}" if whole else f"{len(tests)}: {', '.join(_by_class(tests))}"
        lines.append(f"- {reason}: {named}")
    return [*lines, ""]


def _rest(area: Area, kept: outcome.Measure) -> list[str]:
    out = ceiling.above(kept, area.tests())
    groups: dict[tuple[str, str], list[str]] = {}
    for test in area.tests():
        one = kept.of(test)
        if one.result != outcome.PASSED and test not in out:
            groups.setdefault((one.result, one.reason), []).append(test)
    if not groups:
        return []
    lines = [f"### {area.name}", "", "| tests | | why | which |", "|--:|---|---|---|"]
    for (result, reason), tests in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        names = _by_class(tests)
        named = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
        lines.append(f"| {len(tests)} | {result} | {_cell(reason)} | {named} |")
    return [*lines, ""]


def _by_class(tests: list[str]) -> list[str]:
    """`Class.test` for each."""
    return [f"`{'.'.join(test.split('.')[-2:])}`" for test in tests]


def _cell(text: str) -> str:
    """A text that may stand in a table and is taken literally."""
    for sign in "\\|`*_<>[]{}":
        text = text.replace(sign, f"\\{sign}")
    return text


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
