"""Moving servers, which no host here can take, and what is told of migrations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.edge import Response
from tests.conftest import Databases, whole_schema
from tests.services.compute.cloud import NEWEST, OTHER, PROJECT, Cloud, at

SERVERS = "/compute/v2.1/servers"
NO_HOST = "No valid host was found."


@pytest.fixture(name="cloud", scope="module")
def one_cloud(tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> Iterator[Cloud]:
    url = databases.make(tmp_path_factory.mktemp("migration"), whole_schema)
    with Cloud(url) as found:
        found.image()
        found.flavor("1")
        found.flavor("2", ram=1024)  # as much as the first host alone has
        found.host("h1")
        found.host("h2", memory_mib=600)
        yield found
    databases.drop(url)


@pytest.fixture(autouse=True)
def _beat(cloud: Cloud) -> None:
    """Let the hosts be heard: the module may take longer than they may be silent."""
    for one in cloud.hosts:
        cloud.served.run(one.beat())


@pytest.fixture(name="server_id", scope="module")
def one_server(cloud: Cloud) -> str:
    found = cloud.made()
    cloud.reach(found, "ACTIVE")
    return found


def message(response: Response, status: int) -> str:
    assert response.status == status, response
    [(_, body)] = response.json.items()
    return str(body["message"])


def act(cloud: Cloud, server_id: str, name: str, body: Any, version: str = "2.104", client: Any = None) -> Response:
    path = f"{SERVERS}/{server_id}/action"
    return (client or cloud.admin).request("POST", path, json={name: body}, headers=at(version))


def outcome(cloud: Cloud, server_id: str) -> tuple[str, str, str]:
    """The newest action, how its event went, and what the details say."""
    path = f"{SERVERS}/{server_id}/os-instance-actions"
    newest = cloud.admin.request("GET", path, headers=NEWEST).json["instanceActions"][0]
    found = cloud.admin.request("GET", f"{path}/{newest['request_id']}", headers=NEWEST).json["instanceAction"]
    return found["action"], found["events"][0]["result"], found["events"][0]["details"]


def migrations(cloud: Cloud, query: str = "", version: str = "2.104", client: Any = None) -> Any:
    found = (client or cloud.admin).request("GET", f"/compute/v2.1/os-migrations{query}", headers=at(version))
    assert found.status == 200, found
    return found.json


def test_cold_migration(cloud: Cloud, server_id: str) -> None:
    before = cloud.show(server_id)
    assert act(cloud, server_id, "migrate", None).status == 202
    action, result, details = outcome(cloud, server_id)
    assert (action, result) == ("migrate", "Error")
    assert details.startswith(f"{NO_HOST} No valid host found for cold migrate")
    shown = cloud.show(server_id)
    assert (shown["status"], shown["OS-EXT-SRV-ATTR:host"]) == ("ACTIVE", before["OS-EXT-SRV-ATTR:host"])
    assert message(act(cloud, server_id, "migrate", {"host": "h1"}), 400).startswith("Cannot migrate to the host where")
    assert message(act(cloud, server_id, "migrate", {"host": "h9"}), 400) == "Compute host h9 could not be found."
    assert act(cloud, server_id, "migrate", {"host": "h2"}).status == 202
    assert act(cloud, server_id, "migrate", {"host": "h2"}, "2.55").status == 400
    assert act(cloud, server_id, "migrate", None, client=cloud.member).status == 403
    manager = cloud.served.client(f"manager:{PROJECT}")
    assert act(cloud, server_id, "migrate", None, client=manager).status == 202
    assert act(cloud, server_id, "migrate", {"host": "h2"}, client=manager).status == 403


def test_live_migration(cloud: Cloud, server_id: str) -> None:
    old = {"host": None, "block_migration": False, "disk_over_commit": False}
    assert message(act(cloud, server_id, "os-migrateLive", old, "2.24"), 400).startswith(NO_HOST)
    assert act(cloud, server_id, "os-migrateLive", old, "2.25").status == 400
    words = {"host": None, "block_migration": "on", "disk_over_commit": "No"}
    assert message(act(cloud, server_id, "os-migrateLive", words, "2.24"), 400).startswith(NO_HOST)
    for name in ("block_migration", "disk_over_commit"):
        assert name in message(act(cloud, server_id, "os-migrateLive", {**old, name: 0}, "2.24"), 400)
    new = {"host": None, "block_migration": "auto"}
    assert act(cloud, server_id, "os-migrateLive", new, "2.24").status == 400
    assert message(act(cloud, server_id, "os-migrateLive", new, "2.33"), 400).startswith(NO_HOST)
    assert act(cloud, server_id, "os-migrateLive", new).status == 202
    assert outcome(cloud, server_id)[:2] == ("live-migration", "Error")
    assert "current host" in message(act(cloud, server_id, "os-migrateLive", {**new, "host": "h1"}, "2.30"), 400)
    assert message(act(cloud, server_id, "os-migrateLive", {**new, "host": "h9"}), 400).startswith("Compute host h9")
    assert act(cloud, server_id, "os-migrateLive", {**new, "force": True}).status == 400
    forced = act(cloud, server_id, "os-migrateLive", {**new, "force": True}, "2.30")
    assert message(forced, 400) == "Can't force to a non-provided destination"
    assert act(cloud, server_id, "os-migrateLive", {**new, "block_migration": "maybe"}).status == 400
    assert act(cloud, server_id, "os-migrateLive", {**new, "block_migration": 1}).status == 400
    assert act(cloud, server_id, "os-migrateLive", new, client=cloud.member).status == 403


def test_evacuation_is_for_hosts_that_are_down(cloud: Cloud, server_id: str) -> None:
    assert message(act(cloud, server_id, "evacuate", {}), 400) == "Compute service of h1 is still in use."
    assert message(act(cloud, server_id, "evacuate", {"host": "h9"}), 404) == "Compute host h9 not found."
    assert message(act(cloud, server_id, "evacuate", {"host": "h1"}), 400).startswith("The target host can't be")
    assert act(cloud, server_id, "evacuate", {}, "2.13").status == 400
    assert act(cloud, server_id, "evacuate", {"onSharedStorage": False}, "2.14").status == 400
    assert "onSharedStorage" in message(act(cloud, server_id, "evacuate", {"onSharedStorage": 1}, "2.13"), 400)
    both = {"onSharedStorage": "True", "adminPass": "x"}
    assert message(act(cloud, server_id, "evacuate", both, "2.13"), 400).startswith("admin password can't be changed")
    assert act(cloud, server_id, "evacuate", {}, client=cloud.member).status == 403


def test_an_evacuation_without_a_host_that_can_take_it_is_an_error(cloud: Cloud) -> None:
    server_id = cloud.made()
    cloud.reach(server_id, "ACTIVE")
    services = cloud.admin.request("GET", "/compute/v2.1/os-services?binary=nova-compute&host=h1", headers=NEWEST)
    service = f"/compute/v2.1/os-services/{services.json['services'][0]['id']}"
    assert cloud.admin.request("PUT", service, json={"forced_down": True}, headers=NEWEST).status == 200
    try:
        long = "x" * 300
        answer = act(cloud, server_id, "evacuate", {"onSharedStorage": False, "adminPass": long}, "2.13")
        assert (answer.status, answer.json) == (200, {"adminPass": long})
        assert cloud.show(server_id)["status"] == "ERROR"
        assert cloud.show(server_id)["fault"]["message"].startswith(NO_HOST)
        answer = act(cloud, server_id, "evacuate", {})
        assert (answer.status, answer.body) == (200, b"")
    finally:
        assert cloud.admin.request("PUT", service, json={"forced_down": False}, headers=NEWEST).status == 200
    assert act(cloud, server_id, "reboot", {"type": "HARD"}).status == 202
    cloud.reach(server_id, "ACTIVE")


def test_no_live_migration_runs(cloud: Cloud, server_id: str) -> None:
    path = f"{SERVERS}/{server_id}/migrations"

    def ask(method: str, where: str, version: str = "2.104", **more: Any) -> Response:
        return cloud.admin.request(method, where, headers=at(version), **more)

    assert act(cloud, server_id, "os-migrateLive", {"host": None, "block_migration": "auto"}).status == 202
    known = migrations(cloud, "?migration_type=live-migration")["migrations"][0]["id"]
    assert ask("GET", path).json == {"migrations": []}
    assert ask("GET", path, "2.22").status == 404
    assert message(ask("GET", f"{path}/{known}"), 404).endswith("is not in progress.")
    assert message(ask("GET", f"{path}/999999"), 404).startswith("In-progress live migration 999999 is not found")
    forced = ask("POST", f"{path}/{known}/action", json={"force_complete": None})
    assert message(forced, 409) == f"Cannot 'force_complete' instance {server_id} while it is in task_state None"
    assert ask("POST", f"{path}/{known}/action", "2.21", json={"force_complete": None}).status == 404
    assert "abort live migration" in message(ask("DELETE", f"{path}/{known}"), 409)
    assert ask("DELETE", f"{path}/{known}", "2.23").status == 404
    stranger = cloud.served.client(f"manager:{OTHER}")
    assert stranger.request("GET", path, headers=NEWEST).status == 404
    assert cloud.member.request("GET", path, headers=NEWEST).status == 403


def test_the_list_of_migrations(cloud: Cloud) -> None:
    server_id = cloud.made()
    cloud.reach(server_id, "ACTIVE")
    assert cloud.act(server_id, "resize", {"flavorRef": "2"}).status == 202
    cloud.reach(server_id, "VERIFY_RESIZE")
    [one] = migrations(cloud, f"?instance_uuid={server_id}")["migrations"]
    assert (one["migration_type"], one["status"], one["source_compute"]) == ("resize", "finished", "h1")
    assert (one["old_instance_type_id"], one["new_instance_type_id"], one["project_id"]) == (1, 2, PROJECT)
    assert "project_id" not in migrations(cloud, version="2.79")["migrations"][0]
    assert "uuid" not in migrations(cloud, version="2.58")["migrations"][0]
    assert "migration_type" not in migrations(cloud, version="2.22")["migrations"][0]
    assert cloud.act(server_id, "confirmResize").status == 204
    cloud.reach(server_id, "ACTIVE")
    [one] = migrations(cloud, f"?instance_uuid={server_id}&status=confirmed&host=h1")["migrations"]
    assert migrations(cloud, f"?instance_uuid={server_id}&status=error")["migrations"] == []
    everything = [one["uuid"] for one in migrations(cloud)["migrations"]]
    assert migrations(cloud, f"?limit={'9' * 5000}") == migrations(cloud)
    first = migrations(cloud, "?limit=2")
    assert [one["uuid"] for one in first["migrations"]] == everything[:2]
    assert "marker" in first["migrations_links"][0]["href"]
    asked = f"instance_uuid={server_id}&status=confirmed&limit=1"
    href = migrations(cloud, f"?{asked}")["migrations_links"][0]["href"]
    assert href.endswith(f"/compute/v2.1/os-migrations?{asked}&marker={one['uuid']}")
    assert migrations(cloud, "?" + href.partition("?")[2]) == {"migrations": []}
    rest = migrations(cloud, f"?marker={everything[1]}")["migrations"]
    assert [one["uuid"] for one in rest] == everything[2:]
    assert migrations(cloud, "?changes-since=2999-01-01T00:00:00Z")["migrations"] == []
    for query in ("?marker=x", "?limit=x", "?changes-since=2999-01-01&changes-before=2998-01-01", "?new=1"):
        assert cloud.admin.request("GET", f"/compute/v2.1/os-migrations{query}", headers=NEWEST).status == 400, query
    assert cloud.admin.request("GET", "/compute/v2.1/os-migrations?limit=1", headers=at("2.58")).status == 200


def test_migrations_go_with_their_server(cloud: Cloud) -> None:
    kept, gone = cloud.made(), cloud.made()
    for one in (kept, gone):
        cloud.reach(one, "ACTIVE")
        assert act(cloud, one, "migrate", None).status == 202
    [last] = migrations(cloud, f"?instance_uuid={gone}")["migrations"]
    assert cloud.member.request("DELETE", f"{SERVERS}/{gone}").status == 204
    cloud.reach(gone, "gone")
    assert migrations(cloud, f"?instance_uuid={gone}")["migrations"] == []
    assert migrations(cloud, f"?instance_uuid={gone}", version="2.58")["migrations"] == []
    rest = migrations(cloud, f"?marker={last['uuid']}")["migrations"]
    assert rest[0]["instance_uuid"] == kept, "who was at it reads on behind it"


def test_managers_see_the_migrations_of_their_project_without_hosts(cloud: Cloud, server_id: str) -> None:
    manager = cloud.served.client(f"manager:{PROJECT}")
    assert act(cloud, server_id, "migrate", None).status == 202
    assert manager.request("GET", "/compute/v2.1/os-migrations", headers=NEWEST).status == 403
    found = migrations(cloud, f"?project_id={PROJECT}", client=manager)["migrations"]
    assert {one["source_compute"] for one in found} == {None}
    guess = f"/compute/v2.1/os-migrations?project_id={PROJECT}&source_compute=h1"
    assert manager.request("GET", guess, headers=NEWEST).status == 403
    assert cloud.member.request("GET", "/compute/v2.1/os-migrations", headers=NEWEST).status == 403
