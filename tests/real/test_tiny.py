"""The image `tiny`, built of real packages and booted under QEMU without acceleration.

Each guest runs in a network namespace of this test, which has nothing but its loopback; SSH goes through the forward
of QEMU's user-mode network. Metadata comes from a config drive, or from a program that QEMU itself starts for each
connection to 169.254.169.254. Needs root (for the namespace), QEMU, and the packages or a network to fetch them.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pycdlib
import pytest

from pileus.cli.image import missing_packages

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a network namespace"),
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="needs qemu-system-x86_64"),
    pytest.mark.skipif(bool(missing_packages()), reason=f"needs the packages {missing_packages()}"),
]

PORT = 2222
INSTANCE = "0b6ed3d4-6f54-4a4e-9a5d-1f3a2c7f9d11"
SERVER = """
import pathlib, sys
line = sys.stdin.buffer.readline().decode().split()
while sys.stdin.buffer.readline().strip():
    pass
wanted = line[1] if len(line) > 1 else "/"
place = pathlib.Path(sys.argv[1] + wanted + ("index" if wanted.endswith("/") else ""))
found = place.is_file()
body = place.read_bytes() if found else b"404 Not Found"
status = "200 OK" if found else "404 Not Found"
head = f"HTTP/1.0 {status}\\r\\nContent-Length: {len(body)}\\r\\nConnection: close\\r\\n\\r\\n"
sys.stdout.buffer.write(head.encode() + body)
sys.stdout.buffer.flush()
"""


def call(*words: str | Path, check: bool = True, **options: Any) -> str:
    """Run a program and return what it printed."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False, **options
    )
    if check and done.returncode != 0:
        raise AssertionError(f"{words}: status {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def eventually(what: str, seconds: float, probe: Callable[[], bool]) -> float:
    """Wait until a probe says yes; returns how many seconds it took."""
    begun = time.monotonic()
    while not probe():
        if time.monotonic() - begun > seconds:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.1)
    return time.monotonic() - begun


