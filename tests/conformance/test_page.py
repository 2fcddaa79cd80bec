"""The page says what is kept."""

from __future__ import annotations

from pathlib import Path

from conformance import outcome, page
from conformance.area import AREAS
from conformance.outcome import Measure, Outcome


def test_the_page_is_current() -> None:
    hint = ".venv/bin/python -m conformance.page"
    assert page.PAGE.read_text(encoding="utf-8") == page.render(), hint


def test_rows_count_what_is_listed(tmp_path: Path) -> None:
    tests = AREAS["tempest-identity"].tests()
    measure = Measure(area="tempest-identity", revision="1234567", partly="7654321+")
    measure.outcomes = {test: Outcome(result="passed") for test in tests[:100]}
    measure.outcomes |= {
        tests[100]: Outcome(result="skipped", reason="Skipped until bug: 1"),
        tests[101]: Outcome(result="failed", reason="a | b"),
    }
    outcome.save(measure, tmp_path)
    text = page.render(tmp_path)
    assert "| tempest-identity | 138 | 100 | 72.5 % | 1 | 1 | 36 | 137 | 1234567, in part 7654321+ |" in text
    assert "| tempest-image | 102 | 0 | 0.0 % | 0 | 0 | 102 | 102 | never |" in text
    assert f"- Tempest skips it: Skipped until bug: 1: 1: `{'.'.join(tests[100].split('.')[-2:])}`" in text
    assert f"| 1 | failed | a \\| b | `{'.'.join(tests[101].split('.')[-2:])}` |" in text
