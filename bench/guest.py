"""How long a real guest takes, from POST to its kernel's first line and to SSH, beside QEMU started by hand.

    .venv/bin/python -m bench.guest [--rounds N]

A cloud of this machine in a network namespace of its own, as root, and the image tiny.  Each round starts one guest by
POST (A) and one by hand (B), in turns which is first.  B is the command line that the driver used for a guest of the
same flavor, with a new overlay on the same image, on the card, the address and the metadata of a server that is stopped
meanwhile: so the two guests see the same machine and the same network.  Image and network are on the host before, as
they are for all servers but the first.  Every wait is bounded, and everything is taken away again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bench.bare import Bare, Plug
from bench.cloud import Cloud
from bench.compute import COMPUTE, NETWORK, interval
from pileus.cli.image import build_tiny, default_cache
from pileus.drivers.host.process import apart

LIMIT = 120.0
"""Seconds that anything may take."""
LOOK = 0.004
"""Seconds between two looks at a console."""
KNOCK = 0.05
"""Seconds that a guest may take to answer a knock at its door, before it is knocked at again."""
DISK = 1
"""GiB of a guest's disk."""
LINE = "neighbour"
SUBNET, POOL, ADDRESS = "10.0.0.0/24", {"start": "10.0.0.2", "end": "10.0.0.199"}, "10.0.0.200/24"
"""Of the network: whose addresses servers get, and the one of the neighbour that knocks."""


class Start(NamedTuple):
    """How long a guest took, in milliseconds from when it was asked for."""

    asked: float
    """Until the call, or the command line, had returned."""
    kernel: float
    """Until the first line of its kernel was on the console."""
    ssh: float
    """Until its SSH server had named itself."""


class Place(NamedTuple):
    """Where a guest is reached: from inside its network."""

    address: str
    mac_address: str
    plug: Plug


def until(true: Callable[[], Any], what: str, pause: float = 0.05) -> Any:
    """Wait until something holds; what it gave. Raises RuntimeError."""
    deadline = time.monotonic() + LIMIT
    while not (found := true()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"not after {LIMIT:.0f} s: {what}")
        time.sleep(pause)
    return found


def speaks(console: Path) -> bool:
    """Whether a guest's kernel has begun its first line."""
    try:
        with console.open("rb") as file:
            return b"Linux version" in file.read(4096)
    except FileNotFoundError:
        return False


