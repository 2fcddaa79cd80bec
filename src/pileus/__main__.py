"""`python -m pileus` and the command `pileus`."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line of this process; exit status."""
    from pileus.app import roles
    from pileus.cli.main import main as command

    return command(sys.argv[1:], roles)


if __name__ == "__main__":
    sys.exit(main())
