"""Denominators do not move, and the measure's own files are in order."""

from __future__ import annotations

import hashlib
import re

import pytest

from conformance import outcome
from conformance.area import AREAS, LISTS, base, read
from conformance.environment import REQUIREMENTS
from tests.tidy.tree import ROOT

TEST = re.compile(r"^[a-z]\w*(\.\w+)+(\([^()]+\))?(\[[\w,-]+\])?$")
OPERATION = re.compile(r"^[A-Z]+ /?\S+$")
ACTION = re.compile(r"^[\w:-]+$")
UNSORTED = {"interop-dns.txt", "interop-orchestration.txt"}
"""In the order of the guideline."""


def test_every_list_is_as_it_was_frozen() -> None:
    sums = dict(line.split()[::-1] for line in (LISTS / "SHA256SUMS").read_text(encoding="ascii").splitlines())
    files = {str(file.relative_to(LISTS)): file for file in LISTS.rglob("*.txt")}
    assert {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()} == sums


@pytest.mark.parametrize("name", sorted(file.name for file in LISTS.glob("*.txt")))
def test_lists_of_tests_parse_and_are_sorted(name: str) -> None:
    lines = (LISTS / name).read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not TEST.match(line)] == []
    assert len({base(line) for line in lines}) == len(lines)
    assert name in UNSORTED or lines == sorted(lines)


@pytest.mark.parametrize("name", sorted(file.name for file in (LISTS / "operations").glob("*.txt")))
def test_lists_of_operations_parse(name: str) -> None:
    pattern = ACTION if name.endswith("-actions.txt") else OPERATION
    lines = (LISTS / "operations" / name).read_text(encoding="utf-8").splitlines()
    assert lines
    assert [line for line in lines if not pattern.match(line)] == []
    assert len(set(lines)) == len(lines)


def test_every_list_is_an_area() -> None:
    assert {area.source for area in AREAS.values()} == {file.name for file in LISTS.glob("*.txt")}


def test_results_are_of_areas_and_of_their_tests() -> None:
    assert {file.stem for file in outcome.RESULTS.glob("*.json")} <= set(AREAS)
    for name, area in AREAS.items():
        assert set(outcome.load(name).outcomes) <= set(area.tests())


def test_the_subset_passes_in_what_was_measured() -> None:
    subset = read(LISTS.parent / "subset.txt")
    passed = {test for name in AREAS for test, one in outcome.load(name).outcomes.items() if one.result == "passed"}
    assert subset
    assert set(subset) - passed == set()


def test_every_pin_has_a_hash() -> None:
    text = re.sub(r"(?m)^\s*#.*\n", "", REQUIREMENTS.read_text(encoding="utf-8")).replace("\\\n", "")
    entries = text.strip().splitlines()
    assert len(entries) > 20
    assert [line for line in entries if not re.match(r"^[\w.-]+==\S+\s+--hash=sha256:", line)] == []
    asked = (ROOT / "conformance" / "requirements.in").read_text(encoding="utf-8")
    wanted = {line for line in asked.splitlines() if line and not line.startswith("#")}
    pinned = {entry.split()[0].replace("_", "-") for entry in entries}
    assert wanted <= pinned
