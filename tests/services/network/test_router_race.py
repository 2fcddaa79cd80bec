"""A router that goes while it gets a leg: no leg without a router, which nobody could remove."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.services.network.cloud import Cloud

ROUNDS = 12


@pytest.fixture
def clouds(database_url: str) -> Iterator[list[Cloud]]:
    found = [Cloud(database_url, loops=False).__enter__() for _ in range(2)]
    yield found
    for cloud in found:
        cloud.__exit__()


def test_a_leg_of_a_router_that_goes(clouds: list[Cloud]) -> None:
    one, other = clouds
    for number in range(ROUNDS):
        router = one.make("router", name=f"r{number}")
        _, subnet = one.net(f"10.0.{number}.0/24")
        base = f"/network/v2.0/routers/{router['id']}"
        body: Any = {"subnet_id": subnet["id"]}
        sent = [one.member.submit("PUT", f"{base}/add_router_interface", body), other.member.submit("DELETE", base)]
        added, deleted = (answer.result(60).status for answer in sent)
        assert (added, deleted) in {(200, 409), (404, 204), (409, 204), (200, 204)}
        legs = one.get(f"/ports?device_id={router['id']}")["ports"]
        there = one.ask("GET", f"/routers/{router['id']}").status
        assert (there, len(legs)) == ((404, 0) if deleted == 204 else (200, 1)), (added, deleted)
        if there == 200:  # else the quota ends the race when one of them wins too often
            assert one.ask("PUT", f"/routers/{router['id']}/remove_router_interface", body).status == 200
            assert one.ask("DELETE", f"/routers/{router['id']}").status == 204


def test_a_floating_ip_by_way_of_a_leg_that_goes(clouds: list[Cloud]) -> None:
    one, other = clouds
    public, _ = one.public()
    router = one.make("router", name="r", external_gateway_info={"network_id": public["id"]})
    net, subnet = one.net("10.9.0.0/24")
    port = one.make("port", network_id=net["id"])
    base = f"/network/v2.0/routers/{router['id']}"
    way: Any = {"subnet_id": subnet["id"]}
    for _ in range(ROUNDS):
        assert one.ask("PUT", f"/routers/{router['id']}/add_router_interface", way).status == 200
        floating = one.make("floatingip", floating_network_id=public["id"])
        lead: Any = {"floatingip": {"port_id": port["id"]}}
        sent = [
            one.member.submit("PUT", f"/network/v2.0/floatingips/{floating['id']}", lead),
            other.member.submit("PUT", f"{base}/remove_router_interface", way),
        ]
        led, removed = (answer.result(60).status for answer in sent)
        shown = one.get(f"/floatingips/{floating['id']}")["floatingip"]
        legs = one.get(f"/ports?device_id={router['id']}&device_owner=network:router_interface")["ports"]
        assert (shown["router_id"] is not None) <= bool(legs), (led, removed)
        assert one.ask("DELETE", f"/floatingips/{floating['id']}").status == 204
        one.ask("PUT", f"/routers/{router['id']}/remove_router_interface", way)