class Neighbour:
    """A host on a network: a namespace with a line to the bridge, as a router has one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._joined = False

    def answers(self, place: Place) -> None:
        """Wait until the SSH server of a guest names itself.

        The guest's MAC address is known here: else it would be asked for once a second only.
        """
        if not self._joined:
            self._join(place.plug.namespace)
        known = [place.address, "lladdr", place.mac_address, "dev", LINE, "nud", "permanent"]
        ip(self.name, "neigh", "replace", *known)
        until(lambda: self._knock(place.address), f"SSH at {place.address}", 0.01)

    def _knock(self, address: str) -> bool:
        """Whether an SSH server names itself."""
        with apart(socket.socket, self.name) as door:
            door.settimeout(KNOCK)
            try:
                door.connect((address, 22))
                door.settimeout(5)
                return door.recv(64).startswith(b"SSH-2.0")
            except OSError:
                return False

    def _join(self, network: str) -> None:
        ip(self.name, "link", "add", LINE, "type", "veth", "peer", "name", LINE, "netns", network)
        ip(network, "link", "set", LINE, "master", "br", "up")
        ip(self.name, "link", "set", LINE, "up")
        ip(self.name, "address", "add", ADDRESS, "dev", LINE)
        self._joined = True


def ip(namespace: str, *words: str) -> None:
    """Run ip(8) inside a namespace."""
    subprocess.run(["ip", "-n", namespace, *words], check=True)


class Guests:
    """Guests of a cloud, and those that are started beside it."""

    def __init__(self, cloud: Cloud, neighbour: Neighbour) -> None:
        self.cloud = cloud
        self.neighbour = neighbour
        self.folder = cloud.state / "agent" / "hypervisor" / "guests"
        self.image = self.flavor = self.network = ""

    def prepare(self) -> None:
        """What servers need: an image, a flavor, a key pair, a network, and that SSH is let in."""
        call = self.cloud.call
        data = (self.cloud.state / "images" / "tiny.qcow2").read_bytes()
        image = {"name": "tiny", "disk_format": "qcow2", "container_format": "bare"}
        self.image = call("POST", "/image/v2/images", image)["id"]
        connection = self.cloud.connection()
        headers = {"x-auth-token": self.cloud.token, "content-type": "application/octet-stream"}
        connection.request("PUT", f"/image/v2/images/{self.image}/file", data, headers)
        if connection.getresponse().status != 204:
            raise RuntimeError("the image is not taken")
        connection.close()
        flavor = {"name": "bench", "vcpus": 1, "ram": 128, "disk": DISK}
        self.flavor = call("POST", f"{COMPUTE}/flavors", {"flavor": flavor})["flavor"]["id"]
        call("POST", f"{COMPUTE}/os-keypairs", {"keypair": {"name": "bench"}})
        self.network = call("POST", f"{NETWORK}/networks", {"network": {"name": "bench"}})["network"]["id"]
        subnet = {"network_id": self.network, "ip_version": 4, "cidr": SUBNET, "allocation_pools": [POOL]}
        call("POST", f"{NETWORK}/subnets", {"subnet": subnet})
        group = call("GET", f"{NETWORK}/security-groups?name=default")["security_groups"][0]["id"]
        rule = {"security_group_id": group, "direction": "ingress", "protocol": "tcp"}
        rule |= {"port_range_min": 22, "port_range_max": 22}
        call("POST", f"{NETWORK}/security-group-rules", {"security_group_rule": rule})

    def post(self, name: str) -> str:
        """POST a server with a port of its own; its id."""
        server = {
            "name": name,
            "imageRef": self.image,
            "flavorRef": self.flavor,
            "key_name": "bench",
            "networks": [{"uuid": self.network}],
        }
        return str(self.cloud.call("POST", f"{COMPUTE}/servers", {"server": server})["server"]["id"])

    def place(self, server: str) -> Place:
        """Where a server is reached, that is on its host."""
        port = self.cloud.call("GET", f"{NETWORK}/ports?device_id={server}")["ports"][0]
        applied = json.loads((self.folder / server / "applied.json").read_text())
        nic = applied["plan"]["nics"][port["id"]]
        plug = Plug(nic["device"], nic["namespace"])
        return Place(port["fixed_ips"][0]["ip_address"], port["mac_address"], plug)

    def status(self, server: str) -> str:
        """The status of a server; empty when it is gone."""
        try:
            return str(self.cloud.call("GET", f"{COMPUTE}/servers/{server}")["server"]["status"])
        except RuntimeError as fault:
            if ": 404 " in str(fault):
                return ""
            raise

    def reach(self, server: str, status: str) -> None:
        """Wait until a server has a status."""
        until(lambda: self.status(server) == status, f"server {server} is {status or 'gone'}")

    def by_post(self, name: str) -> tuple[str, Start]:
        """Start a guest by POST; its server, and how long it took."""
        began = time.perf_counter()
        server = self.post(name)
        asked = time.perf_counter() - began
        console = self.folder / server / "console.log"
        until(lambda: speaks(console), f"the kernel of server {server} starts", LOOK)
        kernel = time.perf_counter() - began
        self.neighbour.answers(self.place(server))
        return server, Start(asked * 1000, kernel * 1000, (time.perf_counter() - began) * 1000)

    def remove(self, server: str) -> None:
        """Delete a server, and wait until it is gone."""
        self.cloud.call("DELETE", f"{COMPUTE}/servers/{server}")
        self.reach(server, "")


class Model:
    """A server that is stopped, and as what a guest that is started by hand runs in its place."""

    def __init__(self, guests: Guests) -> None:
        self.neighbour = guests.neighbour
        server, self.start = guests.by_post("model")
        guests.reach(server, "ACTIVE")
        self.place = guests.place(server)
        self.argv = self._argv(server)
        disks = guests.cloud.state / "agent" / "disks" / server
        self.base = next(disks.glob("*.base.qcow2"))
        guests.cloud.call("POST", f"{COMPUTE}/servers/{server}/action", {"os-stop": None})
        guests.reach(server, "SHUTOFF")

    def _argv(self, server: str) -> list[str]:
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes().decode().split("\0")[:-1]
                if words and "qemu-system" in words[0] and server in words:
                    return words
        raise RuntimeError(f"server {server} has no process")

    def by_hand(self, folder: Path) -> Start:
        """Start a guest by hand, in an empty directory, and end it again; how long it took to come up."""
        began = time.perf_counter()
        guest = Bare(folder, self.argv, self.base, DISK << 30, self.place.plug)
        try:
            asked = time.perf_counter() - began
            until(lambda: speaks(guest.console), "the kernel of the bare guest starts", LOOK)
            kernel = time.perf_counter() - began
            self.neighbour.answers(self.place)
            return Start(asked * 1000, kernel * 1000, (time.perf_counter() - began) * 1000)
        finally:
            guest.close()


def take_turns(guests: Guests, model: Model, rounds: int) -> tuple[list[Start], list[Start]]:
    """Guests by POST and by hand, in turns."""
    posted: list[Start] = []
    bare: list[Start] = []

    def post(number: int) -> None:
        server, start = guests.by_post(f"guest-{number}")
        posted.append(start)
        guests.remove(server)

    def hand(number: int) -> None:
        with tempfile.TemporaryDirectory(prefix="bare-", dir=guests.cloud.state) as folder:
            bare.append(model.by_hand(Path(folder)))

    for number in range(rounds):
        for start in (post, hand) if number % 2 == 0 else (hand, post):
            start(number)
        a, b = posted[-1], bare[-1]
        times = f"kernel {a.kernel:6.0f} {b.kernel:6.0f}   SSH {a.ssh:6.0f} {b.ssh:6.0f} ms"
        print(f"  {number + 1:2}: {times}", flush=True)
    return posted, bare


def told(times: list[float]) -> str:
    """A median and its interval."""
    low, high = interval(sorted(times))
    return f"{statistics.median(times):6.0f} ({low:5.0f} to {high:5.0f})"


def show(posted: list[Start], bare: list[Start]) -> None:
    """The table."""
    print(f"\n{'ms, medians and intervals':28} {'A: by POST':>23} {'B: by hand':>23}   {'A beside B':>26}   at most")
    print(f"{'the call returns':28} {told([one.asked for one in posted]):>23} {'':23}")
    first, second = [one.kernel for one in posted], [one.kernel for one in bare]
    more = [a - b for a, b in zip(first, second, strict=True)]
    mark = "" if statistics.median(more) <= 500 else " !"
    print(f"{'first line of the kernel':28} {told(first):>23} {told(second):>23}   + {told(more):>24}   + 500{mark}")
    first, second = [one.ssh for one in posted], [one.ssh for one in bare]
    ratios = sorted(a / b for a, b in zip(first, second, strict=True))
    low, high = interval(ratios)
    ratio = f"{statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})"
    mark = "" if statistics.median(ratios) <= 1.3 else " !"
    print(f"{'SSH answers':28} {told(first):>23} {told(second):>23}   * {ratio:>24}   * 1.3{mark}", flush=True)


@contextlib.contextmanager
def namespace(name: str) -> Iterator[str]:
    """A network namespace with nothing but its loopback."""
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)


@contextlib.contextmanager
def host() -> Iterator[Cloud]:
    """A cloud of this machine, in a network namespace of its own."""
    with tempfile.TemporaryDirectory(prefix="pileus-bench-") as scratch, namespace(f"bench-{os.getpid()}-host") as name:
        tiny = build_tiny(Path(scratch) / "tiny.qcow2", cache=default_cache(), progress=lambda line: None)
        cloud = Cloud(0, namespace=name, image=tiny)
        try:
            yield cloud
        finally:
            cloud.close()


def main() -> int:
    """Run the benchmark; exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="guests of each kind")
    parser.add_argument("--trace", action="store_true", help="tell the story of a server that was measured, by its log")
    arguments = parser.parse_args()
    if os.getuid() != 0 or shutil.which("qemu-system-x86_64") is None:
        print("this needs root and QEMU", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    began = time.monotonic()
    with host() as cloud, namespace(f"bench-{os.getpid()}-neighbour") as neighbour:
        guests = Guests(cloud, Neighbour(neighbour))
        guests.prepare()
        model = Model(guests)
        print(f"the first server, whose host has neither image nor network: kernel after {model.start.kernel:.0f} ms")
        posted, bare = take_turns(guests, model, arguments.rounds)
        show(posted, bare)
        if arguments.trace:
            print((cloud.state / "log" / "agent.log").read_text())
    print(f"{arguments.rounds} rounds in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
