"""Uuids as this service takes them: with dashes or without, in either case."""

from __future__ import annotations

import uuid
from typing import Annotated

import msgspec

from pileus.core.errors import BadRequest

PATTERN = r"^[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}$"

Uuid = Annotated[str, msgspec.Meta(pattern=PATTERN)]


def known(text: str) -> str | None:
    """The uuid in lower case, with dashes; None when it is none."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None


def normal(text: str) -> str:
    """The uuid in lower case, with dashes. Raises BadRequest."""
    found = known(text)
    if found is None:
        raise BadRequest(f"{text!r} is not a uuid")
    return found
