"""Specs of a store that holds what no API lets in: the one thing fails, and the host renders nothing of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from pileus.agent.world import SPECS, Key, World
from pileus.contracts.hypervisor import DiskSpec, SnapshotSpec
from pileus.contracts.link import Assignment, Kind
from pileus.contracts.network import (
    AddressPair,
    DhcpOption,
    FixedIP,
    FloatingIPSpec,
    HostRoute,
    RouterInterfaceSpec,
    RuleSpec,
    SubnetSpec,
)
from tests.agent.control import Control, Machine, hold, play
from tests.agent.spec import KIND, group, guest, network, port, router, snapshot

UNCHECKED = {
    "guest.acts": "names of acts: compared, and shown",
    "guest.documents": "what guests read; their names are checked where they become files",
    "guest.name": "shown to people",
    "guest.password": "handed to the guest's agent as JSON",
    "port.guest_id": "compared with ids of guests",
}
"""Texts of specs that may hold any sign, and why."""

COMMANDS = '\nadd table inet x; include "/etc/shadow"\n#'


def _texts(kind: inspect.Type, path: str) -> Iterator[tuple[str, inspect.StrType]]:
    """Each text in a type, with the path to it."""
    if isinstance(kind, inspect.StrType):
        yield path, kind
    for name in ("item_type", "key_type", "value_type"):
        if isinstance(inner := getattr(kind, name, None), inspect.Type):
            yield from _texts(inner, path)
    for inner in getattr(kind, "types", ()):
        yield from _texts(inner, path)
    for inner in getattr(kind, "item_types", ()):
        yield from _texts(inner, path)
    for field in getattr(kind, "fields", ()):
        yield from _texts(field.type, f"{path}.{field.name}")


def test_every_text_of_a_spec_has_its_signs_named() -> None:
    found = [(path, text) for kind, form in SPECS.items() for path, text in _texts(inspect.type_info(form), kind)]
    assert len(found) > 40
    assert {path for path, text in found if text.pattern is None} == UNCHECKED.keys()
    wrong = [path for path, text in found if text.pattern and not text.pattern.startswith(r"\A")]
    wrong += [path for path, text in found if text.pattern and not text.pattern.endswith(r"\Z")]
    assert wrong == []


SUBNET = SubnetSpec(id="s", cidr="10.0.0.0/24", ip_version=4, gateway_ip=None, enable_dhcp=True)
LEG = RouterInterfaceSpec(port_id="l", network_id="n", mac_address="fa:16:3e:00:00:03", addresses=("10.0.0.1/24",))


def _subnet(**values: Any) -> msgspec.Struct:
    return network("n", subnets=(msgspec.structs.replace(SUBNET, **values),))


def _hostile(evil: str) -> Iterator[msgspec.Struct]:
    """Specs with a hostile text in one place each."""
    address, prefix, mac = f"2001:db8::%{evil}", f"2001:db8::%{evil}/32", f"fa:16:3e:00:00:02{evil}"
    yield _subnet(cidr=prefix)
    yield _subnet(gateway_ip=address)
    yield _subnet(dhcp_address=address)
    yield _subnet(dns_nameservers=("9.9.9.9", address))
    yield _subnet(host_routes=(HostRoute(destination=prefix, nexthop="10.0.0.1"),))
    yield _subnet(host_routes=(HostRoute(destination="10.1.0.0/16", nexthop=address),))
    yield _subnet(ipv6_ra_mode=f"slaac{evil}")
    yield _subnet(id=f"s{evil}")
    yield network("n", dhcp_mac=mac)
    yield network("n", dns_domain=f"example.org{evil}")
    yield port("p", "n", mac_address=mac)
    yield port("p", "n", fixed_ips=(FixedIP(subnet_id="s", ip_address=address),))
    yield port("p", "n", hostname=f"host{evil}")
    yield port("p", "n", f"group{evil}")
    yield port("p", f"n{evil}")
    for pair in (prefix, address):
        yield port("p", "n", allowed_address_pairs=(AddressPair(mac_address="fa:16:3e:00:00:02", ip_address=pair),))
    yield port("p", "n", allowed_address_pairs=(AddressPair(mac_address=mac, ip_address="10.0.0.9"),))
    yield port("p", "n", dhcp_options=(DhcpOption(opt_name=f"66{evil}", opt_value="x"),))
    if "\n" in evil:
        yield port("p", "n", dhcp_options=(DhcpOption(opt_name="66", opt_value=f"x{evil}"),))
    yield group("g", "10.0.0.0/8", prefix)
    yield msgspec.structs.replace(group("g"), members=("10.0.0.7", address))
    yield msgspec.structs.replace(group("g"), members=(prefix,))
    remote = RuleSpec(direction="ingress", ethertype="IPv6", remote_group_id=f"g{evil}")
    yield msgspec.structs.replace(group("g"), rules=(remote,))
    floating = FloatingIPSpec(id="f", floating_ip_address="172.24.4.9", fixed_ip_address="10.0.0.9")
    changes: list[dict[str, Any]] = [
        {"gateway_nexthops": (address,)},
        {"routes": (HostRoute(destination=prefix, nexthop="10.0.0.2"),)},
        {"routes": (HostRoute(destination="10.9.0.0/16", nexthop=address),)},
        {"interfaces": (msgspec.structs.replace(LEG, addresses=(prefix,)),)},
        {"interfaces": (msgspec.structs.replace(LEG, mac_address=mac),)},
        {"interfaces": (msgspec.structs.replace(LEG, port_id=f"l{evil}"),)},
        {"interfaces": (msgspec.structs.replace(LEG, advertise=(msgspec.structs.replace(SUBNET, cidr=prefix),)),)},
        {"gateway": msgspec.structs.replace(LEG, addresses=(prefix,))},
        {"floating_ips": (msgspec.structs.replace(floating, floating_ip_address=address),)},
        {"floating_ips": (msgspec.structs.replace(floating, fixed_ip_address=address),)},
    ]
    for change in changes:
        yield msgspec.structs.replace(router("r", "n"), **change)
    yield guest("i", f"p{evil}")
    yield guest("i", "p", disks=(DiskSpec(id="root", size_gib=1, image_id=f"../{evil}"),))
    yield snapshot("s", "i", disk_id=f"root{evil}")


@pytest.mark.parametrize("evil", [COMMANDS, "\n", "x", ";{}", '"', "/../x"])
def test_a_host_does_not_read_what_it_could_not_render(evil: str) -> None:
    for spec in _hostile(evil):
        if evil == "x" and b"%" not in msgspec.json.encode(spec):
            continue  # no other sign than it may have
        kind: Kind = "snapshot" if isinstance(spec, SnapshotSpec) else KIND[type(spec)]
        world, raw = World(), msgspec.Raw(msgspec.json.encode(spec))
        applied = world.apply([Assignment(kind=kind, id="one", generation=3, spec=raw)])
        key = Key(kind, "one")
        assert applied.touched == set(), (evil, spec)
        assert applied.unreadable[key].generation == 3
        assert "matching regex" in applied.unreadable[key].why or "Invalid enum" in applied.unreadable[key].why
        assert world.wanted(key) is None


def test_the_one_thing_fails_with_a_reason_and_others_go_on(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        await hold(control)
        evil = f"2001:db8::%{COMMANDS}/32"
        machine.calls.clear()
        control.assign(
            group("evil", evil),
            port("p-evil", "n", "evil"),
            guest("g-evil", "p-evil"),
            port("p-pair", "n", allowed_address_pairs=(AddressPair(mac_address="fa:16:3e:00:00:02", ip_address=evil),)),
            msgspec.structs.replace(network("n-evil"), subnets=(msgspec.structs.replace(SUBNET, cidr=evil),)),
            msgspec.structs.replace(router("r-evil", "n"), gateway_nexthops=(evil,)),
            port("p-good", "n", "s"),
            guest("g-good", "p-good"),
        )
        await control.reaches("guest/g-good", "running")
        for key in ("security_group/evil", "port/p-pair", "network/n-evil", "router/r-evil"):
            await control.reaches(key, "failed")
            row = control.rows()[key]
            assert "this host does not understand the spec: Expected `str` matching regex" in row.detail
            assert "shadow" not in row.detail
        assert machine.guests == {"g1": "running", "g-good": "running"}
        assert set(machine.network.networks) == {"n"}
        assert set(machine.network.routers) == {"r"}
        assert b"shadow" not in msgspec.json.encode([machine.network.networks, machine.network.routers])
        # What is set right is made.
        control.assign(group("evil", "10.0.0.0/8"))
        await control.reaches("guest/g-evil", "running")

    play(scenario, database_url, tmp_path)
