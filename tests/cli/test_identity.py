"""`pileus identity rotate-keys`, beside a control plane that runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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


def rotate(state: Path, *more: str) -> str:
    command = [sys.executable, "-c", AS_ROOT, "identity", "--state", str(state), "rotate-keys", *more]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_keys_are_rotated_beside_a_control_plane(tmp_path: Path) -> None:
    with whole_cloud(tmp_path) as cloud:
        for _ in range(3):
            assert rotate(tmp_path) == "new tokens are sealed with the next key\n"
        assert cloud.admin.request("GET", "/identity/v3/auth/projects").status == 200
        fresh = cloud.served.client(login(cloud.served.client()))
        assert rotate(tmp_path, "--forget").endswith("; all others are void\n")
        assert cloud.admin.request("GET", "/identity/v3/auth/projects").status == 401
        assert fresh.request("GET", "/identity/v3/auth/projects").status == 401
        again = cloud.served.client(login(cloud.served.client()))
        assert again.request("GET", "/identity/v3/auth/projects").status == 200


def test_there_are_no_keys_where_no_cloud_was(tmp_path: Path) -> None:
    arguments = build_parser("identity").parse_args(["identity", "--state", str(tmp_path), "rotate-keys"])
    with pytest.raises(CommandFailure, match="no control plane has run"):
        arguments.run(arguments, NO_ROLES)
