"""Guest images that Pileus builds: `pileus image build tiny`."""

from pileus.cli.image.build import build_tiny
from pileus.cli.image.child import BuildFailure, missing_packages
from pileus.cli.image.command import command, default_cache, register

__all__ = ["BuildFailure", "build_tiny", "command", "default_cache", "missing_packages", "register"]
