"""`pileus prepare`: everything that needs a network outside, so that all the rest works without one.

The launcher has made the virtual environment before this runs; what is left are the distribution's packages, the image
`tiny`, and the metadata definitions that people know from other clouds.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pileus.cli import definition, package
from pileus.cli.main import CommandFailure
from pileus.cli.place import add_state
from pileus.cli.progress import Progress

if TYPE_CHECKING:
    from pileus.cli.main import Roles, Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "prepare",
        help="fetch and build what needs a network, so that the rest works offline",
        description="Installs the system packages that are missing (as root on Debian and Ubuntu; elsewhere it names "
        "them), builds the image tiny and fetches metadata definitions. Quick when all is there.",
    )
    add_state(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, roles: Roles) -> int:
    """Run the command; exit status."""
    prepare(arguments.state, Progress())
    return 0


def tiny_image(state: Path) -> Path:
    """Where `prepare` leaves the image tiny, a qcow2 disk."""
    return state / "images" / "tiny.qcow2"


def is_prepared(state: Path) -> bool:
    """Whether `prepare` would find nothing to do."""
    return not package.missing(package.RUNTIME) and tiny_image(state).is_file() and definition.directory(state).is_dir()


def prepare(state: Path, progress: Progress) -> None:
    """Install what is missing, build the image and fetch definitions below `state`, each step shown with its time.

    Raises CommandFailure when a step cannot be done; what earlier steps did stays, and is not done again.  A cloud
    works without the definitions: when they cannot be fetched that is shown, and the next `prepare` tries again.
    """
    if is_prepared(state):
        progress.line("  ✓ prepared: system packages, image and metadata definitions are there")
        return
    from pileus.cli.image import BuildFailure, build_tiny, missing_packages

    wanted = package.missing(package.RUNTIME)
    if not tiny_image(state).is_file():
        wanted = sorted({*wanted, *missing_packages()})
    if wanted:
        with progress.step("system packages") as step:
            package.install(wanted, step.say)
            step.result(" ".join(wanted))
    if not tiny_image(state).is_file():
        with progress.step("image tiny") as step:
            tiny_image(state).parent.mkdir(parents=True, exist_ok=True)
            try:
                build_tiny(tiny_image(state), cache=state / "cache", progress=step.say)
            except BuildFailure as failure:
                raise CommandFailure(f"the image tiny could not be built: {failure}") from failure
            step.result(f"{tiny_image(state).stat().st_size / 2**20:.0f} MiB")
    if not definition.directory(state).is_dir():
        try:
            with progress.step("metadata definitions") as step:
                step.result(f"{definition.fetch(state, step.say)} namespaces")
        except definition.DefinitionFailure as failure:
            progress.line(f"    the cloud works without them: {failure}")
