"""The command `pileus image`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from pileus.cli.image.build import build_tiny
from pileus.cli.image.child import BuildFailure


def default_cache() -> Path:
    """Where packages are kept between builds: of the system for root, of the user for others (XDG base directories)."""
    if os.geteuid() == 0:
        return Path("/var/cache/pileus/image")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pileus" / "image"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `image` to the commands of a parser; it sets `run` to the function that carries it out."""
    image = subparsers.add_parser("image", help="build guest images")
    verbs = image.add_subparsers(dest="image_verb", required=True, metavar="VERB")
    build = verbs.add_parser("build", help="build an image of the distribution's packages, without root or loop mounts")
    build.add_argument("name", choices=["tiny"], help="which image")
    build.add_argument("-o", "--output", type=Path, default=Path("tiny.qcow2"), help="file to write (%(default)s)")
    build.add_argument("--cache", type=Path, default=None, help=f"directory for packages ({default_cache()})")
    build.set_defaults(run=command)


def command(arguments: argparse.Namespace) -> int:
    """Carry out `pileus image build`; returns the exit status."""
    try:
        build_tiny(arguments.output, cache=arguments.cache or default_cache(), progress=_print)
    except (BuildFailure, OSError) as failure:
        print(f"pileus image build: {failure}", file=sys.stderr)
        return 1
    return 0


def _print(line: str) -> None:
    print(line, flush=True)
