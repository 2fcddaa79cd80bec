"""Links, addresses and routes of one namespace over rtnetlink(7).

The only module that knows pyroute2, whose objects have no types.  A `Netlink` belongs to the thread that opened it
and to the namespace that the thread was in: see `inside`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from pileus.drivers.host.process import NAMESPACES, apart

T = TypeVar("T")

_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_TAP_FLAGS = 0x0002 | 0x1000 | 0x4000
"""IFF_TAP, IFF_NO_PI, IFF_VNET_HDR."""
_IFF_UP = 0x1
_BRIDGE_FORWARDING = 3
_STATIC = 4
"""RTPROT_STATIC marks the routes and rules that are ours; those of the kernel carry another number."""
_MAIN = 254


class Link(NamedTuple):
    """An interface as the kernel shows it.

    `master` is the name of its bridge, empty without one; `forwarding`: frames pass both ways; `held`: it has a
    carrier, which for a tap means that a process has it open.

    A tap forwards only some time after it was opened, up to a second: until the kernel has noticed the carrier, its
    queue discards what it is given, whatever the bridge thinks.
    """

    name: str
    kind: str
    master: str
    up: bool
    forwarding: bool
    held: bool
    mtu: int
    mac: str
    alias: str


class Route(NamedTuple):
    """A static route: `destination` is a CIDR, `via` and `source` may be empty; `table` 254 is the main one."""

    destination: str
    device: str
    via: str = ""
    source: str = ""
    table: int = _MAIN


class Steer(NamedTuple):
    """A policy rule: what comes in at `device` for `destination` is routed by `table`."""

    device: str
    destination: str
    table: int


class NetlinkFailure(Exception):
    """The kernel refused a change; the message names it."""


def inside(namespace: str | None, act: Callable[[Netlink], T]) -> T:
    """Run `act` with a Netlink in a named namespace; None is the one that the caller is in.

    Raises FileNotFoundError when there is no such namespace and NetlinkFailure when the kernel refuses something.
    """

    def body() -> T:
        with IPRoute() as route:
            return act(Netlink(route))

    return apart(body, namespace)


class Netlink:
    """The verbs. Names are of interfaces in this namespace; changes that are in force already are fine."""

    def __init__(self, route: Any) -> None:
        self._route = route

    def links(self) -> dict[str, Link]:
        """All interfaces by name."""
        found: dict[int, tuple[Link, int]] = {}
        for message in self._route.get_links():
            info = message.get_attr("IFLA_LINKINFO")
            link = Link(
                name=str(message.get_attr("IFLA_IFNAME")),
                kind=str((info and info.get_attr("IFLA_INFO_KIND")) or ""),
                master="",
                up=bool(message["flags"] & _IFF_UP),
                forwarding=message.get_attr("IFLA_OPERSTATE") == "UP"
                and _forwards(info and info.get_attr("IFLA_INFO_SLAVE_DATA")),
                held=bool(message.get_attr("IFLA_CARRIER")),
                mtu=int(message.get_attr("IFLA_MTU") or 0),
                mac=str(message.get_attr("IFLA_ADDRESS") or ""),
                alias=str(message.get_attr("IFLA_IFALIAS") or ""),
            )
            found[message["index"]] = (link, message.get_attr("IFLA_MASTER") or 0)
        named = {index: link.name for index, (link, _) in found.items()}
        return {link.name: link._replace(master=named.get(master, "")) for link, master in found.values()}

    def add_bridge(self, name: str, mac: str) -> None:
        """A bridge without spanning tree and without multicast snooping, down."""
        with _tolerated(f"bridge {name}", errno.EEXIST):
            self._route.link(
                "add", ifname=name, kind="bridge", address=mac, br_stp_state=0, br_forward_delay=0, br_mcast_snooping=0
            )

    def add_veth(self, name: str, mac: str | None, peer: str, peer_namespace: str) -> None:
        """A pair of virtual Ethernet interfaces, one here and one in another namespace, in one step; both down."""
        fd = os.open(NAMESPACES / peer_namespace, os.O_RDONLY | os.O_CLOEXEC)
        extra = {"address": mac} if mac else {}
        try:
            with _tolerated(f"veth {name}", errno.EEXIST):
                self._route.link("add", ifname=name, kind="veth", peer={"ifname": peer, "net_ns_fd": fd}, **extra)
        finally:
            os.close(fd)

    def add_tap(self, name: str) -> None:
        """A tap that outlives its openers, down, with the header of virtio-net (kernel networking/tuntap.rst)."""
        if _index(name):
            return
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TAP_FLAGS))
            fcntl.ioctl(fd, _TUNSETPERSIST, 1)
        except OSError as error:
            raise NetlinkFailure(f"tap {name}: {error.strerror}") from None
        finally:
            os.close(fd)

    def change(
        self,
        name: str,
        *,
        up: bool | None = None,
        mtu: int | None = None,
        master: str | None = None,
        mac: str | None = None,
        alias: str | None = None,
        group: int | None = None,
    ) -> None:
        """Change what is given of one interface, in one step."""
        fields: dict[str, object] = {}
        if up is not None:
            fields["state"] = "up" if up else "down"
        if mtu is not None:
            fields["mtu"] = mtu
        if master is not None:
            fields["master"] = self._need(master)
        if mac is not None:
            fields["address"] = mac
        if alias is not None:
            fields["IFLA_IFALIAS"] = alias
        if group is not None:
            fields["IFLA_GROUP"] = group
        with _tolerated(f"set {name}"):
            self._route.link("set", index=self._need(name), **fields)

    def delete(self, *names: str) -> None:
        """Delete interfaces. Absent is fine."""
        for name in names:
            if index := _index(name):
                with _tolerated(f"delete {name}", errno.ENODEV):
                    self._route.link("del", index=index)

    def delete_group(self, group: int) -> None:
        """Delete all interfaces of a link group in one step. An empty group is fine."""
        with _tolerated(f"delete group {group}", errno.ENODEV):
            self._route.link("del", IFLA_GROUP=group)

    def addresses(self, name: str) -> set[str]:
        """The addresses of an interface with prefix length, without those that the kernel made (link-local IPv6)."""
        found = set()
        for message in self._route.get_addr(index=self._need(name)):
            address = str(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"))
            if not address.startswith("fe80:"):
                found.add(f"{address}/{message['prefixlen']}")
        return found

    def assign(self, name: str, address: str) -> None:
        """Give an interface an address with prefix length; IPv6 without duplicate detection, so it works at once."""
        host, _, length = address.partition("/")
        flags = {"flags": 0x02} if ":" in host else {}  # IFA_F_NODAD
        with _tolerated(f"address {address} on {name}", errno.EEXIST):
            self._route.addr("add", index=self._need(name), address=host, prefixlen=int(length), **flags)

    def unassign(self, name: str, address: str) -> None:
        """Take an address from an interface. Absent is fine."""
        host, _, length = address.partition("/")
        with _tolerated(f"address {address} on {name}", errno.EADDRNOTAVAIL):
            self._route.addr("del", index=self._need(name), address=host, prefixlen=int(length))

    def routes(self) -> set[Route]:
        """The static routes of all tables."""
        found = set()
        for message in self._route.get_routes(proto=_STATIC):
            if message["proto"] != _STATIC:
                continue
            wide = "::/0" if message["family"] == socket.AF_INET6 else "0.0.0.0/0"
            target = message.get_attr("RTA_DST")
            output = message.get_attr("RTA_OIF")
            found.add(
                Route(
                    destination=f"{target}/{message['dst_len']}" if target else wide,
                    device=socket.if_indextoname(output) if output else "",
                    via=str(message.get_attr("RTA_GATEWAY") or ""),
                    source=str(message.get_attr("RTA_PREFSRC") or ""),
                    table=int(message.get_attr("RTA_TABLE") or message["table"]),
                )
            )
        return found

    def add_route(self, route: Route) -> None:
        """Add a static route; the next hop need not be in one of the interface's subnets."""
        with _tolerated(f"route to {route.destination}", errno.EEXIST):
            self._route.route("add", **self._route_fields(route))

    def delete_route(self, route: Route) -> None:
        """Delete a static route. Absent is fine."""
        with _tolerated(f"route to {route.destination}", errno.ESRCH, errno.ENODEV):
            self._route.route("del", **self._route_fields(route))

    def steers(self) -> set[Steer]:
        """The policy rules that are ours, IPv4 only."""
        found = set()
        for message in self._route.get_rules(family=socket.AF_INET):
            if message.get_attr("FRA_PROTOCOL") != _STATIC:
                continue
            device = str(message.get_attr("FRA_IIFNAME") or "")
            target = f"{message.get_attr('FRA_DST')}/{message['dst_len']}"
            found.add(Steer(device, target, int(message.get_attr("FRA_TABLE") or message["table"])))
        return found

    def add_steer(self, steer: Steer) -> None:
        """Add a policy rule."""
        with _tolerated(f"rule for {steer.device}", errno.EEXIST):
            self._route.rule("add", **self._steer_fields(steer))

    def delete_steer(self, steer: Steer) -> None:
        """Delete a policy rule. Absent is fine."""
        with _tolerated(f"rule for {steer.device}", errno.ENOENT):
            self._route.rule("del", **self._steer_fields(steer))

    def _route_fields(self, route: Route) -> dict[str, object]:
        fields: dict[str, object] = {"dst": route.destination, "proto": _STATIC, "table": route.table}
        fields["family"] = socket.AF_INET6 if ":" in route.destination else socket.AF_INET
        fields["oif"] = self._need(route.device)
        if route.via:
            fields["gateway"] = route.via
            fields["flags"] = 4  # RTNH_F_ONLINK
        else:
            fields["scope"] = 253 if fields["family"] == socket.AF_INET else 0
        if route.source:
            fields["prefsrc"] = route.source
        return fields

    def _steer_fields(self, steer: Steer) -> dict[str, object]:
        return {
            "family": socket.AF_INET,
            "iifname": steer.device,
            "dst": steer.destination,
            "table": steer.table,
            "priority": 100,
            "protocol": _STATIC,
        }

    def _need(self, name: str) -> int:
        index = _index(name)
        if not index:
            raise NetlinkFailure(f"no interface {name}")
        return index


def _forwards(data: Any) -> bool:
    """Whether the state of a bridge port (linux/if_bridge.h) is forwarding; `data` is None for what is none."""
    return bool(data and hasattr(data, "get_attr") and data.get_attr("IFLA_BRPORT_STATE") == _BRIDGE_FORWARDING)


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


@contextlib.contextmanager
def _tolerated(what: str, *numbers: int) -> Any:
    try:
        yield
    except NetlinkError as error:
        if error.code not in numbers:
            raise NetlinkFailure(f"{what}: {os.strerror(error.code)}") from None
