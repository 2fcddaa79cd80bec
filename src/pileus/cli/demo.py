"""`pileus demo`: something to look at on the first day, made through the public API as any user would.

What a run has made is noted, so that later runs leave alone what the user changed or deleted since.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pileus.cli.client import CLOUD, credentials, local_root
from pileus.cli.main import CommandFailure
from pileus.cli.place import add_state, settings
from pileus.cli.prepare import tiny_image
from pileus.cli.progress import Progress, Step

if TYPE_CHECKING:
    from openstack.connection import Connection

    from pileus.cli.main import Roles, Subparsers

FLAVORS = (("m1.nano", 1, 128, 1), ("m1.tiny", 1, 512, 1), ("m1.small", 1, 2048, 20), ("m1.medium", 2, 4096, 40))
"""Name, vCPUs, MiB, GiB."""

PUBLIC = "172.24.4.0/24"
PRIVATE = "192.168.233.0/24"
TIMEOUT = 240.0
"""Seconds that the server may take to answer."""


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser("demo", help="make the demo content (`up` does)")
    add_state(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, roles: Roles) -> int:
    """Run the command; exit status."""
    Demo(arguments.state, Progress()).make()
    return 0


class Demo:
    """The demo content of one cloud."""

    def __init__(self, state: Path, progress: Progress) -> None:
        self.state = state
        self.progress = progress
        self.config = settings(state)
        self._file = state / "demo.json"
        self._done: list[str] = json.loads(self._file.read_text()) if self._file.exists() else []
        self._cloud: Connection | None = None

    @property
    def cloud(self) -> Connection:
        """A session of the SDK, opened when something is to be made."""
        if self._cloud is None:
            os.environ["OS_CLIENT_CONFIG_FILE"] = str(self.state / "clouds.yaml")
            import openstack

            # A certificate of the operator's own names what the world calls the cloud, and nothing else.
            root = self.config.root_url if self.config.tls_certificate else local_root(self.config)
            auth = {**credentials(self.state)["auth"], "auth_url": f"{root}/identity/v3"}
            # The catalog names the public URL, which this machine may not reach, or not yet.
            self._cloud = openstack.connect(
                cloud=CLOUD,
                auth=auth,
                identity_endpoint_override=f"{root}/identity/v3",
                compute_endpoint_override=f"{root}/compute/v2.1",
                image_endpoint_override=f"{root}/image",
                network_endpoint_override=f"{root}/network",
            )
        return self._cloud

    def make(self) -> None:
        """Make what was not made yet, each step shown with its time. Raises CommandFailure."""
        steps: list[tuple[str, Callable[[Step], None]]] = [
            ("flavors", self._flavors),
            ("image tiny", self._image),
            ("network public", self._public),
            ("network private", self._private),
            ("router", self._router),
            ("security rules", self._rules),
            ("keypair hello", self._keypair),
            ("server hello", self._server),
            ("floating IP", self._floating_ip),
        ]
        if not self.config.fake:
            steps.append(("SSH answers", self._ssh))
        for name, act in steps:
            if name in self._done:
                continue
            with self.progress.step(name) as step:
                try:
                    act(step)
                except CommandFailure:
                    raise
                except Exception as error:
                    raise CommandFailure(f"{name}: {error}") from error
            self._done.append(name)
            self._file.write_text(json.dumps(self._done))

    def _flavors(self, step: Step) -> None:
        for name, vcpus, ram, disk in FLAVORS:
            if self.cloud.compute.find_flavor(name) is None:
                self.cloud.compute.create_flavor(name=name, vcpus=vcpus, ram=ram, disk=disk)
        step.result(" ".join(name for name, *_ in FLAVORS))

    def _image(self, step: Step) -> None:
        if self.cloud.image.find_image("tiny") is not None:
            return
        file = tiny_image(self.state)
        if file.exists():
            self.cloud.create_image(
                "tiny",
                filename=str(file),
                disk_format="qcow2",
                container_format="bare",
                wait=True,
                visibility="public",
                min_ram=96,
            )
            step.result(f"{file.stat().st_size / 2**20:.0f} MiB")
        else:
            self.cloud.image.create_image(
                "tiny", data=bytes(1 << 20), disk_format="raw", container_format="bare", visibility="public"
            )
            step.result("empty: simulated hosts start nothing")

    def _public(self, step: Step) -> None:
        if self.cloud.network.find_network("public") is None:
            network = self.cloud.network.create_network(name="public", is_router_external=True)
            self.cloud.network.create_subnet(
                name="public", network_id=network.id, ip_version=4, cidr=PUBLIC, is_dhcp_enabled=False
            )
        step.result(PUBLIC)

    def _private(self, step: Step) -> None:
        if self.cloud.network.find_network("private") is None:
            network = self.cloud.network.create_network(name="private")
            self.cloud.network.create_subnet(name="private", network_id=network.id, ip_version=4, cidr=PRIVATE)
        step.result(PRIVATE)

    def _router(self, step: Step) -> None:
        if self.cloud.network.find_router("router") is None:
            public = self.cloud.network.find_network("public", ignore_missing=False)
            subnet = self.cloud.network.find_subnet("private", ignore_missing=False)
            router = self.cloud.network.create_router(name="router", external_gateway_info={"network_id": public.id})
            self.cloud.network.add_interface_to_router(router, subnet=subnet.id)

    def _rules(self, step: Step) -> None:
        project = self.cloud.current_project_id
        group = self.cloud.network.find_security_group("default", project_id=project, ignore_missing=False)
        wanted: tuple[dict[str, Any], ...] = (
            {"protocol": "tcp", "port_range_min": 22, "port_range_max": 22},
            {"protocol": "icmp"},
        )
        held = list(self.cloud.network.security_group_rules(security_group_id=group.id, direction="ingress"))
        for rule in wanted:
            if not any(one.protocol == rule["protocol"] and not one.remote_group_id for one in held):
                self.cloud.network.create_security_group_rule(
                    security_group_id=group.id, direction="ingress", ether_type="IPv4", **rule
                )
        step.result("SSH and ICMP are let in")

    def _keypair(self, step: Step) -> None:
        key = self.state / "hello.key"
        if not key.exists():
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "hello@pileus", "-f", str(key)]
            subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
        if self.cloud.compute.find_keypair("hello") is None:
            public = key.with_name("hello.key.pub").read_text()
            self.cloud.compute.create_keypair(name="hello", public_key=public)
        step.result(str(key))

    def _server(self, step: Step) -> None:
        server = self.cloud.compute.find_server("hello")
        if server is None:
            server = self.cloud.compute.create_server(
                name="hello",
                image_id=self.cloud.image.find_image("tiny", ignore_missing=False).id,
                flavor_id=self.cloud.compute.find_flavor("m1.nano", ignore_missing=False).id,
                networks=[{"uuid": self.cloud.network.find_network("private", ignore_missing=False).id}],
                key_name="hello",
            )
        server = self.cloud.compute.wait_for_server(server, interval=0.2, wait=int(TIMEOUT))
        step.result(f"{server.status} on {server.compute_host}")

    def _floating_ip(self, step: Step) -> None:
        server = self.cloud.compute.find_server("hello", ignore_missing=False)
        port = next(iter(self.cloud.network.ports(device_id=server.id)))
        address = next(iter(self.cloud.network.ips(port_id=port.id)), None)
        if address is None:
            public = self.cloud.network.find_network("public", ignore_missing=False)
            address = self.cloud.network.create_ip(floating_network_id=public.id, port_id=port.id)
        step.result(address.floating_ip_address)

    def _ssh(self, step: Step) -> None:
        server = self.cloud.compute.find_server("hello", ignore_missing=False)
        port = next(iter(self.cloud.network.ports(device_id=server.id)))
        address = next(iter(self.cloud.network.ips(port_id=port.id))).floating_ip_address
        argv = [
            "ssh", "-i", str(self.state / "hello.key"), "-o", "BatchMode=yes", "-o", "ConnectTimeout=5",
            "-o", "StrictHostKeyChecking=accept-new", "-o", f"UserKnownHostsFile={self.state / 'known_hosts'}",
            f"cirros@{address}", "uname -n -r",
        ]  # fmt: skip
        deadline = time.monotonic() + TIMEOUT
        while True:
            found = subprocess.run(argv, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
            if found.returncode == 0:
                step.result(f"{address}: {found.stdout.strip()}")
                return
            step.say(f"{address} is not there yet")
            if time.monotonic() > deadline:
                raise CommandFailure(f"the server does not answer SSH on {address}: {found.stderr.strip()}")
            time.sleep(0.5)
