"""Passwords, crash dumps, diagnostics and topology of servers: through the real edge, link and loops."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from pileus.contracts.hypervisor import Diagnostics, DiskDiagnostics, NicDiagnostics
from tests.services.compute.cloud import IMAGE, NEWEST, Cloud, at

SERVERS = "/compute/v2.1/servers"


@pytest.fixture
def cloud(database_url: str) -> Iterator[Cloud]:
    with Cloud(database_url) as found:
        found.image()
        found.flavor("1")
        yield found


def with_agent(cloud: Cloud) -> str:
    """An image whose guests run an agent."""
    body = [{"op": "add", "path": "/hw_qemu_guest_agent", "value": "yes"}]
    headers = {"content-type": "application/openstack-images-v2.1-json-patch"}
    found = cloud.admin.request("PATCH", f"/image/v2/images/{IMAGE}", json=body, headers=headers)
    assert found.status == 200, found
    return IMAGE


def result(cloud: Cloud, server_id: str, action: str) -> tuple[Any, Any]:
    """Result and details of the newest action of a name."""
    path = f"{SERVERS}/{server_id}/os-instance-actions"
    for one in cloud.admin.request("GET", path, headers=NEWEST).json["instanceActions"]:
        if one["action"] == action:
            shown = cloud.admin.request("GET", f"{path}/{one['request_id']}", headers=NEWEST).json["instanceAction"]
            return shown["events"][0]["result"], shown["events"][0]["details"]
    return None, None


def test_an_agent_sets_the_password(cloud: Cloud) -> None:
    host = cloud.host("h1")
    server_id = cloud.made(imageRef=with_agent(cloud))
    cloud.reach(server_id, "ACTIVE")
    assert host.guests[server_id].machine.guest_agent
    assert host.guests[server_id].password is None
    host.silent = True
    assert cloud.act(server_id, "changePassword", {"adminPass": "new one"}).status == 202
    assert (cloud.status(server_id), cloud.show(server_id)["OS-EXT-STS:task_state"]) == (
        "PASSWORD",
        "updating_password",
    )
    assert cloud.act(server_id, "changePassword", {"adminPass": "newer"}).status == 409
    host.silent = False
    cloud.served.run(host.report())
    cloud.reach(server_id, "ACTIVE")
    assert (host.guests[server_id].password, host.guests[server_id].acts) == ("new one", {"password": 1})
    cloud.wait(lambda: result(cloud, server_id, "changePassword")[0] == "Success")


def test_an_agent_that_cannot_set_it_leaves_the_server_as_it_was(cloud: Cloud) -> None:
    host = cloud.host("h1")
    server_id = cloud.made(imageRef=with_agent(cloud))
    cloud.reach(server_id, "ACTIVE")
    host.faults["password"] = "the agent does not answer"
    assert cloud.act(server_id, "changePassword", {"adminPass": "new"}).status == 202
    cloud.wait(lambda: result(cloud, server_id, "changePassword")[0] == "Error")
    assert "does not answer" in result(cloud, server_id, "changePassword")[1]
    cloud.reach(server_id, "ACTIVE")


def test_without_an_agent_the_metadata_tells_the_password(cloud: Cloud) -> None:
    host = cloud.host("h1")
    server_id = cloud.made()
    cloud.reach(server_id, "ACTIVE")
    assert cloud.act(server_id, "changePassword", {"adminPass": "new"}).status == 202

    def told() -> str:
        return str(json.loads(host.guests[server_id].documents["openstack/latest/meta_data.json"])["admin_pass"])

    cloud.wait(lambda: told() == "new")
    assert (cloud.status(server_id), host.guests[server_id].acts) == ("ACTIVE", {})
    cloud.wait(lambda: result(cloud, server_id, "changePassword")[0] == "Success")


def test_passwords_that_are_refused(cloud: Cloud) -> None:
    server_id = cloud.made()
    assert cloud.act(server_id, "changePassword", {"adminPass": 5}).status == 400
    assert cloud.act(server_id, "changePassword", {}).status == 400
    assert cloud.act(server_id, "changePassword", {"adminPass": "x"}).status == 409
    assert cloud.act(server_id, "changePassword", {"adminPass": "x"}, client=cloud.reader).status == 403
    assert cloud.act(server_id, "changePassword", {"adminPass": "x"}, client=cloud.stranger).status == 404


def test_the_guest_tells_its_password_once(cloud: Cloud) -> None:
    host = cloud.host("h1")
    server_id = cloud.made()
    cloud.reach(server_id, "ACTIVE")
    path = f"{SERVERS}/{server_id}/os-server-password"
    assert cloud.member.request("GET", path).json == {"password": ""}

    def tell(text: str, host_id: str = "") -> int:
        headers = {"x-auth-token": host_id or host.id, "content-type": "application/json"}
        body = msgspec.json.encode({"password": text})
        sent = host.client._send("POST", f"/guests/{server_id}/password", headers, [body])
        return cloud.served.run(sent).status

    assert tell("c2VhbGVk", "another-host") == 404
    assert tell("x" * 1021) == 400
    assert tell("c2VhbGVk") == 204
    assert tell("b3RoZXI=") == 409
    assert cloud.reader.request("GET", path).json == {"password": "c2VhbGVk"}
    assert cloud.reader.request("DELETE", path).status == 403
    assert cloud.stranger.request("GET", path).status == 404
    assert cloud.member.request("DELETE", path).status == 204
    assert cloud.member.request("GET", path).json == {"password": ""}
    assert tell("b3RoZXI=") == 204


def test_crash_dumps(cloud: Cloud) -> None:
    host = cloud.host("h1")
    server_id = cloud.made()
    assert cloud.act(server_id, "trigger_crash_dump").status == 409
    cloud.reach(server_id, "ACTIVE")
    assert cloud.act(server_id, "trigger_crash_dump").status == 202
    cloud.wait(lambda: host.guests[server_id].acts == {"nmi": 1})
    cloud.wait(lambda: result(cloud, server_id, "trigger_crash_dump")[0] == "Success")
    old = cloud.member.request(
        "POST", f"{SERVERS}/{server_id}/action", json={"trigger_crash_dump": None}, headers=at("2.16")
    )
    assert old.status in (400, 404)
    assert cloud.act(server_id, "trigger_crash_dump", {"more": 1}).status == 400
    cloud.act(server_id, "os-stop")
    cloud.reach(server_id, "SHUTOFF")
    assert cloud.act(server_id, "trigger_crash_dump").status == 409


MEASURED = Diagnostics(
    state="running",
    driver="qemu",
    uptime=60,
    cpu_time=(5, 7),
    memory_mib=512,
    memory_used_mib=100,
    disks=(DiskDiagnostics(id="root", read_bytes=1, read_requests=2, write_bytes=3, write_requests=4),),
    nics=(NicDiagnostics(port_id="12345678-9abc-4000", mac_address="fa:16:3e:00:00:01", rx_octets=9, tx_packets=8),),
)


def test_diagnostics(cloud: Cloud) -> None:
    host = cloud.host("h1")
    server_id = cloud.made()
    path = f"{SERVERS}/{server_id}/diagnostics"
    cloud.reach(server_id, "ACTIVE")
    rests = cloud.admin.request("GET", path, headers=NEWEST)
    assert (rests.status, "it rests" in rests.json["conflictingRequest"]["message"]) == (409, True)
    host.measured = msgspec.json.encode(MEASURED).decode()
    new = cloud.admin.request("GET", path, headers=at("2.48")).json
    assert (new["state"], new["hypervisor"], new["num_cpus"], new["num_disks"], new["num_nics"]) == (
        *("running", "qemu"), 2, 1, 1,
    )  # fmt: skip
    assert new["memory_details"] == {"maximum": 512, "used": 100}
    assert new["cpu_details"] == [{"id": 0, "time": 5, "utilisation": None}, {"id": 1, "time": 7, "utilisation": None}]
    assert new["disk_details"][0]["write_requests"] == 4
    assert (new["nic_details"][0]["rx_octets"], new["config_drive"]) == (9, False)
    old = cloud.admin.request("GET", path, headers=at("2.47")).json
    assert (old["cpu1_time"], old["memory"], old["vda_write"], old["tap12345678-9a_rx"]) == (7, 524288, 3, 9)
    assert [one.request("GET", path).status for one in (cloud.member, cloud.stranger)] == [403, 403]


def test_topology(cloud: Cloud) -> None:
    cloud.host("h1")
    cloud.flavor("2", vcpus=2)
    specs = {"extra_specs": {"hw:cpu_policy": "dedicated", "hw:cpu_threads": "2", "hw:cpu_max_sockets": "1"}}
    assert cloud.admin.request("POST", "/compute/v2.1/flavors/2/os-extra_specs", json=specs).status == 200
    plain, pinned = cloud.made(), cloud.made(flavorRef="2")
    nothing = cloud.reader.request("GET", f"{SERVERS}/{plain}/topology", headers=NEWEST)
    assert nothing.json == {"nodes": [], "pagesize_kb": None}
    path = f"{SERVERS}/{pinned}/topology"
    node = {"vcpu_set": [0, 1], "siblings": [[0, 1]], "memory_mb": 512}
    assert cloud.reader.request("GET", path, headers=NEWEST).json["nodes"] == [node]
    assert cloud.admin.request("GET", path, headers=NEWEST).json["nodes"] == [
        {**node, "host_node": 0, "cpu_pinning": {}}
    ]
    assert cloud.reader.request("GET", path, headers=at("2.77")).status == 404
    assert cloud.stranger.request("GET", path, headers=NEWEST).status == 404
