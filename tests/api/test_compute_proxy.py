"""Networks, floating IPs, security groups and images by way of Compute, through the edge."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from pileus.core.store import Tx
from pileus.drivers.images.fake import FakeImageStore
from pileus.services.compute import service as compute
from pileus.services.fleet import interface as fleet
from pileus.services.fleet.resources.assignment import call
from pileus.services.fleet.resources.host import host
from pileus.services.image import service as image
from pileus.services.image.interface import ImageStores
from pileus.services.image.resources.image.table import image as image_table
from pileus.services.network import service as network
from tests.api.compute_cloud import FACTS, fault, ok
from tests.api.edge import Response, Served, make_edge
from tests.services.compute.cloud import image_row

UNKNOWN = "11111111-2222-4333-8444-555555555555"
COMPUTE, NETWORK = "/compute/v2.1", "/network/v2.0"


@pytest.fixture(name="edge")
def one_edge(database_url: str) -> Iterator[Served]:
    provided: dict[type[Any], Any] = {ImageStores: ImageStores({"file": FakeImageStore()}, "file")}
    with make_edge(database_url, compute.service(), network.service(), image.service(), provided=provided) as served:
        provided[fleet.Fleet] = fleet.Fleet(served.store.seams.clock)
        yield served


def ask(
    edge: Served, method: str, path: str, json: Any = None, *, token: str = "member:p1", version: str = "2.35"
) -> Response:
    root = "" if path.startswith("/network") else COMPUTE
    headers = {"openstack-api-version": f"compute {version}"}
    return edge.client(token).request(method, root + path, json=json, headers=headers)


# -- security groups -------------------------------------------------------------------------------------------------


def make_group(edge: Served, name: str = "web", token: str = "member:p1") -> str:
    body = {"security_group": {"name": name, "description": "of servers"}}
    made = ok(ask(edge, "POST", "/os-security-groups", body, token=token))["security_group"]
    assert made["rules"] == []
    return str(made["id"])


def make_rule(edge: Served, **values: Any) -> Response:
    return ask(edge, "POST", "/os-security-group-rules", {"security_group_rule": values})


def test_a_group_lives_and_goes(edge: Served) -> None:
    group_id = make_group(edge)
    body = {"security_group": {"name": "db", "description": "of data"}}
    changed = ok(ask(edge, "PUT", f"/os-security-groups/{group_id}", body))["security_group"]
    assert changed == {"id": group_id, "name": "db", "description": "of data", "tenant_id": "p1", "rules": []}
    assert ok(ask(edge, "GET", f"/os-security-groups/{group_id}", token="reader:p1"))["security_group"] == changed
    names = [one["name"] for one in ok(ask(edge, "GET", "/os-security-groups"))["security_groups"]]
    assert names == ["db", "default"]
    assert len(ok(ask(edge, "GET", "/os-security-groups?limit=1&offset=1"))["security_groups"]) == 1
    assert ask(edge, "DELETE", f"/os-security-groups/{group_id}").status == 202
    fault(ask(edge, "GET", f"/os-security-groups/{group_id}"), 404)


def test_admins_see_the_groups_of_all(edge: Served) -> None:
    mine, theirs = make_group(edge), make_group(edge, token="member:p2")
    everybody = ok(ask(edge, "GET", "/os-security-groups?all_tenants=1", token="admin:ops"))["security_groups"]
    assert {mine, theirs} <= {one["id"] for one in everybody}
    own = ok(ask(edge, "GET", "/os-security-groups", token="admin:ops"))["security_groups"]
    assert {one["tenant_id"] for one in own} == {"ops"}
    seen = ok(ask(edge, "GET", "/os-security-groups?all_tenants=1"))["security_groups"]
    assert {one["tenant_id"] for one in seen} == {"p1"}
    fault(ask(edge, "GET", f"/os-security-groups/{theirs}"), 404)
    fault(ask(edge, "DELETE", f"/os-security-groups/{theirs}"), 404)


def test_rules_let_in(edge: Served) -> None:
    group_id, other = make_group(edge), make_group(edge, "other")
    made = ok(
        make_rule(edge, parent_group_id=group_id, ip_protocol="TCP", from_port="80", to_port=90, cidr="10.0.0.0/8")
    )
    rule = made["security_group_rule"]
    assert {name: rule[name] for name in ("parent_group_id", "ip_protocol", "from_port", "to_port", "group")} == {
        "parent_group_id": group_id,
        "ip_protocol": "tcp",
        "from_port": 80,
        "to_port": 90,
        "group": {},
    }
    assert rule["ip_range"] == {"cidr": "10.0.0.0/8"}
    ping = ok(make_rule(edge, parent_group_id=group_id, ip_protocol="icmp", from_port=-1, to_port=-1))
    assert ping["security_group_rule"]["ip_range"] == {"cidr": "0.0.0.0/0"}
    assert (ping["security_group_rule"]["from_port"], ping["security_group_rule"]["to_port"]) == (-1, -1)
    peers = ok(make_rule(edge, parent_group_id=group_id, group_id=other, ip_protocol="udp"))["security_group_rule"]
    assert (peers["group"], peers["ip_range"]) == ({"name": "other", "tenant_id": "p1"}, {})
    assert (peers["from_port"], peers["to_port"]) == (1, 65535)
    everything = ok(make_rule(edge, parent_group_id=group_id, group_id=group_id))["security_group_rule"]
    assert (everything["ip_protocol"], everything["from_port"]) == (None, None)
    six = ok(make_rule(edge, parent_group_id=group_id, ip_protocol="tcp", from_port=22, to_port=22, cidr="::/0"))
    assert six["security_group_rule"]["ip_range"] == {"cidr": "::/0"}
    shown = ok(ask(edge, "GET", f"/os-security-groups/{group_id}"))["security_group"]["rules"]
    assert len(shown) == 5
    assert ask(edge, "DELETE", f"/os-security-group-rules/{rule['id']}").status == 202
    assert len(ok(ask(edge, "GET", f"/os-security-groups/{group_id}"))["security_group"]["rules"]) == 4
    assert ask(edge, "DELETE", f"/os-security-groups/{other}").status == 202
    assert len(ok(ask(edge, "GET", f"/os-security-groups/{group_id}"))["security_group"]["rules"]) == 3


WRONG_RULES: list[dict[str, Any]] = [
    {"ip_protocol": "tcp", "from_port": 22},
    {"from_port": 22, "to_port": 22},
    {"ip_protocol": "tcp", "from_port": "x", "to_port": 22},
    {"ip_protocol": "icmp", "from_port": "x", "to_port": 0},
    {"ip_protocol": "icmp", "from_port": 256, "to_port": 0},
    {"ip_protocol": "sctp", "from_port": 1, "to_port": 2},
    {"ip_protocol": "tcp", "from_port": 0, "to_port": 2},
    {"ip_protocol": "tcp", "from_port": 3, "to_port": 2},
    {"ip_protocol": "udp", "from_port": 1, "to_port": 65536},
    {"ip_protocol": "tcp", "from_port": 1, "to_port": 2, "cidr": "10.0.0.0"},
    {"ip_protocol": "tcp", "from_port": 1, "to_port": 2, "cidr": "10.0.0.0/0"},
    {"ip_protocol": "tcp", "from_port": 1, "to_port": 2, "cidr": 7},
    {"ip_protocol": "tcp", "from_port": 1, "to_port": 2, "group_id": "no uuid"},
]


def test_rules_that_cannot_be_are_refused(edge: Served) -> None:
    group_id = make_group(edge)
    for values in WRONG_RULES:
        assert make_rule(edge, parent_group_id=group_id, **values).status == 400, values
    good: dict[str, Any] = {"ip_protocol": "tcp", "from_port": 22, "to_port": 22}
    ok(make_rule(edge, parent_group_id=group_id, **good))
    assert "already exists" in fault(make_rule(edge, parent_group_id=group_id, **good), 400)
    fault(make_rule(edge, parent_group_id="no uuid", **good), 400)
    fault(make_rule(edge, parent_group_id=UNKNOWN, **good), 404)
    fault(make_rule(edge, parent_group_id=group_id, group_id=UNKNOWN, **good), 404)
    fault(make_rule(edge, parent_group_id=make_group(edge, token="member:p2"), **good), 404)
    fault(ask(edge, "DELETE", f"/os-security-group-rules/{UNKNOWN}"), 404)
    fault(ask(edge, "DELETE", "/os-security-group-rules/1"), 400)


def test_groups_that_cannot_be_are_refused(edge: Served) -> None:
    ok(ask(edge, "GET", "/os-security-groups"))
    [default] = ok(ask(edge, "GET", "/os-security-groups"))["security_groups"]
    fault(ask(edge, "DELETE", f"/os-security-groups/{default['id']}"), 400)
    named = {"security_group": {"name": "new", "description": ""}}
    fault(ask(edge, "PUT", f"/os-security-groups/{default['id']}", named), 400)
    fault(ask(edge, "POST", "/os-security-groups", {"security_group": {"name": "default", "description": ""}}), 400)
    fault(ask(edge, "POST", "/os-security-groups", {"security_group": {"name": "x"}}), 400)
    fault(ask(edge, "POST", "/os-security-groups", {"security_group": {"name": "x" * 256, "description": ""}}), 400)
    for method in ("GET", "DELETE"):
        fault(ask(edge, method, "/os-security-groups/1"), 400)
        fault(ask(edge, method, f"/os-security-groups/{UNKNOWN}"), 404)
    limits = {"quota": {"security_group": 1, "security_group_rule": 4}}
    ok(ask(edge, "PUT", "/network/v2.0/quotas/p1", limits, token="admin:ops"))
    fault(ask(edge, "POST", "/os-security-groups", named), 403)
    rule = make_rule(edge, parent_group_id=default["id"], ip_protocol="tcp", from_port=1, to_port=1)
    fault(rule, 403)


# -- networks and floating IPs ---------------------------------------------------------------------------------------


def make_network(edge: Served, name: str, cidr: str, token: str = "member:p1", **values: Any) -> str:
    made = ask(edge, "POST", f"{NETWORK}/networks", {"network": {"name": name, **values}}, token=token)
    network_id = ok(made, 201)["network"]["id"]
    subnet = {"network_id": network_id, "cidr": cidr, "ip_version": 4}
    ok(ask(edge, "POST", f"{NETWORK}/subnets", {"subnet": subnet}, token=token), 201)
    return str(network_id)


def outside(edge: Served, cidr: str = "203.0.113.0/29", name: str = "public") -> str:
    return make_network(edge, name, cidr, "admin:ops", **{"router:external": True})


def test_networks_show_id_and_name(edge: Served) -> None:
    mine, public = make_network(edge, "mine", "10.0.0.0/24"), outside(edge)
    make_network(edge, "theirs", "10.0.0.0/24", "member:p2")
    found = ok(ask(edge, "GET", "/os-networks", token="reader:p1"))["networks"]
    assert [(one["id"], one["label"]) for one in found] == [(mine, "mine"), (public, "public")]
    assert len(found[0]) == 11
    shown = ok(ask(edge, "GET", f"/os-networks/{mine}", token="admin:ops"))["network"]
    assert (shown["id"], shown["label"], shown["vlan"], len(shown)) == (mine, "mine", None, 32)
    brief = {"id": mine, "label": "mine", "cidr": "None"}
    assert ok(ask(edge, "GET", "/os-tenant-networks"))["networks"][0] == brief
    assert ok(ask(edge, "GET", f"/os-tenant-networks/{mine}"))["network"] == brief
    for path in ("/os-networks", "/os-tenant-networks"):
        fault(ask(edge, "GET", f"{path}/{UNKNOWN}"), 404)
        fault(ask(edge, "GET", f"{path}/{mine}", token="member:p2"), 404)
        fault(ask(edge, "GET", path, version="2.36"), 404)
        fault(ask(edge, "GET", path, token="service:p1"), 403)


def test_floating_ips_come_from_pools(edge: Served) -> None:
    public = outside(edge)
    pools = ok(ask(edge, "GET", "/os-floating-ip-pools", token="reader:p1"))["floating_ip_pools"]
    assert pools == [{"name": "public"}]
    made = [
        ok(ask(edge, "POST", "/os-floating-ips", body))["floating_ip"]
        for body in (None, {"pool": "public"}, {"pool": public}, {})
    ]
    assert {(one["pool"], one["fixed_ip"], one["instance_id"]) for one in made} == {("public", None, None)}
    listed = ok(ask(edge, "GET", "/os-floating-ips"))["floating_ips"]
    assert sorted(one["ip"] for one in listed) == [f"203.0.113.{last}" for last in (3, 4, 5, 6)]
    assert ok(ask(edge, "GET", f"/os-floating-ips/{made[0]['id']}"))["floating_ip"] == made[0]
    assert ok(ask(edge, "GET", "/os-floating-ips", token="member:p2"))["floating_ips"] == []
    fault(ask(edge, "GET", f"/os-floating-ips/{made[0]['id']}", token="member:p2"), 404)
    fault(ask(edge, "DELETE", f"/os-floating-ips/{made[0]['id']}", token="member:p2"), 404)
    assert "No more floating IPs" in fault(ask(edge, "POST", "/os-floating-ips", {"pool": "public"}), 404)
    assert ask(edge, "DELETE", f"/os-floating-ips/{made[0]['id']}").status == 202
    fault(ask(edge, "GET", f"/os-floating-ips/{made[0]['id']}"), 404)


def test_a_floating_ip_shows_where_it_leads(edge: Served) -> None:
    public, mine = outside(edge), make_network(edge, "mine", "10.0.0.0/24")
    router = ask(
        edge, "POST", f"{NETWORK}/routers", {"router": {"name": "r", "external_gateway_info": {"network_id": public}}}
    )
    router_id = ok(router, 201)["router"]["id"]
    subnet_id = ok(ask(edge, "GET", f"{NETWORK}/networks/{mine}"))["network"]["subnets"][0]
    ok(ask(edge, "PUT", f"{NETWORK}/routers/{router_id}/add_router_interface", {"subnet_id": subnet_id}))
    port = {"port": {"network_id": mine, "device_id": UNKNOWN}}
    made = ok(ask(edge, "POST", f"{NETWORK}/ports", port), 201)["port"]
    floating = ok(ask(edge, "POST", "/os-floating-ips"))["floating_ip"]
    ok(ask(edge, "PUT", f"{NETWORK}/floatingips/{floating['id']}", {"floatingip": {"port_id": made["id"]}}))
    shown = ok(ask(edge, "GET", f"/os-floating-ips/{floating['id']}"))["floating_ip"]
    assert (shown["fixed_ip"], shown["instance_id"]) == (made["fixed_ips"][0]["ip_address"], UNKNOWN)


def test_floating_ips_that_cannot_be_are_refused(edge: Served) -> None:
    fault(ask(edge, "POST", "/os-floating-ips"), 404)
    outside(edge)
    fault(ask(edge, "POST", "/os-floating-ips", {"pool": "nowhere"}), 404)
    fault(ask(edge, "POST", "/os-floating-ips", {"pool": 7}), 400)
    fault(ask(edge, "POST", "/os-floating-ips", token="reader:p1"), 403)
    fault(ask(edge, "POST", "/os-floating-ips", version="2.36"), 404)
    for method in ("GET", "DELETE"):
        fault(ask(edge, method, f"/os-floating-ips/{UNKNOWN}"), 404)
        fault(ask(edge, method, "/os-floating-ips/1"), 400)
    outside(edge, "198.51.100.0/24", "more")
    assert "Several pools" in fault(ask(edge, "POST", "/os-floating-ips"), 400)
    ok(ask(edge, "PUT", "/network/v2.0/quotas/p1", {"quota": {"floatingip": 0}}, token="admin:ops"))
    assert "over quota" in fault(ask(edge, "POST", "/os-floating-ips", {"pool": "more"}), 403)


# -- images ----------------------------------------------------------------------------------------------------------


def put_image(edge: Served, **values: Any) -> str:
    """An image with data, in the table."""
    row = image_row(str(uuid.uuid4())) | {"owner": "p1", **values}
    edge.store.write_here(lambda tx: tx.execute(image_table.insert().values(row)).rowcount)
    return str(row["id"])


def names(edge: Served, query: str = "") -> list[str]:
    return [one["name"] for one in ok(ask(edge, "GET", f"/images{query}"))["images"]]


def test_images_are_shown(edge: Served) -> None:
    image_id = put_image(edge, name="tiny", min_disk=1, min_ram=64)
    shown = ok(ask(edge, "GET", f"/images/{image_id}"))["image"]
    assert {name: shown[name] for name in ("name", "status", "progress", "minRam", "minDisk", "metadata")} == {
        "name": "tiny",
        "status": "ACTIVE",
        "progress": 100,
        "minRam": 64,
        "minDisk": 1,
        "metadata": {},
    }
    assert shown["OS-EXT-IMG-SIZE:size"] == 1 << 20
    assert [one["rel"] for one in shown["links"]] == ["self", "bookmark", "alternate"]
    assert shown["links"][2]["href"] == f"http://testserver/image/v2/images/{image_id}"
    assert ok(ask(edge, "GET", "/images/detail"))["images"] == [shown]
    assert list(ok(ask(edge, "GET", "/images"))["images"][0]) == ["id", "name", "links"]
    hidden = put_image(edge, name="theirs", owner="p2", visibility="private", status="queued", location=None)
    for method, path in (("GET", hidden), ("GET", UNKNOWN), ("DELETE", UNKNOWN), ("DELETE", hidden)):
        fault(ask(edge, method, f"/images/{path}"), 404)
    fault(ask(edge, "DELETE", f"/images/{image_id}", token="reader:p1"), 403)
    fault(ask(edge, "DELETE", f"/images/{image_id}", token="member:p2"), 403)
    made = ok(edge.client("member:p1").request("POST", "/image/v2/images", json={"name": "brief"}), 201)["id"]
    assert ask(edge, "DELETE", f"/images/{made}").status == 204
    fault(ask(edge, "GET", f"/images/{made}"), 404)
    for path in ("/images", "/images/detail", f"/images/{image_id}"):
        fault(ask(edge, "GET", path, version="2.36"), 404)


def test_images_are_filtered_and_paged(edge: Served) -> None:
    now = edge.store.seams.clock.now()
    for age, name in enumerate(("first", "second", "third")):
        put_image(edge, name=name, created_at=now - timedelta(hours=age), updated_at=now - timedelta(hours=age))
    waiting = put_image(edge, name="waiting", status="queued", location=None, created_at=now - timedelta(hours=5))
    assert names(edge) == ["first", "second", "third", "waiting"]
    assert names(edge, "?status=SAVING") == []
    assert names(edge, "?status=ACTIVE&name=second") == ["second"]
    since = f"{now - timedelta(minutes=90):%Y-%m-%dT%H:%M:%SZ}"
    assert names(edge, f"?changes-since={since}&status=ACTIVE") == ["first", "second"]
    page = ok(ask(edge, "GET", "/images?limit=2"))
    assert [one["name"] for one in page["images"]] == ["first", "second"]
    [link] = page["images_links"]
    assert names(edge, "?" + link["href"].partition("?")[2]) == ["third", "waiting"]
    body = {"metadata": {"instance_uuid": UNKNOWN, "image_type": "snapshot", "auto_disk_config": "True"}}
    ok(ask(edge, "PUT", f"/images/{waiting}/metadata", body))
    for query in (
        f"server={UNKNOWN}",
        f"server=http://x/servers/{UNKNOWN}",
        "type=snapshot",
        "property-image_type=snapshot",
    ):
        assert names(edge, f"?{query}") == ["waiting"], query
    [shown] = ok(ask(edge, "GET", "/images/detail?type=snapshot"))["images"]
    assert (shown["status"], shown["progress"], shown["OS-DCF:diskConfig"]) == ("SAVING", 25, "AUTO")
    assert shown["server"]["id"] == UNKNOWN
    for wrong in ("changes-since=soon", "limit=x", "limit=-1", f"marker={UNKNOWN}"):
        fault(ask(edge, "GET", f"/images?{wrong}"), 400)
    fault(ask(edge, "GET", "/images", token="service:p1"), 403)


def test_metadata_are_properties(edge: Served) -> None:
    image_id = put_image(edge)
    path = f"/images/{image_id}/metadata"
    first, more = {"metadata": {"a": "1", "b": "2"}}, {"metadata": {"b": "3", "c": "4"}}
    assert ok(ask(edge, "PUT", path, first)) == first
    assert ok(ask(edge, "POST", path, more))["metadata"] == {"a": "1", "b": "3", "c": "4"}
    assert ok(ask(edge, "PUT", path, more)) == more
    assert ok(ask(edge, "GET", path, version="2.38")) == more
    assert ok(ask(edge, "PUT", f"{path}/b", {"meta": {"b": "5"}})) == {"meta": {"b": "5"}}
    assert ok(ask(edge, "GET", f"{path}/b")) == {"meta": {"b": "5"}}
    assert ask(edge, "DELETE", f"{path}/b").status == 204
    assert ok(ask(edge, "GET", path)) == {"metadata": {"c": "4"}}
    for method in ("GET", "DELETE"):
        fault(ask(edge, method, f"{path}/b"), 404)
    fault(ask(edge, "PUT", f"{path}/b", {"meta": {"d": "5"}}), 400)
    fault(ask(edge, "PUT", f"{path}/b", {"meta": {"b": "5", "d": "5"}}), 400)
    fault(ask(edge, "PUT", path, {"metadata": {"name": "an attribute"}}), 400)
    fault(ask(edge, "PUT", path, {"metadata": {"x": "y" * 256}}), 400)
    fault(ask(edge, "PUT", path, first, token="reader:p1"), 403)
    fault(ask(edge, "PUT", path, first, token="member:p2"), 403)
    fault(ask(edge, "GET", path, version="2.39"), 404)
    for method, tail, body in (("GET", "", None), ("POST", "", first), ("PUT", "", first), ("DELETE", "/a", None)):
        fault(ask(edge, method, f"/images/{UNKNOWN}/metadata{tail}", body), 404)
    ok(ask(edge, "PUT", "/os-quota-sets/p1", {"quota_set": {"metadata_items": 1}}, token="admin:p1"))
    fault(ask(edge, "POST", path, first), 403)


def test_an_aggregate_s_hosts_fetch_images_ahead(edge: Served) -> None:
    def place(tx: Tx) -> None:
        for name in ("alpha", "beta"):
            row = {"id": f"host-{name}", "name": name, "facts": msgspec.to_builtins(FACTS), "network_filter": "fake"}
            tx.execute(sa.insert(host).values(**row, version="0", created_at=tx.now, seen_at=tx.now))

    def calls(tx: Tx) -> list[tuple[str, str, str, str]]:
        found = tx.all(sa.select(call).order_by(call.c.target))
        return [(row.host_id, row.verb, row.target, row.arguments["format"]) for row in found]

    def post(body: Any, token: str = "admin:ops", version: str = "2.81") -> Response:
        return ask(edge, "POST", f"{path}/images", body, token=token, version=version)

    edge.store.write_here(place)
    made = ask(edge, "POST", "/os-aggregates", {"aggregate": {"name": "some"}}, token="admin:ops")
    path = f"/os-aggregates/{ok(made)['aggregate']['id']}"
    ok(ask(edge, "POST", f"{path}/action", {"add_host": {"host": "alpha"}}, token="admin:ops"))
    image_id, empty = put_image(edge), put_image(edge, status="queued", location=None)
    assert post({"cache": [{"id": image_id}, {"id": empty}, {"id": UNKNOWN}]}).status == 202
    assert edge.store.write_here(calls) == [("host-alpha", "fetch_image", image_id, "qcow2")]
    assert "Duplicate" in fault(post({"cache": [{"id": image_id}, {"id": image_id}]}), 400)
    fault(post({}), 400)
    for wrong in ([], [{"id": "no uuid"}]):
        fault(post({"cache": wrong}), 400)
    fault(post({"cache": [{"id": image_id}]}, token="manager:p1"), 403)
    fault(post({"cache": [{"id": image_id}]}, version="2.80"), 404)
    path = "/os-aggregates/99"
    fault(post({"cache": [{"id": image_id}]}), 404)
