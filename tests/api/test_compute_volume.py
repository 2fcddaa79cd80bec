"""What Compute answers for services that are not there: volumes, bare metal, shares."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.compute_cloud import Cloud, cloud, fault, ok

UNKNOWN = "11111111-2222-4333-8444-555555555555"
ASSISTED = "/os-assisted-volume-snapshots"


@pytest.fixture(scope="module", name="cloud")
def one_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    place: Path = tmp_path_factory.mktemp("volume")
    with cloud(place) as made:
        yield made


OPERATIONS: list[tuple[str, str, Any]] = [
    ("GET", "/os-volumes", None),
    ("GET", "/os-volumes/detail?limit=1", None),
    ("GET", f"/os-volumes/{UNKNOWN}", None),
    ("POST", "/os-volumes", {"volume": {"size": "1"}}),
    ("DELETE", f"/os-volumes/{UNKNOWN}", None),
    ("GET", "/os-snapshots", None),
    ("GET", "/os-snapshots/detail", None),
    ("GET", f"/os-snapshots/{UNKNOWN}", None),
    ("POST", "/os-snapshots", {"snapshot": {"volume_id": UNKNOWN}}),
    ("DELETE", f"/os-snapshots/{UNKNOWN}", None),
]


def test_there_are_no_volumes(cloud: Cloud) -> None:
    for method, path, body in OPERATIONS:
        found = cloud.ask(method, path, body, version="2.35", token="member:p1")
        assert "Block Storage" in fault(found, 503), path
        assert cloud.ask(method, path, body, version="2.36", token="member:p1").status == 404
        assert cloud.ask(method, path, body, version="2.35", token="service:p1").status == 403
        if method != "GET":
            assert cloud.ask(method, path, body, version="2.35", token="reader:p1").status == 403
    fault(cloud.ask("POST", "/os-volumes", {"volume": {"size": 0}}, version="2.35"), 400)
    fault(cloud.ask("POST", "/os-snapshots", {"snapshot": {}}, version="2.35"), 400)


def test_no_attached_volume_is_there_to_take_a_snapshot_of(cloud: Cloud) -> None:
    info = {"snapshot_id": "s", "type": "qcow2", "new_file": "f"}
    body = {"snapshot": {"volume_id": UNKNOWN, "create_info": info}}
    for token in ("admin:ops", "service:services"):
        assert UNKNOWN in fault(cloud.ask("POST", ASSISTED, body, token=token), 400)
    fault(cloud.ask("POST", ASSISTED, body, token="member:p1"), 403)
    given = f'{ASSISTED}/s?delete_info={{"volume_id":"{UNKNOWN}"}}'
    assert UNKNOWN in fault(cloud.ask("DELETE", given), 400)
    fault(cloud.ask("DELETE", given, token="member:p1"), 403)
    for wrong in ("", "?delete_info=x", "?delete_info={}", "?delete_info=[]"):
        assert "delete_info" in fault(cloud.ask("DELETE", f"{ASSISTED}/s{wrong}"), 400)


def test_there_is_no_bare_metal(cloud: Cloud) -> None:
    for path in ("/os-baremetal-nodes", "/os-baremetal-nodes/one"):
        assert "Bare Metal" in fault(cloud.ask("GET", path, version="2.35"), 503)
        fault(cloud.ask("GET", path, version="2.35", token="manager:p1"), 403)
        fault(cloud.ask("GET", path, version="2.36"), 404)
    asked: list[tuple[str, str, Any]] = [
        ("POST", "/os-baremetal-nodes", {"node": {}}),
        ("DELETE", "/os-baremetal-nodes/one", None),
        ("POST", "/os-baremetal-nodes/one/action", {"add_interface": {"address": "aa"}}),
        ("POST", "/os-baremetal-nodes/one/action", {"remove_interface": {"address": "aa"}}),
    ]
    for method, path, body in asked:
        assert "Ironic" in fault(cloud.ask(method, path, body, version="2.35"), 400)


def test_no_share_is_attached(cloud: Cloud) -> None:
    server_id = cloud.add_server(None, None)
    stopped = cloud.add_server(None, None, power="stopped", state="stopped")
    shares, body = f"/servers/{server_id}/shares", {"share": {"share_id": UNKNOWN, "tag": "data"}}
    assert ok(cloud.ask("GET", shares, token="reader:p1"))["shares"] == []
    assert UNKNOWN in fault(cloud.ask("GET", f"{shares}/{UNKNOWN}", token="reader:p1"), 404)
    assert "vm_state active" in fault(cloud.ask("POST", shares, body, token="member:p1"), 409)
    assert "virtiofs" in fault(cloud.ask("POST", f"/servers/{stopped}/shares", body, token="member:p1"), 409)
    assert "vm_state active" in fault(cloud.ask("DELETE", f"{shares}/{UNKNOWN}", token="member:p1"), 409)
    fault(cloud.ask("DELETE", f"/servers/{stopped}/shares/{UNKNOWN}", token="member:p1"), 404)
    fault(cloud.ask("POST", shares, body, token="reader:p1"), 403)
    fault(cloud.ask("DELETE", f"{shares}/{UNKNOWN}", token="reader:p1"), 403)
    for method, path in (("GET", shares), ("GET", f"{shares}/{UNKNOWN}"), ("DELETE", f"{shares}/{UNKNOWN}")):
        fault(cloud.ask(method, path, token="member:p2"), 404)
        fault(cloud.ask(method, path, version="2.96", token="member:p1"), 404)
    fault(cloud.ask("POST", f"/servers/{UNKNOWN}/shares", body), 404)
    fault(cloud.ask("POST", shares, {"share": {"share_id": "no uuid"}}), 400)
