"""Guest images that Pileus builds: `pileus image build tiny`, `pileus image build debian`."""

from pileus.cli.image.build import build_debian, build_tiny
from pileus.cli.image.child import INSTALLER_PACKAGE, BuildFailure, missing_packages
from pileus.cli.image.command import command, default_cache, register

__all__ = [
    "INSTALLER_PACKAGE",
    "BuildFailure",
    "build_debian",
    "build_tiny",
    "command",
    "default_cache",
    "missing_packages",
    "register",
]
