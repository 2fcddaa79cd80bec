"""Which tests cannot pass, whatever Pileus does: found from the reasons for which they were skipped or are absent."""

from __future__ import annotations

import re
from collections.abc import Iterable

from conformance import outcome

LACKING = (
    (re.compile(r"microversion range\[3\."), "needs Block Storage"),
    (re.compile(r"\b(cinder|volume)\b.*\bnot (available|enabled)", re.IGNORECASE), "needs Block Storage"),
    (re.compile(r"\b(swift|object.storage)\b.*\bnot (available|enabled)", re.IGNORECASE), "needs Object Storage"),
    (re.compile(r"\bhorizon\b", re.IGNORECASE), "needs the dashboard"),
    (re.compile(r"^Less than 2 compute nodes\b"), "needs a second host"),
)
"""What the measured cloud does not have: services, and more than one host."""

UPSTREAM = re.compile(
    r"^(Skipped until bug|Skipping identity:|Neutron (allows|does not check)|nova-network is not available)"
)
"""Tempest skips a test because of a known bug, because it is about what Network replaced, or as it means nothing."""


def above(kept: outcome.Measure, tests: Iterable[str]) -> dict[str, str]:
    """Those of the tests that lie above the ceiling, and why."""
    found = {}
    for test in tests:
        one = kept.of(test)
        if one == outcome.NOT_INSTALLED:
            found[test] = "its plugin is not installed, as Pileus has no such service"
        elif one.result == outcome.SKIPPED and (reason := _reason(one.reason)):
            found[test] = reason
    return found


def _reason(skip: str) -> str | None:
    for pattern, lacking in LACKING:
        if pattern.search(skip):
            return lacking
    return f"Tempest skips it: {skip}" if UPSTREAM.search(skip) else None
