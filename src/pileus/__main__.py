"""`python -m pileus` and the command `pileus`."""

from __future__ import annotations

import atexit
import gc
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pileus.cli.main import Roles


def main() -> int:
    """Run the command line of this process; exit status."""
    gc.set_threshold(100_000, 20, 100)  # what modules make stays: the collector would go through it again and again
    from pileus.cli.main import main as command

    # msgspec 0.22's types may crash in the collection at an interpreter's end: nothing is collected there.
    atexit.register(gc.freeze)
    return command(sys.argv[1:], find_roles)


def find_roles() -> Roles:
    """What the composition root supplies."""
    from pileus.app import roles

    return roles


if __name__ == "__main__":
    sys.exit(main())
