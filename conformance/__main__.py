"""`conformance/run SUITE [--ids FILE]`: measure a Pileus of its own."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from conformance import cloud, content, environment, outcome, page
from conformance.area import AREAS, HOME, read
from conformance.disk import manifest
from conformance.stream import Report
from conformance.tempest import CONFIGURATIONS, TempestFailure, Workspace

SUBSET = HOME / "subset.txt"
"""The tests that continuous integration runs: few minutes, no guest, all of them pass."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="conformance/run",
        description="Starts a Pileus in a network namespace of its own, runs upstream's tests against it, keeps the "
        "outcomes in conformance/results and writes docs/conformance.md. Needs root.",
    )
    parser.add_argument(
        "suite",
        metavar="SUITE",
        choices=(*AREAS, "all", "subset"),
        help=f"an area ({', '.join(AREAS)}), `all`, or `subset`: what must pass, which writes nothing",
    )
    parser.add_argument("--ids", type=Path, metavar="FILE", help="only the tests that this list names")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="tests at once (default: %(default)s)")
    parser.add_argument(
        "--work", type=lambda text: Path(text).absolute(), default=cloud.WORK, metavar="DIR",
        help="where the cloud lives, and what Tempest logs stays (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def chosen(suite: str, ids: Path | None) -> tuple[str, ...]:
    """The tests to run, by base name, each once."""
    if suite == "subset":
        tests = read(SUBSET)
    else:
        areas = AREAS.values() if suite == "all" else [AREAS[suite]]
        tests = tuple(dict.fromkeys(test for area in areas for test in area.tests()))
    if ids is None:
        return tests
    named = set(read(ids))
    return tuple(test for test in tests if test in named)


class Listener:
    """Prints a line for each test, and remembers."""

    def __init__(self, total: int) -> None:
        self.reports: list[Report] = []
        self._total = total

    def __call__(self, report: Report) -> None:
        """Hear how a test ended."""
        self.reports.append(report)
        reason = outcome.why(report.reason) if report.status != "success" else ""
        line = f"{len(self.reports):>5}/{self._total} {report.seconds:7.1f} s {report.status:<8} {report.test}"
        print(f"{line}  {reason}" if reason else line, flush=True)


def measure(arguments: argparse.Namespace) -> int:
    """Run the tests inside the namespace, and keep what became of them; exit status."""
    work: Path = arguments.work
    wanted = chosen(arguments.suite, arguments.ids)
    found: dict[str, outcome.Outcome] = {}
    revision = cloud.revision()
    images = work / cloud.STATE / "images"
    with cloud.cloud(work) as auth, content.origin(images) as origin:
        disk = images / "tiny.qcow2"
        made = content.make(cloud.connect(auth), disk)
        names = {**made.names(), **auth, "origin": origin, "disk": str(disk)}
        names["manifest"] = str(manifest(work / "disks"))
        for template in CONFIGURATIONS:
            tests = [test for test in wanted if test not in found or found[test].result == outcome.SKIPPED]
            if not tests:
                break
            workspace = Workspace(place=work / Path(template).stem)
            workspace.make(template, names)
            known = workspace.known()
            listener = Listener(len(tests))
            workspace.run([one for test in tests for one in known.get(test, ())], arguments.workers, listener)
            outcomes, trailing = outcome.fold(tests, listener.reports)
            outcomes |= {test: outcome.NOT_INSTALLED for test in tests if test not in known}
            found = outcome.merge(found, outcomes)
            for line in trailing:
                print(f"after its tests, {line}")
    return conclude(arguments.suite, found, revision)


def conclude(suite: str, found: dict[str, outcome.Outcome], revision: str) -> int:
    """Keep and print; for the subset compare with what is kept instead; exit status."""
    counts = {result: sum(one.result == result for one in found.values()) for result in ("passed", "failed", "skipped")}
    absent = len(found) - sum(counts.values())
    print(f"{len(found)} listed: {', '.join(f'{n} {result}' for result, n in counts.items())}, {absent} absent")
    if suite == "subset":
        lost = {test: one for test, one in found.items() if one.result != outcome.PASSED}
        for test, one in lost.items():
            print(f"REGRESSION {test}: {one.result} {one.reason}")
        return 1 if lost or not found else 0
    for area in AREAS.values():
        tests = [test for test in area.tests() if test in found]
        if not tests:
            continue
        kept = outcome.load(area.name)
        for test, one in outcome.regressions(kept, {test: found[test] for test in tests}).items():
            print(f"passed before: {test}: {one.result} {one.reason}")
        listed = area.tests()
        if len(tests) == len(listed):
            kept.revision, kept.partly = revision, ""
        else:
            kept.partly = revision
        kept.configurations = list(CONFIGURATIONS)
        kept.outcomes = {test: found.get(test, kept.of(test)) for test in listed}
        outcome.save(kept)
    page.PAGE.write_text(page.render(), encoding="utf-8")
    return 0


def main() -> int:
    """Run the command; exit status."""
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if arguments.inside:
            return measure(arguments)
        if os.geteuid() != 0 or shutil.which("ip") is None:
            print("conformance/run: needs root, and the program ip", file=sys.stderr)
            return 69
        environment.ready()
        cloud.prepare(arguments.work)
        name = f"pileus-conformance-{os.getpid()}"
        with cloud.namespace(name):
            command = ["ip", "netns", "exec", name, sys.executable, "-P", "-m", "conformance", arguments.suite]
            command += ["--inside", f"--work={arguments.work}", f"--workers={arguments.workers}"]
            if arguments.ids is not None:
                ids = arguments.work / "ids.txt"
                ids.write_text("\n".join(read(arguments.ids)), encoding="utf-8")
                command.append(f"--ids={ids}")
            return subprocess.run(command, check=False).returncode
    except (cloud.CloudFailure, environment.EnvironmentFailure, TempestFailure) as failure:
        print(f"conformance/run: {failure}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    began = time.monotonic()
    status = main()
    print(f"conformance/run: {time.monotonic() - began:.0f} s", file=sys.stderr)
    sys.exit(status)
