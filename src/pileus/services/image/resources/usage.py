"""What projects have of images and their data, and may have.

Source: https://docs.openstack.org/api-ref/image/v2/#quota-usage

What an image counts for is a function of its row (`held`), and is counted anew in each transaction that changes the
row (`change`): so nothing can be counted twice, or stay counted after a crash.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.core.errors import QuotaExceeded, TooLarge
from pileus.core.quota import UNLIMITED, Quota
from pileus.core.store import Tx
from pileus.services.image.resources.image.table import image

MIB = 1 << 20

QUOTA = Quota(
    "image",
    {
        "image_count_total": UNLIMITED,
        "image_count_uploading": UNLIMITED,
        "image_size_total": UNLIMITED,
        "image_stage_total": UNLIMITED,
    },
)
"""Counts in images, sizes in MiB, each image rounded up."""

UPLOADING = frozenset({"saving", "uploading", "importing"})
"""Statuses of images whose data is on its way."""

resource = Resource("usage", "usage")


def take(tx: Tx, owner: str | None, amounts: Mapping[str, int]) -> None:
    """Count what a project is about to have. Raises TooLarge: Image answers 413 where a quota is exceeded."""
    if owner is None:
        return
    try:
        QUOTA.take(tx, owner, amounts)
    except QuotaExceeded as fault:
        raise TooLarge(fault.message) from None


def give_back(tx: Tx, owner: str | None, amounts: Mapping[str, int]) -> None:
    """Count what a project has no longer."""
    take(tx, owner, {name: -amount for name, amount in amounts.items()})


def _mib(size: int | None) -> int:
    return -(-(size or 0) // MIB)


def copies(row: sa.Row[Any]) -> int:
    """How many stores of the cloud's own hold an image's data."""
    return _copies(row._asdict())


def _copies(values: Mapping[str, Any]) -> int:
    return int(values["copies"] if values["copies"] is not None else values["location"] is not None)


def held(row: sa.Row[Any]) -> dict[str, int]:
    """What an image counts for; data on the web takes no space of the cloud's."""
    return _held(row._asdict())


def _held(values: Mapping[str, Any]) -> dict[str, int]:
    return {
        "image_count_total": 1,
        "image_count_uploading": int(values["status"] in UPLOADING),
        "image_size_total": _copies(values) * _mib(values["size"]),
        "image_stage_total": _mib(values["stage_size"]),
    }


def change(tx: Tx, row: sa.Row[Any], values: Mapping[str, Any]) -> None:
    """Give an image's row new values, and count the image anew.

    Raises TooLarge (quota), and Raced when the row is not any more what was read.
    """
    before, after = held(row), _held({**row._asdict(), **values})
    take(tx, row.owner, {name: amount - before[name] for name, amount in after.items()})
    known = {"id": row.id, "status": row.status, "owner": row.owner, "updated_at": row.updated_at}
    tx.compare_and_set(image, known, {"updated_at": tx.now, **values})
    tx.changed("image.image", row.id)


def room(tx: Tx, owner: str | None, name: str, most: int) -> int:
    """How many bytes a project may still have, as far as one knows before they have come; `most` at most."""
    limit = UNLIMITED if owner is None else QUOTA.limits(tx, owner)[name]
    if limit == UNLIMITED or owner is None:
        return most
    return max(0, min(most, (limit - QUOTA.used(tx, owner)[name]) * MIB))


@resource.get("/info/usage")
def usage(ctx: Context) -> dict[str, Any]:
    """What the caller's project has and may have: images, images on their way, and MiB of data."""
    project = ctx.auth.project_id or ""
    used, limits = QUOTA.used(ctx.tx, project), QUOTA.limits(ctx.tx, project)
    return {"usage": {name: {"usage": used[name], "limit": limit} for name, limit in sorted(limits.items())}}
