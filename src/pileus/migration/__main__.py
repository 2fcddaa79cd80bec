"""`python -m pileus.migration "what it brings"`: draft a migration from what the tables declare and HEAD lacks."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import sqlalchemy as sa

from pileus import migration


def draft(message: str) -> Path:
    """Write the draft; its file. The revision's number follows HEAD, which is then to be raised by hand."""
    from alembic import command

    import pileus.app

    pileus.app.declare_tables()
    number = f"{int(migration.HEAD) + 1:04d}"
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        settings = migration.configuration()
        settings.attributes["connection"] = connection
        if any((Path(migration.__file__).parent / "versions").glob("[0-9]*.py")):
            command.upgrade(settings, migration.HEAD)
        else:
            number = migration.HEAD
        command.revision(settings, message, autogenerate=True, rev_id=number)
    slug = re.sub(r"[^a-z0-9]+", "_", message.lower()).strip("_")
    return next((Path(migration.__file__).parent / "versions").glob(f"{number}_{slug[:10]}*"))


if __name__ == "__main__":
    print(draft(sys.argv[1]))