class Guest:
    """A guest of the image under QEMU, in a namespace."""

    def __init__(self, directory: Path, namespace: str, image: Path, key: Path) -> None:
        self.directory = directory
        self.namespace = namespace
        self.key = key
        self.address = "127.0.0.1"
        self.port = PORT
        self.disk = directory / "disk.qcow2"
        self.console = directory / "console.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.metadata = directory / "metadata"
        self.metadata.mkdir()
        (directory / "serve.py").write_text(SERVER)
        call("qemu-img", "create", "-q", "-f", "qcow2", "-b", image, "-F", "qcow2", self.disk, "1G")

    def start(self, *more: str | Path, memory: int = 128, net: str = "", disk: str = "virtio-blk-pci") -> None:
        """Start QEMU; the console's log and the QMP socket are new each time."""
        serve = f"{sys.executable} {self.directory}/serve.py {self.metadata}"
        user = "user,id=n0,net=169.254.169.0/24,dhcpstart=169.254.169.10,host=169.254.169.2,dns=169.254.169.3"
        user += f",hostfwd=tcp:127.0.0.1:{PORT}-:22,guestfwd=tcp:169.254.169.254:80-cmd:{serve}"
        self.console.unlink(missing_ok=True)
        words = [
            *("ip", "netns", "exec", self.namespace, "qemu-system-x86_64", "-machine", "q35", "-cpu", "max"),
            *("-accel", "tcg,tb-size=32", "-m", memory, "-nodefaults", "-display", "none", "-vga", "std"),
            *("-chardev", f"socket,id=s,path={self.directory}/serial,server=on,wait=off,logfile={self.console}"),
            *("-serial", "chardev:s", "-qmp", f"unix:{self.directory}/qmp,server=on,wait=off"),
            *(("-device", "virtio-scsi-pci") if disk == "scsi-hd" else ()),
            *("-drive", f"if=none,id=d0,file={self.disk}", "-device", f"{disk},drive=d0"),
            *("-netdev", net or user, "-device", "virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01"),
            *("-device", "pcie-root-port,id=p1", "-device", "pcie-root-port,id=p2,chassis=2"),
            *("-device", "virtio-rng-pci"),
            *more,
        ]
        with (self.directory / "qemu.log").open("wb") as log:
            self.process = subprocess.Popen([str(word) for word in words], stdout=log, stderr=log)

    def stop(self) -> None:
        """Pull the plug."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def log(self) -> str:
        """What the guest printed on its serial console."""
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def until_log(self, text: str, seconds: float = 60) -> float:
        """Wait for a text on the console."""
        try:
            return eventually(text, seconds, lambda: text in self.log())
        except AssertionError as failure:
            qemu = (self.directory / "qemu.log").read_text(errors="replace")
            raise AssertionError(f"{failure}; QEMU: {qemu}; the console ends with: {self.log()[-3000:]}") from None

    def ssh(self, command: str, *, password: str = "", check: bool = True, user: str = "cirros") -> str:
        """Run a command in the guest, by key or by password."""
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=10"]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.directory)}
        if password:
            ask = self.directory / "ask"
            ask.write_text(f"#!/bin/sh\necho {shlex.quote(password)}\n")
            ask.chmod(0o700)
            environment |= {"SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
            options += ["PubkeyAuthentication=no", "NumberOfPasswordPrompts=1"]
        else:
            options += [f"IdentityFile={self.key}", "IdentitiesOnly=yes", "PasswordAuthentication=no"]
        words = ["ip", "netns", "exec", self.namespace, "ssh", "-p", str(self.port)]
        words += [word for option in options for word in ("-o", option)]
        return call(*words, f"{user}@{self.address}", command, check=check, env=environment, timeout=60)

    def log_in(self, name: str, password: str) -> None:
        """Log in on the serial console and leave a file that says who did."""
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(self.directory / "serial"))
            line.settimeout(20)
            heard = b""
            line.sendall(b"\n")
            for prompt, answer in ((b"login: ", name), (b"assword: ", password), (b"$ ", "id -un >/tmp/who; exit")):
                while prompt not in heard:
                    heard += line.recv(4096)
                heard = b""
                line.sendall(answer.encode() + b"\n")
            while b"login: " not in heard:
                heard += line.recv(4096)

    def qmp(self, execute: str, **arguments: Any) -> Any:
        """Give QEMU one command and return its answer."""
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(self.directory / "qmp"))
            stream = link.makefile("rw")
            for message in ({"execute": "qmp_capabilities"}, {"execute": execute, "arguments": arguments}):
                stream.write(json.dumps(message) + "\n")
            stream.flush()
            answers: list[Any] = []
            while len(answers) < 2:
                row = json.loads(stream.readline())
                assert "error" not in row, row
                answers += [row["return"]] if "return" in row else []
            return answers[1]

    def power_off(self) -> float:
        """Press the power button; returns the seconds until QEMU ended."""
        assert self.process is not None
        self.qmp("system_powerdown")
        process = self.process
        return eventually("power-off", 20, lambda: process.poll() is not None)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A client's ECDSA key."""
    file = tmp_path_factory.mktemp("key") / "id"
    call("ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", file)
    return file


@pytest.fixture
def guest(tiny: Path, key: Path, tmp_path: Path) -> Iterator[Guest]:
    """A guest that is not started yet."""
    namespace = f"tiny-test-{os.getpid()}"
    call("ip", "netns", "add", namespace)
    call("ip", "-n", namespace, "link", "set", "lo", "up")
    made = Guest(tmp_path, namespace, tiny, key)
    try:
        yield made
    finally:
        made.stop()
        call("ip", "netns", "del", namespace)


def config_drive(file: Path, contents: dict[str, bytes]) -> Path:
    """An ISO 9660 image with the label of config drives."""
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=4, vol_ident="config-2", rock_ridge="1.09", joliet=3)
    for place in ("/openstack", "/openstack/latest", "/openstack/content"):
        iso.add_directory(place, rr_name=place.rsplit("/", 1)[1], joliet_path=place)
    for name, content in contents.items():
        place = f"/openstack/latest/{name}" if "/" not in name else f"/openstack/{name}"
        iso.add_fp(io.BytesIO(content), len(content), place, rr_name=name.rsplit("/", 1)[-1], joliet_path=place)
    iso.write(str(file))
    iso.close()
    return file


def meta_data(key: Path, **more: object) -> bytes:
    """A `meta_data.json`."""
    public = key.with_suffix(".pub").read_text()
    return json.dumps({"uuid": INSTANCE, "hostname": "hello.novalocal", "public_keys": {"k": public}, **more}).encode()


