"""Guest images that Pileus builds: `pileus image build tiny`."""

from .build import build_tiny
from .child import BuildFailure, missing_packages
from .command import command, default_cache, register

__all__ = ["BuildFailure", "build_tiny", "command", "default_cache", "missing_packages", "register"]
