"""The checkout as the tidy tests see it: its files and their syntax trees."""

from __future__ import annotations

import ast
import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "pileus"
SERVICES = PACKAGE / "services"

GUEST = (Path("src/pileus/cli/image/tiny"), Path("tests/real"))
"""What speaks of the inside of guests, which have paths of their own."""


@functools.cache
def files() -> tuple[Path, ...]:
    """Every file that is, or would be, part of the repository, relative to its root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
    return tuple(sorted(Path(name) for name in listed if name and (ROOT / name).is_file()))


def sources(below: Path = ROOT) -> Iterator[tuple[Path, ast.Module]]:
    """Each Python file below a folder with its syntax tree."""
    for path in files():
        if path.suffix == ".py" and (ROOT / path).is_relative_to(below):
            yield path, parse(path)


@functools.cache
def parse(path: Path) -> ast.Module:
    """The syntax tree of a file, given relative to the root."""
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=str(path))


def services() -> list[Path]:
    """The folder of each service, relative to the root."""
    depth = len(SERVICES.relative_to(ROOT).parts) + 1
    inside = [path for path in files() if (ROOT / path).is_relative_to(SERVICES) and len(path.parts) > depth]
    return sorted({Path(*path.parts[:depth]) for path in inside})


def lines(path: Path) -> list[str]:
    """The lines of a text file, given relative to the root; none when it is not text."""
    try:
        return (ROOT / path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        return []