def test_size(tiny: Path) -> None:
    assert "MB" in tiny.with_suffix(".log").read_text().splitlines()[-1]
    assert tiny.stat().st_size <= 64 << 20
    facts = json.loads(call("qemu-img", "info", "--output=json", tiny))
    assert facts["format"] == "qcow2"
    assert facts["virtual-size"] <= 128 << 20
    assert "backing-filename" not in facts


STATIC = {
    "links": [
        {"id": "a", "ethernet_mac_address": "52:54:00:00:00:01", "mtu": 1400},
        {"id": "b", "ethernet_mac_address": "52:54:00:00:00:02", "mtu": 1500},
    ],
    "networks": [
        {"link": "a", "type": "ipv4_dhcp"},
        {"link": "a", "type": "ipv6_slaac"},
        {
            "link": "b",
            "type": "ipv4",
            "ip_address": "10.9.0.5",
            "netmask": "255.255.255.128",
            "routes": [{"network": "10.8.0.0", "netmask": "255.255.0.0", "gateway": "10.9.0.1"}],
        },
        {"link": "b", "type": "ipv6", "ip_address": "fd00:9::5", "netmask": "ffff:ffff:ffff:ffff::", "routes": []},
    ],
    "services": [{"type": "dns", "address": "10.9.0.53"}],
}


def test_config_drive(guest: Guest) -> None:
    script = b"#!/bin/sh\necho the script ran as $(id -un)\necho once >>/root/ran\n"
    contents = {
        "meta_data.json": meta_data(guest.key, files=[{"path": "/made/here.txt", "content_path": "/content/0000"}]),
        "content/0000": b"a file",
        "network_data.json": json.dumps(STATIC).encode(),
        "user_data": script,
    }
    drive = config_drive(guest.directory / "drive.iso", contents)
    guest.start(
        *("-drive", f"if=none,id=c,readonly=on,format=raw,file={drive}", "-device", "virtio-blk-pci,drive=c"),
        *("-netdev", "user,id=n1,restrict=on", "-device", "virtio-net-pci,netdev=n1,mac=52:54:00:00:00:02"),
    )
    print("ready after", guest.until_log("=== tiny ready: hello"), "s")
    assert "the script ran as root" in guest.log()
    print("prompt after", guest.until_log("hello login:"), "s more")
    assert guest.ssh("hostname") == "hello\n"
    assert guest.ssh("sudo -n id -u") == "0\n"
    assert guest.ssh("sudo cat /root/ran") == "once\n"
    assert guest.ssh("cat /made/here.txt") == "a file"
    assert int(guest.ssh("df -m / | awk 'NR == 2 { print $2 }'")) > 900
    assert guest.ssh("cat /sys/class/net/eth0/mtu") == "1400\n"
    addresses = guest.ssh("ip -o address show dev eth1")
    assert "10.9.0.5/25" in addresses
    assert "fd00:9::5/64" in addresses
    assert "10.8.0.0/16 via 10.9.0.1" in guest.ssh("ip route")
    assert "fec0::5054:ff:fe00:1/64" in guest.ssh("ip -6 -o address show dev eth0")
    resolver = guest.ssh("cat /etc/resolv.conf")
    assert "nameserver 10.9.0.53" in resolver
    assert "nameserver 169.254.169.3" in resolver
    assert 'LABEL="config-2"' in guest.ssh("blkid")
    print("off after", guest.power_off(), "s")


