"""The log: one line for each event and each request, and nothing in it that is secret."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from pileus.core import log
from tests.tidy.tree import ROOT

PROGRAM = """
import logging, sys
from pileus.core import log
log.start("control", "INFO", ["pileus.quiet=ERROR", "pileus.chatty=DEBUG"])
log.request_id.set("req-1")
logging.getLogger("pileus.some").info("one\\nforged \\x1b[2J two")
logging.getLogger("pileus.some").debug("hidden")
logging.getLogger("pileus.quiet").warning("hidden")
logging.getLogger("pileus.chatty").debug("shown")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("pileus.some").exception("broken")
"""


def logged(**environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", environment.pop("prefix", "") + PROGRAM],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT / "src"), **environment},
    )
    return done.stderr.splitlines()


def test_lines_have_a_time_a_level_and_the_requests_id() -> None:
    lines = logged()
    began = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z control "
    assert re.fullmatch(began + r"INFO pileus\.some \[req-1\] one\\x0aforged \\x1b\[2J two", lines[0])
    assert re.fullmatch(began + r"DEBUG pileus\.chatty \[req-1\] shown", lines[1])
    assert re.fullmatch(began + r"ERROR pileus\.some \[req-1\] broken", lines[2])
    assert lines[3] == "Traceback (most recent call last):"
    assert lines[-1] == "ZeroDivisionError: division by zero"


def test_the_journal_gets_priorities_on_each_line_and_no_time() -> None:
    stream = "import os; found = os.fstat(2); os.environ['JOURNAL_STREAM'] = f'{found.st_dev}:{found.st_ino}'"
    lines = logged(prefix=stream)
    assert lines[0] == "<6>control pileus.some [req-1] one\\x0aforged \\x1b[2J two"
    assert lines[1] == "<7>control pileus.chatty [req-1] shown"
    assert {line[:3] for line in lines[2:]} == {"<3>"}


@pytest.mark.parametrize("stream", ["", "1:2", "nonsense"])
def test_standard_error_that_is_no_journal_is_told_apart(stream: str) -> None:
    assert log.to_journal({"JOURNAL_STREAM": stream}) is False
    assert log.to_journal({}) is False


@pytest.mark.parametrize(
    ("path", "query", "shown"),
    [
        ("/compute/v2.1/servers", b"", "/compute/v2.1/servers"),
        ("/servers", b"limit=5&marker=x", "/servers?limit=5&marker=x"),
        ("/console", b"token=sesame&x=1", "/console?token=***&x=1"),
        ("/f", b"temp_url_sig=sesame&temp_url_expires=1", "/f?temp_url_sig=***&temp_url_expires=1"),
        (
            "/f",
            b"oauth_verifier=sesame&PASSWORD=sesame&key=sesame&keyname=a",
            "/f?oauth_verifier=***&PASSWORD=***&key=***&keyname=a",
        ),
        ("/v2.1/os-console-auth-tokens/sesame", b"", "/v2.1/os-console-auth-tokens/***"),
        ("/x", b"token", "/x?token"),
    ],
)
def test_queries_are_shown_without_their_secrets(path: str, query: bytes, shown: str) -> None:
    assert log.shown_path(path, query) == shown


def test_a_log_that_cannot_be_written_stops_nobody() -> None:
    program = """
import logging, os
from pileus.core import log
log.start("x")
reader, writer = os.pipe()
os.close(reader)
os.dup2(writer, 2)
logging.getLogger("a").info("lost")
print("goes on", flush=True)
os._exit(0)
"""
    environment = {"PYTHONPATH": str(ROOT / "src"), "PATH": os.defpath}
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, env=environment)
    assert done.stdout == "goes on\n"
