"""The administrator's credentials of a cloud, as clients read them."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from pileus.cli.client import CLOUD
from pileus.cli.supervise import kept
from pileus.core import secret_file

if TYPE_CHECKING:
    from pileus.core.config import Config


def keep_credentials(config: Config) -> None:
    """Make the administrator's password on the first day, and write the files that clients read."""
    import yaml

    secret = config.state / "admin-password"
    if not secret.exists():
        secret_file.write(secret, f"{secrets.token_urlsafe(18)}\n".encode())
    if not kept(config.state):
        # Taken where the administrator has none, as in a store that is empty: a password is never replaced.
        config.control.mkdir(mode=0o700, exist_ok=True)
        secret_file.write(config.control / "bootstrap-password", secret.read_bytes())
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
    secret_file.write(config.state / "clouds.yaml", yaml.safe_dump({"clouds": {CLOUD: entry}}).encode())
    names = {f"OS_{name.upper()}": value for name, value in auth.items()}
    names |= {"OS_REGION_NAME": config.region, "OS_IDENTITY_API_VERSION": "3", "OS_INTERFACE": "public"}
    if config.authority is not None:
        names["OS_CACERT"] = str(config.authority)
    lines = [f"export {name}='{value}'\n" for name, value in names.items()]
    secret_file.write(config.state / "openrc", "".join(lines).encode())
