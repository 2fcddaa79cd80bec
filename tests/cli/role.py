"""Roles for tests of commands that start none."""

from __future__ import annotations

import dataclasses
from typing import Any, NoReturn

from pileus.cli.main import Roles


def refuse(*arguments: Any, **more: Any) -> NoReturn:
    """Stands where a role would be."""
    raise AssertionError(f"a role was started with {arguments} {more}")


NO_ROLES = Roles(**{field.name: refuse for field in dataclasses.fields(Roles)})
