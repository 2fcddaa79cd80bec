"""`pileus explain`: what is said of a server in lines for people."""

from __future__ import annotations

from typing import Any

import pytest

from pileus.cli.explain import lines

SERVER = {"id": "s", "name": "web", "status": "BUILD"}
NOTHING: dict[str, Any] = {
    "resources": {"VCPU": 1},
    "decided_at": None,
    "chosen": None,
    "refused_by": {},
    "best": [],
    "kept": None,
    "hosts": [],
}


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"state": ""}, "  h1 was told, and has said nothing of it yet"),
        ({"state": "running"}, "  h1 says running"),
        ({"state": "failed", "detail": "no room"}, "  h1 says failed: no room, and tries again"),
        ({"state": "failed", "permanent": True, "detail": "no such image"}, "  h1 says failed for good: no such image"),
        ({"state": "running", "done": 1}, "  h1 says running of what it was told before: the newest is under way"),
    ],
)
def test_what_a_host_said_last_is_one_line(said: dict[str, Any], line: str) -> None:
    heard = {"host": "h1", "wanted": 2, "done": 2, "permanent": False, "detail": None, **said}
    assert lines(SERVER, {**NOTHING, "heard": [heard]})[-1] == line


def test_a_server_that_no_host_has_heard_of() -> None:
    assert lines(SERVER, {**NOTHING, "heard": []}) == [
        "server s (web) is BUILD",
        "  needs: 1 VCPU",
        "  as each host is judged now:",
    ]
