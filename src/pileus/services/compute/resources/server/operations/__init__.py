"""Operations on servers."""

from __future__ import annotations

from pileus.services.compute.resources.server.operations import (
    action,
    console,
    create,
    explain,
    history,
    metadata,
    network,
    show,
    tag,
)
from pileus.services.compute.resources.server.operations.row import resource

__all__ = ["action", "console", "create", "explain", "history", "metadata", "network", "resource", "show", "tag"]
