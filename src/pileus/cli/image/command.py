"""The command `pileus image`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pileus.cli.image.build import build_tiny
from pileus.cli.image.child import BuildFailure
from pileus.cli.image.package import forget
from pileus.cli.main import CommandFailure
from pileus.cli.place import default_state

if TYPE_CHECKING:
    from pileus.cli.main import Roles, Subparsers


def default_cache() -> Path:
    """Where packages are kept between builds: with the cloud, where `pileus prepare` keeps them too."""
    return default_state() / "cache"


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    image = subparsers.add_parser("image", help="build guest images")
    verbs = image.add_subparsers(dest="image_verb", required=True, metavar="VERB")
    build = verbs.add_parser(
        "build",
        help="build an image of the distribution's packages",
        description="Builds a bootable qcow2 disk of the distribution's packages, without root or loop mounts.",
    )
    build.add_argument("name", choices=["tiny"], help="which image")
    build.add_argument(
        "-o", "--output", type=Path, default=Path("tiny.qcow2"), metavar="FILE", help="what to write (%(default)s)"
    )
    build.add_argument(
        "--cache", type=Path, default=default_cache(), metavar="DIR", help="where packages are kept (%(default)s)"
    )
    build.add_argument("--refresh", action="store_true", help="fetch the packages anew, as their newest versions")
    build.set_defaults(run=command)


def command(arguments: argparse.Namespace, roles: Roles | None = None) -> int:
    """Run `pileus image build`; exit status.

    Raises CommandFailure when the image could not be built; what was at the output before is still there then.
    """
    try:
        if arguments.refresh:
            forget(arguments.cache)
        build_tiny(arguments.output, cache=arguments.cache, progress=_print)
    except (BuildFailure, OSError) as failure:
        raise CommandFailure(f"the image {arguments.name} could not be built: {failure}") from failure
    return 0


def _print(line: str) -> None:
    print(line, flush=True)
