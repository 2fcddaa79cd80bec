"""A whole Debian with cloud-init in a cloud: what it is told by the metadata service, and by a config drive alone.

One guest at a time, as each takes one to three minutes to boot under emulation; so this runs on long runs only. The
tests build on each other, in their order.
"""

from __future__ import annotations

import base64
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pileus.cli.image import INSTALLER_PACKAGE, build_debian, default_cache, missing_packages
from tests.effort import LONG
from tests.real.cloud import Cloud, until
from tests.real.tenant import SDK, Tenant, administrator, furnish, let_in, tenant

if TYPE_CHECKING:
    from openstack.connection import Connection

pytestmark = [
    SDK,
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not LONG, reason="boots a whole Debian twice under emulation: on long runs only"),
    pytest.mark.skipif(
        bool(missing_packages(INSTALLER_PACKAGE)), reason=f"needs {missing_packages(INSTALLER_PACKAGE)}"
    ),
]

PATIENCE = 900.0
DNS = "192.0.2.53"
PASSWORD = "Pa55-of-root"
USER_DATA = """#cloud-config
users:
  - default
  - name: alice
    gecos: Alice of the user data
    groups: [adm]
    shell: /bin/bash
    sudo: "ALL=(ALL) NOPASSWD:ALL"
    ssh_authorized_keys: ["{key}"]
write_files:
  - path: /etc/made/by-user-data
    content: "a file of the user data\\n"
    owner: root:adm
    permissions: "0640"
runcmd:
  - [sh, -c, "id -un >>/root/ran"]
"""


@dataclass
class Scene:
    """A tenant, and the address that servers are reached at from outside."""

    owner: Tenant
    flavor: str
    image: str


@dataclass
class Server:
    """A server with a floating IP."""

    scene: Scene
    id: str
    address: str

    def shell(self, command: str, *, user: str = "debian", check: bool = True) -> str:
        """Run a command on the guest."""
        options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ConnectTimeout=20",
                   "LogLevel=ERROR"]  # fmt: skip
        flags = [word for option in options for word in ("-o", option)]
        owner = self.scene.owner
        words: tuple[str | Path, ...] = ("ssh", "-i", owner.key, *flags, f"{user}@{self.address}", command)
        return owner.cloud.inside(*words, check=check, timeout=PATIENCE)

    def answers(self) -> float:
        """Wait until the guest lets its user in; how many seconds that took."""
        begun = time.monotonic()
        until(lambda: self.shell("echo in", check=False).strip() == "in", "SSH", PATIENCE, 2)
        return time.monotonic() - begun

    def status(self) -> str:
        """The server's status."""
        return str(self.scene.owner.do(lambda session: session.compute.get_server(self.id)).status)

    def console(self) -> str:
        """What the guest printed."""
        return str(self.scene.owner.do(lambda session: session.compute.get_server_console_output(self.id))["output"])

    def delete(self) -> None:
        """Delete it, and wait until it is gone."""

        def act(session: Connection) -> None:
            session.compute.delete_server(self.id)
            session.compute.wait_for_delete(session.compute.get_server(self.id), wait=120)

        self.scene.owner.do(act)


