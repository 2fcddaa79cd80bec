"""`pileus identity rotate-keys`, beside a control plane that runs."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from pileus import migration
from pileus.cli.main import CommandFailure, build_parser
from tests.api.whole import login, whole_cloud
from tests.cli.role import NO_ROLES

AS_ROOT = """
import dataclasses, msgspec, sys
from pileus.app import roles
from pileus.cli.main import main

def rotate(config, forget):
    roles.rotate_keys(msgspec.structs.replace(config, unprivileged_uid=0), forget)

sys.exit(main(sys.argv[1:], lambda: dataclasses.replace(roles, rotate_keys=rotate)))
"""
"""The command, by a user for whom a test's directories are not closed."""


def rotated(state: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", AS_ROOT, "identity", "--state", str(state), "rotate-keys", *more]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def rotate(state: Path, *more: str) -> str:
    done = rotated(state, *more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def at_revision(state: Path, revision: str) -> None:
    """Let a store say which revision of the schema it has."""
    with closing(sqlite3.connect(state / "control" / "pileus.db")) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS alembic_version (version_num)")
        connection.execute("DELETE FROM alembic_version")
        connection.execute("INSERT INTO alembic_version VALUES (?)", (revision,))


def test_keys_are_rotated_beside_a_control_plane(tmp_path: Path) -> None:
    with whole_cloud(tmp_path) as cloud:
        at_revision(tmp_path, migration.HEAD)
        for _ in range(3):
            assert rotate(tmp_path) == "new tokens are sealed with the next key\n"
        assert cloud.admin.request("GET", "/identity/v3/auth/projects").status == 200
        fresh = cloud.served.client(login(cloud.served.client()))
        assert rotate(tmp_path, "--forget").endswith("; all others are void\n")
        assert cloud.admin.request("GET", "/identity/v3/auth/projects").status == 401
        assert fresh.request("GET", "/identity/v3/auth/projects").status == 401
        again = cloud.served.client(login(cloud.served.client()))
        assert again.request("GET", "/identity/v3/auth/projects").status == 200


def test_a_store_that_a_newer_version_wrote_is_not_touched(tmp_path: Path) -> None:
    with whole_cloud(tmp_path) as cloud:
        at_revision(tmp_path, "9999")
        done = rotated(tmp_path, "--forget")
        assert (done.returncode, done.stdout) == (65, "")
        assert "at revision 9999" in done.stderr
        assert "nothing was touched" in done.stderr
        assert cloud.admin.request("GET", "/identity/v3/auth/projects").status == 200


def test_there_are_no_keys_where_no_cloud_was(tmp_path: Path) -> None:
    arguments = build_parser("identity").parse_args(["identity", "--state", str(tmp_path), "rotate-keys"])
    with pytest.raises(CommandFailure, match="no control plane has run"):
        arguments.run(arguments, NO_ROLES)
