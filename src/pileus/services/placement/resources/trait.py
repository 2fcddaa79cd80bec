"""Traits: what a provider is or can do.

Source: https://docs.openstack.org/api-ref/placement/#traits.  The standard names are those of `os_traits`; only custom
ones have rows.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

import os_traits
import sqlalchemy as sa

from pileus.core.store import Instant, Tx, metadata

custom_trait = sa.Table(
    "placement_custom_trait",
    metadata,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("created_at", Instant, nullable=False),
)

_CUSTOM = re.compile(r"CUSTOM_[A-Z0-9_]{1,248}")


@functools.cache
def standard() -> frozenset[str]:
    """The names that everybody agrees on."""
    return frozenset(os_traits.get_traits())


def is_custom(name: str) -> bool:
    """Whether a name may be that of a custom trait."""
    return _CUSTOM.fullmatch(name) is not None


def unknown(tx: Tx, names: Iterable[str]) -> set[str]:
    """Those of the names that no trait has."""
    left = set(names) - standard()
    if not left:
        return set()
    return left - set(tx.execute(sa.select(custom_trait.c.name).where(custom_trait.c.name.in_(left))).scalars())
