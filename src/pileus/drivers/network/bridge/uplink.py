"""The host's leg in the external networks: all that this driver leaves in the host's own namespace.

That is one virtual Ethernet pair for each external network, whose host end holds the gateways of its subnets; a
table of family inet that keeps guests from the host itself (`border`); one of family ip with the rule that masquerades
what goes on from there; and the switch ip_forward.  What the switch was before is written into the second table, as
the name of an empty chain: it lives exactly as long as the change, until a reboot or teardown, and another cloud on
this host can read it.
"""

from __future__ import annotations

import re
import threading

from pileus.contracts.network import NetworkFailure, NetworkSpec
from pileus.core.address import read_address, read_interface, read_prefix
from pileus.drivers.host import namespace, netfilter
from pileus.drivers.host.netlink import Netlink, inside
from pileus.drivers.host.process import apart
from pileus.drivers.network.bridge import border
from pileus.drivers.network.bridge.name import BRIDGE, UPLINK, Names
from pileus.drivers.network.bridge.segment import settle_addresses

_SWITCH = "ipv4/ip_forward"
_TRACKED, _TRACKED_ELSE = "netfilter/nf_conntrack_max", 65536
"""How many connections the host tracks at most; what is assumed where the kernel does not say."""
_WAS = "ip_forward_was_"


