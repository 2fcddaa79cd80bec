"""The namespace of a network: its bridge, its own addresses, and the taps of its ports.

Order is the safety here.  The frame of the filter is loaded before the bridge exists, and it drops whatever touches a
tap that it does not know; a tap comes after its rules and goes before them.

A tap that an earlier driver made and nobody names now is a stray.  While a guest holds it, it is only put down: a guest
whose tap was deleted has lost its card for good, and whoever does not name it may be an older copy of the store.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from pileus.contracts.network import NetworkFailure, NetworkSpec, NetworkState
from pileus.core.address import read_address, read_prefix
from pileus.drivers.host import namespace, netfilter
from pileus.drivers.host.netlink import Netlink, Route, inside
from pileus.drivers.host.process import Identity, apart
from pileus.drivers.network.bridge.daemon import Daemon
from pileus.drivers.network.bridge.dhcp import serve
from pileus.drivers.network.bridge.guard import METADATA, Engine, Guard
from pileus.drivers.network.bridge.name import BRIDGE, TAP, device, mac_address
from pileus.drivers.network.bridge.ruleset import Ruleset, change, replacement

_GROUP = 1
"""The link group of all taps, by which the kernel deletes them together: one by one each takes 20 ms."""


class Segment:
    """One network on this host. Calls must not overlap: whoever calls holds `lock`."""

    def __init__(self, name: str, directory: Path, engine: Engine, identity: Identity) -> None:
        self.name = name
        self.lock = threading.Lock()
        self.state: NetworkState | None = None
        """What is in force; None when that is not known, after a start or a failure."""
        self._guard = Guard(engine)
        self._rules: Ruleset | None = None
        self._generation = 0
        self._taps: dict[str, bool] = {}
        """The taps that are there, and whether they are up."""
        self._named: set[str] = set()
        """Those of which some state of this driver's life has told."""
        self.plugs: dict[str, str] = {}
        """Port id to tap, of the ports whose filter is in force."""
        self._daemon = Daemon(directory, name, identity)

    def ensure(self, state: NetworkState) -> None:
        """Make it as `state` says. After a failure the next call looks at everything again."""
        if self.state == state and self.intact():
            return
        known, self.state = self.state, None
        if known is None or not self._present(known):
            known, self._rules, self.plugs = None, None, {}
            self._found()
        # The filter of those that stay is in force all the time: a guest may be started meanwhile.
        staying = {port.id for port in state.ports}
        self.plugs = {port: tap for port, tap in self.plugs.items() if port in staying}
        taps = _taps(state)
        self._drop_taps(taps)
        self._filter(state)
        reshape = known is None or known.network != state.network
        if reshape:
            inside(self.name, lambda link: self._shape(link, state.network))
        self._place_taps(taps, state.network.mtu, everything=reshape)
        if known is not None:
            self._cut(known, state)
        self.plugs = {port.id: device(TAP, port.id) for port in state.ports}
        self._daemon.ensure(serve(state, str(self._daemon.directory)))
        self.state = state

    def intact(self) -> bool:
        """Whether what is in force is still there: links, rules as they were loaded, DHCP service. No child is run.

        A stray that nobody holds any more makes it untrue, since it is to go.
        """
        state = self.state
        if state is None or not self._present(state) or not self._daemon.alive():
            return False
        strays = self._taps.keys() - _taps(state).keys()
        return not strays or strays <= inside(self.name, _held)

    def served(self) -> bool:
        """Whether its service does what was asked last; may be asked at any time."""
        return self._daemon.alive()

    def remove(self) -> None:
        """Take it all down. Interfaces go by name: a process that holds one open would keep the namespace alive."""
        self.state = self._rules = None
        self._taps, self._named, self.plugs = {}, set(), {}
        self._daemon.remove()
        if namespace.exists(self.name):
            inside(self.name, _delete_all)
        namespace.remove(self.name)

    def _present(self, state: NetworkState) -> bool:
        wanted = [BRIDGE, *_taps(state)]
        if not namespace.exists(self.name):
            return False

        def look() -> bool:
            return all(namespace.indices(wanted)) and netfilter.generation() == self._generation

        return apart(look, self.name)

    def _found(self) -> None:
        """The namespace with its settings; nothing in it forwards or configures itself."""
        namespace.create(self.name)
        settings = {
            "ipv6/conf/default/disable_ipv6": "1",
            "ipv6/conf/default/accept_ra": "0",
            "ipv6/conf/default/accept_dad": "0",
            "ipv4/ip_forward": "0",
            # The DHCP service has no privilege to take ports below 1024.
            "ipv4/ip_unprivileged_port_start": "0",
        }
        call = "1" if self._guard.engine == "br_netfilter" else "0"

        def prepare(link: Netlink) -> None:
            namespace.set_kernel(settings)
            # Where the module is not there at all, the other engine has been chosen.
            for name in ("iptables", "ip6tables", "arptables"):
                if namespace.get_kernel(f"bridge/bridge-nf-call-{name}"):
                    namespace.set_kernel({f"bridge/bridge-nf-call-{name}": call if name != "arptables" else "0"})
            link.change("lo", up=True)
            self._taps = {name: found.up for name, found in link.links().items() if name.startswith(TAP)}

        inside(self.name, prepare)

    def _filter(self, state: NetworkState) -> None:
        rules = self._guard.ruleset(state)
        text = replacement(rules) if self._rules is None else change(self._rules, rules)
        if text:
            self._rules = None
            netfilter.load(text, self.name)
            self._generation = apart(netfilter.generation, self.name)
        self._rules = rules

    def _shape(self, link: Netlink, network: NetworkSpec) -> None:
        """The bridge with its addresses. Every IPv4 subnet is on-link, so that metadata can answer its guests."""
        mac = mac_address(network.dhcp_mac)
        link.add_bridge(BRIDGE, mac)
        with_6 = any(subnet.ip_version == 6 and subnet.enable_dhcp for subnet in network.subnets)
        namespace.set_kernel({f"ipv6/conf/{BRIDGE}/disable_ipv6": "0" if with_6 else "1"})
        link.change(BRIDGE, mac=mac, mtu=network.mtu, up=True)
        wanted, routes = {f"{METADATA}/32"}, set()
        for subnet in network.subnets:
            prefix = read_prefix(subnet.cidr)
            if subnet.enable_dhcp and subnet.dhcp_address:
                wanted.add(f"{read_address(subnet.dhcp_address)}/{prefix.prefixlen}")
            elif prefix.version == 4:
                routes.add(Route(str(prefix), BRIDGE, source=METADATA))
        settle_addresses(link, BRIDGE, wanted)
        settle_routes(link, routes)

    def _drop_taps(self, wanted: Mapping[str, bool]) -> None:
        """Delete those that are not wanted; strays that are held are put down instead."""
        going = {tap for tap in self._taps if tap not in wanted}
        if not going:
            return

        def drop(link: Netlink) -> set[str]:
            strays = (going - self._named) & _held(link)
            for tap in strays:
                link.change(tap, up=False)
            link.delete(*(going - strays))
            return strays

        strays = inside(self.name, drop)
        self._named -= going
        self._taps = {tap: up and tap not in strays for tap, up in self._taps.items() if tap not in going - strays}

    def _place_taps(self, taps: Mapping[str, bool], mtu: int, *, everything: bool) -> None:
        """Make and set those that are new or changed; all of them when `everything`."""
        todo = {tap: up for tap, up in taps.items() if everything or self._taps.get(tap) != up}
        self._named |= taps.keys()
        if not todo:
            return

        def place(link: Netlink) -> None:
            for tap, up in todo.items():
                link.add_tap(tap)
                link.change(tap, master=BRIDGE, mtu=mtu, up=up, group=_GROUP)

        inside(self.name, place)
        self._taps |= taps

    def _cut(self, known: NetworkState, state: NetworkState) -> None:
        """Forget the connections of addresses that have left the host or changed hands."""
        before, after = _holders(known), _holders(state)
        netfilter.forget([one for one, port in before.items() if after.get(one) != port], self.name)


