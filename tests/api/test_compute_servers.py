"""A server's life through the real edge, link and loops."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.services.compute.cloud import IMAGE, NEWEST, PROJECT, Cloud, at

SERVERS = "/compute/v2.1/servers"


@pytest.fixture
def cloud(database_url: str) -> Iterator[Cloud]:
    with Cloud(database_url) as found:
        found.image()
        found.flavor("1")
        yield found


def quota(cloud: Cloud) -> dict[str, int]:
    """What the project uses."""
    found = cloud.admin.request("GET", f"/compute/v2.1/os-quota-sets/{PROJECT}/detail").json["quota_set"]
    return {name: found[name]["in_use"] for name in ("instances", "cores", "ram")}


def test_create_runs_and_delete_leaves_nothing(cloud: Cloud) -> None:
    host = cloud.host("h1")
    network = cloud.network()
    made = cloud.create(networks=[{"uuid": network}], name="web")
    assert made.status == 202
    server_id = made.json["server"]["id"]
    assert made.headers["location"].endswith(f"{SERVERS}/{server_id}")
    assert made.json["server"]["security_groups"] == [{"name": "default"}]
    assert len(made.json["server"]["adminPass"]) == 12
    server = cloud.reach(server_id, "ACTIVE")
    assert server["OS-EXT-SRV-ATTR:host"] == "h1"
    assert server["OS-EXT-STS:vm_state"] == "active"
    assert server["OS-EXT-STS:power_state"] == 1
    assert server["OS-SRV-USG:launched_at"]
    (address,) = server["addresses"]["net"]
    assert (address["version"], address["OS-EXT-IPS:type"]) == (4, "fixed")
    assert server["security_groups"] == [{"name": "default"}]
    assert quota(cloud) == {"instances": 1, "cores": 1, "ram": 512}
    guest = host.guests[server_id]
    assert (guest.vcpus, guest.memory_mib, len(guest.nics)) == (1, 512, 1)
    assert json.loads(guest.documents["openstack/latest/meta_data.json"])["name"] == "web"
    assert guest.documents["latest/meta-data/local-ipv4"].decode() == address["addr"]

    assert cloud.member.request("DELETE", f"{SERVERS}/{server_id}").status == 204
    cloud.reach(server_id, "gone")
    assert server_id not in host.guests
    assert quota(cloud) == {"instances": 0, "cores": 0, "ram": 0}
    ports = cloud.member.request("GET", f"/network/v2.0/ports?device_id={server_id}").json["ports"]
    assert ports == []
    hypervisor = cloud.admin.request("GET", "/compute/v2.1/os-hypervisors/detail").json["hypervisors"][0]
    assert (hypervisor["vcpus_used"], hypervisor["running_vms"]) == (0, 0)


def test_power(cloud: Cloud) -> None:
    host = cloud.host("h1")
    server_id = cloud.made()
    cloud.reach(server_id, "ACTIVE")
    for verb, status, power in (
        ("pause", "PAUSED", 3),
        ("unpause", "ACTIVE", 1),
        ("os-stop", "SHUTOFF", 4),
        ("os-start", "ACTIVE", 1),
    ):
        assert cloud.act(server_id, verb).status == 202
        assert cloud.reach(server_id, status)["OS-EXT-STS:power_state"] == power
    assert cloud.act(server_id, "os-start").status == 409
    assert cloud.act(server_id, "reboot", {"type": "SOFT"}).status == 202
    cloud.wait(lambda: host.guests[server_id].reboot_nonce == 1)
    cloud.reach(server_id, "ACTIVE")
    assert host.guests[server_id].reboot_kind == "SOFT"
    assert cloud.act(server_id, "reboot", {"type": "later"}).status == 400
    assert cloud.act(server_id, "reboot", {}).status == 400
    assert cloud.act(server_id, "fly").status == 400


def test_states_on_the_way(cloud: Cloud) -> None:
    host = cloud.host("h1")
    server_id = cloud.made()
    cloud.reach(server_id, "ACTIVE")
    host.silent = True
    on_the_way = {
        "os-stop": ("ACTIVE", "powering-off"),
        "pause": ("ACTIVE", "pausing"),
    }
    for verb, (status, task) in on_the_way.items():
        assert cloud.act(server_id, verb).status == 202
        shown = cloud.show(server_id)
        assert (shown["status"], shown["OS-EXT-STS:task_state"]) == (status, task)
        assert cloud.act(server_id, "pause").status == 409
        host.silent = False
        cloud.served.run(host.report())
        cloud.wait(lambda: cloud.show(server_id)["OS-EXT-STS:task_state"] is None)
        assert cloud.act(server_id, "reboot", {"type": "HARD"}).status == 202
        cloud.reach(server_id, "ACTIVE")
        host.silent = True
    assert cloud.act(server_id, "reboot", {"type": "SOFT"}).status == 202
    assert cloud.status(server_id) == "REBOOT"
    assert cloud.act(server_id, "reboot", {"type": "HARD"}).status == 202
    assert cloud.status(server_id) == "HARD_REBOOT"


def test_a_guest_that_turns_itself_off_is_stopped(cloud: Cloud) -> None:
    host = cloud.host("h1")
    server_id = cloud.made()
    cloud.reach(server_id, "ACTIVE")
    host.say(server_id, "shutdown")
    cloud.reach(server_id, "SHUTOFF")
    cloud.wait(lambda: host.guests[server_id].power == "stopped")
    assert cloud.act(server_id, "os-start").status == 202
    cloud.reach(server_id, "ACTIVE")
    assert host.guests[server_id].power == "running"


def test_a_failure_that_stays_is_an_error(cloud: Cloud) -> None:
    host = cloud.host("h1")
    host.answers["*"] = ("failed", "the disk is larger than the host", True)
    server_id = cloud.made()
    shown = cloud.reach(server_id, "ERROR")
    assert shown["fault"]["code"] == 500
    assert shown["fault"]["details"] == "the disk is larger than the host"
    assert "details" not in cloud.show(server_id, cloud.member)["fault"]
    events = cloud.admin.request("GET", f"{SERVERS}/{server_id}/os-instance-actions", headers=NEWEST).json
    assert events["instanceActions"][0]["message"] == "Error"
    assert cloud.member.request("DELETE", f"{SERVERS}/{server_id}").status == 204
    cloud.reach(server_id, "gone")


def test_a_failure_that_may_pass_is_waited_for(cloud: Cloud) -> None:
    host = cloud.host("h1")
    host.answers["*"] = ("failed", "no memory just now", False)
    server_id = cloud.made()
    cloud.wait(lambda: server_id in host.guests)
    assert cloud.status(server_id) == "BUILD"
    host.answers.clear()
    host.say(server_id, "running")
    cloud.reach(server_id, "ACTIVE")


def test_no_host_is_explained(cloud: Cloud) -> None:
    cloud.host("h1")
    cloud.host("h2")
    cloud.admin.request("PUT", f"/compute/v2.1/os-quota-sets/{PROJECT}", json={"quota_set": {"cores": -1}})
    cloud.flavor("big", vcpus=1000)
    server_id = cloud.made(flavorRef="big")
    fault = cloud.reach(server_id, "ERROR")["fault"]
    assert fault["message"].startswith("No valid host was found.")
    assert fault["details"] == "h1: 1000 VCPU needed, 32 of 32 free\nh2: 1000 VCPU needed, 32 of 32 free"
    explained = cloud.admin.request("GET", f"{SERVERS}/{server_id}/explain").json["explanation"]
    assert explained["refused_by"] == {"VCPU": 2}
    assert explained["chosen"] is None
    assert explained["kept"] == dict.fromkeys(("h1", "h2"), "1000 VCPU needed, 32 of 32 free")
    assert [(one["host"], one["verdict"], one["filter"]) for one in explained["hosts"]] == [
        ("h1", "refused", "VCPU"),
        ("h2", "refused", "VCPU"),
    ]
    veiled = cloud.reader.request("GET", f"{SERVERS}/{server_id}/explain").json["explanation"]
    assert not {"h1", "h2"} & {one["host"] for one in veiled["hosts"]}
    assert veiled["kept"] is None
    assert cloud.stranger.request("GET", f"{SERVERS}/{server_id}/explain").status == 404
    assert cloud.member.request("DELETE", f"{SERVERS}/{server_id}").status == 204
    assert cloud.status(server_id) == "gone"


def test_servers_spread(cloud: Cloud) -> None:
    for name in ("h1", "h2", "h3"):
        cloud.host(name)
    cloud.wait(lambda: len(cloud.admin.request("GET", "/compute/v2.1/os-hypervisors").json["hypervisors"]) == 3)
    made = cloud.create(min_count=3, name="web")
    assert made.status == 202
    found = cloud.member.request("GET", f"{SERVERS}?sort_key=display_name&sort_dir=asc").json["servers"]
    assert [one["name"] for one in found] == ["web-1", "web-2", "web-3"]
    hosts = {cloud.reach(one["id"], "ACTIVE")["OS-EXT-SRV-ATTR:host"] for one in found}
    assert hosts == {"h1", "h2", "h3"}
    explained = cloud.admin.request("GET", f"{SERVERS}/{found[0]['id']}/explain").json["explanation"]
    assert [one["verdict"] for one in explained["hosts"]].count("taken") == 1


def test_a_disabled_host_gets_nothing(cloud: Cloud) -> None:
    cloud.host("h1")
    cloud.host("h2")
    services = cloud.admin.request("GET", "/compute/v2.1/os-services", headers=NEWEST).json["services"]
    first = next(one for one in services if one["host"] == "h1")
    body = {"status": "disabled", "disabled_reason": "new fans"}
    found = cloud.admin.request("PUT", f"/compute/v2.1/os-services/{first['id']}", json=body, headers=NEWEST)
    assert (found.json["service"]["status"], found.json["service"]["disabled_reason"]) == ("disabled", "new fans")
    for _ in range(3):
        assert cloud.reach(cloud.made(), "ACTIVE")["OS-EXT-SRV-ATTR:host"] == "h2"
    named = cloud.made(client=cloud.admin, host="h1")
    assert "the host is disabled: new fans" in cloud.reach(named, "ERROR")["fault"]["details"]
    forced = cloud.made(client=cloud.admin, availability_zone="nova:h1")
    assert cloud.reach(forced, "ACTIVE")["OS-EXT-SRV-ATTR:host"] == "h1"


def test_a_server_waits_for_a_host_that_is_coming(cloud: Cloud) -> None:
    server_id = cloud.made()
    assert cloud.status(server_id) == "BUILD"
    assert cloud.show(server_id)["OS-EXT-STS:task_state"] == "scheduling"
    cloud.host("h1")
    cloud.reach(server_id, "ACTIVE")


def test_deletion_waits_for_the_host(cloud: Cloud) -> None:
    host = cloud.host("h1")
    server_id = cloud.made()
    cloud.reach(server_id, "ACTIVE")
    host.silent = True
    for _ in range(2):
        assert cloud.member.request("DELETE", f"{SERVERS}/{server_id}").status == 204
    shown = cloud.show(server_id)
    assert (shown["status"], shown["OS-EXT-STS:task_state"]) == ("ACTIVE", "deleting")
    assert cloud.act(server_id, "os-stop").status == 409
    assert quota(cloud)["instances"] == 1
    host.silent = False
    cloud.served.run(host.report())
    cloud.reach(server_id, "gone")
    assert quota(cloud)["instances"] == 0


def test_a_deletion_while_it_is_made(cloud: Cloud) -> None:
    host = cloud.host("h1")
    host.silent = True
    server_id = cloud.made()
    cloud.wait(lambda: f"guest/{server_id}" in host.held)
    assert cloud.member.request("DELETE", f"{SERVERS}/{server_id}").status == 204
    cloud.wait(lambda: host.held[f"guest/{server_id}"].tombstone)
    host.silent = False
    cloud.served.run(host.report())
    cloud.reach(server_id, "gone")
    assert quota(cloud)["instances"] == 0


def test_deleted_servers_are_history(cloud: Cloud) -> None:
    cloud.host("h1")
    server_id = cloud.made(name="old")
    cloud.reach(server_id, "ACTIVE")
    cloud.member.request("DELETE", f"{SERVERS}/{server_id}")
    cloud.reach(server_id, "gone")
    gone = cloud.admin.request("GET", f"{SERVERS}/detail?deleted=true", headers=NEWEST).json["servers"]
    assert [(one["name"], one["status"]) for one in gone] == [("old", "DELETED")]
    assert gone[0]["OS-SRV-USG:terminated_at"]
    assert cloud.member.request("GET", f"{SERVERS}/detail?deleted=true").json["servers"] == []
    changed = cloud.member.request("GET", f"{SERVERS}/detail?changes-since=2020-01-01T00:00:00Z").json["servers"]
    assert [one["status"] for one in changed] == ["DELETED"]
    actions = f"{SERVERS}/{server_id}/os-instance-actions"
    assert cloud.member.request("GET", actions, headers=at("2.20")).status == 404
    found = cloud.member.request("GET", actions, headers=at("2.21")).json["instanceActions"]
    assert [one["action"] for one in found] == ["delete", "create"]


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
    page = cloud.reader.request("GET", f"{path}?limit=1", headers=NEWEST).json
    assert [one["action"] for one in page["instanceActions"]] == ["stop"]
    rest = cloud.reader.request(
        "GET", path + page["links"][0]["href"].partition("os-instance-actions")[2], headers=NEWEST
    )
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
    assert cloud.act(server_id, "unlock").status == 202
    assert cloud.show(server_id)["locked_reason"] is None
    other_admin = cloud.served.client("admin:admins")
    assert cloud.act(server_id, "lock", client=other_admin).status == 202
    assert cloud.act(server_id, "unlock").status == 403
    assert cloud.act(server_id, "unlock", client=other_admin).status == 202


def test_reset_state(cloud: Cloud) -> None:
    cloud.host("h1")
    server_id = cloud.made()
    cloud.reach(server_id, "ACTIVE")
    assert cloud.act(server_id, "os-resetState", {"state": "error"}).status == 403
    assert cloud.act(server_id, "os-resetState", {"state": "error"}, client=cloud.admin).status == 202
    assert cloud.status(server_id) == "ERROR"
    assert cloud.act(server_id, "os-resetState", {"state": "active"}, client=cloud.admin).status == 202
    assert cloud.status(server_id) == "ACTIVE"


def test_hard_reboot_heals_an_error(cloud: Cloud) -> None:
    cloud.host("h1")
    server_id = cloud.made()
    cloud.reach(server_id, "ACTIVE")
    cloud.act(server_id, "os-resetState", {"state": "error"}, client=cloud.admin)
    assert cloud.act(server_id, "reboot", {"type": "SOFT"}).status == 409
    assert cloud.act(server_id, "reboot", {"type": "HARD"}).status == 202
    cloud.reach(server_id, "ACTIVE")


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
    assert cloud.create(networks=[{"uuid": network}], security_groups=[{"name": "nope"}]).status == 400


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
