"""Finds out which packet filter engine works on this kernel, by sending frames through one.

In a namespace of its own, which ends with the probe: a bridge with two taps, and the real filter of a network whose
second port lets in UDP port 7 only, from the first.  An engine works when that port alone gets through and its
answer comes back.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import time
from functools import partial

from pileus.contracts.network import (
    FixedIP,
    NetworkFailure,
    NetworkSpec,
    NetworkState,
    PortSpec,
    RuleSpec,
    SecurityGroupSpec,
)
from pileus.drivers.host import namespace, netfilter
from pileus.drivers.host.netlink import Netlink, inside
from pileus.drivers.network.bridge.guard import ENGINES, Engine, Guard
from pileus.drivers.network.bridge.name import BRIDGE, TAP, device
from pileus.drivers.network.bridge.ruleset import replacement

_WAIT = 2.0
"""Seconds in which a frame that passes has passed."""
_TUNSETIFF = 0x400454CA
_TAP_NO_PI = 0x0002 | 0x1000
_PORTS = ("one", "two")
_OPEN, _SHUT = 7, 9


def working_engine() -> Engine:
    """The first engine that works. Raises NetworkFailure with what each of them said when none does."""
    said = []
    for engine in ENGINES:
        if not (reason := obstacle(engine)):
            return engine
        said.append(f"{engine}: {reason}")
    raise NetworkFailure("no packet filter works on this kernel; " + "; ".join(said))


def obstacle(engine: Engine) -> str:
    """Why an engine does not work here; empty when it does."""
    try:
        return namespace.scratch(partial(_try, engine))
    except (netfilter.FilterFailure, OSError) as failure:
        return str(failure)


def _try(engine: Engine) -> str:
    """Why the engine does not work in the calling thread's namespace; empty when it does."""
    state = _state()
    for name in ("iptables", "ip6tables"):
        key = f"bridge/bridge-nf-call-{name}"
        if namespace.get_kernel(key):
            namespace.set_kernel({key: "1" if engine == "br_netfilter" else "0"})
        elif engine == "br_netfilter":
            return "br_netfilter is not there (modprobe br_netfilter)"
    netfilter.load(replacement(Guard(engine).ruleset(state)))
    taps = [_tap(device(TAP, port)) for port in _PORTS]
    try:
        return _exchange(state, *taps)
    finally:
        for tap in taps:
            os.close(tap)


def _exchange(state: NetworkState, first: int, second: int) -> str:
    inside(None, _connect)
    one, two = state.ports
    # Frames keep their order, so what is let through also ends the wait for what is not.
    for number in (_SHUT, _OPEN):
        os.write(first, _datagram(one, two, 5000, number))
    arrived = _arrived(second, _OPEN)
    if _OPEN not in arrived:
        return "a datagram that a rule lets in did not get through"
    if _SHUT in arrived:
        return "a datagram that no rule lets in got through"
    os.write(second, _datagram(two, one, _OPEN, 5000))
    if 5000 not in _arrived(first, 5000):
        return "the answer to a connection that was let in did not get through"
    return ""


def _connect(link: Netlink) -> None:
    link.add_bridge(BRIDGE, "02:00:00:00:00:01")
    for port in _PORTS:
        link.change(device(TAP, port), master=BRIDGE, up=True)
    link.change(BRIDGE, up=True)


def _state() -> NetworkState:
    rules = (
        RuleSpec(direction="egress", ethertype="IPv4"),
        RuleSpec(direction="ingress", ethertype="IPv4", protocol=17, port_range_min=_OPEN, port_range_max=_OPEN),
    )
    ports = tuple(
        PortSpec(
            id=name,
            network_id="probe",
            mac_address=f"02:00:00:00:01:0{number}",
            fixed_ips=(FixedIP(subnet_id="probe", ip_address=f"10.0.0.{number}"),),
            security_groups=("probe",),
        )
        for number, name in enumerate(_PORTS, 1)
    )
    network = NetworkSpec(id="probe", mtu=1500, subnets=(), dhcp_mac="02:00:00:00:00:01")
    return NetworkState(network=network, ports=ports, groups={"probe": SecurityGroupSpec(id="probe", rules=rules)})


def _tap(name: str) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TAP_NO_PI))
    return fd


def _datagram(source: PortSpec, target: PortSpec, sport: int, dport: int) -> bytes:
    """An Ethernet frame with an empty UDP datagram, whose checksum 0 means none (RFC 768)."""
    ends = b"".join(socket.inet_aton(port.fixed_ips[0].ip_address) for port in (source, target))
    header = struct.pack("!BBHHHBBH", 0x45, 0, 28, 0, 0, 64, 17, 0) + ends
    total = sum(struct.unpack("!10H", header))
    checksum = ~(total + (total >> 16)) & 0xFFFF
    macs = b"".join(bytes.fromhex(port.mac_address.replace(":", "")) for port in (target, source))
    header = header[:10] + struct.pack("!H", checksum) + header[12:]
    return macs + b"\x08\x00" + header + struct.pack("!HHHH", sport, dport, 8, 0)


def _arrived(tap: int, last: int) -> set[int]:
    """The ports of the UDP datagrams that arrive, up to the one to `last` or until too long."""
    deadline, ports = time.monotonic() + _WAIT, set[int]()
    while last not in ports and (left := deadline - time.monotonic()) > 0:
        if select.select([tap], [], [], left)[0]:
            frame = os.read(tap, 2048)
            if frame[12:14] == b"\x08\x00" and frame[23] == 17:
                ports.add(struct.unpack_from("!H", frame, 36)[0])
    return ports
