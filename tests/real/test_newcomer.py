"""A newcomer's session: the README's command, then the unmodified client, then everything is deleted.

One guest at a time under emulation on small machines; the tests build on each other, in their order.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.real.cloud import Cloud, until

pytestmark = pytest.mark.slow


def test_up_makes_a_cloud_whose_guest_answers(cloud: Cloud) -> None:
    printed = cloud.pileus("up", "--detach")
    assert "ssh -i" in printed
    assert "openstack" in printed
    address = re.search(r"cirros@([0-9.]+)", printed)
    assert address
    assert cloud.ssh(address.group(1), "hostname").strip() == "hello"
    for secret in ("clouds.yaml", "openrc", "admin-password", "hello.key"):
        assert (cloud.state / secret).stat().st_mode & 0o077 == 0, secret


def test_up_again_is_quick_and_changes_nothing(cloud: Cloud) -> None:
    before = cloud.guests()
    cloud.openstack("flavor", "delete", "m1.medium")
    cloud.pileus("up", "--detach", timeout=30)
    assert cloud.guests() == before
    assert "m1.medium" not in cloud.openstack("flavor", "list")


def test_a_session_from_image_to_ssh(cloud: Cloud, tiny: Path) -> None:
    cloud.openstack("server", "delete", "hello", "--wait")
    key = cloud.state / "newcomer.key"
    cloud.openstack("keypair", "create", "newcomer", "--private-key", key)
    key.chmod(0o600)
    cloud.openstack(
        "image", "create", "mine", "--file", tiny, "--disk-format", "qcow2", "--container-format", "bare"
    )  # fmt: skip
    cloud.openstack("network", "create", "blue")
    cloud.openstack("subnet", "create", "blue", "--network", "blue", "--subnet-range", "10.7.0.0/24")
    cloud.openstack("router", "create", "blue")
    cloud.openstack("router", "set", "blue", "--external-gateway", "public")
    cloud.openstack("router", "add", "subnet", "blue", "blue")
    cloud.openstack("security", "group", "create", "web")
    cloud.openstack("security", "group", "rule", "create", "web", "--protocol", "tcp", "--dst-port", "22")
    cloud.openstack("security", "group", "rule", "create", "web", "--protocol", "icmp")
    cloud.openstack(
        "server", "create", "web", "--image", "mine", "--flavor", "m1.nano", "--network", "blue", "--key-name",
        "newcomer", "--security-group", "web", "--wait"
    )  # fmt: skip
    address = cloud.json("floating", "ip", "create", "public")["floating_ip_address"]
    cloud.openstack("server", "add", "floating", "ip", "web", address)
    until(lambda: cloud.ssh(address, "hostname", key=key, check=False).strip() == "web", "SSH", 60)
    cloud.inside("ping", "-c", "1", "-W", "2", address)
    assert "10.7.0." in cloud.ssh(address, "ip -4 addr show", key=key)
    assert cloud.json("server", "show", "web")["status"] == "ACTIVE"


def test_console_log(cloud: Cloud) -> None:
    whole = cloud.openstack("console", "log", "show", "web")
    assert "login:" in whole
    last = cloud.openstack("console", "log", "show", "web", "--lines", "3")
    assert whole.strip().endswith(last.strip())
    assert len(last.strip()) < len(whole.strip()) / 2


def test_stop_start_reboot(cloud: Cloud) -> None:
    server = cloud.json("server", "show", "web")["id"]
    address = next(one for one in cloud.json("floating", "ip", "list") if one["Fixed IP Address"])[
        "Floating IP Address"
    ]
    key = cloud.state / "newcomer.key"
    cloud.openstack("server", "stop", "web")
    until(lambda: cloud.json("server", "show", "web")["status"] == "SHUTOFF", "SHUTOFF", 60, 1)
    assert server not in cloud.guests()
    cloud.openstack("server", "start", "web")
    until(lambda: cloud.json("server", "show", "web")["status"] == "ACTIVE", "ACTIVE", 60, 1)
    until(lambda: cloud.ssh(address, "true; echo up", key=key, check=False), "SSH after start", 60)
    first = cloud.ssh(address, "cat /proc/sys/kernel/random/boot_id", key=key)
    cloud.openstack("server", "reboot", "--hard", "web", "--wait")
    until(lambda: cloud.ssh(address, "echo up", key=key, check=False), "SSH after reboot", 60)
    assert cloud.ssh(address, "cat /proc/sys/kernel/random/boot_id", key=key) != first


def test_a_guest_that_turns_itself_off_is_shut_off(cloud: Cloud) -> None:
    address = next(one for one in cloud.json("floating", "ip", "list") if one["Fixed IP Address"])[
        "Floating IP Address"
    ]
    cloud.ssh(address, "sudo poweroff", key=cloud.state / "newcomer.key", check=False)
    until(lambda: cloud.json("server", "show", "web")["status"] == "SHUTOFF", "SHUTOFF", 60, 1)


def test_explain_status_and_doctor(cloud: Cloud) -> None:
    assert "✓" in cloud.pileus("explain", "server", "web")
    assert "server" in cloud.pileus("status")
    assert "acceleration" in cloud.pileus("doctor", check=False)


def test_an_impossible_server_says_why(cloud: Cloud) -> None:
    cloud.openstack("flavor", "create", "huge", "--vcpus", "1", "--ram", "128", "--disk", "90000")
    cloud.openstack("server", "create", "no", "--image", "mine", "--flavor", "huge", "--network", "blue")
    until(lambda: cloud.json("server", "show", "no")["status"] == "ERROR", "ERROR", 30, 1)
    assert "No valid host" in str(cloud.json("server", "show", "no")["fault"])
    assert "DISK_GB" in cloud.pileus("explain", "server", "no")


def test_deleting_everything_leaves_nothing(cloud: Cloud) -> None:
    for server in cloud.json("server", "list"):
        cloud.openstack("server", "delete", server["ID"], "--wait")
    for address in cloud.json("floating", "ip", "list"):
        cloud.openstack("floating", "ip", "delete", address["ID"])
    for router, subnet in (("blue", "blue"), ("router", "private")):
        cloud.openstack("router", "remove", "subnet", router, subnet)
        cloud.openstack("router", "delete", router)
    for network in ("blue", "private", "public"):
        cloud.openstack("network", "delete", network)
    until(lambda: not cloud.leftovers(), f"nothing left, but: {cloud.leftovers()}", 30)


def test_down_and_purge(cloud: Cloud) -> None:
    cloud.pileus("down")
    assert cloud.leftovers() == []
    assert cloud.pileus("status", check=False).startswith("the cloud in")
    shutil.rmtree(cloud.failpoints)
    (cloud.state / "images" / "tiny.qcow2").unlink()
    cloud.pileus("down", "--purge")
    assert [entry.name for entry in cloud.state.glob("*")] in ([], ["images"])
