"""Microversions: numbers, ranges, negotiation, and the ledger that each service keeps of its own.

Source: API Special Interest Group, "Microversion Specification"; Compute API guide, "Microversions"; Placement API
reference, "Request and response headers".
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import NamedTuple

from pileus.core.errors import BadRequest, NotAcceptable

_FORM = re.compile(r"(?:0|[1-9][0-9]*)\.(?:0|[1-9][0-9]*)")


class Version(NamedTuple):
    """A microversion, e.g. 2.79."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


@functools.cache
def parse(text: str) -> Version:
    """A version of its text, e.g. `2.79`. Raises ValueError."""
    if not _FORM.fullmatch(text):
        raise ValueError(f"{text!r} is not a version of the form MAJOR.MINOR")
    major, minor = text.split(".")
    return Version(int(major), int(minor))


class Ledger:
    """The versions of a service: what each one brought, and how a client names the one it wants.

    `history` maps each version to one line; its first and last key are the range.  `service` is the word in the
    `OpenStack-API-Version` header, `legacy` the name of an older header that holds the bare version.
    """

    def __init__(self, service: str, history: Mapping[str, str], *, legacy: str | None = None) -> None:
        self.service = service
        self.history = {parse(version): line for version, line in history.items()}
        ordered = list(self.history)
        if ordered != sorted(ordered):
            raise ValueError(f"the ledger of {service} is out of order")
        self.minimum, self.maximum = ordered[0], ordered[-1]
        self.legacy = legacy
        self._header = legacy.lower().encode() if legacy else b""

    def negotiate(self, headers: Mapping[bytes, bytes]) -> Version:
        """The version that a request asks for; the minimum when it asks for none.

        Raises BadRequest for nonsense and NotAcceptable for a version outside the range.
        """
        wanted = None
        for entry in headers.get(b"openstack-api-version", b"").decode("latin-1").split(","):
            name, _, value = entry.strip().partition(" ")
            if name.lower() == self.service:
                wanted = value.strip()
        if wanted is None and self._header:
            legacy = headers.get(self._header)
            wanted = legacy.decode("latin-1").strip() if legacy is not None else None
        if wanted is None:
            return self.minimum
        if wanted.lower() == "latest":
            return self.maximum
        try:
            version = parse(wanted)
        except ValueError:
            raise BadRequest(
                f"API Version String {wanted} is of invalid format. Must be of format MajorNum.MinorNum."
            ) from None
        if not self.minimum <= version <= self.maximum:
            fault = NotAcceptable(
                f"Version {wanted} is not supported by the API. "
                f"Minimum is {self.minimum} and maximum is {self.maximum}."
            )
            fault.known = str(self.minimum), str(self.maximum)
            raise fault
        return version

    def response_headers(self, version: Version) -> list[tuple[bytes, bytes]]:
        """What the response says of the version that was used."""
        vary = b"OpenStack-API-Version"
        found = [(b"openstack-api-version", f"{self.service} {version}".encode())]
        if self.legacy:
            found.append((self._header, str(version).encode()))
            vary += b", " + self.legacy.encode()
        return [*found, (b"vary", vary)]
