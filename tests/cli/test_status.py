"""What `status` says of a host."""

from __future__ import annotations

from typing import Any

import pytest

from pileus.cli.status import host_line

HOST: dict[str, Any] = {
    "name": "lab",
    "up": True,
    "facts": {"accelerator": "tcg", "vcpus": 2, "memory_mib": 4096},
    "network_filter": "br_netfilter",
}


@pytest.mark.parametrize(
    ("unknown", "more"),
    [
        (0, ""),
        (1, ", 1 unknown object (see `pileus doctor`)"),
        (2, ", 2 unknown objects (see `pileus doctor`)"),
    ],
)
def test_a_host_is_one_line(unknown: int, more: str) -> None:
    line = "  host lab: up, tcg, 2 CPUs, 4096 MiB, filter br_netfilter"
    assert host_line({**HOST, "unknown": [{"kind": "guest", "id": "x"}] * unknown}) == line + more
    assert host_line({**HOST, "up": False, "unknown": []}) == line.replace("up", "DOWN", 1)