def create(scene: Scene, name: str, prefix: str, *, dhcp: bool, prefix_6: str | None = None, **asked: Any) -> Server:
    """A server that boots, on a new network behind a router, at address 10 below each prefix."""
    key = scene.owner.keypair()
    public_key = scene.owner.key.with_name(scene.owner.key.name + ".pub").read_text().strip()
    user_data = base64.b64encode(USER_DATA.format(key=public_key).encode()).decode()

    def make(session: Connection) -> Server:
        net = session.network
        network = net.create_network(name=name)
        inner = {"network_id": network.id, "is_dhcp_enabled": dhcp}
        subnets = {f"{prefix}10": net.create_subnet(ip_version=4, cidr=f"{prefix}0/24", dns_nameservers=[DNS], **inner)}
        if prefix_6 is not None:
            subnets[f"{prefix_6}10"] = net.create_subnet(ip_version=6, cidr=f"{prefix_6}/64", **inner)
        public = net.find_network("public", ignore_missing=False)
        router = net.create_router(name=name, external_gateway_info={"network_id": public.id})
        for subnet in subnets.values():
            net.add_interface_to_router(router, subnet=subnet.id)
        fixed = [{"subnet_id": subnet.id, "ip_address": address} for address, subnet in subnets.items()]
        port = net.create_port(network_id=network.id, fixed_ips=fixed)
        floating = net.create_ip(floating_network_id=public.id, port_id=port.id)
        server = session.compute.create_server(
            name=name,
            image_id=scene.image,
            flavor_id=scene.flavor,
            networks=[{"port": port.id}],
            key_name=key,
            user_data=user_data,
            **asked,
        )
        return Server(scene, server.id, str(floating.floating_ip_address))

    return scene.owner.do(make)


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image, built once; the installed system is kept in the cache that the command uses."""
    lines: list[str] = []
    output = tmp_path_factory.mktemp("image") / "debian.qcow2"
    build_debian(output, cache=default_cache(), progress=lines.append)
    print(*lines, sep="\n")
    return output


@pytest.fixture(scope="module")
def scene(cloud: Cloud, tiny: Path, debian: Path) -> Scene:
    """A cloud with the image and a tenant who may be reached."""
    cloud.pileus("up", "--detach", "--no-demo")
    admin = administrator(cloud)
    furnish(admin, tiny)

    def make(session: Connection) -> tuple[str, str]:
        flavor = session.compute.create_flavor(name="small", vcpus=1, ram=512, disk=3)
        session.create_image(
            "debian",
            filename=str(debian),
            disk_format="qcow2",
            container_format="bare",
            visibility="public",
            wait=True,
            hw_qemu_guest_agent="yes",
            os_require_quiesce="yes",
        )
        return flavor.id, session.image.find_image("debian", ignore_missing=False).id

    flavor, image = admin.do(make)
    owner = tenant(admin, "blue")
    let_in(owner)
    return Scene(owner, flavor, image)


@pytest.fixture(scope="module")
def server(scene: Scene) -> Server:
    """The server that learns of itself by the metadata service."""
    return create(scene, "by-service", "10.31.0.", dhcp=True)


def configured(server: Server, source: str, name: str, network: str) -> None:
    """Whether everything that was asked for a server has been done on it."""
    print(f"{name}: SSH {server.answers():.0f} s after the server was asked for")
    begun = time.monotonic()
    assert "status: done" in server.shell("cloud-init status --wait")
    print(f"{name}: cloud-init was done {time.monotonic() - begun:.0f} s later")
    told = json.loads(server.shell("cat /run/cloud-init/result.json"))["v1"]
    assert source in told["datasource"]
    assert told["errors"] == []
    assert "is not valid" not in server.shell("sudo cloud-init schema --system 2>&1", check=False)
    assert server.shell("hostname").strip() == name
    assert server.shell("sudo -n id -u").strip() == "0"
    assert server.shell("id -un; sudo -n id -u", user="alice").split() == ["alice", "0"]
    assert "Alice of the user data" in server.shell("getent passwd alice")
    assert server.shell("stat -c '%U %G %a' /etc/made/by-user-data").split() == ["root", "adm", "640"]
    assert server.shell("sudo cat /etc/made/by-user-data") == "a file of the user data\n"
    assert server.shell("sudo cat /root/ran") == "root\n"
    assert int(server.shell("df -m --output=size / | tail -n 1")) > 2500, "the root has grown to the flavor's disk"
    addresses = server.shell("ip -o -4 address show scope global")
    assert f"{network}10/24" in addresses
    assert f"default via {network}1 " in server.shell("ip route")
    assert server.shell("systemctl --failed --no-legend --plain") == ""


def test_by_a_config_drive_alone(scene: Scene) -> None:
    server = create(
        scene, "by-drive", "10.32.0.", dhcp=False, prefix_6="fd00:32::", has_config_drive=True
    )  # fmt: skip
    configured(server, "DataSourceConfigDrive", "by-drive", "10.32.0.")
    assert "dhcp" not in server.shell("ip route")
    assert "dynamic" not in server.shell("ip -o -4 address show scope global")
    assert "fd00:32::10/64" in server.shell("ip -o -6 address show scope global")
    assert DNS in server.shell("resolvectl dns")
    assert server.shell("sudo blkid -t LABEL=config-2 -o device").startswith("/dev/")
    server.delete()


def test_by_the_metadata_service(server: Server) -> None:
    configured(server, "DataSourceOpenStack", "by-service", "10.31.0.")
    assert "proto dhcp" in server.shell("ip route show default")
    assert DNS in server.shell("resolvectl dns")
    assert server.shell("cloud-init query ds.meta_data.uuid").strip() == server.id
    keys = server.shell("ls /etc/ssh").split()
    assert [name for name in keys if name.startswith("ssh_host_rsa")] == []
    assert "ssh_host_ed25519_key" in keys


def test_the_guests_agent_sets_a_password(server: Server) -> None:
    def act(session: Connection) -> None:
        session.compute.change_server_password(server.id, PASSWORD)

    server.scene.owner.do(act)
    check = "import crypt, sys; stored = sys.stdin.read().strip(); print(crypt.crypt(sys.argv[1], stored) == stored)"
    command = f"sudo getent shadow root | cut -d : -f 2 | python3 -W ignore -c '{check}' {PASSWORD}"
    until(lambda: server.shell(command, check=False).strip() == "True", "the password is root's", 120, 2)


def test_a_snapshot_of_file_systems_at_rest(server: Server) -> None:
    def act(session: Connection) -> str:
        begun = time.monotonic()
        image = session.compute.create_server_image(server.id, "kept", wait=True, timeout=PATIENCE)
        print(f"snapshot: {time.monotonic() - begun:.0f} s")
        size = int(image.size)
        session.image.delete_image(image.id)
        return f"{size / 1e6:.0f} MB"

    print(server.scene.owner.do(act))
    assert "guest-fsfreeze called" in server.shell("sudo journalctl -u qemu-guest-agent")
    server.shell("sudo touch /root/thawed && sync")


def test_a_new_first_root_reaches_the_boot_loader(server: Server) -> None:
    server.shell("sudo rm /boot/loader/initrd && sudo /etc/initramfs/post-update.d/zz-loader $(uname -r)")
    server.shell("sudo cmp /boot/initrd.img-$(uname -r) /boot/loader/initrd")
    server.shell("sudo cmp /boot/vmlinuz-$(uname -r) /boot/loader/vmlinuz")


def test_it_obeys_the_power_button_and_starts_as_itself(server: Server) -> None:
    keys = server.shell("cat /etc/ssh/ssh_host_ed25519_key.pub")
    begun = time.monotonic()
    server.scene.owner.do(lambda session: session.compute.stop_server(server.id))
    until(lambda: server.status() == "SHUTOFF", "SHUTOFF", 180, 1)
    print(f"off after {time.monotonic() - begun:.0f} s")
    assert re.search(r"reboot: Power down", server.console()), "it was not cut off"
    server.scene.owner.do(lambda session: session.compute.start_server(server.id))
    print(f"second boot: SSH after {server.answers():.0f} s")
    assert "status: done" in server.shell("cloud-init status --wait")
    assert server.shell("sudo cat /root/ran") == "root\n", "user data is for the first boot"
    assert server.shell("cat /etc/ssh/ssh_host_ed25519_key.pub") == keys
