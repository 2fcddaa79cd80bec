"""A server's life through the real edge, link and loops."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from pileus.services.compute.controllers import Archive
from pileus.services.compute.controllers.folder import fold_all
from pileus.services.compute.resources.server.table import server
from tests.api.edge import Client
from tests.services.compute.cloud import NEWEST, PROJECT, Cloud, at
from tests.services.compute.life import newest_action

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
    assert [len(cloud.member.request("GET", f"{SERVERS}{limit}").json["servers"]) for limit in ("", "?limit=0")] == [
        1,
        0,
    ]
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


def test_the_event_of_create_names_the_host(cloud: Cloud) -> None:
    host = cloud.host("h1")
    host.silent = True
    ids = [cloud.made(), cloud.made()]
    cloud.wait(lambda: all(cloud.show(one)["OS-EXT-SRV-ATTR:host"] for one in ids))
    for server_id in ids:
        _, event = newest_action(cloud, server_id)
        assert (event["host"], event["hostId"]) == ("h1", cloud.show(server_id)["hostId"])
        assert event["finish_time"] is None, "it is known before the host has said anything"


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
    assert host.guests[server_id].reboot_nonce == 1, "a start is a boot of its own"
    assert cloud.act(server_id, "os-start").status == 409
    assert cloud.act(server_id, "reboot", {"type": "SOFT"}).status == 202
    cloud.wait(lambda: host.guests[server_id].reboot_nonce == 2)
    cloud.reach(server_id, "ACTIVE")
    assert host.guests[server_id].reboot_kind == "SOFT"
    assert cloud.act(server_id, "reboot", {"type": "later"}).status == 400
    assert cloud.act(server_id, "reboot", {}).status == 400
    assert cloud.act(server_id, "fly").status == 400
    assert cloud.act(server_id, "pause", {}).status == 202, "an empty object says as little as null"


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


def test_what_its_host_says_is_explained(cloud: Cloud) -> None:
    host = cloud.host("h1")
    host.answers["*"] = ("failed", "no room in /secret/place", False)
    server_id = cloud.made()
    path = f"{SERVERS}/{server_id}/explain"

    def heard(client: Client) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = client.request("GET", path).json["explanation"]["heard"]
        return found

    cloud.wait(lambda: [one["state"] for one in heard(cloud.admin)] == ["failed"])
    (said,) = heard(cloud.admin)
    assert said["wanted"] == said["done"] > 0
    assert (said["host"], said["detail"], said["permanent"]) == ("h1", "no room in /secret/place", False)
    (veiled,) = heard(cloud.reader)
    assert (veiled["state"], veiled["detail"]) == ("failed", None)
    assert veiled["host"] != "h1"


def test_servers_spread(cloud: Cloud) -> None:
    for name in ("h1", "h2", "h3"):
        cloud.host(name)
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


def zoned(cloud: Cloud, **zones: str) -> None:
    """Put hosts into zones."""
    for host, zone in zones.items():
        body = {"aggregate": {"name": host, "availability_zone": zone}}
        made = cloud.admin.request("POST", "/compute/v2.1/os-aggregates", json=body).json["aggregate"]
        path = f"/compute/v2.1/os-aggregates/{made['id']}/action"
        assert cloud.admin.request("POST", path, json={"add_host": {"host": host}}).status == 200


def test_a_zone_must_have_a_host_in_use(cloud: Cloud) -> None:
    cloud.host("h1")
    away = cloud.host("h2")
    zoned(cloud, h1="east", h2="west")
    services = cloud.admin.request("GET", "/compute/v2.1/os-services", headers=NEWEST).json["services"]
    by_host = {one["host"]: f"/compute/v2.1/os-services/{one['id']}" for one in services}
    assert cloud.admin.request("PUT", by_host["h2"], json={"forced_down": True}, headers=NEWEST).status == 200
    away.silent = True
    expected = {"east": 202, "west": 202, "nova": 400, "moon": 400}
    assert {zone: cloud.create(availability_zone=zone).status for zone in expected} == expected
    assert cloud.admin.request("PUT", by_host["h1"], json={"status": "disabled"}, headers=NEWEST).status == 200
    found = cloud.create(availability_zone="east")
    assert found.json["badRequest"]["message"] == "The requested availability zone is not available"
    assert cloud.create(cloud.admin, availability_zone="east", host="h1").status == 400
    assert cloud.create(cloud.admin, availability_zone="east:h1").status == 202


def test_the_zone_beside_a_forced_host_binds_where_it_is_the_hosts(cloud: Cloud) -> None:
    for name in ("h1", "h2"):
        cloud.host(name)
    zoned(cloud, h1="east")
    expected = {"east:h1": "east", "nova:h1": None, "bogus:h1": None, ":h1": None, "nova:h2": "nova", "east::h2": None}
    for asked, pinned in expected.items():
        shown = cloud.reach(cloud.made(client=cloud.admin, availability_zone=asked), "ACTIVE")
        assert (shown["pinned_availability_zone"], shown["OS-EXT-SRV-ATTR:host"]) == (pinned, asked[-2:])


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


def test_what_happened_while_nobody_listened_is_made_up_for(cloud: Cloud) -> None:
    """The loops stop at every point of a server's life, as if killed; those that start next finish the work."""
    host = cloud.host("h1")

    cloud.pause()
    server_id = cloud.made()
    assert cloud.status(server_id) == "BUILD"
    cloud.resume()
    cloud.reach(server_id, "ACTIVE")

    cloud.pause()
    host.say(server_id, "shutdown")
    assert cloud.status(server_id) == "ACTIVE"
    cloud.resume()
    cloud.reach(server_id, "SHUTOFF")

    cloud.pause()
    assert cloud.act(server_id, "os-start").status == 202
    cloud.resume()
    cloud.reach(server_id, "ACTIVE")

    cloud.pause()
    assert cloud.member.request("DELETE", f"{SERVERS}/{server_id}").status == 204
    cloud.wait(lambda: server_id not in host.guests)
    assert cloud.status(server_id) == "ACTIVE"
    cloud.resume()
    cloud.reach(server_id, "gone")
    assert quota(cloud) == {"instances": 0, "cores": 0, "ram": 0}