class Uplink:
    """The uplinks of one cloud on this host. Safe to use from several threads."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._lock = threading.Lock()
        self._known: dict[str, NetworkSpec] = {}
        self._loaded: tuple[str, ...] | None = None
        """The prefixes in the rule; None when it is not known whether there is one."""
        self._released = False
        self._generation = 0
        """Of the host's rules, when our table was last seen among them."""
        self._was = ""
        """What the switch was before, in case somebody flushes the table that says so."""
        self._without: set[str] = set()
        """Networks that are known to have no uplink, so that ensuring an inner network costs nothing here."""

    def intact(self, network: NetworkSpec) -> bool:
        """Whether the uplink is there as it was made. A child is run only when the host's rules changed."""
        if self._known.get(network.id) != network or self._loaded is None:
            return False
        name = self._names.uplink(network.id)

        def look() -> tuple[bool, int]:
            there = all(namespace.indices([name])) and namespace.get_kernel(_SWITCH) == "1"
            return there, netfilter.generation()

        there, generation = apart(look)
        if there and generation != self._generation and self._ruled():
            # Somebody else's rules changed; this host's packet filter is not ours alone.
            self._generation = generation
        return there and generation == self._generation

    def ensure(self, network: NetworkSpec) -> None:
        """Make the uplink of an external network, whose namespace is there. Raises NetworkFailure."""
        with self._lock:
            if self.intact(network):
                return
            self._without.discard(network.id)
            name, far = self._names.uplink(network.id), self._names.network(network.id)
            present = inside(far, lambda link: UPLINK in link.links())
            if self._loaded is None:
                # Before there is an uplink at all, so that no guest sees the host without it.
                netfilter.load(self._border())
            inside(None, lambda link: self._plug(link, network, far, present=present))
            inside(far, lambda link: link.change(UPLINK, mtu=network.mtu, master=BRIDGE, up=True))
            inside(None, lambda link: link.change(name, up=True))
            self._known[network.id] = network
            self._masquerade()

    def remove(self, network_id: str) -> None:
        """Take away the uplink of a network, and with the last one the table and the switch. Absent is fine."""
        with self._lock:
            if network_id in self._without:
                return
            name = self._names.uplink(network_id)
            self._known.pop(network_id, None)
            ours = inside(None, lambda link: _is(link, name, network_id))
            if ours:
                inside(None, lambda link: link.delete(name))
            if ours or not (self._released or self._loaded):
                self._masquerade()
            self._without.add(network_id)

    def forget(self, network_id: str) -> None:
        """The network is gone."""
        with self._lock:
            self._without.discard(network_id)

    def clear(self) -> None:
        """Take away everything, also what an earlier life left."""
        with self._lock:
            self._known.clear()
            inside(None, self._delete_all)
            self._release()

    def _plug(self, link: Netlink, network: NetworkSpec, far: str, *, present: bool) -> None:
        name = self._names.uplink(network.id)
        found = link.links().get(name)
        if found is not None and found.alias not in {"", network.id}:
            raise NetworkFailure(f"interface {name} belongs to {found.alias}")
        if not present:
            link.delete(name)
        link.add_veth(name, None, UPLINK, far)
        with_6 = any(subnet.ip_version == 6 for subnet in network.subnets)
        namespace.set_kernel(
            {
                f"ipv6/conf/{name}/disable_ipv6": "0" if with_6 else "1",
                f"ipv6/conf/{name}/accept_ra": "0",
                f"ipv6/conf/{name}/accept_dad": "0",
                f"ipv4/conf/{name}/send_redirects": "0",
                # Only what is in the external subnets may come from there.
                f"ipv4/conf/{name}/rp_filter": "1",
            }
        )
        link.change(name, mtu=network.mtu, alias=network.id)
        wanted = {
            f"{read_address(subnet.gateway_ip)}/{read_prefix(subnet.cidr).prefixlen}"
            for subnet in network.subnets
            if subnet.gateway_ip
        }
        settle_addresses(link, name, wanted)

    def _masquerade(self) -> None:
        """The rule for all uplinks, as the kernel has them; without uplinks neither rule nor switch."""
        found = inside(None, self._prefixes)
        if found is None:
            self._release()
            return
        cidrs = tuple(sorted(found))
        before = self._before()
        table = f"ip {self._names.table}"
        lines = [f"add table {table}", f"delete table {table}", f"table {table} {{"]
        lines += [f"chain {_WAS}{before} {{", "}"]
        lines += ["chain postrouting {", "type nat hook postrouting priority 100; policy accept;"]
        if cidrs:
            lines.append(f'ip saddr {{ {", ".join(cidrs)} }} oifname != "{self._names.uplinks}*" masquerade')
        # The record comes first: after a crash between the two, there is still something to restore from.
        netfilter.load("\n".join((*lines, "}", "}", "")) + self._border())
        apart(lambda: namespace.set_kernel({_SWITCH: "1"}))
        self._loaded, self._released, self._was = cidrs, False, before
        self._generation = apart(netfilter.generation)

    def _ruled(self) -> bool:
        return {("ip", self._names.table), ("inet", self._names.table)} <= set(netfilter.tables())

    def _border(self) -> str:
        tracked = apart(lambda: namespace.get_kernel(_TRACKED))
        return border.render(self._names.table, self._names.uplinks, int(tracked or _TRACKED_ELSE))

    def _prefixes(self, link: Netlink) -> set[str] | None:
        """The IPv4 prefixes of our uplinks; None when there is no uplink."""
        names = [name for name, one in link.links().items() if name.startswith(self._names.uplinks) and one.alias]
        addresses = {read_interface(address) for name in names for address in link.addresses(name)}
        return {str(address.network) for address in addresses if address.version == 4} if names else None

    def _before(self) -> str:
        """What ip_forward was before any cloud on this host changed it."""
        for family, table in netfilter.tables():
            if family == "ip" and table.endswith("-uplink"):
                for chain in netfilter.chains(family, table):
                    if match := re.fullmatch(_WAS + "([01])", chain):
                        return match[1]
        return self._was or ("1" if apart(lambda: namespace.get_kernel(_SWITCH)) == "1" else "0")

    def _release(self) -> None:
        """Drop the table; the last cloud to do so restores the switch."""
        known, self._loaded, self._released = self._loaded is not None, None, True
        ours = ("ip", self._names.table)
        tables = netfilter.tables()
        if ("inet", self._names.table) in tables:
            netfilter.load(border.remove(self._names.table))
        if ours not in tables and not known:
            return
        before, self._was = self._before(), ""
        others = [
            table
            for family, table in tables
            if family == "ip"
            and (family, table) != ours
            and table.endswith("-uplink")
            and any(chain.startswith(_WAS) for chain in netfilter.chains(family, table))
        ]
        if not others:
            apart(lambda: namespace.set_kernel({_SWITCH: before}))
        netfilter.load(f"add table ip {self._names.table}\ndelete table ip {self._names.table}\n")

    def _delete_all(self, link: Netlink) -> None:
        for name, one in link.links().items():
            if name.startswith(self._names.uplinks) and one.kind == "veth":
                link.delete(name)


def _is(link: Netlink, name: str, network_id: str) -> bool:
    found = link.links().get(name)
    return found is not None and found.alias in {"", network_id}
