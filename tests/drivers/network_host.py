"""A scratch host for tests of the Linux network driver: a namespace with nothing but `lo`, and guests on taps."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import select
import shutil
import string
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from pileus.contracts.hypervisor import NicAttachment
from pileus.contracts.network import Network
from pileus.drivers.host import namespace, netfilter, netservice
from pileus.drivers.host.netlink import Netlink, Route, inside
from pileus.drivers.host.process import apart
from pileus.drivers.host.tap import open_tap
from pileus.drivers.network.bridge import BridgeNetwork
from pileus.drivers.network.bridge.guard import Engine

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
_HEADER = bytes(10)
"""The header of virtio-net in front of each frame: no offload (virtio 1.2, section 5.1.6)."""


def _why_not() -> str:
    if os.geteuid() != 0:
        return "needs root: makes network namespaces"
    for program in ("nft", "dnsmasq"):
        if shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
            return f"needs {program}"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun"
    return ""


needs_host = pytest.mark.skipif(bool(_why_not()), reason=_why_not() or "can run")


@contextmanager
def scratch_host() -> Iterator[None]:
    """The calling thread, and the threads that it starts, live in a new namespace with only `lo`."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert _LIBC.unshare(_CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        inside(None, lambda link: link.change("lo", up=True))
        yield
    finally:
        assert _LIBC.setns(home, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        os.close(home)


class TapCard:
    """A port held as a hypervisor holds it."""

    def __init__(self, attachment: NicAttachment) -> None:
        self.fd = open_tap(attachment.device, attachment.namespace)
        running(attachment)

    def send(self, frame: bytes) -> None:
        # The kernel refuses frames of a port that is down (EIO): so does a cable that is not there.
        with contextlib.suppress(OSError):
            os.write(self.fd, _HEADER + frame)

    def receive(self, timeout: float) -> bytes | None:
        if not select.select([self.fd], [], [], timeout)[0]:
            return None
        return os.read(self.fd, 4096)[len(_HEADER) :]

    def close(self) -> None:
        os.close(self.fd)


def running(attachment: NicAttachment) -> None:
    """Wait until the bridge has noticed that the port is held, which takes the kernel up to a second."""
    deadline = time.monotonic() + 3
    while not inside(attachment.namespace, lambda link: link.links()[attachment.device].forwarding):
        assert time.monotonic() < deadline, "the bridge does not forward for the port"
        time.sleep(0.01)


class BridgeHarness:
    """One cloud on the scratch host."""

    def __init__(self, engine: Engine = "br_netfilter") -> None:
        self._engine: Engine = engine
        # Long enough that two runs on one machine do not meet.
        self.prefix = "t" + "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(5))
        # Not below a directory of pytest's: the DHCP service of another user could not read its files there.
        self._directory = Path(tempfile.mkdtemp(prefix=f"{self.prefix}-"))
        self._directory.chmod(0o711)
        self.state = self._directory / "network"

    def close(self) -> None:
        self.driver().teardown()
        self._directory.rmdir()

    def open(self) -> Network:
        return self.driver()

    def driver(self) -> BridgeNetwork:
        return BridgeNetwork(state=self.state, prefix=self.prefix, engine=self._engine)

    def attach(self, attachment: NicAttachment) -> TapCard:
        return TapCard(attachment)

    def leftovers(self) -> list[str]:
        found = namespace.names(f"{self.prefix}-")
        found += [f"{family} {table}" for family, table in netfilter.tables()]
        found += [name for name in inside(None, lambda link: link.links()) if name != "lo"]
        found += [str(path) for path in self.state.rglob("*") if path.is_file()]
        if apart(lambda: namespace.get_kernel("ipv4/ip_forward")) == "1":
            found.append("ip_forward")
        for path in sorted(Path("/proc").glob("[0-9]*/cmdline")):
            try:
                found += [f"process {path.parent.name}"] if str(self.state).encode() in path.read_bytes() else []
            except OSError:
                continue
        return found


class Guest:
    """A guest with a whole network stack: a namespace with a tap `eth0`, joined to its port by a thread."""

    def __init__(self, attachment: NicAttachment, mac: str, mtu: int = 1450) -> None:
        self.name = f"guest-{secrets.token_hex(4)}"
        namespace.create(self.name)
        inside(self.name, lambda link: link.add_tap("eth0"))
        self._ends = (open_tap(attachment.device, attachment.namespace), open_tap("eth0", self.name))
        running(attachment)
        self._stop = os.pipe()
        self._thread = threading.Thread(target=self._pump, name=self.name)
        self._thread.start()
        self._up(mac, mtu)

    def _up(self, mac: str, mtu: int) -> None:
        def up(link: Netlink) -> None:
            namespace.set_kernel({"ipv6/conf/default/accept_dad": "0", "ipv6/conf/eth0/accept_dad": "0"})
            link.change("lo", up=True)
            link.change("eth0", mac=mac)
            link.change("eth0", mtu=mtu, up=True)

        inside(self.name, up)

    def configure(self, address: str, gateway: str | None = None) -> None:
        """A static address with prefix length, and a default route."""

        def settle(link: Netlink) -> None:
            link.assign("eth0", address)
            if gateway:
                link.add_route(Route("::/0" if ":" in gateway else "0.0.0.0/0", "eth0", via=gateway))

        inside(self.name, settle)

    def does(self, act: Callable[[], T]) -> T:
        """What the guest does, in its namespace."""
        return apart(act, self.name)

    def close(self) -> None:
        os.write(self._stop[1], b"x")
        self._thread.join()
        for fd in (*self._ends, *self._stop):
            os.close(fd)
        inside(self.name, lambda link: link.delete("eth0"))
        namespace.remove(self.name)

    def _pump(self) -> None:
        near, far = self._ends
        while True:
            ready = select.select([near, far, self._stop[0]], [], [])[0]
            if self._stop[0] in ready:
                return
            for fd in ready:
                try:
                    os.write(far if fd == near else near, os.read(fd, 70000))
                except OSError:
                    continue


def dnsmasq(harness: BridgeHarness, kind: str, identifier: str) -> list[int]:
    """The pids of the DHCP service of a network, or of the advertisements of a router."""
    directory = harness.state / kind / identifier
    return [child.pid for child in netservice.find(f"--conf-file={directory}/dnsmasq.conf")]
