"""What is counted as passed, and what is kept of it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from conformance import ceiling, outcome
from conformance.area import AREAS, base, read
from conformance.outcome import Measure, Outcome
from conformance.stream import Report, reports

RECORDED = Path(__file__).with_name("recorded.subunit")
HOME = "sample.test_server"
FRAME = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n'


def recorded(*tests: str) -> tuple[dict[str, Outcome], list[str]]:
    wanted = [f"{HOME}.{test}" for test in tests]
    found, trailing = outcome.fold(wanted, reports(io.BytesIO(RECORDED.read_bytes())))
    return {test.removeprefix(f"{HOME}."): one for test, one in found.items()}, trailing


def result(*tests: str) -> list[str]:
    return [one.result for one in recorded(*tests)[0].values()]


def test_ids_are_compared_by_their_base() -> None:
    assert base("a.B.test_c[id-1,smoke]") == base("a.B.test_c(qcow2)") == base("a.B.test_c[id-1](raw)") == "a.B.test_c"


def test_success_failure_and_skip() -> None:
    assert result("ServerTest.test_create", "ServerTest.test_delete", "ServerTest.test_resize") == [
        "passed",
        "failed",
        "skipped",
    ]


def test_a_test_of_which_nothing_was_heard_is_absent() -> None:
    assert result("ServerTest.test_migrate") == ["absent"]


def test_scenarios_pass_when_one_does_and_none_fails() -> None:
    assert result("FormatTest.test_download", "FormatTest.test_upload") == ["passed", "failed"]


def test_a_class_that_was_not_prepared_takes_its_tests_with_it() -> None:
    found, _ = recorded("VolumeTest.test_attach", "NetworkTest.test_attach")
    assert found == {
        "VolumeTest.test_attach": Outcome(result="skipped", reason="VolumeTest skipped as Cinder is not available"),
        "NetworkTest.test_attach": Outcome(result="failed", reason="RuntimeError: no network"),
    }


def test_what_fails_after_the_tests_is_told_beside_them() -> None:
    found, trailing = recorded("ImageTest.test_list")
    assert found["ImageTest.test_list"].result == "passed"
    assert trailing == [f"{HOME}.ImageTest: RuntimeError: an image is left"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Resize is not available.", "Resize is not available."),
        (
            f"{FRAME}    raise X\ntempest.lib.exceptions.NotFound: Object not found\nDetails: {{'code': 404}}\n",
            "NotFound: Object not found Details: {'code': 404}",
        ),
        (
            f"{FRAME}    g()\nKeyError: 1\n\nDuring that, another:\n\n{FRAME}    raise Y\nLookupError: two\n",
            "LookupError: two",
        ),
        (
            "Marked as unstable and skipped because of bug: https://x/1, failure was: Skipped because so.",
            "Skipped because so.",
        ),
        (
            "Marked as unstable and skipped because of bug: https://x/1, failure was: Timed out",
            "Marked as unstable and skipped because of bug: https://x/1, failure was: Timed out",
        ),
        ("server 6f70656e-7374-4163-6b00-000000000001 at 2031-01-02T03:04:05Z", "server … at …"),
    ],
)
def test_reasons_are_one_line_that_is_the_same_tomorrow(text: str, line: str) -> None:
    assert outcome.why(text) == line


def test_a_reason_has_an_end() -> None:
    assert len(outcome.why("word " * 1000)) == outcome.REASON_LENGTH


def test_a_test_passes_if_it_passes_in_either_configuration() -> None:
    first = {
        "a": Outcome(result="passed"),
        "b": Outcome(result="skipped", reason="off"),
        "c": Outcome(result="skipped"),
    }
    second = {"b": Outcome(result="passed"), "c": Outcome(result="failed", reason="no")}
    assert outcome.merge(first, second) == {**first, "b": Outcome(result="passed")}


def test_what_is_kept_is_what_was_measured(tmp_path: Path) -> None:
    measure = Measure(area="smoke", revision="1234567", partly="7654321+", configurations=["tempest.conf"])
    measure.outcomes = {
        "a.B.test_one": Outcome(result="passed"),
        "a.B.test_two": Outcome(result="failed", reason="KeyError: 'x'"),
        "a.B.test_three": Outcome(result="failed", reason="KeyError: 'x'"),
        "a.C.test_four": Outcome(result="skipped", reason="not available"),
        "a.C.test_five": Outcome(result="absent", reason="no result"),
    }
    outcome.save(measure, tmp_path)
    assert outcome.load("smoke", tmp_path) == measure


def test_an_area_that_was_never_measured_has_passed_nothing(tmp_path: Path) -> None:
    kept = outcome.load("smoke", tmp_path)
    assert kept.count("passed", AREAS["smoke"].tests()) == 0
    assert kept.count("absent", AREAS["smoke"].tests()) == len(AREAS["smoke"].tests())


def test_a_regression_is_what_passed_and_does_not() -> None:
    kept = Measure(area="smoke", outcomes={"a": Outcome(result="passed"), "b": Outcome(result="failed")})
    lost = Outcome(result="skipped", reason="off")
    assert outcome.regressions(kept, {"a": lost, "b": lost, "c": lost}) == {"a": lost}


@pytest.mark.parametrize(
    ("status", "reason", "above"),
    [
        ("skip", "VolumeTest skipped as Cinder is not available", "needs Block Storage"),
        ("skip", "ObjectTest skipped as swift is not available", "needs Object Storage"),
        ("skip", "Horizon support is required", "needs the dashboard"),
        ("skip", "Volume service not enabled.", "needs Block Storage"),
        ("skip", "Less than 2 compute nodes, skipping multinode tests.", "needs a second host"),
        (
            "skip",
            "Skipped until bug: https://launchpad.net/bugs/1 is resolved.",
            "Tempest skips it: Skipped until bug: https://launchpad.net/bugs/1 is resolved.",
        ),
        (
            "skip",
            "Skipping identity:x test for system user",
            "Tempest skips it: Skipping identity:x test for system user",
        ),
        ("skip", "nova-network is not available.", "Tempest skips it: nova-network is not available."),
        ("skip", "The microversion range[3.27 - latest] is out of [None - None].", "needs Block Storage"),
        ("skip", "Resize is not available.", None),
        ("skip", "Security compliance not available.", None),
        ("fail", "Cinder is not available", None),
    ],
)
def test_only_what_cannot_pass_lies_above_the_ceiling(status: str, reason: str, above: str | None) -> None:
    outcomes, _ = outcome.fold(["a.B.test"], [Report(test="a.B.test", status=status, seconds=0, reason=reason)])
    found = ceiling.above(Measure(area="smoke", outcomes=outcomes), ["a.B.test"])
    assert found == ({"a.B.test": above} if above else {})


def test_what_is_not_installed_lies_above_the_ceiling() -> None:
    outcomes = {"a": outcome.NOT_INSTALLED, "b": Outcome(result="absent", reason="no result")}
    assert list(ceiling.above(Measure(area="smoke", outcomes=outcomes), ["a", "b", "c"])) == ["a"]


def test_areas_and_their_parts() -> None:
    interop = AREAS["interop"]
    parts = {name: len(interop.part(name)) for name in interop.parts}
    assert parts["identity"] == 16
    assert parts["image"] == 23
    assert sum(parts.values()) == len(interop.tests()) == 336


def test_a_list_may_have_comments(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("# why\na.B.test_c[id-1]\n\na.B.test_c(x)\na.B.test_d\n")
    assert read(file) == ("a.B.test_c", "a.B.test_d")
