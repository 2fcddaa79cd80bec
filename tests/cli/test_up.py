"""What keeps a cloud from coming up is said at once, and nothing is left running."""

from __future__ import annotations

import re
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pileus.cli.main import CommandFailure
from pileus.cli.place import settings
from pileus.cli.supervise import runs
from tests.cli.simulated import Cloud


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    cloud = Cloud()
    yield cloud
    cloud.remove()


def refused(cloud: Cloud, *words: str, seconds: float = 10, status: int = 1) -> str:
    began = time.monotonic()
    said = cloud.up("--fake", "1", *words, status=status).stderr
    assert time.monotonic() - began < seconds
    assert not runs(cloud.state)
    return said


def test_a_port_that_is_used_is_named(cloud: Cloud) -> None:
    with socket.create_server(("127.0.0.1", cloud.port)):
        said = refused(cloud, "--listen", cloud.listen)
        assert f"cannot listen on {cloud.listen}: Address already in use" in said
        assert "--listen" in said
        doctor = cloud.run("doctor", status=1).stdout
        assert f"✗ port: {cloud.listen}: Address already in use" in doctor


def test_an_address_of_another_machine_is_named(cloud: Cloud) -> None:
    assert "cannot listen on 192.0.2.1:5000: " in refused(cloud, "--listen", "192.0.2.1:5000", "--tls")


@pytest.mark.parametrize("listen", ["5000", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "[::1]:x"])
def test_an_address_that_is_none_is_refused(tmp_path: Path, listen: str) -> None:
    with pytest.raises(CommandFailure, match=re.escape(f"listen is {listen!r}, not of the form ADDRESS:PORT")):
        settings(tmp_path, {"listen": listen})


@pytest.mark.parametrize("url", ["cloud", "ftp://cloud", "http://", "https://cloud:x", "https://cloud?a=b"])
def test_a_public_url_that_is_none_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(CommandFailure, match=re.escape(f"public_url is {url!r}, not the root of a cloud")):
        settings(tmp_path, {"public_url": url})


def test_up_refuses_settings_that_are_none(cloud: Cloud) -> None:
    assert "listen is 'x', not of the form" in refused(cloud, "--listen", "x", status=78)
    assert "public_url is 'x', not the root" in refused(cloud, "--public-url", "x", status=78)
    assert "did you mean `listen`?" in refused(cloud, "--set", "lissten=x", status=78)
    assert "without TLS" in refused(cloud, "--set", "listen=0.0.0.0:5000", status=78)
    assert not cloud.state.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [("listen = ", "not TOML"), ("speed = 3", "no setting `speed`"), ('fake = "many"', "fake: Expected `int`")],
)
def test_settings_that_cannot_be_read_are_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "pileus.toml").write_text(text)
    with pytest.raises(CommandFailure) as failed:
        settings(tmp_path)
    assert f"the settings cannot be used:\n  {tmp_path / 'pileus.toml'}:1: " in str(failed.value)
    assert failed.value.status == 78
    assert said in str(failed.value)


@pytest.mark.parametrize("command", ["up", "doctor", "down", "control", "agent", "demo"])
def test_commands_name_settings_that_cannot_be_read(cloud: Cloud, command: str) -> None:
    cloud.state.mkdir()
    (cloud.state / "pileus.toml").write_text("listen =")
    assert "the settings cannot be used" in cloud.run(command, status=78).stderr


@pytest.mark.slow
def test_processes_that_end_again_and_again_are_given_up(cloud: Cloud) -> None:
    cloud.state.mkdir()
    (cloud.state / "pileus.toml").write_text('database = "sqlite:////nowhere/at/all.db"')
    said = refused(cloud, "--listen", cloud.listen, seconds=30)
    assert "end again and again" in said
    assert "unable to open database file" in said


@pytest.mark.slow
def test_a_store_of_another_version_is_upgraded_with_a_copy_or_refused(cloud: Cloud) -> None:
    cloud.up("--fake", "1", "--no-demo", "--listen", cloud.listen)
    cloud.run("down")
    store = cloud.state / "control" / "pileus.db"

    def pretend(revision: str) -> str:
        with closing(sqlite3.connect(store)) as connection, connection:
            (old,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            connection.execute("UPDATE alembic_version SET version_num = ?", [revision])
        return str(old)

    head = pretend("9999")
    for words in (("up", "--detach"), ("control",)):
        said = cloud.run(*words, status=65).stderr
        assert f"at revision 9999 of its schema, and this Pileus knows {head}: nothing was touched" in said
    assert not runs(cloud.state)
    # What the last step makes is there already, so that it fails.
    older = f"{int(head) - 1:04d}"
    pretend(older)
    said = cloud.up(status=1).stderr
    assert "✗ schema of the store" in said
    assert f"is as it was, at revision {older}; a copy of it is {cloud.state / 'control' / 'schema-backups'}" in said
    assert not runs(cloud.state)
    assert pretend(head) == older
    cloud.up("--no-demo")


def test_commands_without_a_cloud_say_so(cloud: Cloud) -> None:
    assert f"the cloud in {cloud.state} is down" in cloud.run("status", status=3).stdout
    assert "there is no cloud" in cloud.run("openstack", "server", "list", status=1).stderr
    assert "there is no cloud" in cloud.run("explain", "server", "hello", status=1).stderr
    assert "there is no cloud" in cloud.run("down").stderr
    assert "· cloud: none yet" in cloud.run("doctor").stdout
