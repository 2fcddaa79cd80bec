"""The reader of test runners' streams, on a recorded one: a run of a small module by upstream's own runner."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from conformance.stream import Malformed, Report, packets, reports

RECORDED = Path(__file__).with_name("recorded.subunit")


@pytest.fixture
def heard() -> dict[str, Report]:
    return {report.test: report for report in reports(io.BytesIO(RECORDED.read_bytes()))}


def test_every_end_is_heard_once(heard: dict[str, Report]) -> None:
    assert {name.removeprefix("sample.test_server."): report.status for name, report in heard.items()} == {
        "FormatTest.test_download(qcow2)": "success",
        "FormatTest.test_download(vmdk)": "skip",
        "FormatTest.test_upload(qcow2)": "success",
        "FormatTest.test_upload(vmdk)": "fail",
        "ImageTest.test_list": "success",
        "tearDownClass (sample.test_server.ImageTest)": "fail",
        "setUpClass (sample.test_server.NetworkTest)": "fail",
        "ServerTest.test_cleanup[id-1,smoke]": "fail",
        "ServerTest.test_create[id-1,smoke]": "success",
        "ServerTest.test_delete[id-1,smoke]": "fail",
        "ServerTest.test_resize[id-1,smoke]": "skip",
        "setUpClass (sample.test_server.VolumeTest)": "skip",
    }


def test_the_reason_is_the_first_that_was_given(heard: dict[str, Report]) -> None:
    """A test whose clean-up fails as well failed because of what came first."""
    assert heard["sample.test_server.ServerTest.test_resize[id-1,smoke]"].reason == "Resize is not available."
    assert "1 != 2" in heard["sample.test_server.ServerTest.test_cleanup[id-1,smoke]"].reason
    assert "the second" not in heard["sample.test_server.ServerTest.test_cleanup[id-1,smoke]"].reason
    assert heard["sample.test_server.ServerTest.test_create[id-1,smoke]"].reason == ""


def test_time_is_measured(heard: dict[str, Report]) -> None:
    assert all(0 <= report.seconds < 10 for report in heard.values())
    assert any(report.seconds > 0 for report in heard.values())


def test_what_programs_print_between_packets_is_skipped() -> None:
    recorded = RECORDED.read_bytes()
    assert list(packets(io.BytesIO(b"hello\n" + recorded + b"bye\n"))) == list(packets(io.BytesIO(recorded)))


def test_a_stream_that_breaks_off_keeps_what_came_before() -> None:
    recorded = RECORDED.read_bytes()
    whole = list(reports(io.BytesIO(recorded)))
    for length in range(0, len(recorded), 97):
        part = list(reports(io.BytesIO(recorded[:length])))
        assert part == whole[: len(part)]


def test_a_changed_byte_is_noticed() -> None:
    recorded = bytearray(RECORDED.read_bytes())
    recorded[20] ^= 1
    with pytest.raises(Malformed):
        list(packets(io.BytesIO(bytes(recorded))))
