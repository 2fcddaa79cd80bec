"""What there is: services, drivers found by entry points, and one process of a kind for a state directory."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from pileus.cli.main import CommandFailure
from pileus.cli.supervise import hold, undisturbed
from pileus.core.config import Config

if TYPE_CHECKING:
    from pileus.core.api import Service


@cache
def driver(group: str, name: str) -> Any:
    """The class of a driver, found by its entry point, so that others may bring their own. Raises LookupError."""
    for found in entry_points(group=f"pileus.{group}", name=name):
        return found.load()
    names = ", ".join(sorted(point.name for point in entry_points(group=f"pileus.{group}")))
    raise LookupError(f"there is no {group} driver {name!r}; there are: {names}")


SERVICES = ("fleet", "identity", "image", "placement", "network", "compute")
"""Folders of all services that have a door plate."""


def declare_tables() -> None:
    """Import every service, so that `core.store.metadata` holds all tables."""
    for name in SERVICES:
        import_module(f"pileus.services.{name}.service")


def public_services() -> list[Service]:
    """The services that users reach, each with its OpenAPI document."""
    from pileus.core import openapi

    found: list[Service] = [import_module(f"pileus.services.{name}.service").service() for name in SERVICES]
    for service in found:
        service.outer = [*service.outer, openapi.resource(service)]
    return found


def alone(config: Config, name: str) -> None:
    """Be the only process of this name on the state directory until this one ends. Raises CommandFailure."""
    undisturbed(config.state)
    if hold(config.state, name) is None:
        raise CommandFailure(f"another {name} runs on {config.state}")
