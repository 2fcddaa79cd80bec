"""Opening a tap: the guest's end of a port.

The network driver makes a persistent tap in the network's namespace, on its bridge and with its filter in force.  A
hypervisor only opens it: it hands the descriptor to an unprivileged process, which thus never sees the namespace.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from pathlib import Path
from typing import NamedTuple

from pileus.drivers.host.process import apart, enter_new_namespace

_TUNSETIFF = 0x400454CA
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_NAME = 16
"""IFNAMSIZ, with the terminating zero."""


def open_tap(device: str, namespace: str | None) -> int:
    """Open the existing tap `device` inside the named network namespace (None: the host's own).

    Returns a descriptor that the caller owns, with IFF_VNET_HDR set, as virtio-net wants it (Linux
    Documentation/networking/tuntap.rst).  The device keeps its bridge and its filter; its carrier goes up with the
    descriptor and down when the last copy is closed.  Raises FileNotFoundError when there is no such device, since
    TUNSETIFF would otherwise quietly make one that no filter covers; OSError with EBUSY when another process has it
    open, and with ENAMETOOLONG for what is no name.
    """
    if not 0 < len(device.encode()) < _NAME:
        raise OSError(errno.ENAMETOOLONG, "not a name for a device")
    return apart(lambda: _open(device), namespace)


def _open(device: str) -> int:
    try:
        socket.if_nametoindex(device)
    except OSError:
        raise FileNotFoundError(errno.ENODEV, f"no device {device}") from None
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        request = struct.pack("16sH22x", device.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
        fcntl.ioctl(fd, _TUNSETIFF, request)
    except OSError:
        os.close(fd)
        raise
    return fd


class Counters(NamedTuple):
    """What has gone through a device, from the host's point of view (proc_pid_net(5), `dev`)."""

    rx_octets: int
    rx_packets: int
    rx_errors: int
    rx_drop: int
    tx_octets: int
    tx_packets: int
    tx_errors: int
    tx_drop: int


def counters(device: str, namespace: str | None) -> Counters:
    """The counters of a device inside a namespace. Raises FileNotFoundError when there is no such device."""
    # The file belongs to the thread's namespace, which is not the process's.
    for line in apart(lambda: Path("/proc/thread-self/net/dev").read_text(), namespace).splitlines():
        name, _, values = line.partition(":")
        if name.strip() == device:
            words = [int(word) for word in values.split()]
            return Counters(*words[0:4], *words[8:12])
    raise FileNotFoundError(errno.ENODEV, f"no device {device}")


def open_blind_tap() -> int:
    """A tap that leads nowhere: in a namespace of its own, which is gone with the descriptor.

    It stands in for a port that is gone, while a guest that was suspended with its card wakes up.
    """

    def act() -> int:
        enter_new_namespace()
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", b"blind", _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR))
        except OSError:
            os.close(fd)
            raise
        return fd

    return apart(act)
