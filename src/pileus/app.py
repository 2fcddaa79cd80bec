"""The composition root: the only file that sees everything, and puts it together.

It is imported at each start of `pileus`, so it imports late what a command may not need.
"""

from __future__ import annotations

from pileus.cli.main import Roles

roles = Roles()
