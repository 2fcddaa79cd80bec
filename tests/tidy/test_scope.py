"""The page on what of each API exists says what the code declares."""

from __future__ import annotations

from bench import scope
from pileus.app import SERVICES
from pileus.core.openapi import operations
from tests.tidy.tree import ROOT, services

PAGE = ROOT / "docs" / "scope.md"


def test_every_service_is_in_the_composition_root() -> None:
    assert sorted(SERVICES) == sorted(path.name for path in services() if (ROOT / path / "service.py").exists())


def test_every_operation_says_what_it_does() -> None:
    mute = [one.name for service in scope.services() for _, one in operations(service) if not scope.line(one)]
    assert mute == []


def test_the_page_is_current() -> None:
    hint = ".venv/bin/python bench/scope.py > docs/scope.md"
    assert PAGE.read_text(encoding="utf-8") == scope.page(), hint
