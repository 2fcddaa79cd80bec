"""The keys of tokens on disk."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pileus.services.identity.interface import Keys
from pileus.services.identity.rules.token import BadToken, Payload, audit_id

NOW = datetime(2030, 1, 1, tzinfo=UTC)
PAYLOAD = Payload(
    user_id="a" * 32,
    user_generation=0,
    methods=("password",),
    issued_at=NOW,
    expires_at=NOW + timedelta(hours=1),
    audit_id=audit_id(bytes(16)),
)


def _names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_keys_are_secret_and_made_once(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")
    keys.prepare()
    assert keys.directory.stat().st_mode & 0o777 == 0o700
    assert _names(keys.directory) == {"0", "1"}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in keys.directory.iterdir())
    before = {path.name: path.read_bytes() for path in keys.directory.iterdir()}
    keys.prepare()
    assert {path.name: path.read_bytes() for path in keys.directory.iterdir()} == before


def test_there_is_no_ring_before_there_are_keys(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        _ = Keys(tmp_path / "keys").ring


def test_a_rotation_voids_nothing_until_a_key_is_forgotten(tmp_path: Path) -> None:
    here, there = Keys(tmp_path), Keys(tmp_path)
    here.prepare()
    late = there.ring  # another process, which has not looked since
    text = here.ring.seal(PAYLOAD)
    here.rotate()
    assert _names(tmp_path) == {"0", "1", "2"}
    assert here.ring.open(text) == PAYLOAD
    assert late.open(here.ring.seal(PAYLOAD)) == PAYLOAD
    here.rotate()
    assert _names(tmp_path) == {"0", "2", "3"}
    with pytest.raises(BadToken):
        there.ring.open(text)
    assert there.ring.open(here.ring.seal(PAYLOAD)) == PAYLOAD
