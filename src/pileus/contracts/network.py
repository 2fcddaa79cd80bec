"""The contract between the agent and a network driver.

Specs are assignments that the control plane writes for one host; they are small and independent, so that a change to
one port does not touch its neighbours' specs.  The agent hands the driver, for each network, the network, its ports on
this host and the security groups that they use; and, for each router, the router.

All methods are synchronous and idempotent, and may be called from different threads for different networks.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from pileus.contracts.hypervisor import NicAttachment
from pileus.contracts.text import (
    AddressText,
    Identifier,
    Line,
    MacText,
    NameText,
    OptionName,
    PrefixText,
    RangeText,
)

Mode = Literal["slaac", "dhcpv6-stateful", "dhcpv6-stateless"]
"""How guests come by IPv6 addresses (Network API, table of IPv6 modes)."""


class HostRoute(msgspec.Struct, frozen=True, kw_only=True):
    """A static route: to `destination` (CIDR) by `nexthop` (address)."""

    destination: PrefixText
    nexthop: AddressText


class SubnetSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A subnet as guests on the network see it."""

    id: Identifier
    cidr: PrefixText
    ip_version: Literal[4, 6]
    gateway_ip: AddressText | None
    enable_dhcp: bool
    dhcp_address: AddressText | None = None
    """The address of this subnet's DHCP service inside the network; set when `enable_dhcp` is."""
    dns_nameservers: tuple[AddressText, ...] = ()
    host_routes: tuple[HostRoute, ...] = ()
    ipv6_ra_mode: Mode | None = None
    ipv6_address_mode: Mode | None = None
    routed: bool = False
    """A router of this cloud holds `gateway_ip`; router advertisements are then its work."""


class NetworkSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Assignment kind `network`: one layer-2 segment on one host, with its DHCP and metadata services."""

    id: Identifier
    mtu: int
    subnets: tuple[SubnetSpec, ...]
    dhcp_mac: MacText
    """MAC address of the network's DHCP and metadata service."""
    external: bool = False
    """Reached from outside the cloud: the host gets an uplink into it, holding each subnet's gateway_ip."""
    dns_domain: NameText = ""


class FixedIP(msgspec.Struct, frozen=True, kw_only=True):
    """An address of a port."""

    subnet_id: Identifier
    ip_address: AddressText


class AddressPair(msgspec.Struct, frozen=True, kw_only=True):
    """A further source that a port may send from; `ip_address` is an address or a CIDR."""

    mac_address: MacText
    ip_address: RangeText


class DhcpOption(msgspec.Struct, frozen=True, kw_only=True):
    """An extra DHCP option of a port (Network API, extra_dhcp_opt)."""

    opt_name: OptionName
    opt_value: Line
    ip_version: Literal[4, 6] = 4


class PortSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Assignment kind `port`: a guest's place on a network of this host."""

    id: Identifier
    network_id: Identifier
    mac_address: MacText
    fixed_ips: tuple[FixedIP, ...]
    hostname: NameText = ""
    port_security: bool = True
    """When False, neither anti-spoofing nor security groups apply."""
    security_groups: tuple[Identifier, ...] = ()
    allowed_address_pairs: tuple[AddressPair, ...] = ()
    dhcp_options: tuple[DhcpOption, ...] = ()
    admin_state_up: bool = True
    guest_id: str | None = None
    """Any text: what users call a port's device. It is compared, and part of nothing."""


class RuleSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One security group rule; what no rule allows is dropped."""

    direction: Literal["ingress", "egress"]
    ethertype: Literal["IPv4", "IPv6"]
    protocol: int | None = None
    """IP protocol number, None for any."""
    port_range_min: int | None = None
    """First port; the ICMP type for protocols 1 and 58."""
    port_range_max: int | None = None
    """Last port; the ICMP code for protocols 1 and 58."""
    remote_ip_prefix: RangeText | None = None
    remote_group_id: Identifier | None = None


class SecurityGroupSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Assignment kind `security_group`: the rules of a group, and its members' addresses."""

    id: Identifier
    rules: tuple[RuleSpec, ...]
    members: tuple[RangeText, ...] = ()
    """Addresses of all ports in the group, wherever they are, and prefixes that hold nothing but such; filled where a
    rule names the group as a remote."""
    stateful: bool = True


class RouterInterfaceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A router's leg in a network."""

    port_id: Identifier
    network_id: Identifier
    mac_address: MacText
    addresses: tuple[PrefixText, ...]
    """Addresses with prefix length, e.g. `10.0.0.1/24`."""
    mtu: int = 1500
    advertise: tuple[SubnetSpec, ...] = ()
    """IPv6 subnets for which this leg sends router advertisements."""


class FloatingIPSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A floating IP that is associated: one-to-one NAT in the router."""

    id: Identifier
    floating_ip_address: AddressText
    fixed_ip_address: AddressText


class RouterSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Assignment kind `router`: on the host that holds it."""

    id: Identifier
    interfaces: tuple[RouterInterfaceSpec, ...]
    gateway: RouterInterfaceSpec | None = None
    """The leg in the external network."""
    gateway_nexthops: tuple[AddressText, ...] = ()
    """Default gateways of the external network's subnets, one for each IP version at most."""
    enable_snat: bool = True
    floating_ips: tuple[FloatingIPSpec, ...] = ()
    routes: tuple[HostRoute, ...] = ()
    admin_state_up: bool = True


class NetworkState(msgspec.Struct, frozen=True, kw_only=True):
    """All that one host needs to know of one network."""

    network: NetworkSpec
    ports: tuple[PortSpec, ...]
    groups: Mapping[str, SecurityGroupSpec]
    """Each group that a port has or that one of their rules names."""


class NetworkFacts(msgspec.Struct, frozen=True, kw_only=True):
    """How this host does networking, for `doctor`."""

    driver: str
    filter: str
    """`bridge` (conntrack in the bridge family), `br_netfilter`, or `fake`."""


class NetworkFailure(Exception):
    """The driver could not do what was asked; the message is for people."""


class Network(Protocol):
    """Networks, routers and plugs on one host."""

    def facts(self) -> NetworkFacts:
        """Find out how packets will be filtered here, by trying."""

    def ensure_network(self, state: NetworkState) -> None:
        """Make the network, its services and the filters of its ports as `state` says.

        Post-condition: for each port of `state` the filter is in force, whether or not its guest runs yet.  Ports
        that are no longer in `state` are unplugged and their rules gone, connections that they had tracked included.
        A plug of an earlier life that no state of this one has named is closed: nothing passes.  It stays as long as
        a guest holds it, so that the guest is heard again when a later state names its port.
        """

    def remove_network(self, network_id: str) -> None:
        """Take down the network with its services; nothing of it is left on the host. Absent is fine."""

    def ensure_router(self, router: RouterSpec) -> None:
        """Make the router. The networks of its legs are ensured before."""

    def remove_router(self, router_id: str) -> None:
        """Take the router down. Absent is fine."""

    def plug(self, port_id: str) -> NicAttachment:
        """Where the guest of a port that `ensure_network` knows is to be attached.

        Raises NetworkFailure when the port is unknown, so that no guest starts unfiltered.
        """

    def listen(self, network_id: str, address: str, port: int) -> socket.socket:
        """A listening TCP socket inside the network, e.g. for metadata at 169.254.169.254 port 80."""

    def networks(self) -> Sequence[str]:
        """Ids of the networks found on this host, including those of an earlier life."""

    def routers(self) -> Sequence[str]:
        """Ids of the routers found on this host."""

    def ailing(self) -> Sequence[tuple[Literal["network", "router"], str]]:
        """Networks and routers that this life has ensured and of which a service ended by itself: ensure them again.

        Quick, and changes nothing.
        """

    def close(self) -> None:
        """Let go without touching the data plane; a later driver adopts it."""

    def teardown(self) -> None:
        """Remove every trace from the host: namespaces, uplink, NAT rule, sysctl."""
