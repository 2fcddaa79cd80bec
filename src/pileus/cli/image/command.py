"""The command `pileus image`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pileus.cli.image import bootstrap, package
from pileus.cli.image.build import build_debian, build_tiny
from pileus.cli.image.child import BuildFailure
from pileus.cli.main import CommandFailure
from pileus.cli.place import default_state

if TYPE_CHECKING:
    from pileus.cli.main import Roles, Subparsers


IMAGES = {"tiny": (build_tiny, package.forget), "debian": (build_debian, bootstrap.forget)}
"""What builds each image, and what makes its cache forget."""


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
        description="Builds a bootable qcow2 disk of the distribution's packages, without loop mounts: tiny, a small "
        "guest for trying a cloud, or debian, a whole system with cloud-init.",
    )
    build.add_argument("name", choices=list(IMAGES), help="which image")
    build.add_argument("-o", "--output", type=Path, metavar="FILE", help="what to write (NAME.qcow2)")
    build.add_argument(
        "--cache", type=Path, default=default_cache(), metavar="DIR", help="where packages are kept (%(default)s)"
    )
    build.add_argument("--refresh", action="store_true", help="fetch the packages anew, as their newest versions")
    build.set_defaults(run=command)


def command(arguments: argparse.Namespace, roles: Roles | None = None) -> int:
    """Run `pileus image build`; exit status.

    Raises CommandFailure when the image could not be built; what was at the output before is still there then.
    """
    build, forget = IMAGES[arguments.name]
    output = arguments.output or Path(f"{arguments.name}.qcow2")
    try:
        if arguments.refresh:
            forget(arguments.cache)
        build(output, cache=arguments.cache, progress=_print)
    except (BuildFailure, OSError) as failure:
        raise CommandFailure(f"the image {arguments.name} could not be built: {failure}") from failure
    return 0


def _print(line: str) -> None:
    print(line, flush=True)