def test_a_transaction_of_somebody_else_that_takes_long_holds_nothing_up(cloud: Cloud) -> None:
    if cloud.store.embedded:
        pytest.skip("SQLite has one writer at a time")
    host = cloud.host("h1")
    with cloud.store.engine.connect() as other:
        other.execute(sa.text("SELECT pg_current_xact_id()"))
        server_id = cloud.made()
        cloud.reach(server_id, "ACTIVE")
        assert cloud.act(server_id, "os-stop").status == 202
        cloud.reach(server_id, "SHUTOFF")
        assert host.guests[server_id].power == "stopped"
        assert cloud.member.request("DELETE", f"{SERVERS}/{server_id}").status == 204
        cloud.reach(server_id, "gone")
        other.rollback()


def test_a_start_counts_though_the_host_never_heard_of_the_stop(cloud: Cloud) -> None:
    """A guest turns itself off, and is started before its host is told that it is to be off."""
    host = cloud.host("h1")
    server_id = cloud.made()
    cloud.reach(server_id, "ACTIVE")
    cloud.pause()
    host.say(server_id, "shutdown")
    cloud.store.write_here(lambda tx: fold_all(tx, [server_id], cloud.config))
    assert cloud.status(server_id) == "SHUTOFF"
    assert cloud.act(server_id, "os-start").status == 202
    cloud.store.write_here(lambda tx: fold_all(tx, [server_id], cloud.config))
    assert cloud.show(server_id)["OS-EXT-STS:task_state"] == "powering-on"
    cloud.resume()
    cloud.reach(server_id, "ACTIVE")


def test_one_bad_server_holds_up_no_other(cloud: Cloud) -> None:
    cloud.host("h1")
    cloud.pause()
    bad, good = cloud.made(), cloud.made()
    spoil = sa.update(server).where(server.c.id == bad).values(flavor={})
    cloud.store.write_here(lambda tx: tx.execute(spoil).rowcount)
    cloud.resume()
    cloud.reach(good, "ACTIVE")
    assert cloud.store.read_here(lambda tx: tx.scalar(sa.select(server.c.host_id).where(server.c.id == bad))) is None


def test_deleted_servers_are_forgotten_after_a_month(cloud: Cloud) -> None:
    server_id = cloud.made(tags=["a"])
    cloud.member.request("DELETE", f"{SERVERS}/{server_id}")
    archive = Archive()
    assert cloud.store.read_here(lambda tx: list(archive.keys(tx))) == []
    old = (
        sa.update(server)
        .where(server.c.id == server_id)
        .values(deleted_at=sa.literal(datetime.now(UTC) - timedelta(days=31), server.c.deleted_at.type))
    )
    cloud.store.write_here(lambda tx: tx.execute(old).rowcount)
    assert cloud.store.read_here(lambda tx: list(archive.keys(tx))) == [server_id]
    cloud.store.write_here(lambda tx: archive.work(tx, server_id))
    gone = cloud.admin.request("GET", f"{SERVERS}?deleted=true", headers=NEWEST).json["servers"]
    assert gone == []
