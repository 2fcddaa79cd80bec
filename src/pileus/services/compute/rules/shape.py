"""Types of fields that several nouns share, links, and times as Compute's API writes them."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

import msgspec

from pileus.core.fields import W

_SPACE = r"[^\x00-\x1f\x7f\s]"

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=rf"^{_SPACE}([^\x00-\x1f\x7f]*{_SPACE})?$")]
"""Printable, without white space at either end."""

Description = Annotated[str, msgspec.Meta(max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$")]

Uuid = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$")]

_UUID = re.compile(r"[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")

Positive = Annotated[int, msgspec.Meta(ge=1, le=0x7FFFFFFF)]

Natural = Annotated[int, msgspec.Meta(ge=0, le=0x7FFFFFFF)]

MetaKey = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"^[a-zA-Z0-9\-_:. ]+$")]

Metadata = dict[MetaKey, Annotated[str, msgspec.Meta(max_length=255)]]

Tag = Annotated[str, msgspec.Meta(min_length=1, max_length=60, pattern=r"^[^,/]*$")]

HostName = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"^[a-zA-Z0-9\-._]*\Z")]
"""The name of a host, or a fully qualified domain name."""

_Yes = Literal["True", "TRUE", "true", "1", "ON", "On", "on", "YES", "Yes", "yes"]
_No = Literal["False", "FALSE", "false", "0", "OFF", "Off", "off", "NO", "No", "no"]
_YES = frozenset(get_args(_Yes))

Truth = bool | _Yes | _No
"""What upstream takes for a truth value: JSON's own, or one of its words for it, and no number."""

Flag = Annotated[Truth, W(Truth, strict=True)]
"""A field of a body that is one."""

Link = dict[str, Any]


def links(url: str, path: str, collection: str, name: str) -> list[Link]:
    """The links of one thing: to itself, and one without a version.

    `url` is the service's root, `path` the request's path below it.
    """
    root = path.split("/", 2)[1]
    return [
        {"rel": "self", "href": f"{url}/{root}/{collection}/{name}"},
        {"rel": "bookmark", "href": f"{url}/{collection}/{name}"},
    ]


def bookmark(url: str, collection: str, name: str) -> list[Link]:
    """The link without a version alone."""
    return [{"rel": "bookmark", "href": f"{url}/{collection}/{name}"}]


def image_url(url: str, image_id: str) -> str:
    """Where the Image service has an image, given Compute's root."""
    return f"{url.rpartition('/')[0]}/image/v2/images/{image_id}"


def is_true(given: Any) -> bool:
    """Whether a Truth is true; what was not given is not."""
    return given is True or given in _YES


def is_uuid(text: str) -> bool:
    """Whether a text is a UUID."""
    return _UUID.fullmatch(text) is not None


def moment(at: datetime | None) -> str | None:
    """A time with its zone and without fractions, e.g. `2030-01-31T12:00:00Z`."""
    return None if at is None else f"{at.isoformat(timespec='seconds')[:19]}Z"


def instant(at: datetime) -> str:
    """`moment`, of a time that is there."""
    return f"{at.isoformat(timespec='seconds')[:19]}Z"


def bare(at: datetime | None) -> str | None:
    """A time with fractions and without its zone, e.g. `2030-01-31T12:00:00.000000`."""
    return None if at is None else at.replace(tzinfo=None).isoformat(timespec="microseconds")
