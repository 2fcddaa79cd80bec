"""Operations on servers."""

from __future__ import annotations

from pileus.services.compute.resources.server.operations import (
    action,
    address,
    console,
    create,
    delete,
    diagnostics,
    explain,
    history,
    image,
    interface,
    metadata,
    migrate,
    network,
    password,
    rebuild,
    rescue,
    resize,
    shelve,
    show,
    tag,
)
from pileus.services.compute.resources.server.operations.row import resource

__all__ = [
    "action",
    "address",
    "console",
    "create",
    "delete",
    "diagnostics",
    "explain",
    "history",
    "image",
    "interface",
    "metadata",
    "migrate",
    "network",
    "password",
    "rebuild",
    "rescue",
    "resize",
    "resource",
    "shelve",
    "show",
    "tag",
]
