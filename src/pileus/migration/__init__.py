"""The store's schema, step by step.

Each file in `versions` takes the schema from one revision to the next; a test proves that their sum is what the tables
of the services declare.  A new one is drafted by `python -m pileus.migration "what it brings"`, and then read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0001"
"""The revision that this version of Pileus works on."""

_LOCK = 0x50494C455553
"""PostgreSQL advisory lock under which one process migrates while others wait."""


class MigrationError(RuntimeError):
    """The store's schema cannot be brought to HEAD. The message says what to do."""


def current(connection: sa.Connection) -> str | None:
    """The revision of a store; None when it is empty."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    return found


def upgrade(engine: sa.Engine) -> None:
    """Bring a store to HEAD, in one transaction. Raises MigrationError when it is newer than this program."""
    with engine.connect() as connection:
        if current(connection) == HEAD:
            return
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
        # Alembic is large, and a store that is at HEAD already has no need of it.
        from alembic import command

        settings = configuration()
        settings.attributes["connection"] = connection
        command.upgrade(settings, HEAD)


def configuration() -> Config:
    """Alembic's settings for this package."""
    from alembic.config import Config

    settings = Config()
    settings.set_main_option("script_location", str(Path(__file__).parent))
    return settings
