"""The administrator's credentials of a cloud, as clients read them."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from pileus.cli.client import CLOUD
from pileus.cli.supervise import kept

if TYPE_CHECKING:
    from pileus.core.config import Config


def keep_credentials(config: Config) -> None:
    """Make the administrator's password on the first day, and write the files that clients read."""
    import yaml

    secret = config.state / "admin-password"
    if not secret.exists():
        _write_secret(secret, secrets.token_urlsafe(18) + "\n")
    if not kept(config.state):
        # Taken where the administrator has none, as in a store that is empty: a password is never replaced.
        config.control.mkdir(mode=0o700, exist_ok=True)
        _write_secret(config.control / "bootstrap-password", secret.read_text())
    password = secret.read_text().strip()
    auth = {
        "auth_url": f"{config.root_url}/identity/v3",
        "username": "admin",
        "password": password,
        "project_name": "admin",
        "user_domain_name": "Default",
        "project_domain_name": "Default",
    }
    entry = {"auth": auth, "region_name": config.region, "identity_api_version": 3, "interface": "public"}
    if config.authority is not None:
        entry["cacert"] = str(config.authority)
    _write_secret(config.state / "clouds.yaml", yaml.safe_dump({"clouds": {CLOUD: entry}}))
    names = {f"OS_{name.upper()}": value for name, value in auth.items()}
    names |= {"OS_REGION_NAME": config.region, "OS_IDENTITY_API_VERSION": "3", "OS_INTERFACE": "public"}
    if config.authority is not None:
        names["OS_CACERT"] = str(config.authority)
    lines = [f"export {name}='{value}'\n" for name, value in names.items()]
    _write_secret(config.state / "openrc", "".join(lines))


def _write_secret(file: Path, text: str) -> None:
    partial = file.with_name(file.name + ".new")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)
    # The store remembers what was made of a password: the power may not take the only copy of it.
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