def test_metadata_service(guest: Guest) -> None:
    latest = guest.metadata / "openstack" / "latest"
    latest.mkdir(parents=True)
    (latest.parent / "content").mkdir()
    files = [{"path": f"/file{number}", "content_path": f"/content/000{number}"} for number in (0, 1)]
    (latest.parent / "content" / "0000").write_bytes(b"first")
    (latest.parent / "content" / "0001").write_bytes(b"")
    (latest / "meta_data.json").write_bytes(meta_data(guest.key, admin_pass="s3cret'$x", files=files))
    (latest / "user_data").write_bytes(b"#!/bin/sh\necho hello from user data\n")
    guest.start(memory=96)
    guest.until_log("=== tiny ready: hello")
    assert "hello from user data" in guest.log()
    assert guest.ssh("hostname") == "hello\n"
    assert guest.ssh("cat /file0; wc -c < /file1") == "first0\n"
    assert guest.ssh("id -un", password="s3cret'$x", user="root") == "root\n"
    with pytest.raises(AssertionError, match="Permission denied"):
        guest.ssh("true", password="gocubsgo")
    keys = guest.ssh("sudo md5sum /etc/dropbear/dropbear_ed25519_host_key")
    guest.ssh("sudo reboot")
    eventually("the second boot", 60, lambda: guest.log().count("=== tiny ready: hello") == 2)
    assert guest.log().count("hello from user data") == 1
    assert guest.ssh("sudo md5sum /etc/dropbear/dropbear_ed25519_host_key") == keys

    # The same disk under another identity: as a snapshot's would be.
    (latest / "meta_data.json").write_bytes(
        meta_data(guest.key, uuid=INSTANCE.replace("0b", "0c"), hostname="other", admin_pass="n3w")
    )
    guest.ssh("sudo reboot")
    guest.until_log("=== tiny ready: other")
    assert guest.log().count("hello from user data") == 2
    assert guest.ssh("sudo md5sum /etc/dropbear/dropbear_ed25519_host_key", password="n3w") != keys
    guest.power_off()


def test_password_and_commands(guest: Guest) -> None:
    ec2 = guest.metadata / "latest" / "meta-data"
    (ec2 / "public-keys" / "0").mkdir(parents=True)
    (ec2 / "instance-id").write_text("i-00000001")
    (ec2 / "local-hostname").write_text("ec2guest")
    (ec2 / "public-keys" / "0" / "openssh-key").write_bytes(guest.key.with_suffix(".pub").read_bytes())
    (ec2 / "public-keys" / "index").write_text("0=my key")
    (guest.metadata / "latest" / "user-data").write_bytes(b"#cloud-config\npackages: [nothing]\n")
    guest.start()
    guest.until_log("=== tiny ready: ec2guest")
    assert "is no script" in guest.log()
    assert guest.ssh("id -un", password="gocubsgo") == "cirros\n"
    with pytest.raises(AssertionError, match="Permission denied"):
        guest.ssh("true", password="wrong")
    guest.until_log("login:")
    guest.log_in("cirros", "gocubsgo")
    eventually("a login on the console", 10, lambda: guest.ssh("cat /tmp/who", check=False) == "cirros\n")

    spare = guest.directory / "spare.raw"
    spare.touch()
    os.truncate(spare, 64 << 20)
    guest.qmp("blockdev-add", **{"driver": "file", "filename": str(spare), "node-name": "spare"})
    guest.qmp("device_add", driver="virtio-blk-pci", drive="spare", bus="p1", id="spare")
    eventually("a hot-plugged disk", 10, lambda: "vdb" in guest.ssh("lsblk -lb --nodeps"))
    for kind in ("ext3", "ext4", "vfat"):
        guest.ssh(f"sudo mkfs -t {kind} /dev/vdb >/dev/null 2>&1 && sudo mount -t {kind} /dev/vdb /mnt")
        guest.ssh("sudo dd if=/dev/zero of=/mnt/zero bs=1024 count=100 2>/dev/null && sync && sudo umount /mnt")
        assert f'TYPE="{kind}"' in guest.ssh("blkid /dev/vdb")
    guest.qmp("netdev_add", type="user", id="n2", net="10.7.0.0/24")
    guest.qmp("device_add", driver="virtio-net-pci", netdev="n2", bus="p2", id="card")
    eventually("DHCP on a hot-plugged card", 20, lambda: "10.7.0.15" in guest.ssh("ip address show"))
    guest.qmp("device_del", id="card")
    eventually("the card is gone", 20, lambda: "eth1" not in guest.ssh("ip link"))

    guest.ssh("ping -c 1 127.0.0.1 && ping -6 -c 1 ::1 && ping -c 1 169.254.169.2")
    assert "i-00000001" in guest.ssh("curl -s http://169.254.169.254/latest/meta-data/instance-id")
    assert "i-00000001" in guest.ssh("wget -q -O - http://169.254.169.254/latest/meta-data/instance-id")
    assert "load average" in guest.ssh("uptime")
    assert "Device 1af4:" in guest.ssh("lspci")
    assert guest.ssh("set -eu -o pipefail; echo hi | sudo tee /root/x | md5sum | cut -c 1-4 | grep 7") != ""
    assert "ID=tiny" in guest.ssh("cat /etc/os-release")
    guest.ssh("sudo fsfreeze -f / && sudo fsfreeze -u /; nc -w 1 127.0.0.1 22 </dev/null >/dev/null")
    guest.power_off()


