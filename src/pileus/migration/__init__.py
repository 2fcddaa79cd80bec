"""The store's schema, step by step.

Each file in `versions` takes the schema from one revision to the next; a test proves that their sum is what the tables
of the services declare.  A new one is drafted by `python -m pileus.migration "what it brings"`, and then read.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import sqlalchemy as sa

from pileus.migration import versions

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0003"
"""The revision that this version of Pileus works on."""

_LOCK = 0x50494C455553
"""PostgreSQL advisory lock under which one process migrates while others wait."""


_VERSION = sa.Table("alembic_version", sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True))
"""The store's revision, where Alembic keeps it."""


class MigrationError(RuntimeError):
    """The store's schema cannot be brought to HEAD. The message says what to do."""


def current(connection: sa.Connection) -> str | None:
    """The revision of a store; None when it is empty."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    return found


def load() -> list[ModuleType]:
    """All steps, in their order: modules with `revision`, `down_revision` and `upgrade`.

    They bring along what `upgrade` needs of Alembic.
    """
    names = sorted(found.name for found in pkgutil.iter_modules(versions.__path__))
    return [import_module(f"{versions.__name__}.{name}") for name in names]


def upgrade(engine: sa.Engine, steps: Sequence[ModuleType], say: Callable[[str], None] = lambda text: None) -> None:
    """Bring a store to HEAD by what is missing of `steps`, in one transaction; `say` hears of each.

    Alembic's operations are used and its runner is not: that reads files, and whoever migrates may not see the code any
    more.  Raises MigrationError when the store is newer than this program.
    """
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext

    with engine.connect().execution_options(pileus_write=True) as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        found = current(connection)
        if found == HEAD:
            return
        if found is not None and found > HEAD:
            raise MigrationError(
                f"the store is at revision {found}, and this Pileus knows {HEAD}: run a newer one, or restore a backup"
            )
        _VERSION.create(connection, checkfirst=True)
        with Operations.context(MigrationContext.configure(connection)):
            for step in steps:
                if found is None or step.revision > found:
                    say(f"step {step.revision}: {(step.__doc__ or '').strip().splitlines()[0]}")
                    step.upgrade()
        connection.execute(sa.delete(_VERSION))
        connection.execute(sa.insert(_VERSION).values(version_num=HEAD))


def configuration() -> Config:
    """Alembic's settings for this package, for drafting."""
    from alembic.config import Config

    settings = Config()
    settings.set_main_option("script_location", str(Path(__file__).parent))
    return settings
