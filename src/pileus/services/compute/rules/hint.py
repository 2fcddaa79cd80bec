"""Scheduler hints: what users may say of where their servers shall go.

Source: Compute API reference, "Create Server", `os:scheduler_hints`; the shapes are those that upstream checks.  Hints
that nobody knows are kept and shown, and change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from pileus.core.address import read_address
from pileus.core.errors import BadRequest
from pileus.core.fields import UNSET, UnsetType, accept
from pileus.services.compute.rules.shape import Name, Uuid


class Hints(msgspec.Struct, kw_only=True):
    """The hints that have a shape."""

    group: Uuid | list[Uuid] | UnsetType = UNSET
    different_host: Uuid | list[Uuid] | UnsetType = UNSET
    same_host: str | list[Uuid] | UnsetType = UNSET
    query: str | dict[str, Any] | UnsetType = UNSET
    target_cell: Name | UnsetType = UNSET
    different_cell: str | list[str] | UnsetType = UNSET
    build_near_host_ip: str | UnsetType = UNSET
    cidr: Annotated[str, msgspec.Meta(pattern=r"^/[0-9a-f.:]+$")] | UnsetType = UNSET


def check(hints: Mapping[str, Any]) -> None:
    """Raise BadRequest for hints that have not the shape that they must have."""
    found = accept(dict(hints), Hints)
    if found.build_near_host_ip is not UNSET:
        try:
            read_address(found.build_near_host_ip)
        except ValueError:
            raise BadRequest(f"{found.build_near_host_ip!r} is not an IP address") from None


def servers(hints: Mapping[str, Any], name: str) -> list[str]:
    """The ids of servers that a hint names, which is `same_host` or `different_host`."""
    found = hints.get(name) or []
    return [found] if isinstance(found, str) else [str(one) for one in found]
