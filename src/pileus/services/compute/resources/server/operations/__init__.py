"""Operations on servers."""

from __future__ import annotations

from pileus.services.compute.resources.server.operations import (
    action,
    address,
    console,
    create,
    diagnostics,
    explain,
    history,
    image,
    interface,
    metadata,
    network,
    password,
    show,
    tag,
)
from pileus.services.compute.resources.server.operations.row import resource

__all__ = [
    "action",
    "address",
    "console",
    "create",
    "diagnostics",
    "explain",
    "history",
    "image",
    "interface",
    "metadata",
    "network",
    "password",
    "resource",
    "show",
    "tag",
]
