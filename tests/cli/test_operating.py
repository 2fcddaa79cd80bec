"""What operators do with a cloud: look into it, save it, bring it back, mend it. The tests build on each other."""

from __future__ import annotations

import http.client
import os
import re
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pileus.cli.supervise import holder
from tests.cli.simulated import Cloud, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    """A cloud with one server."""
    found = Cloud()
    try:
        found.first_up()
        yield found
    finally:
        found.remove()


@pytest.fixture(scope="module")
def file(cloud: Cloud) -> Path:
    """A backup of it."""
    done = cloud.run("backup", "--images")
    assert re.search(r"✓ backup .* MiB", done.stderr)
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def later(cloud: Cloud, file: Path) -> str:
    """A server that is younger than the backup."""
    words = ("server", "create", "later", "--flavor", "m1.nano", "--image", "tiny", "--network", "private", "--wait")
    return cloud.run("openstack", *words, "-f", "value", "-c", "id").stdout.strip()


# -- looking into it -------------------------------------------------------------------------------------------------


def ask(cloud: Cloud, path: str, token: str = "") -> tuple[int, str]:
    """Status and body of a GET."""
    connection = http.client.HTTPConnection("127.0.0.1", cloud.port, timeout=10)
    try:
        connection.request("GET", path, headers={"x-auth-token": token} if token else {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_probes_say_yes_or_no_to_everybody_and_figures_to_administrators(cloud: Cloud) -> None:
    assert ask(cloud, "/healthz") == (200, "ok\n")
    assert ask(cloud, "/readyz") == ask(cloud, "/healthz?ready") == (200, "ready\n")
    assert ask(cloud, "/metrics")[0] == 401
    token = cloud.run("openstack", "token", "issue", "-f", "value", "-c", "id").stdout.strip()
    status, text = ask(cloud, "/metrics", token)
    assert status == 200
    assert 'pileus_servers{state="active"} 1\n' in text
    assert 'pileus_hosts{state="up",disabled="no"} 2\n' in text
    assert 'pileus_link_hosts{state="heard"} 2\n' in text
    assert re.search(r'_count\{service="compute",method="POST",operation="compute[^"]+create",status="2xx"\} 1\n', text)
    assert re.search(r'_count\{service="link",method="POST",operation="fleet[^"]+heartbeat",status="2xx"\} \d+\n', text)
    assert re.search(r'pileus_loop_duration_seconds_count\{loop="compute.scheduler"\} \d+\n', text)
    assert re.search(r"pileus_store_bytes \d{6,}\n", text)
    assert token not in text


def test_a_trace_is_the_whole_story(cloud: Cloud) -> None:
    (server,) = (one["id"] for one in cloud.get("/compute/v2.1/servers")["servers"])
    said = cloud.run("trace", server).stdout
    steps = [
        r"compute +user \w+ of project \w+ asked: create",
        r"store +changed: compute.server",
        r"scheduler +chose fake-\d",
        r"store +changed: .*what host fake-\d is to hold: guest/",
        r"request +POST /compute/v2.1/servers 202",
        r"agent +guest/\S+ is running",
        r"store +changed: fleet.guest",
        r"compute +create \S+ ended: Success",
    ]
    for step in steps:
        assert re.search(step, said), (step, said)
    lines = said.splitlines()
    assert lines == sorted(lines, key=lambda line: line[:23])
    (request,) = set(re.findall(r"asked: create .*\[(req-\S+)\]", said))
    # The request's own story is told by all who had a part in it, and does not repeat its id.
    story = cloud.run("trace", request).stdout
    where = {line.split()[2] for line in story.splitlines()}
    assert {"compute", "store", "scheduler", "request", "agent"} <= where
    assert request not in story
    # What was decided for another request is not of a later one.
    cloud.run("openstack", "server", "set", "--property", "colour=blue", server)
    *_, later = re.findall(r"changed: compute.server .*\[(req-\S+)\]", cloud.run("trace", server).stdout)
    assert later != request
    where = {line.split()[2] for line in cloud.run("trace", later).stdout.splitlines()}
    assert {"store", "request"} <= where
    assert "scheduler" not in where
    (port,) = (one["id"] for one in cloud.get(f"/network/v2.0/ports?device_id={server}")["ports"])
    assert re.search(rf"agent +port/{port} is ready  \[{request}\]", cloud.run("trace", port).stdout)
    assert "nothing is known of req-" in cloud.run("trace", f"req-{server}", status=1).stderr


# -- saving it, and bringing it back ---------------------------------------------------------------------------------


def test_a_backup_holds_what_a_cloud_cannot_be_without(file: Path) -> None:
    with tarfile.open(file) as tar:
        names = tar.getnames()
    assert {"store.db", "keys/master", "settings/admin-password", "settings/pileus.toml"} <= set(names)
    assert names[-1] == "manifest.json"
    assert len([name for name in names if name.startswith("images/file/")]) == 1


def test_a_damaged_backup_stops_nothing(cloud: Cloud, file: Path, later: str) -> None:
    damaged = cloud.base / "damaged.tar"
    damaged.write_bytes(file.read_bytes()[:-20_000])
    pids = [cloud.pid(name) for name in ("supervisor", "control", "agent")]
    assert "not a whole backup" in cloud.run("restore", str(damaged), status=1).stderr
    assert pids == [cloud.pid(name) for name in ("supervisor", "control", "agent")]


def test_a_running_cloud_goes_back_and_no_guest_is_touched(cloud: Cloud, file: Path, later: str) -> None:
    boots, supervisor = cloud.boots(), cloud.pid("supervisor")
    said = cloud.run("restore", str(file)).stdout
    assert "Servers that it knows: 1 ACTIVE." in said
    assert re.search(rf"host fake-\d holds guest {later}, which the backup does not know: it is left alone", said)
    assert cloud.servers() == {"hello": "ACTIVE"}
    assert cloud.boots() == boots
    assert cloud.pid("supervisor") == supervisor


_REPLACE = """
import sys, time
from functools import partial
from pathlib import Path
from pileus.app import child
from pileus.cli.supervise import claim

begin = partial(claim, Path(sys.argv[1]), "replacement")
def work(tell):
    while Path(sys.argv[3]).exists():
        time.sleep(0.05)

child.as_owner(int(sys.argv[2]), work, print, begin)
"""


def test_nothing_is_begun_or_ended_while_a_child_of_a_killed_restore_replaces_the_store(cloud: Cloud) -> None:
    pids = [cloud.pid(name) for name in ("supervisor", "control", "agent")]
    going = cloud.base / "going"
    going.touch()
    argv = [sys.executable, "-c", _REPLACE, str(cloud.state), str(os.getuid() or 64730), str(going)]
    with subprocess.Popen(argv) as parent:
        until(lambda: holder(cloud.state, "replacement") is not None)
        parent.kill()
    for words in (("up", "--detach"), ("down",), ("control",), ("supervise",)):
        assert "a restore is under way" in cloud.run(*words, status=1).stderr
    assert pids == [cloud.pid(name) for name in ("supervisor", "control", "agent")]
    going.unlink()
    until(lambda: holder(cloud.state, "replacement") is None)
    cloud.up()


def test_what_was_replaced_is_kept_and_a_cloud_that_rests_goes_back_too(cloud: Cloud, file: Path, later: str) -> None:
    (aside,) = (cloud.state / "control").glob("replaced-*")
    assert {"pileus.db", "keys"} <= {one.name for one in aside.iterdir()}
    boots = cloud.boots()
    cloud.run("down")
    assert "`pileus up` starts it" in cloud.run("restore", str(file)).stdout
    cloud.up()
    assert cloud.servers() == {"hello": "ACTIVE"}
    assert cloud.boots() == boots
    assert later in boots


# -- what is left over -----------------------------------------------------------------------------------------------


def test_doctor_mends_what_is_left_over_when_it_is_told_to(cloud: Cloud, later: str) -> None:
    left = cloud.state / "control" / "backup-abc"
    left.mkdir()
    os.utime(left, (0, 0))
    with closing(sqlite3.connect(cloud.state / "control" / "pileus.db")) as connection:
        connection.execute("UPDATE core_quota_usage SET used = used + 7 WHERE resource = 'instances' AND used = 1")
        connection.commit()
    said = cloud.run("doctor", status=1).stdout
    assert re.search(
        r"✗ quota/\w+/compute/instances: 8 are counted .*, and there are 1\n +→ count 1: .* --repair", said
    )
    assert "✗ control/backup-abc: a backup that was killed left it" in said
    assert "give --yes" in cloud.run("doctor", "--repair", status=1).stderr
    said = cloud.run("doctor", "--repair", "--yes", status=1).stdout
    assert re.search(r"  quota/\w+/compute/instances counts 1, not 8\n", said)
    assert "  control/backup-abc is deleted\n" in said
    assert "1 to mend" in said  # the guest that nobody knows is nobody's to delete, unless it is named
    assert later in cloud.boots()


def test_what_nobody_knows_goes_when_it_is_named(cloud: Cloud, later: str) -> None:
    (known,) = (one["id"] for one in cloud.get("/compute/v2.1/servers")["servers"])
    assert "nothing of this name" in cloud.run("doctor", "--remove", f"guest/{known}", "--yes", status=1).stderr
    assert "give --yes" in cloud.run("doctor", "--remove", f"guest/{later}", status=1).stderr
    assert later in cloud.boots()
    assert f"guest/{later} is gone" in cloud.run("doctor", "--remove", f"guest/{later}", "--yes").stdout
    assert {one for one, (state, *_) in cloud.boots().items() if state != "absent"} == {known}
    assert "nothing to mend" in cloud.run("doctor").stdout
