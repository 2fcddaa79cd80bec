"""What guests are made of and told."""

from __future__ import annotations

import base64
import json

from pileus.services.compute.rules import guest
from pileus.services.compute.rules.guest import Address, Nic, Server

ID = "0a1b2c3d-0000-4000-8000-000000000000"
KEY = {"name": "mine", "type": "ssh", "public_key": "ssh-ed25519 AAAA me"}


def server(**changes: object) -> Server:
    plain = Server(
        id=ID,
        name="web",
        hostname="web",
        project_id="p",
        flavor={"name": "small", "vcpus": 2, "ram": 512, "disk": 3, "ephemeral": 0, "swap": 0},
        image_id="11111111-0000-4000-8000-000000000000",
        image={"format": "qcow2", "sha512": "ab"},
        key=KEY,
        user_data=base64.b64encode(b"#!/bin/sh\n").decode(),
        admin_pass="secret",
        config_drive=True,
        metadata={"role": "web"},
        reservation_id="r-1",
        launch_index=0,
        zone="nova",
        groups=["default"],
        power="running",
        reboot_nonce=3,
        reboot_kind="SOFT",
        disks={},
        acts={},
        rescue=None,
    )
    return plain._replace(**changes)  # type: ignore[arg-type] # each test names fields with their types


def address(**changes: object) -> Address:
    plain = Address("10.0.0.5", None, "10.0.0.0/24", "10.0.0.1", True, None, ("9.9.9.9",), ())
    return plain._replace(**changes)  # type: ignore[arg-type] # as above


def nic(*addresses: Address) -> Nic:
    return Nic("12345678-9abc-4000-8000-000000000000", "fa:16:3e:00:00:01", 1450, "net", addresses)


def test_spec() -> None:
    found = guest.spec(server(), [nic(address())])
    assert (found.vcpus, found.memory_mib, found.power) == (2, 512, "running")
    assert (found.reboot_nonce, found.reboot_kind, found.config_drive) == (3, "SOFT", True)
    (root,) = found.disks
    assert (root.image_format, root.image_sha512, root.size_gib, root.boot_index) == ("qcow2", "ab", 3, 0)
    (card,) = found.nics
    assert (card.mac_address, card.mtu) == ("fa:16:3e:00:00:01", 1450)


def test_further_disks() -> None:
    flavor = {"name": "big", "vcpus": 1, "ram": 64, "disk": 1, "ephemeral": 5, "swap": 1500}
    found = guest.spec(server(flavor=flavor), [])
    assert [(one.id, one.size_gib, one.image_id is None) for one in found.disks[1:]] == [
        ("ephemeral", 5, True),
        ("swap", 2, True),
    ]


def test_documents() -> None:
    found = guest.documents(server(), [nic(address(floating_ip_address="203.0.113.9"))])
    meta = json.loads(found["openstack/latest/meta_data.json"])
    assert meta["uuid"] == ID
    assert meta["hostname"] == "web.novalocal"
    assert meta["meta"] == {"role": "web"}
    assert meta["public_keys"] == {"mine": KEY["public_key"]}
    assert meta["keys"][0]["data"] == KEY["public_key"]
    assert meta["admin_pass"] == "secret"
    assert found["openstack/latest/user_data"] == found["latest/user-data"] == b"#!/bin/sh\n"
    assert found["latest/meta-data/local-ipv4"] == b"10.0.0.5"
    assert found["latest/meta-data/public-ipv4"] == b"203.0.113.9"
    assert found["2009-04-04/meta-data/public-keys/0/openssh-key"] == KEY["public_key"].encode()
    assert found["latest/meta-data/security-groups"] == b"default"
    for version in guest.DATED:
        for name in ("meta_data.json", "network_data.json", "vendor_data.json", "vendor_data2.json"):
            assert f"openstack/{version}/{name}" in found


def test_secrets_are_in_one_place() -> None:
    found = guest.documents(server(), [])
    assert {path.rsplit("/", 1)[1] for path, content in found.items() if b"secret" in content} == {"meta_data.json"}


def test_no_path_is_both_document_and_folder() -> None:
    found = set(guest.documents(server(), [nic(address())]))
    assert not any(other.startswith(f"{one}/") for one in found for other in found)


def test_without_key_and_user_data() -> None:
    found = guest.documents(server(key=None, user_data=None, metadata={}), [])
    assert "openstack/latest/user_data" not in found
    assert "latest/user-data" not in found
    meta = json.loads(found["openstack/latest/meta_data.json"])
    assert not {"keys", "public_keys", "meta"} & set(meta)


def test_network_data_by_dhcp() -> None:
    found = guest.network_data([nic(address())])
    (link,), (network,) = found["links"], found["networks"]
    assert link["id"] == network["link"] == "tap12345678-9a"
    assert link["ethernet_mac_address"] == "fa:16:3e:00:00:01"
    assert network["type"] == "ipv4_dhcp"
    assert found["services"] == [{"type": "dns", "address": "9.9.9.9"}]


def test_network_data_by_hand() -> None:
    one = address(enable_dhcp=False, host_routes=(("10.9.0.0/16", "10.0.0.2"),))
    (network,) = guest.network_data([nic(one)])["networks"]
    assert (network["type"], network["ip_address"], network["netmask"]) == ("ipv4", "10.0.0.5", "255.255.255.0")
    assert network["routes"] == [
        {"network": "10.9.0.0", "netmask": "255.255.0.0", "gateway": "10.0.0.2"},
        {"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.0.0.1"},
    ]


def test_network_data_ipv6() -> None:
    plain = address(ip_address="2001:db8::5", cidr="2001:db8::/64", gateway_ip=None)
    kinds = {
        mode: guest.network_data([nic(plain._replace(ipv6_address_mode=mode))])["networks"][0]["type"]
        for mode in ("slaac", "dhcpv6-stateful", "dhcpv6-stateless", None)
    }
    assert kinds == {
        "slaac": "ipv6_slaac",
        "dhcpv6-stateful": "ipv6_dhcpv6-stateful",
        "dhcpv6-stateless": "ipv6_dhcpv6-stateless",
        None: "ipv6",
    }


def test_the_same_server_gives_the_same_spec() -> None:
    assert guest.spec(server(), [nic(address())]) == guest.spec(server(), [nic(address())])
