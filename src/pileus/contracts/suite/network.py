"""What every network driver must do: `pileus.contracts.network`, as tests.

`NetworkContract` is what can be seen without a packet; a driver in memory passes it too.  `PacketContract` plays the
guests: it sends frames into ports and looks at what comes out of others, so it needs a real driver.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

import msgspec
import pytest

from pileus.contracts.hypervisor import NicAttachment
from pileus.contracts.network import (
    FixedIP,
    Network,
    NetworkFailure,
    NetworkSpec,
    NetworkState,
    PortSpec,
    RouterInterfaceSpec,
    RouterSpec,
    RuleSpec,
    SecurityGroupSpec,
    SubnetSpec,
)

_NUMBER = itertools.count(1)


class NetworkHarness(Protocol):
    """The host around a driver under test."""

    def open(self) -> Network:
        """A driver on this host's state: the first one, or the next after the one before was closed or died."""

    def leftovers(self) -> list[str]:
        """What is on the host because of this cloud's networks: namespaces, interfaces, processes, rules, files."""


class Lan:
    """Builds the specs of one network for a test; each change gives a new state."""

    def __init__(self, *, cidr: str = "10.0.0.0/24", external: bool = False, dhcp: bool = True) -> None:
        number = next(_NUMBER)
        base = cidr.rpartition(".")[0]
        self.subnet = SubnetSpec(
            id=str(uuid.uuid4()),
            cidr=cidr,
            ip_version=4,
            gateway_ip=f"{base}.1",
            enable_dhcp=dhcp,
            dhcp_address=f"{base}.2" if dhcp else None,
        )
        self.subnet6 = SubnetSpec(
            id=str(uuid.uuid4()), cidr="2001:db8:1::/64", ip_version=6, gateway_ip="2001:db8:1::1", enable_dhcp=False
        )
        self.network = NetworkSpec(
            id=str(uuid.uuid4()),
            mtu=1450,
            subnets=(self.subnet,) if external else (self.subnet, self.subnet6),
            dhcp_mac=f"fa:16:3e:ff:{number >> 8 & 255:02x}:{number & 255:02x}",
            external=external,
            dns_domain="example.test.",
        )
        self.ports: dict[str, PortSpec] = {}
        self.groups: dict[str, SecurityGroupSpec] = {}
        self._base = base

    @property
    def state(self) -> NetworkState:
        return NetworkState(network=self.network, ports=tuple(self.ports.values()), groups=dict(self.groups))

    def port(self, name: str, last: int, *groups: str, **more: object) -> PortSpec:
        """Add a port with the addresses x.x.x.`last` and 2001:db8:1::`last`."""
        fixed = [FixedIP(subnet_id=self.subnet.id, ip_address=f"{self._base}.{last}")]
        if not self.network.external:
            fixed.append(FixedIP(subnet_id=self.subnet6.id, ip_address=f"2001:db8:1::{last:x}"))
        port = PortSpec(
            id=str(uuid.uuid4()),
            network_id=self.network.id,
            mac_address=f"fa:16:3e:{next(_NUMBER) & 255:02x}:00:{last:02x}",
            fixed_ips=tuple(fixed),
            hostname=name,
            security_groups=groups,
        )
        self.ports[name] = msgspec.structs.replace(port, **more)
        return self.ports[name]

    def alter(self, name: str, **more: object) -> None:
        """Change fields of a port."""
        self.ports[name] = msgspec.structs.replace(self.ports[name], **more)

    def resubnet(self, **more: object) -> None:
        """Change fields of the IPv4 subnet."""
        self.subnet = msgspec.structs.replace(self.subnet, **more)
        self.network = msgspec.structs.replace(self.network, subnets=(self.subnet, *self.network.subnets[1:]))

    def group(self, name: str, *rules: RuleSpec, members: Sequence[str] = (), stateful: bool = True) -> None:
        """Add or replace a security group."""
        self.groups[name] = SecurityGroupSpec(id=name, rules=rules, members=tuple(members), stateful=stateful)

    def leg(self, last: int = 1, **more: object) -> RouterInterfaceSpec:
        """A router's leg with the address x.x.x.`last`."""
        leg = RouterInterfaceSpec(
            port_id=str(uuid.uuid4()),
            network_id=self.network.id,
            mac_address=f"fa:16:3e:fe:{next(_NUMBER) & 255:02x}:{last:02x}",
            addresses=(f"{self._base}.{last}/{self.network.subnets[0].cidr.partition('/')[2]}",),
            mtu=self.network.mtu,
        )
        return msgspec.structs.replace(leg, **more)


