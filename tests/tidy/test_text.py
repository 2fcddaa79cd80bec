"""What no file of the repository says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.tidy.tree import GUEST, ROOT, files, lines

TAKEN_OVER = {Path("LICENSE"), Path(__file__).relative_to(ROOT)}
"""Files whose words are not ours, and this one, which must name what it looks for."""

STRAY = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")

REGISTRY = re.compile(
    r"\b(pypi\.org|pythonhosted\.org|registry\.npmjs|deb\.debian\.org|archive\.ubuntu\.com|proxy\.golang\.org|"
    r"crates\.io|hub\.docker\.com)"
)

MACHINE = re.compile(r"(?<![\w.:}])/(?:(?:work|root)/\w|home/(?!cirros)\w)")
"""Guests made from the image tiny have a user cirros."""


def said(pattern: re.Pattern[str], *but: Path) -> list[str]:
    """Each place where a file says what the pattern matches."""
    return [
        f"{path}:{number} {line.strip()[:80]}"
        for path in files()
        if path not in TAKEN_OVER and not any(path.is_relative_to(folder) for folder in but)
        for number, line in enumerate(lines(path), 1)
        if pattern.search(line)
    ]


@pytest.mark.parametrize(
    ("pattern", "line"),
    [(STRAY, "# FIXME later"), (REGISTRY, "--index-url https://" + "pypi" + ".org"), (MACHINE, "open('/root/x')")],
)
def test_the_patterns_match(pattern: re.Pattern[str], line: str) -> None:
    assert pattern.search(line)


def test_no_stray_notes() -> None:
    assert said(STRAY) == []


def test_no_registry_is_named() -> None:
    assert said(REGISTRY) == []


def test_no_path_of_one_machine() -> None:
    assert said(MACHINE, *GUEST) == []
