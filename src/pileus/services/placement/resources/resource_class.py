"""Resource classes: what there may be amounts of.

Source: https://docs.openstack.org/api-ref/placement/#resource-classes.  The standard names are those of
`os_resource_classes`; only custom ones have rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import os_resource_classes
import sqlalchemy as sa

from pileus.core.store import Instant, Tx, metadata

custom_class = sa.Table(
    "placement_custom_class",
    metadata,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("created_at", Instant, nullable=False),
)

STANDARD: tuple[str, ...] = tuple(os_resource_classes.STANDARDS)

_CUSTOM = re.compile(r"CUSTOM_[A-Z0-9_]{1,248}")


def is_custom(name: str) -> bool:
    """Whether a name may be that of a custom class."""
    return _CUSTOM.fullmatch(name) is not None


def unknown(tx: Tx, names: Iterable[str]) -> set[str]:
    """Those of the names that no class has."""
    left = set(names).difference(STANDARD)
    if not left:
        return set()
    return left - set(tx.execute(sa.select(custom_class.c.name).where(custom_class.c.name.in_(left))).scalars())