def rule(
    direction: Literal["ingress", "egress"],
    ethertype: Literal["IPv4", "IPv6"] = "IPv4",
    protocol: int | None = None,
    *,
    ports: tuple[int | None, int | None] = (None, None),
    prefix: str | None = None,
    group: str | None = None,
) -> RuleSpec:
    """A security group rule; `ports` are the first and last port, or ICMP type and code."""
    return RuleSpec(
        direction=direction,
        ethertype=ethertype,
        protocol=protocol,
        port_range_min=ports[0],
        port_range_max=ports[1],
        remote_ip_prefix=prefix,
        remote_group_id=group,
    )


class NetworkContract:
    """Subclass it and give it a fixture `harness`."""

    @pytest.fixture
    def driver(self, harness: NetworkHarness) -> Iterator[Network]:
        driver = harness.open()
        yield driver
        driver.teardown()
        assert harness.leftovers() == []

    def test_facts_name_the_filter(self, driver: Network) -> None:
        facts = driver.facts()
        assert facts.driver
        assert facts.filter in {"bridge", "br_netfilter", "fake"}
        assert driver.facts() == facts

    def test_a_new_host_has_nothing(self, driver: Network, harness: NetworkHarness) -> None:
        assert list(driver.networks()) == []
        assert list(driver.routers()) == []
        assert harness.leftovers() == []

    def test_removing_what_is_absent_is_fine(self, driver: Network) -> None:
        driver.remove_network(str(uuid.uuid4()))
        driver.remove_router(str(uuid.uuid4()))
        driver.teardown()

    def test_a_port_that_is_not_known_has_no_plug(self, driver: Network) -> None:
        with pytest.raises(NetworkFailure):
            driver.plug(str(uuid.uuid4()))

    def test_each_port_has_a_plug_of_its_own(self, driver: Network) -> None:
        lan = Lan()
        ports = [lan.port(f"host{number}", number) for number in range(10, 15)]
        driver.ensure_network(lan.state)
        plugs = [driver.plug(port.id) for port in ports]
        assert [plug.port_id for plug in plugs] == [port.id for port in ports]
        assert len({(plug.namespace, plug.device) for plug in plugs}) == len(ports)
        assert all(0 < len(plug.device) < 16 for plug in plugs)
        assert [driver.plug(port.id) for port in ports] == plugs

    def test_ensuring_again_changes_nothing(self, driver: Network, harness: NetworkHarness) -> None:
        lan = Lan()
        port = lan.port("host", 10)
        driver.ensure_network(lan.state)
        before, plug = harness.leftovers(), driver.plug(port.id)
        for _ in range(3):
            driver.ensure_network(lan.state)
        assert harness.leftovers() == before
        assert driver.plug(port.id) == plug

    def test_a_port_that_left_is_unplugged(self, driver: Network) -> None:
        lan = Lan()
        stays, goes = lan.port("stays", 10), lan.port("goes", 11)
        driver.ensure_network(lan.state)
        plug = driver.plug(stays.id)
        del lan.ports["goes"]
        driver.ensure_network(lan.state)
        with pytest.raises(NetworkFailure):
            driver.plug(goes.id)
        assert driver.plug(stays.id) == plug

    def test_networks_are_found_until_they_are_removed(self, driver: Network) -> None:
        first, second = Lan(), Lan()
        driver.ensure_network(first.state)
        driver.ensure_network(second.state)
        assert sorted(driver.networks()) == sorted([first.network.id, second.network.id])
        driver.remove_network(first.network.id)
        assert list(driver.networks()) == [second.network.id]
        driver.remove_network(first.network.id)
        driver.remove_network(second.network.id)
        assert list(driver.networks()) == []

    def test_a_removed_network_can_be_made_again(self, driver: Network) -> None:
        lan = Lan()
        port = lan.port("host", 10)
        driver.ensure_network(lan.state)
        driver.remove_network(lan.network.id)
        with pytest.raises(NetworkFailure):
            driver.plug(port.id)
        driver.ensure_network(lan.state)
        assert driver.plug(port.id).port_id == port.id

    def test_removal_leaves_nothing(self, driver: Network, harness: NetworkHarness) -> None:
        outer, inner = Lan(cidr="203.0.113.0/24", external=True, dhcp=False), Lan()
        inner.port("host", 10)
        router = RouterSpec(
            id=str(uuid.uuid4()),
            interfaces=(inner.leg(),),
            gateway=outer.leg(5),
            gateway_nexthops=("203.0.113.1",),
        )
        driver.ensure_network(outer.state)
        driver.ensure_network(inner.state)
        driver.ensure_router(router)
        assert list(driver.routers()) == [router.id]
        assert harness.leftovers() != []
        driver.remove_router(router.id)
        driver.remove_network(inner.network.id)
        driver.remove_network(outer.network.id)
        assert list(driver.routers()) == []
        assert harness.leftovers() == []

    def test_a_router_needs_its_networks(self, driver: Network) -> None:
        with pytest.raises(NetworkFailure):
            driver.ensure_router(RouterSpec(id=str(uuid.uuid4()), interfaces=(Lan().leg(),)))

    def test_a_later_driver_adopts(self, harness: NetworkHarness) -> None:
        lan = Lan()
        port = lan.port("host", 10)
        router = RouterSpec(id=str(uuid.uuid4()), interfaces=(lan.leg(),))
        first = harness.open()
        first.ensure_network(lan.state)
        first.ensure_router(router)
        plug, before = first.plug(port.id), harness.leftovers()
        first.close()
        assert harness.leftovers() == before
        second = harness.open()
        assert list(second.networks()) == [lan.network.id]
        assert list(second.routers()) == [router.id]
        second.ensure_network(lan.state)
        second.ensure_router(router)
        assert second.plug(port.id) == plug
        assert harness.leftovers() == before
        second.teardown()
        assert harness.leftovers() == []

    def test_listening_needs_a_network(self, driver: Network) -> None:
        with pytest.raises(NetworkFailure):
            driver.listen(str(uuid.uuid4()), "169.254.169.254", 80)

    def test_a_socket_listens_inside_the_network(self, driver: Network) -> None:
        first, second = Lan(), Lan()
        driver.ensure_network(first.state)
        driver.ensure_network(second.state)
        # The same address and port twice: they are in different networks.
        with (
            driver.listen(first.network.id, "169.254.169.254", 80) as one,
            driver.listen(second.network.id, "169.254.169.254", 80) as two,
        ):
            assert one.fileno() != two.fileno()


class Card(Protocol):
    """A guest's network card, as a hypervisor holds it."""

    def send(self, frame: bytes) -> None:
        """Put an Ethernet frame on the wire."""

    def receive(self, timeout: float) -> bytes | None:
        """The next frame that the guest gets, None when there is none within `timeout` seconds."""

    def close(self) -> None:
        """Pull the card."""


class PacketHarness(NetworkHarness, Protocol):
    """A host with real ports."""

    def attach(self, attachment: NicAttachment) -> Card:
        """Hold a port as a hypervisor would."""
