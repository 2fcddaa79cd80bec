"""The life of a cloud under its commands. The tests share one, and each leaves it up and as it should be."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pileus.cli.client import CLOUD
from tests.cli.simulated import HOSTS, Cloud, until

pytestmark = pytest.mark.slow

STEPS = ("control plane and agent", "flavors", "image tiny", "network public", "router", "server hello", "floating IP")
STORE = "control/pileus.db"
PROCESSES = ("supervisor", "control", "agent")


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[Cloud, subprocess.CompletedProcess[str]]]:
    """The cloud, and what the first `up` said."""
    cloud = Cloud()
    try:
        yield cloud, cloud.first_up()
    finally:
        cloud.remove()


@pytest.fixture(scope="module")
def cloud(made: tuple[Cloud, subprocess.CompletedProcess[str]]) -> Cloud:
    return made[0]


@pytest.fixture(scope="module")
def sdk(cloud: Cloud) -> Any:
    """A session of the unmodified SDK."""
    import openstack

    os.environ["OS_CLIENT_CONFIG_FILE"] = str(cloud.state / "clouds.yaml")
    try:
        return openstack.connect(cloud=CLOUD)
    finally:
        del os.environ["OS_CLIENT_CONFIG_FILE"]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def down(cloud: Cloud) -> None:
    cloud.run("down")
    for name in PROCESSES:
        with pytest.raises(AssertionError, match="does not run"):
            cloud.pid(name)


# -- the first day -------------------------------------------------------------------------------------------------


def test_up_shows_its_steps_and_says_what_to_try(made: tuple[Cloud, subprocess.CompletedProcess[str]]) -> None:
    cloud, said = made
    for step in STEPS:
        assert re.search(rf"✓ {step}.* \d+\.\d s$", said.stderr, re.MULTILINE), said.stderr
    assert "the cloud is up after" in said.stderr
    assert f"./pileus openstack --state {cloud.state} server list" in said.stdout
    assert f"ssh -i {cloud.state / 'hello.key'}" in said.stdout


def test_the_demo_content_is_there(cloud: Cloud) -> None:
    assert cloud.servers() == {"hello": "ACTIVE"}
    flavors = cloud.get("/compute/v2.1/flavors")["flavors"]
    assert {"m1.nano", "m1.tiny", "m1.small", "m1.medium"} <= {one["name"] for one in flavors}
    assert [one["status"] for one in cloud.get("/image/v2/images?name=tiny")["images"]] == ["active"]
    assert {one["name"] for one in cloud.get("/network/v2.0/networks")["networks"]} == {"public", "private"}
    assert len(cloud.get("/network/v2.0/floatingips")["floatingips"]) == 1


def test_the_openstack_client_works_whatever_the_user_has_set(cloud: Cloud) -> None:
    foreign = {"OS_CLOUD": "other", "OS_USERNAME": "nobody", "OS_PASSWORD": "x", "OS_AUTH_URL": "http://127.0.0.1:9"}
    found = cloud.run("openstack", "server", "list", "-f", "json", environment=foreign)
    (server,) = json.loads(found.stdout)
    assert (server["Name"], server["Status"], server["Image"]) == ("hello", "ACTIVE", "tiny")


def test_options_reach_the_openstack_client_as_they_are(cloud: Cloud) -> None:
    assert cloud.run("openstack", "--version").stdout.startswith("openstack ")
    failed = cloud.run("openstack", "--os-cloud", "nowhere", "token", "issue", status=1)
    assert "nowhere" in failed.stderr


def test_secrets_are_for_their_owner_and_not_in_the_log(cloud: Cloud) -> None:
    for name in ("clouds.yaml", "openrc", "admin-password", "hello.key", "pileus.toml"):
        assert mode(cloud.state / name) == 0o600, name
    assert mode(cloud.state / "control") == 0o700
    assert not (cloud.state / "control" / "bootstrap-password").exists()
    password = (cloud.state / "admin-password").read_text().strip()
    logged = "".join(map(cloud.log, PROCESSES))
    assert "serving" in logged
    assert password not in logged
    assert "gAAAA" not in logged  # how tokens begin
    assert "PRIVATE KEY" not in logged
    assert "$argon2" not in logged


def test_status_and_doctor_of_a_cloud_that_is_well(cloud: Cloud) -> None:
    said = cloud.run("status").stdout
    assert "servers: 1 ACTIVE" in said
    assert len(re.findall(r"host fake-\d: up, ", said)) == HOSTS
    said = cloud.run("doctor").stdout
    assert f"✓ port: {cloud.listen} is served by this cloud" in said
    assert f"✓ cloud: serves http://{cloud.listen}" in said
    assert "✗" not in said


def test_explain_says_why_a_server_is_where_it_is(cloud: Cloud) -> None:
    (server,) = cloud.get("/compute/v2.1/servers?name=hello")["servers"]
    by_name = cloud.run("explain", "server", "hello").stdout
    assert by_name == cloud.run("explain", "server", server["id"]).stdout
    assert f"server {server['id']} (hello) is ACTIVE" in by_name
    assert len(re.findall(r"^    ✓ fake-\d +taken", by_name, re.MULTILINE)) == 1
    assert len(re.findall(r"^    · fake-\d +passed", by_name, re.MULTILINE)) == HOSTS - 1


def test_explain_says_why_no_host_takes_a_server(cloud: Cloud, sdk: Any) -> None:
    flavor = sdk.compute.create_flavor(name="huge", vcpus=1, ram=64, disk=1_000_000)
    networks = [{"uuid": sdk.network.find_network("private").id}]
    image = sdk.image.find_image("tiny")
    server = sdk.compute.create_server(name="giant", flavor_id=flavor.id, image_id=image.id, networks=networks)
    until(lambda: sdk.compute.get_server(server.id).status == "ERROR")
    said = cloud.run("explain", "server", "giant").stdout
    assert "fault: No valid host was found" in said
    assert "no host" in said
    assert len(re.findall(r"^    ✗ fake-\d +refused .*(?i:disk)", said, re.MULTILINE)) == HOSTS, said
    sdk.compute.delete_server(server.id)
    sdk.compute.delete_flavor(flavor.id)
    until(lambda: cloud.servers() == {"hello": "ACTIVE"})


def test_explain_of_what_is_not_there(cloud: Cloud) -> None:
    assert "no server named 'nobody'" in cloud.run("explain", "server", "nobody", status=1).stderr


# -- again and again -----------------------------------------------------------------------------------------------


def test_a_second_up_is_quick_and_changes_nothing(cloud: Cloud, sdk: Any) -> None:
    sdk.compute.delete_flavor(sdk.compute.find_flavor("m1.medium"))
    sdk.network.update_network(sdk.network.find_network("private"), description="mine")
    kept = {name: (cloud.state / name).read_bytes() for name in ("pileus.toml", "admin-password", "clouds.yaml")}
    pids = [cloud.pid(name) for name in PROCESSES]
    began = time.monotonic()
    said = cloud.up()
    assert time.monotonic() - began < 15
    assert "the cloud runs already" in said.stderr
    assert pids == [cloud.pid(name) for name in PROCESSES]
    assert kept == {name: (cloud.state / name).read_bytes() for name in kept}
    assert sdk.compute.find_flavor("m1.medium") is None
    assert sdk.network.find_network("private").description == "mine"


def test_other_settings_are_refused_while_it_runs(cloud: Cloud) -> None:
    before = (cloud.state / "pileus.toml").read_bytes()
    said = cloud.up("--fake", "3", status=1).stderr
    assert "runs with other settings" in said
    assert "pileus down" in said
    assert (cloud.state / "pileus.toml").read_bytes() == before


def test_one_agent_and_one_control_plane_run_on_a_cloud(cloud: Cloud) -> None:
    assert "another agent runs" in cloud.run("agent", status=1).stderr
    assert "another control runs" in cloud.run("control", status=1).stderr


def test_a_password_that_was_changed_is_asked_for(cloud: Cloud, sdk: Any) -> None:
    file = cloud.state / "admin-password"
    old = file.read_text().strip()
    user = sdk.identity.find_user("admin", ignore_missing=False)
    answer = sdk.identity.patch(f"/users/{user.id}", json={"user": {"password": "another one"}})
    assert answer.status_code == 200
    for command, status in (("up", 1), ("status", 1), ("doctor", 1)):
        done = cloud.run(command, *(["--detach"] if command == "up" else []), status=status)
        assert f"the password in {file} is not the administrator's any more" in done.stdout + done.stderr
    file.write_text("another one\n")
    cloud.up()
    assert cloud.servers() == {"hello": "ACTIVE"}
    assert "another one" in (cloud.state / "clouds.yaml").read_text()
    assert old not in (cloud.state / "openrc").read_text()


def test_control_ends_quickly_and_quietly(cloud: Cloud) -> None:
    pid, began, logged = cloud.pid("control"), time.monotonic(), len(cloud.log("control"))
    os.kill(pid, signal.SIGTERM)
    until(lambda: not Path(f"/proc/{pid}").exists())
    assert time.monotonic() - began < 5
    cloud.up()
    said = cloud.log("control")[logged:]
    assert "Traceback" not in said
    assert "Exception" not in said
    assert "ERROR" not in said


@pytest.mark.parametrize("victims", [("control",), ("agent",), ("control", "agent"), PROCESSES], ids="-".join)
def test_what_is_killed_comes_back_and_nothing_is_lost(cloud: Cloud, victims: tuple[str, ...]) -> None:
    boots = cloud.boots()
    cloud.kill(*victims)
    cloud.up()
    assert cloud.servers() == {"hello": "ACTIVE"}
    assert cloud.boots() == boots


def test_a_cloud_without_its_supervisor_serves_and_gets_one(cloud: Cloud) -> None:
    old, boots = cloud.pid("control"), cloud.boots()
    cloud.kill("supervisor")
    assert "without its supervisor" in cloud.run("status").stdout
    assert "✗ supervisor" in cloud.run("doctor", status=1).stdout
    cloud.up()
    assert cloud.pid("supervisor")
    assert cloud.pid("control") != old
    assert (cloud.servers(), cloud.boots()) == ({"hello": "ACTIVE"}, boots)


def test_down_ends_also_what_lost_its_supervisor(cloud: Cloud) -> None:
    cloud.kill("supervisor")
    down(cloud)
    assert f"the cloud in {cloud.state} is down" in cloud.run("status", status=3).stdout
    said = cloud.run("doctor").stdout
    assert "· cloud: down" in said
    assert f"✓ port: {cloud.listen} is free" in said
    shutil.copyfile(cloud.state / STORE, cloud.base / "copy.db")


def test_up_brings_everything_back_under_another_name(cloud: Cloud) -> None:
    boots = cloud.boots()
    # Nobody serves this name: the commands of this machine do not need it.
    cloud.up("--public-url", "https://cloud.example.org/")
    assert cloud.servers() == {"hello": "ACTIVE"}
    assert cloud.boots() == boots
    services = cloud.get("/identity/v3/auth/catalog")["catalog"]
    urls = {endpoint["url"] for service in services for endpoint in service["endpoints"]}
    assert {url.startswith("https://cloud.example.org/") for url in urls} == {True}
    assert "https://cloud.example.org/identity/v3" in (cloud.state / "clouds.yaml").read_text()
    assert "serves https://cloud.example.org" in cloud.run("doctor").stdout


# -- another store -------------------------------------------------------------------------------------------------


def test_an_older_copy_of_the_store_is_refused_until_it_is_accepted(cloud: Cloud) -> None:
    store, copy = cloud.state / STORE, cloud.base / "copy.db"  # of when it was down last
    down(cloud)
    cloud.up("--public-url", f"http://{cloud.listen}")
    assert f"http://{cloud.listen}/identity/v3" in (cloud.state / "openrc").read_text()
    words = ("server", "create", "later", "--flavor", "m1.nano", "--image", "tiny", "--network", "private", "--wait")
    later = cloud.run("openstack", *words, "-f", "value", "-c", "id").stdout.strip()
    boots = cloud.boots()
    assert len(boots) == 2
    down(cloud)
    newest = store.read_bytes()
    store.write_bytes(copy.read_bytes())

    said = cloud.up(status=1).stderr
    assert len(re.findall(r"host fake-\d: this store was restored from an older copy", said)) == HOSTS
    assert "accept-store" in said
    status = cloud.run("status").stdout
    assert len(re.findall(r"host fake-\d REFUSES this store: .*older copy", status)) == HOSTS
    assert "host fake-1: DOWN" in status
    doctor = cloud.run("doctor", status=1).stdout
    assert len(re.findall(r"✗ host fake-\d: refuses this store: .*older copy", doctor)) == HOSTS
    assert "accept-store" in doctor
    assert cloud.boots() == boots

    # The newest store is brought back: all is well, and there is nothing to accept.
    down(cloud)
    store.write_bytes(newest)
    cloud.up()
    assert cloud.servers() == {"hello": "ACTIVE", "later": "ACTIVE"}
    assert "nothing to do" in cloud.run("accept-store").stdout

    # The older one is all there is: what it does not know is left alone, and shown.
    down(cloud)
    store.write_bytes(copy.read_bytes())
    cloud.up(status=1)
    assert "fake-1, fake-2: obeys the store" in cloud.run("accept-store").stdout
    cloud.up()
    assert cloud.servers() == {"hello": "ACTIVE"}
    assert cloud.boots() == boots
    assert f"holds guest {later}, which this cloud does not know" in cloud.run("doctor", status=1).stdout


def test_an_empty_store_is_refused_until_it_is_accepted(cloud: Cloud) -> None:
    boots = cloud.boots()
    down(cloud)
    (cloud.state / STORE).unlink()
    said = cloud.up(status=1).stderr
    assert len(re.findall(r"host fake-\d: this host obeys the store \S+, and this is the store", said)) == HOSTS
    assert len(re.findall(r"✗ host fake-\d: refuses this store", cloud.run("doctor", status=1).stdout)) == HOSTS
    cloud.run("accept-store")
    cloud.up("--no-demo")
    assert cloud.servers() == {}
    assert cloud.boots() == boots
    unknown = re.findall(r"holds guest (\S+), which", cloud.run("doctor", status=1).stdout)
    assert sorted(unknown) == sorted(boots)


def test_servers_can_be_kept_while_the_rest_is_stopped(cloud: Cloud) -> None:
    cloud.run("accept-store")
    boots = cloud.boots()
    cloud.run("down", "--purge", "--keep-servers", status=64)
    cloud.run("down", "--keep-servers")
    assert "is down" in cloud.run("status", status=3).stdout
    cloud.up("--no-demo", "--set", "log_level=DEBUG")
    assert cloud.boots() == boots


def test_who_keeps_services_ends_a_cloud_in_the_foreground_by_sigterm(cloud: Cloud) -> None:
    cloud.run("down", "--keep-servers")
    argv = [*cloud.python, "-m", "pileus", "up", "--no-demo", "--state", str(cloud.state)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("Ctrl-C stops" in line for line in process.stdout)
        process.terminate()
        assert "are stopped" in process.stdout.read()
    assert process.returncode == 0
    assert "is down" in cloud.run("status", status=3).stdout


# -- the last day --------------------------------------------------------------------------------------------------


def test_purge_leaves_what_was_prepared(cloud: Cloud) -> None:
    for name in ("images", "cache"):
        (cloud.state / name).mkdir(exist_ok=True)
        (cloud.state / name / "prepared").touch()
    assert "is gone, but for what `prepare` made" in cloud.run("down", "--purge").stderr
    assert sorted(one.name for one in cloud.state.iterdir()) == ["cache", "images"]
    assert "is down" in cloud.run("status", status=3).stdout
