"""What `doctor` says of a kernel that leaves tenants too much to share."""

from __future__ import annotations

import pytest

from pileus.app.host import NEIGHBOURS, examine_isolation
from pileus.drivers.host import confinement, namespace


@pytest.mark.parametrize(
    ("room", "landlock", "told"),
    [
        ("1024", 7, ["table of neighbours", "table of neighbours"]),
        (str(NEIGHBOURS), 1, []),
        ("", 4, []),
        ("", 0, ["confinement"]),
    ],
)
def test_what_is_missing_is_noted_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, room: str, landlock: int, told: list[str]
) -> None:
    monkeypatch.setattr(namespace, "get_kernel", lambda key: room)
    monkeypatch.setattr(confinement, "version", lambda: landlock)
    found = list(examine_isolation())
    assert [name for name, *_ in found] == told
    assert all(verdict == "note" and text and fix for _, verdict, text, fix in found)
