"""What of each API exists, from the declarations of the operations themselves.

.venv/bin/python bench/scope.py > docs/scope.md
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import pileus
from pileus.app import public_services
from pileus.core.api import Operation, Service
from pileus.core.openapi import operations

HEAD = f"""# What of each API is there

Every operation of Pileus {pileus.__version__}, as the code declares it: what is not named here answers 404 or 405.
Where versions are named, the operation is there for requests of those microversions alone; `POST …/action` is named
with the key of its body. `bench/scope.py` writes this page, and a test keeps it true.
"""


def services() -> list[Service]:
    """All services that users reach, by type."""
    return sorted(public_services(), key=lambda one: one.type)


def page() -> str:
    """The whole page, in Markdown."""
    return "\n".join([HEAD, *(line for service in services() for line in section(service))]).rstrip("\n") + "\n"


def section(service: Service) -> Iterator[str]:
    """One service: where it is, its versions, and a table of its operations."""
    found = list(operations(service))
    ledger = service.ledger
    versions = f", microversions {ledger.minimum} to {ledger.maximum}" if ledger else ""
    yield f"## {service.type.capitalize()}"
    yield ""
    yield f"{len(found)} operations below `{service.mounts[0]}`{versions}."
    yield ""
    yield "| method | path | versions | what it does |"
    yield "|---|---|---|---|"
    for path, operation in found:
        act = f" `{operation.action}`" if operation.action else ""
        yield f"| {operation.method} | `{path}`{act} | {window(operation)} | {line(operation)} |"
    yield ""


def window(operation: Operation) -> str:
    """The microversions in which an operation exists; empty for all."""
    since, until = operation.since, operation.until
    if since is None:
        return "" if until is None else f"to {until}"
    return f"from {since}" if until is None else f"{since} to {until}"


def line(operation: Operation) -> str:
    """What an operation does: the first line of its docstring, without the errors that it names."""
    said = (inspect.getdoc(operation.handler) or "").partition("\n")[0]
    return said.partition(" Raises ")[0].rstrip(".").replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
