"""What Compute may ask of Network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import pytest
import sqlalchemy as sa

from pileus.core.context import Context
from pileus.core.errors import Fault, Forbidden, QuotaExceeded
from pileus.services.network import interface
from tests.services.network.cloud import Cloud
from tests.services.network.test_loops import Entry


@pytest.fixture
def cloud(database_url: str) -> Iterator[Cloud]:
    with Cloud(database_url, loops=False) as cloud:
        yield cloud


def asked(
    cloud: Cloud, wanted: Sequence[Entry] | Literal["auto", "none"] | None, token: str = "member:p1"
) -> interface.Requests:
    return cloud.within(lambda ctx: interface.requested(ctx, wanted), token)


def refused(cloud: Cloud, status: int, wanted: Sequence[Entry] | Literal["auto", "none"] | None) -> str:
    with pytest.raises(Fault) as caught:
        asked(cloud, wanted)
    assert caught.value.status == status
    return caught.value.message


def create(cloud: Cloud, wanted: Any, device: str = "server-1", **more: Any) -> list[str]:
    def work(ctx: Context) -> list[str]:
        requests = interface.requested(ctx, wanted)
        return interface.create_ports(ctx, requests, device_id=device, device_owner="compute:nova", **more)

    return cloud.within(work)


def info(cloud: Cloud, device: str = "server-1") -> list[interface.PortInfo]:
    return cloud.write(lambda tx: interface.ports_of(tx, [device])).get(device, [])


def test_the_networks_that_stand_for_themselves(cloud: Cloud) -> None:
    assert asked(cloud, "none") == ()
    assert asked(cloud, None) == ()
    assert "automatically allocate" in refused(cloud, 400, "auto")
    cloud.public()
    assert asked(cloud, None) == ()
    net, _ = cloud.net()
    assert [one.network["id"] for one in asked(cloud, None)] == [net["id"]]
    assert [one.network["id"] for one in asked(cloud, "auto")] == [net["id"]]
    assert [one.network["id"] for one in asked(cloud, [])] == [net["id"]]
    cloud.net()
    assert "Multiple possible networks" in refused(cloud, 409, None)
    assert "Multiple possible networks" in refused(cloud, 409, "auto")


def test_what_cannot_be_asked_for(cloud: Cloud) -> None:
    net, _ = cloud.net()
    bare = cloud.make("network")
    foreign = cloud.make("network", by=cloud.stranger)
    public, _ = cloud.public()
    port = cloud.make("port", network_id=net["id"])
    used = cloud.make("port", network_id=net["id"], device_id="x")
    empty = cloud.make("port", network_id=net["id"], fixed_ips=[])
    theirs = cloud.make("port", by=cloud.admin, network_id=net["id"])
    nothing = "00000000-0000-0000-0000-000000000000"
    assert "requires a subnet" in refused(cloud, 400, [Entry(bare["id"])])
    assert "could not be found" in refused(cloud, 400, [Entry(foreign["id"])])
    assert "could not be found" in refused(cloud, 400, [Entry(nothing)])
    assert "not allowed" in refused(cloud, 403, [Entry(public["id"])])
    assert asked(cloud, [Entry(public["id"])], "admin:p1")[0].network["id"] == public["id"]
    assert "could not be found" in refused(cloud, 400, [Entry(port=nothing)])
    assert "could not be found" in refused(cloud, 400, [Entry(port=theirs["id"])])
    assert "still in use" in refused(cloud, 409, [Entry(port=used["id"])])
    assert "FixedIP" in refused(cloud, 400, [Entry(port=empty["id"])])
    assert "twice" in refused(cloud, 400, [Entry(port=port["id"]), Entry(port=port["id"])])
    assert "needs a uuid or a port" in refused(cloud, 400, [Entry()])


def test_ports_are_told_in_the_order_of_the_request(cloud: Cloud) -> None:
    first, _ = cloud.net("10.1.0.0/24", name="one", mtu=1400)
    second, subnet = cloud.net("10.2.0.0/24", name="two")
    mine = cloud.make("port", network_id=second["id"])
    ids = create(cloud, [Entry(first["id"], fixed_ip="10.1.0.77"), Entry(port=mine["id"]), Entry(first["id"])])
    found = info(cloud)
    assert [one.id for one in found] == ids
    assert [one.network_name for one in found] == ["one", "two", "one"]
    assert [one.addresses[0].ip_address for one in found] == ["10.1.0.77", "10.2.0.3", "10.1.0.3"]
    assert [one.transient for one in found] == [True, False, True]
    assert found[0].mtu == 1400
    assert found[0].security_group_names == ("default",)
    assert found[1].addresses[0].subnet_id == subnet["id"]
    assert found[1].addresses[0].gateway_ip == "10.2.0.1"
    assert found[1].addresses[0].cidr == "10.2.0.0/24"
    more = create(cloud, [Entry(second["id"])])
    assert [one.id for one in info(cloud)] == [*ids, *more]
    assert cloud.write(lambda tx: interface.ports_of(tx, ["nothing"])) == {}


def test_many_servers_at_once_cost_few_statements(cloud: Cloud) -> None:
    net, _ = cloud.net("10.1.0.0/16")
    statements: list[str] = []
    sa.event.listen(
        cloud.store.engine, "before_cursor_execute", lambda *given: statements.append(given[2]), named=False
    )
    devices = {f"server-{number}": f"name-{number}" for number in range(50)}

    def work(ctx: Context) -> dict[str, list[str]]:
        requests = interface.requested(ctx, [Entry(net["id"])])
        return interface.create_many_ports(ctx, requests, devices, device_owner="compute:nova")

    found = cloud.within(work)
    assert len(statements) < 25
    assert len({one for each in found.values() for one in each}) == 50
    shown = cloud.get("/ports?device_owner=compute:nova")["ports"]
    assert len({one["fixed_ips"][0]["ip_address"] for one in shown}) == 50
    assert cloud.get("/quotas/p1/details")["quota"]["port"]["used"] == 50


def test_groups_by_name_or_id(cloud: Cloud) -> None:
    net, _ = cloud.net()
    web = cloud.make("security_group", name="web")
    cloud.make("security_group", name="twin")
    cloud.make("security_group", name="twin")
    wanted = [Entry(net["id"])]
    create(cloud, wanted, "a", security_groups=["web", "default"])
    create(cloud, wanted, "b", security_groups=[web["id"], "web"])
    assert info(cloud, "a")[0].security_group_names == ("default", "web")
    assert info(cloud, "b")[0].security_group_ids == (web["id"],)
    with pytest.raises(Fault, match="Multiple security groups"):
        create(cloud, wanted, "c", security_groups=["twin"])
    with pytest.raises(Fault, match="not found for project") as caught:
        create(cloud, wanted, "c", security_groups=["nonsense"])
    assert caught.value.status == 400
    bare = cloud.make("network", port_security_enabled=False)
    cloud.make("subnet", network_id=bare["id"], cidr="10.5.0.0/24")
    with pytest.raises(Fault, match="port_security_enabled"):
        create(cloud, [Entry(bare["id"])], "c", security_groups=["web"])
    create(cloud, [Entry(bare["id"])], "c")
    assert info(cloud, "c")[0].security_group_names == ()
    assert info(cloud, "d") == []


def test_a_taken_address_and_the_quota_are_refused(cloud: Cloud) -> None:
    net, _ = cloud.net()
    with pytest.raises(Fault, match="in use") as caught:
        create(cloud, [Entry(net["id"], fixed_ip="10.0.0.2")])
    assert caught.value.status == 400
    with pytest.raises(Fault, match="not in any subnet"):
        create(cloud, [Entry(net["id"], fixed_ip="10.9.0.2")])
    assert cloud.ask("PUT", "/quotas/p1", {"quota": {"port": 1}}, by=cloud.admin).status == 200
    with pytest.raises(QuotaExceeded) as over:
        create(cloud, [Entry(net["id"]), Entry(net["id"])])
    assert isinstance(over.value, Forbidden)
    assert info(cloud) == []


def test_devices_at_an_address(cloud: Cloud) -> None:
    net, _ = cloud.net()
    create(cloud, [Entry(net["id"])], "a")
    create(cloud, [Entry(net["id"])], "b")

    def at(pattern: str, version: int = 4) -> list[str]:
        return sorted(row[0] for row in cloud.write(lambda tx: tx.all(interface.devices_at(tx, pattern, version))))

    assert at("10.0.0.3%") == ["a"]
    assert {"a", "b"} <= set(at("10.%"))
    assert at("10.%", 6) == []