@pytest.fixture
def segment(guest: Guest) -> Iterator[Path]:
    """A bridge with a metadata service in the guest's namespace; gives the directory for dnsmasq's files."""
    name = guest.namespace
    for words in (
        ("link", "add", "br0", "type", "bridge"),
        ("address", "add", "10.5.0.1/24", "dev", "br0"),
        ("address", "add", "169.254.169.254/32", "dev", "br0"),
        ("address", "add", "fd00:5::1/64", "dev", "br0", "nodad"),
        ("link", "set", "br0", "up"),
        ("tuntap", "add", "tap0", "mode", "tap"),
        ("link", "set", "tap0", "master", "br0", "up"),
    ):
        call("ip", "-n", name, *words)
    serve = [sys.executable, "-m", "http.server", "80", "--bind", "169.254.169.254", "--directory", guest.metadata]
    with subprocess.Popen(["ip", "netns", "exec", name, *map(str, serve)], stderr=subprocess.DEVNULL) as server:
        yield guest.directory
        server.kill()


@pytest.mark.skipif(shutil.which("dnsmasq") is None, reason="needs dnsmasq")
@pytest.mark.parametrize("kind", ["stateful", "stateless"])
def test_dnsmasq(guest: Guest, segment: Path, kind: str) -> None:
    latest = guest.metadata / "openstack" / "latest"
    latest.mkdir(parents=True)
    (latest / "meta_data.json").write_bytes(meta_data(guest.key))
    link = {"id": "a", "ethernet_mac_address": "52:54:00:00:00:01"}
    networks = [{"link": "a", "type": "ipv4_dhcp"}, {"link": "a", "type": f"ipv6_dhcpv6-{kind}"}]
    (latest / "network_data.json").write_text(json.dumps({"links": [link], "networks": networks, "services": []}))
    ranges = {"stateful": "fd00:5::100,fd00:5::100,64,1h", "stateless": "fd00:5::,ra-stateless,64"}
    words = [
        *("ip", "netns", "exec", guest.namespace, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null"),
        *("--interface=br0", "--bind-interfaces", "--port=0", "--user=root", "--enable-ra", "--pid-file"),
        *(f"--dhcp-leasefile={segment}/leases", f"--log-facility={segment}/dnsmasq.log"),
        *("--dhcp-range=10.5.0.10,10.5.0.10", f"--dhcp-range={ranges[kind]}", "--dhcp-option=26,1442"),
        "--dhcp-option=121,169.254.169.254/32,10.5.0.1,10.6.0.0/16,10.5.0.7,0.0.0.0/0,10.5.0.1",
        *("--dhcp-option=6,10.5.0.53", "--dhcp-option=option6:dns-server,[fd00:5::53]"),
    ]
    with subprocess.Popen(words) as server:
        try:
            guest.address, guest.port = "10.5.0.10", 22
            guest.start(net="tap,id=n0,ifname=tap0,script=no,downscript=no", disk="scsi-hd")
            guest.until_log("=== tiny ready: hello 10.5.0.10")
            routes = guest.ssh("ip route")
            for route in ("default via 10.5.0.1", "169.254.169.254 via 10.5.0.1", "10.6.0.0/16 via 10.5.0.7"):
                assert route in routes
            assert guest.ssh("cat /sys/class/net/eth0/mtu") == "1442\n"
            wanted = {"stateful": "fd00:5::100/", "stateless": "fd00:5::5054:ff:fe00:1/64"}[kind]
            eventually("an IPv6 address", 20, lambda: wanted in guest.ssh("ip -6 address show dev eth0"))
            eventually("IPv6's name server", 20, lambda: "nameserver fd00:5::53" in guest.ssh("cat /etc/resolv.conf"))
            assert "nameserver 10.5.0.53" in guest.ssh("cat /etc/resolv.conf")
        finally:
            server.kill()
