from __future__ import annotations

import io

import pytest

from pileus.cli.progress import CLEAR_LINE, Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_elsewhere() -> None:
    stream = io.StringIO()
    with Progress(stream).step("image") as step:
        step.say("kernel")
        step.result("17 MiB")
    assert stream.getvalue() == "  … image\n  ✓ image  17 MiB  0.0 s\n"


def test_one_line_on_a_terminal() -> None:
    stream = Terminal()
    with Progress(stream).step("image") as step:
        step.say("kernel")
    shown = stream.getvalue()
    assert shown.count("\n") == 1
    assert shown.split(CLEAR_LINE)[-1] == "  ✓ image  0.0 s\n"
    assert "  … image  kernel" in shown


def test_a_failure_is_shown_and_raised_on() -> None:
    stream = io.StringIO()
    with pytest.raises(OSError, match="disk"), Progress(stream).step("image"):
        raise OSError("disk full")
    assert stream.getvalue().endswith("  ✗ image  failed after 0.0 s\n")
