"""Rows of users and of their earlier passwords."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from pileus.core.errors import Conflict
from pileus.core.store import Instant, Tx, metadata
from pileus.services.identity.resources.attribute import missing
from pileus.services.identity.resources.project import table as projects
from pileus.services.identity.rules import name as names

DEFAULT_DOMAIN = "default"
"""Id of the domain that things belong to when none is named."""

table = sa.Table(
    "identity_user",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("domain_id", sa.String(64), sa.ForeignKey(projects.table.c.id, ondelete="CASCADE"), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("name_key", sa.String(names.KEY_LENGTH), nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("password_hash", sa.String(255)),
    sa.Column("default_project_id", sa.String(64)),
    sa.Column("options", sa.JSON, nullable=False),
    sa.Column("extra", sa.JSON, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("password_expires_at", Instant),
    sa.Column("password_changed_at", Instant),
    sa.Column("failed_logins", sa.Integer, nullable=False, server_default="0"),
    sa.Column("failed_at", Instant),
    sa.Column("active_at", Instant),
    sa.UniqueConstraint("domain_id", "name_key"),
    sa.Index("ix_identity_user_name_key", "name_key"),
    sa.Index("ix_identity_user_domain_id", "domain_id", "id"),
)
"""`password_changed_at`: when the user itself set the password, null when somebody else did.

`failed_logins` and `failed_at` count for lockout, `active_at` (the last login) for inactivity; none is written while
the setting that asks for it is off.
"""

past = sa.Table(
    "identity_past_password",
    metadata,
    sa.Column("user_id", sa.String(64), sa.ForeignKey(table.c.id, ondelete="CASCADE"), primary_key=True),
    sa.Column("generation", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("password_hash", sa.String(255), nullable=False),
)
"""`generation`: the user's, when the password was replaced: they sort as the passwords followed each other."""

decoy = sa.Table(
    "identity_failed_login",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", Instant, nullable=False),
)
"""One row, written for a failed login where there is no user to write it to."""

_BY_ID = sa.select(table).where(table.c.id == sa.bindparam("key"))
_BY_NAME = sa.select(table).where(table.c.name_key == sa.bindparam("name"), table.c.domain_id == sa.bindparam("domain"))


def find(tx: Tx, key: str) -> sa.Row[Any] | None:
    """A user, None when there is no such."""
    return tx.execute(_BY_ID, {"key": key}).first()


def get(tx: Tx, key: str) -> sa.Row[Any]:
    """A user. Raises NotFound."""
    row = find(tx, key)
    if row is None:
        raise missing("user", key)
    return row


def find_named(tx: Tx, name: str, domain_id: str) -> sa.Row[Any] | None:
    """The user of a name in a domain, None when there is no such."""
    return tx.execute(_BY_NAME, {"name": names.key(name), "domain": domain_id}).first()


def taken(name: str) -> Conflict:
    """The fault of a name that another user has."""
    return Conflict(f"Conflict occurred attempting to store user - Duplicate entry found with name {name}.")


def insert(tx: Tx, values: Mapping[str, Any]) -> str:
    """Write a new user; its id. Raises Conflict when its name is taken in the domain."""
    key = tx.seams.hex()
    name = str(values["name"]).strip()
    if find_named(tx, name, values["domain_id"]) is not None:
        raise taken(name)
    row = {"enabled": True, "password_hash": None, "default_project_id": None, "options": {}, "extra": {}, **values}
    stored = {**row, "id": key, "name": name, "name_key": names.key(name), "generation": 0, "created_at": tx.now}
    tx.insert(table, stored)
    tx.changed("identity.user", key)
    return key


def password_values(hashed: str | None, *, expires_at: datetime | None, changed_at: datetime | None) -> dict[str, Any]:
    """The columns of a new password, which makes all tokens of the user void."""
    return {
        "password_hash": hashed,
        "password_expires_at": expires_at,
        "password_changed_at": changed_at,
        "generation": table.c.generation + 1,
    }


def keep_past(tx: Tx, row: sa.Row[Any], count: int) -> None:
    """Keep the password that a user has until now, and of earlier ones so many that there are `count` at most."""
    if row.password_hash is not None and count > 0:
        values = {"user_id": row.id, "generation": row.generation, "password_hash": row.password_hash}
        tx.insert_missing(past, values, key=("user_id", "generation"))
    kept = sa.select(past.c.generation).where(past.c.user_id == row.id).order_by(past.c.generation.desc())
    oldest = [one.generation for one in tx.all(kept)][count:]
    if oldest:
        tx.execute(sa.delete(past).where(past.c.user_id == row.id, past.c.generation.in_(oldest)))


def past_hashes(tx: Tx, key: str, count: int) -> list[str]:
    """Hashes of the `count` newest passwords that a user had before the one of now."""
    query = sa.select(past.c.password_hash).where(past.c.user_id == key).order_by(past.c.generation.desc())
    return [row.password_hash for row in tx.all(query.limit(count))] if count > 0 else []


def void_tokens(tx: Tx, which: sa.ColumnElement[bool]) -> None:
    """Make all tokens of some users void; the caller lets the revision grow, after its other writes."""
    tx.execute(sa.update(table).where(which).values(generation=table.c.generation + 1))


def names_of(tx: Tx, keys: Sequence[str]) -> dict[str, sa.Row[Any]]:
    """Rows with id, name and domain_id of some users, by id."""
    query = sa.select(table.c.id, table.c.name, table.c.domain_id).where(table.c.id.in_(keys))
    return {row.id: row for row in tx.all(query)} if keys else {}
