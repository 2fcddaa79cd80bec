"""What nobody assigned goes by its name alone, when an administrator says so, and by a tombstone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from pileus.contracts.link import Heartbeat, Unknown
from pileus.core.store import Tx
from pileus.services.fleet.resources.assignment import assignment
from pileus.services.fleet.resources.host import host
from tests.api.whole import Whole, whole_cloud

STRANGER = "11111111-1111-1111-1111-111111111111"
PLACE = "/fleet/v1/hosts/h/unknown"


@pytest.fixture
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    """A cloud with a host that holds a guest which nobody assigned."""
    with whole_cloud(tmp_path_factory.mktemp("cloud")) as found:

        def join(tx: Tx) -> None:
            values = {"id": "h", "name": "h", "facts": {}, "network_filter": "", "version": ""}
            tx.execute(sa.insert(host).values(**values, created_at=tx.now, seen_at=tx.now))

        found.control.store.write_here(join)
        beat(found)
        yield found


def beat(whole: Whole, *gone: str) -> None:
    """The host's next heartbeat."""
    unknown = [Unknown(kind="guest", id=one) for one in (STRANGER,) if one not in gone]
    whole.control.fleet.beat("h", Heartbeat(free_disk_gib=1, unknown=unknown))


def held(whole: Whole) -> list[tuple[str, str, bool]]:
    """What the host is to hold, or to let go."""
    rows = whole.control.store.read_here(lambda tx: tx.all(sa.select(assignment)))
    return [(row.kind, row.id, row.tombstone) for row in rows]


def ask(whole: Whole, path: str) -> int:
    return whole.admin.request("DELETE", f"{PLACE}/{path}").status


def test_a_stranger_is_let_go_by_a_tombstone(whole: Whole) -> None:
    assert ask(whole, f"guest/{STRANGER}") == 202
    assert held(whole) == [("guest", STRANGER, True)]
    # It is on its way out until the host says that it is gone; then nobody knows it any more.
    beat(whole)
    assert ask(whole, f"guest/{STRANGER}") == 409
    whole.control.store.write_here(lambda tx: tx.execute(sa.delete(assignment)).rowcount)
    beat(whole, STRANGER)
    assert ask(whole, f"guest/{STRANGER}") == 404


def test_what_is_assigned_or_not_there_is_refused(whole: Whole) -> None:
    def assign(tx: Tx) -> None:
        key = {"host_id": "h", "kind": "guest", "id": STRANGER}
        tx.execute(sa.insert(assignment).values(**key, generation=1, spec=b"{}", updated_at=tx.now))

    for path in ("guest/nobody", f"network/{STRANGER}", f"everything/{STRANGER}"):
        assert ask(whole, path) == 404
    whole.control.store.write_here(assign)
    assert ask(whole, f"guest/{STRANGER}") == 409
    assert held(whole) == [("guest", STRANGER, False)]


def test_it_is_for_administrators(whole: Whole) -> None:
    assert whole.served.client().request("DELETE", f"{PLACE}/guest/{STRANGER}").status == 401
    assert held(whole) == []
