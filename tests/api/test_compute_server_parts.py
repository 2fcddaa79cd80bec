"""What belongs to a server, through the real edge: metadata, tags, ports, locks, history, console."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.services.compute.cloud import IMAGE, NEWEST, PROJECT, Cloud, at
from tests.services.compute.life import newest_action

SERVERS = "/compute/v2.1/servers"


@pytest.fixture
def cloud(database_url: str) -> Iterator[Cloud]:
    with Cloud(database_url) as found:
        found.image()
        found.flavor("1")
        yield found


def test_actions_and_events(cloud: Cloud) -> None:
    cloud.host("h1")
    server_id = cloud.made()
    cloud.reach(server_id, "ACTIVE")
    cloud.act(server_id, "os-stop")
    cloud.reach(server_id, "SHUTOFF")
    path = f"{SERVERS}/{server_id}/os-instance-actions"
    stop, create = cloud.reader.request("GET", path, headers=NEWEST).json["instanceActions"]
    assert (stop["action"], create["action"]) == ("stop", "create")

    def shown(version: str, client: Any) -> dict[str, Any]:
        found = client.request("GET", f"{path}/{stop['request_id']}", headers=at(version))
        assert found.status == 200
        action: dict[str, Any] = found.json["instanceAction"]
        return action

    cloud.wait(lambda: bool(shown("2.104", cloud.admin)["events"][0]["finish_time"]))
    (event,) = shown("2.104", cloud.admin)["events"]
    assert (event["event"], event["result"], event["host"]) == ("compute_stop_instance", "Success", "h1")
    assert "events" not in shown("2.50", cloud.reader)
    (plain,) = shown("2.51", cloud.reader)["events"]
    assert not {"traceback", "host", "hostId", "details"} & set(plain)
    (hashed,) = shown("2.84", cloud.reader)["events"]
    assert hashed["hostId"]
    assert not {"host", "details"} & set(hashed)
    assert cloud.reader.request("GET", f"{path}/req-nothing").status == 404
    asked = "changes-since=2020-01-01T00%3A00%3A00&limit=1"
    page = cloud.reader.request("GET", f"{path}?{asked}", headers=NEWEST).json
    assert [one["action"] for one in page["instanceActions"]] == ["stop"]
    [link] = page["links"]
    assert link["href"].endswith(f"{path}?{asked}&marker={stop['request_id']}")
    rest = cloud.reader.request("GET", path + link["href"].partition("os-instance-actions")[2], headers=NEWEST)
    assert [one["action"] for one in rest.json["instanceActions"]] == ["create"]


def test_console(cloud: Cloud) -> None:
    host = cloud.host("h1")
    server_id = cloud.made()
    cloud.reach(server_id, "ACTIVE")
    host.console = "lines: "
    for given, expected in (({"length": 5}, "5"), ({"length": "7"}, "7"), ({}, "None"), ({"length": -1}, "None")):
        found = cloud.act(server_id, "os-getConsoleOutput", given)
        assert (found.status, found.json) == (200, {"output": f"lines: {expected}"})
    assert cloud.act(server_id, "os-getConsoleOutput", {"length": "x"}).status == 400
    assert cloud.act(server_id, "os-getConsoleOutput", {}, client=cloud.reader).status == 403
    assert cloud.act(server_id, "os-getConsoleOutput", {}, client=cloud.stranger).status == 404


def test_console_of_a_server_without_host(cloud: Cloud) -> None:
    server_id = cloud.made()
    found = cloud.act(server_id, "os-getConsoleOutput", {})
    assert found.status == 409


def test_metadata(cloud: Cloud) -> None:
    host = cloud.host("h1")
    server_id = cloud.made(metadata={"a": "1"})
    cloud.reach(server_id, "ACTIVE")
    path = f"{SERVERS}/{server_id}/metadata"
    assert cloud.reader.request("GET", path).json == {"metadata": {"a": "1"}}
    assert cloud.member.request("POST", path, json={"metadata": {"b": "2"}}).json == {"metadata": {"a": "1", "b": "2"}}
    assert cloud.member.request("PUT", f"{path}/b", json={"meta": {"b": "3"}}).json == {"meta": {"b": "3"}}
    assert cloud.member.request("PUT", f"{path}/b", json={"meta": {"c": "3"}}).status == 400
    assert cloud.reader.request("GET", f"{path}/b").json == {"meta": {"b": "3"}}
    assert cloud.member.request("DELETE", f"{path}/a").status == 204
    assert cloud.member.request("DELETE", f"{path}/a").status == 404
    assert cloud.member.request("PUT", path, json={"metadata": {"c": "4"}}).json == {"metadata": {"c": "4"}}
    assert cloud.reader.request("POST", path, json={"metadata": {}}).status == 403
    for bad in ({"é": "1"}, {"": "1"}, {"a": "x" * 256}, {"a": 1}):
        assert cloud.member.request("POST", path, json={"metadata": bad}).status == 400

    def told() -> Any:
        return json.loads(host.guests[server_id].documents["openstack/latest/meta_data.json"]).get("meta")

    cloud.wait(lambda: told() == {"c": "4"})
    limit = {"quota_set": {"metadata_items": 2}}
    cloud.admin.request("PUT", f"/compute/v2.1/os-quota-sets/{PROJECT}", json=limit)
    assert cloud.member.request("POST", path, json={"metadata": {"d": "", "e": ""}}).status == 403
    assert cloud.create(metadata={"d": "", "e": "", "f": ""}).status == 403


def test_tags(cloud: Cloud) -> None:
    cloud.host("h1")
    server_id = cloud.made(tags=["b", "a"])
    cloud.reach(server_id, "ACTIVE")
    path = f"{SERVERS}/{server_id}/tags"
    assert cloud.reader.request("GET", path, headers=at("2.25")).status == 404
    assert cloud.reader.request("GET", path, headers=NEWEST).json == {"tags": ["a", "b"]}
    assert cloud.member.request("PUT", f"{path}/c", headers=NEWEST).status == 201
    assert cloud.member.request("PUT", f"{path}/c", headers=NEWEST).status == 204
    assert cloud.member.request("PUT", f"{path}/a,b", headers=NEWEST).status == 400
    assert cloud.reader.request("GET", f"{path}/c", headers=NEWEST).status == 204
    assert cloud.reader.request("GET", f"{path}/d", headers=NEWEST).status == 404
    assert cloud.member.request("DELETE", f"{path}/c", headers=NEWEST).status == 204
    assert cloud.member.request("DELETE", f"{path}/c", headers=NEWEST).status == 404
    body = {"tags": ["x", "y"]}
    assert cloud.member.request("PUT", path, json=body, headers=NEWEST).json == body
    assert cloud.member.request("PUT", path, json={"tags": [str(n) for n in range(51)]}, headers=NEWEST).status == 400
    assert cloud.member.request("DELETE", path, headers=NEWEST).status == 204
    assert cloud.show(server_id)["tags"] == []


def test_locks(cloud: Cloud) -> None:
    cloud.host("h1")
    server_id = cloud.made()
    cloud.reach(server_id, "ACTIVE")
    assert cloud.act(server_id, "lock", {"locked_reason": "mine"}).status == 202
    shown = cloud.show(server_id)
    assert (shown["locked"], shown["locked_reason"]) == (True, "mine")
    assert cloud.act(server_id, "os-stop").status == 409
    assert cloud.member.request("DELETE", f"{SERVERS}/{server_id}").status == 409
    assert len(cloud.member.request("GET", f"{SERVERS}?locked=true", headers=NEWEST).json["servers"]) == 1
    assert cloud.member.request("GET", f"{SERVERS}?locked=false", headers=NEWEST).json["servers"] == []
    other_admin = cloud.served.client("admin:admins")
    assert cloud.act(server_id, "lock", client=other_admin).status == 202
    assert cloud.show(server_id)["locked_reason"] == "mine", "who gives no reason leaves the one that is there"
    assert cloud.act(server_id, "unlock", client=other_admin).status == 202
    assert cloud.show(server_id)["locked_reason"] is None
    assert cloud.act(server_id, "lock", client=other_admin).status == 202
    assert cloud.act(server_id, "unlock").status == 403
    assert cloud.act(server_id, "lock").status == 202  # as upstream answers; the lock stays the admin's
    assert cloud.act(server_id, "unlock").status == 403
    assert cloud.act(server_id, "unlock", client=other_admin).status == 202


def test_locks_are_events_that_are_over_at_once(cloud: Cloud) -> None:
    cloud.host("h1")
    server_id = cloud.made()
    cloud.reach(server_id, "ACTIVE")
    for verb in ("lock", "unlock"):
        assert cloud.act(server_id, verb).status == 202
        action, event = newest_action(cloud, server_id)
        assert (action, event["event"], event["result"], event["host"]) == (verb, f"api_{verb}", "Success", "h1")
        assert event["finish_time"] == event["start_time"]


@pytest.mark.parametrize(
    ("version", "body", "status"),
    [
        ("2.72", {"locked_reason": "mine"}, 202),
        ("2.72", {"more": 1}, 202),
        ("2.72", "please", 202),
        ("2.73", {"more": 1}, 400),
        ("2.73", "please", 400),
        ("2.73", {"locked_reason": ""}, 400),
        ("2.73", {}, 202),
    ],
)
def test_locks_by_version(cloud: Cloud, version: str, body: Any, status: int) -> None:
    server_id = cloud.made()
    path = f"{SERVERS}/{server_id}/action"
    assert cloud.member.request("POST", path, json={"lock": body}, headers=at(version)).status == status
    shown = cloud.show(server_id)
    assert (shown["locked"], shown["locked_reason"]) == (status == 202, None)


def test_update(cloud: Cloud) -> None:
    cloud.host("h1")
    server_id = cloud.made()
    cloud.reach(server_id, "ACTIVE")

    def put(version: str, client: Any = None, **body: Any) -> Any:
        path = f"{SERVERS}/{server_id}"
        return (client or cloud.member).request("PUT", path, json={"server": body}, headers=at(version))

    found = put("2.1", name="new", accessIPv4="192.0.2.1")
    assert (found.json["server"]["name"], found.json["server"]["accessIPv4"]) == ("new", "192.0.2.1")
    assert "OS-EXT-STS:vm_state" not in found.json["server"]
    assert "OS-EXT-STS:vm_state" in put("2.75", name="new").json["server"]
    assert put("2.18", description="x").status == 400
    assert put("2.19", description=None).json["server"]["description"] is None
    assert put("2.89", hostname="box").status == 400
    assert put("2.90", hostname="box").status == 200
    assert put("2.93", hostname="box.example.org").status == 400
    assert put("2.94", hostname="box.example.org").status == 200
    assert cloud.show(server_id)["OS-EXT-SRV-ATTR:hostname"] == "box.example.org"
    assert put("2.1", accessIPv4="nonsense").status == 400
    assert put("2.1", accessIPv4="999.0.0.1").status == 400
    assert put("2.1", accessIPv6=":::").status == 400
    assert put("2.1", accessIPv6="0::db8:220.12.22.2").json["server"]["accessIPv6"] == "::db8:dc0c:1602"
    assert cloud.show(server_id)["accessIPv4"] == "192.0.2.1"
    assert put("2.1", accessIPv4="", accessIPv6="").json["server"]["accessIPv4"] == ""
    assert put("2.1", nothing=1).status == 400
    assert put("2.1", client=cloud.reader, name="x").status == 403
    assert put("2.1", client=cloud.stranger, name="x").status == 404


def test_binding_to_a_zone(cloud: Cloud) -> None:
    cloud.host("h1")
    server_id = cloud.made()
    cloud.reach(server_id, "ACTIVE")

    def pin(zone: str | None, version: str = "2.104") -> int:
        body = {"server": {"pinned_availability_zone": zone}}
        return cloud.member.request("PUT", f"{SERVERS}/{server_id}", json=body, headers=at(version)).status

    assert [pin(None, "2.103"), pin("other"), pin("nova"), pin("nova"), pin("other"), pin(None)] == [
        400,
        409,
        200,
        200,
        409,
        200,
    ]


def test_ports_and_addresses(cloud: Cloud) -> None:
    cloud.host("h1")
    network = cloud.network()
    body = {"port": {"network_id": network}}
    port = cloud.member.request("POST", "/network/v2.0/ports", json=body).json["port"]
    server_id = cloud.made(networks=[{"port": port["id"]}])
    cloud.reach(server_id, "ACTIVE")
    address = port["fixed_ips"][0]["ip_address"]
    assert cloud.create(networks=[{"port": port["id"]}]).status == 409
    ips = cloud.reader.request("GET", f"{SERVERS}/{server_id}/ips").json
    assert ips == {"addresses": {"net": [{"version": 4, "addr": address}]}}
    assert cloud.reader.request("GET", f"{SERVERS}/{server_id}/ips/net").json == ips["addresses"]
    assert cloud.reader.request("GET", f"{SERVERS}/{server_id}/ips/other").status == 404
    (one,) = cloud.reader.request("GET", f"{SERVERS}/{server_id}/os-interface", headers=NEWEST).json[
        "interfaceAttachments"
    ]
    assert (one["port_id"], one["mac_addr"], one["tag"]) == (port["id"], port["mac_address"], None)
    shown = cloud.reader.request("GET", f"{SERVERS}/{server_id}/os-interface/{port['id']}")
    assert shown.json["interfaceAttachment"]["fixed_ips"][0]["ip_address"] == address
    assert cloud.reader.request("GET", f"{SERVERS}/{server_id}/os-interface/{network}").status == 404
    cloud.member.request("DELETE", f"{SERVERS}/{server_id}")
    cloud.reach(server_id, "gone")
    kept = cloud.member.request("GET", f"/network/v2.0/ports/{port['id']}").json["port"]
    assert (kept["device_id"], kept["device_owner"]) == ("", "")


def test_security_groups(cloud: Cloud) -> None:
    cloud.host("h1")
    network = cloud.network()
    for name in ("web", "db"):
        body = {"security_group": {"name": name}}
        assert cloud.member.request("POST", "/network/v2.0/security-groups", json=body).status == 201
    made = cloud.create(networks=[{"uuid": network}], security_groups=[{"name": "web"}])
    server_id = made.json["server"]["id"]
    assert made.json["server"]["security_groups"] == [{"name": "web"}]
    cloud.reach(server_id, "ACTIVE")
    assert cloud.act(server_id, "addSecurityGroup", {"name": "db"}).status == 202
    assert sorted(one["name"] for one in cloud.show(server_id)["security_groups"]) == ["db", "web"]
    assert cloud.act(server_id, "removeSecurityGroup", {"name": "web"}).status == 202
    assert cloud.act(server_id, "removeSecurityGroup", {"name": "web"}).status == 404
    groups = cloud.reader.request("GET", f"{SERVERS}/{server_id}/os-security-groups").json["security_groups"]
    assert [one["name"] for one in groups] == ["db"]
    assert cloud.act(server_id, "addSecurityGroup", {"name": "nope"}).status == 404
    body = {"port": {"network_id": network}}
    port = cloud.member.request("POST", "/network/v2.0/ports", json=body).json["port"]["id"]
    for networks in ([{"uuid": network}], [{"port": port}], "none"):
        found = cloud.create(networks=networks, security_groups=[{"name": "nope"}])
        assert found.status == 400
        message = found.json["badRequest"]["message"]
        assert message == f"Security group nope not found for project {PROJECT}."
        for name in ("default", "web"):
            assert cloud.create(networks="none", security_groups=[{"name": name}]).status == 202


def test_the_key_is_the_guests(cloud: Cloud) -> None:
    host = cloud.host("h1")
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJX8nHInsdWOCyN3b8wIQXMqHzbbJybgxcibCtO3CHH5 me"
    body = {"keypair": {"name": "mine", "public_key": key}}
    assert cloud.member.request("POST", "/compute/v2.1/os-keypairs", json=body).status == 200
    server_id = cloud.made(key_name="mine", user_data="IyEvYmluL3NoCg==", config_drive=True)
    shown = cloud.reach(server_id, "ACTIVE")
    assert (shown["key_name"], shown["config_drive"]) == ("mine", "True")
    assert shown["OS-EXT-SRV-ATTR:user_data"] == "IyEvYmluL3NoCg=="
    guest = host.guests[server_id]
    assert guest.config_drive
    assert guest.documents["openstack/latest/user_data"] == b"#!/bin/sh\n"
    assert guest.documents["latest/meta-data/public-keys/0/openssh-key"].decode() == key
    assert cloud.create(key_name="nope").status == 400
    assert shown["image"]["id"] == IMAGE
