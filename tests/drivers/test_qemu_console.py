"""The serial console's log is bounded, and its end is readable whatever the guest wrote."""

from __future__ import annotations

import os
from pathlib import Path

from pileus.drivers.hypervisor.qemu.console import bound, read_console, restart

KIB = 1024
MIB = 1024 * KIB


def test_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert read_console(log, 5) == ""
    log.write_bytes(b"one\r\ntwo\nthree")
    assert read_console(log, None) == "one\r\ntwo\nthree"
    assert read_console(log, 2) == "two\nthree"
    assert read_console(log, 0) == ""
    log.write_bytes(b"one\ntwo\n")
    assert read_console(log, 1) == "two\n"
    assert read_console(log, 9) == "one\ntwo\n"


def test_at_most_100_kib(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 99 + b"\n" + b"0123456789abcde\n" * 100_000)
    text = read_console(log, None)
    assert len(text) == 100 * KIB
    assert text.endswith("0123456789abcde\n")
    log.write_bytes(b"\xff" * 200 * KIB)
    assert len(read_console(log, None).encode()) <= 100 * KIB


def test_bytes_that_are_no_text_are_replaced(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"caf\xc3\xa9 \xff\x00 end\n")
    assert read_console(log, None) == "café \ufffd\x00 end\n"


def test_a_long_log_gives_its_beginning_back(tmp_path: Path) -> None:
    log = tmp_path / "log"
    bound(log)
    writer = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(writer, b"a" * 3 * MIB)
    bound(log)
    assert log.stat().st_blocks * 512 >= 3 * MIB
    os.write(writer, b"b" * 3 * MIB)
    bound(log)
    os.write(writer, b"the end\n")
    os.close(writer)
    assert log.stat().st_blocks * 512 <= 1.1 * MIB
    assert read_console(log, None).endswith("bbbthe end\n")
    assert "\0" not in read_console(log, None)


def test_a_new_start_keeps_the_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    restart(log)
    log.write_bytes(b"short\n")
    restart(log)
    assert log.read_bytes() == b"short\n"
    log.write_bytes(b"a" * 5 * MIB + b"end\n")
    restart(log)
    assert log.stat().st_size == MIB
    assert log.read_bytes().endswith(b"aend\n")
