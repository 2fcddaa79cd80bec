"""What tests of a server's life share: a cloud with one host, which each test leaves as it found it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pileus.contracts.hypervisor import DiskSpec
from pileus.services.image.resources.image.table import image as image_table
from pileus.services.image.resources.image.table import prop
from tests.api.edge import Response
from tests.conftest import Databases, whole_schema
from tests.services.compute.cloud import NEWEST, PROJECT, Cloud, Host

SERVERS = "/compute/v2.1/servers"
OTHER_IMAGE = "22222222-2222-4333-8444-555555555555"
RESCUE_IMAGE = "33333333-2222-4333-8444-555555555555"


@pytest.fixture(name="cloud", scope="module")
def one_cloud(tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> Iterator[Cloud]:
    url = databases.make(tmp_path_factory.mktemp("life"), whole_schema)
    with Cloud(url) as found:
        found.image()
        found.image(OTHER_IMAGE, name="other", os_hash_value="1" * 128)
        found.image(RESCUE_IMAGE, name="rescue", os_hash_value="2" * 128)
        found.flavor("1")
        found.flavor("2", ram=1024, vcpus=2, disk=2, **{"OS-FLV-EXT-DATA:ephemeral": 1, "swap": 64})
        found.flavor("small", ram=256, vcpus=1, disk=1)
        found.flavor("large", ram=1024, vcpus=1, disk=1000)
        found.host("h1", vcpus=64, memory_mib=65536, disk_gib=500)
        yield found
    databases.drop(url)


@pytest.fixture(name="host")
def one_host(cloud: Cloud) -> Iterator[Host]:
    """The host; it tells the truth again when the test is over, and all servers go, of which nothing is left."""
    found = cloud.hosts[0]
    cloud.served.run(found.beat())  # the module may take longer than a host may be silent
    yield found
    found.answers.clear()
    found.silent = False
    cloud.served.run(found.report())
    for one in cloud.member.request("GET", SERVERS).json["servers"]:
        assert cloud.admin.request("DELETE", f"{SERVERS}/{one['id']}").status == 204
    cloud.wait(lambda: not cloud.member.request("GET", SERVERS).json["servers"])
    assert not found.guests
    assert set(quota(cloud).values()) == {0}
    assert used(cloud) == (0, 512, 0), "but for what the host keeps for itself"
    assert set(images(cloud).values()) <= {"tiny", "other", "rescue"}


@pytest.fixture(name="server_id")
def one_server(cloud: Cloud, host: Host) -> str:
    """A server that runs."""
    found = cloud.made()
    cloud.reach(found, "ACTIVE")
    return found


def ok(response: Response, status: int = 202) -> Any:
    assert response.status == status, response
    return response.json if response.body else None


def refused(response: Response, status: int) -> str:
    assert response.status == status, response
    [(_, body)] = response.json.items()
    return str(body["message"])


def quota(cloud: Cloud) -> dict[str, int]:
    found = cloud.admin.request("GET", f"/compute/v2.1/os-quota-sets/{PROJECT}/detail").json["quota_set"]
    return {name: found[name]["in_use"] for name in ("instances", "cores", "ram")}


def used(cloud: Cloud) -> tuple[int, int, int]:
    """What is held of the host: processors, MiB and GiB."""
    [one] = cloud.admin.request("GET", "/compute/v2.1/os-hypervisors/detail").json["hypervisors"]
    return one["vcpus_used"], one["memory_mb_used"], one["local_gb_used"]


def disks(host: Host, server_id: str) -> dict[str, DiskSpec]:
    return {one.id: one for one in host.guests[server_id].disks}


def newest_action(cloud: Cloud, server_id: str) -> tuple[str, dict[str, Any]]:
    """The newest action of a server, and its event."""
    path = f"{SERVERS}/{server_id}/os-instance-actions"
    newest = cloud.admin.request("GET", path, headers=NEWEST).json["instanceActions"][0]
    found = cloud.admin.request("GET", f"{path}/{newest['request_id']}", headers=NEWEST).json["instanceAction"]
    [event] = found["events"]
    return found["action"], event


def last_action(cloud: Cloud, server_id: str) -> tuple[str, str | None, str | None]:
    """The newest action of a server, what its event is called, and how that went."""
    action, event = newest_action(cloud, server_id)
    return action, event["event"], event["result"]


def settled(cloud: Cloud, server_id: str, status: str) -> dict[str, Any]:
    """Wait until a server has a status, and nothing is under way; the server then."""
    cloud.wait(lambda: (shown := cloud.show(server_id))["status"] == status and shown["OS-EXT-STS:task_state"] is None)
    return cloud.show(server_id)


def say(cloud: Cloud, image_id: str, **properties: str) -> None:
    """Give an image properties."""
    rows = [{"image_id": image_id, "name": name, "value": value} for name, value in properties.items()]
    cloud.store.write_here(lambda tx: tx.execute(prop.insert(), rows).rowcount)


def images(cloud: Cloud) -> dict[str, str]:
    """Image names by id, of those that are not deleted."""
    query = image_table.select().where(image_table.c.status != "deleted")
    return {row.id: row.name for row in cloud.store.read_here(lambda tx: tx.all(query))}