def settle_addresses(link: Netlink, name: str, wanted: set[str]) -> set[str]:
    """Give an interface exactly these addresses, with prefix lengths; returns those that are new."""
    present = link.addresses(name)
    for address in sorted(present - wanted):
        link.unassign(name, address)
    for address in sorted(wanted - present):
        link.assign(name, address)
    return wanted - present


def settle_routes(link: Netlink, wanted: set[Route]) -> None:
    """Make the static routes of the namespace exactly these."""
    present = link.routes()
    for route in sorted(present - wanted):
        link.delete_route(route)
    for route in sorted(wanted - present):
        link.add_route(route)


def _held(link: Netlink) -> set[str]:
    """The taps that a process has open."""
    return {name for name, one in link.links().items() if name.startswith(TAP) and one.held}


def _delete_all(link: Netlink) -> None:
    link.delete_group(_GROUP)
    link.delete(*(name for name, one in link.links().items() if one.kind in {"tun", "veth", "bridge"}))


def _taps(state: NetworkState) -> dict[str, bool]:
    """Each port's tap, and whether it is to be up."""
    taps = {device(TAP, port.id): port.admin_state_up for port in state.ports}
    if len(taps) != len(state.ports):
        raise NetworkFailure("two ports of the network begin with the same eleven characters")
    return taps


def _holders(state: NetworkState) -> dict[str, str]:
    return {fixed.ip_address: port.id for port in state.ports for fixed in port.fixed_ips}
