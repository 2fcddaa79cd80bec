"""The locks hold what the package asks for, each file of it by its hash."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.tidy.tree import ROOT

LOCK = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)(.*)$")
NAME = re.compile(r"^[A-Za-z0-9._-]+")


def normal(name: str) -> str:
    """A project's name in the form in which names are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def text(name: str) -> str:
    return (ROOT / "requirements" / name).read_text(encoding="utf-8")


def pins(name: str) -> dict[str, str]:
    """Project to version."""
    found = (LOCK.match(line) for line in text(name).splitlines())
    return {normal(match[1]): match[2] for match in found if match}


def asked(name: str) -> set[str]:
    """Projects that an .in file names."""
    return {normal(match[0]) for line in text(name).splitlines() if (match := NAME.match(line)) and line[0] != "-"}


@pytest.mark.parametrize("name", ["runtime.txt", "dev.txt"])
def test_every_pin_has_a_hash_and_nothing_else_is_said(name: str) -> None:
    entries = re.sub(r"\\\n", "", re.sub(r"(?m)^\s*#.*\n", "", text(name))).strip().splitlines()
    assert len(entries) > 20
    assert [line for line in entries if not LOCK.match(line) or "--hash=sha256:" not in line] == []


def test_development_has_the_runtime_s_pins() -> None:
    runtime, development = pins("runtime.txt"), pins("dev.txt")
    assert {name: version for name, version in runtime.items() if development.get(name) != version} == {}


def test_locks_hold_what_is_asked_for() -> None:
    assert asked("runtime.in") - set(pins("runtime.txt")) == set()
    assert asked("dev.in") - set(pins("dev.txt")) == set()


def test_package_and_lock_ask_for_the_same() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    dependencies = {normal(NAME.match(line)[0]) for line in project["project"]["dependencies"]}  # type: ignore[index]
    backend = {normal(NAME.match(line)[0]) for line in project["build-system"]["requires"]}  # type: ignore[index]
    assert asked("runtime.in") == dependencies | backend
