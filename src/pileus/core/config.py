"""Settings: from `pileus.toml` in the state directory, then from the command line."""

from __future__ import annotations

import socket
import tomllib
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

STATE = Path("/var/lib/pileus")
"""The state directory of a cloud that root runs."""


class ConfigError(ValueError):
    """The settings cannot be read. The message names the file and the setting."""


class Config(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """All settings of one cloud; docs/configuration.md explains each."""

    state: Path
    """The directory that holds everything the cloud keeps."""
    listen: str = "127.0.0.1:5000"
    """ADDRESS:PORT of the public API."""
    public_url: str | None = None
    """The root that the catalog and links name, e.g. `https://cloud.example.org`; None: `http://` and `listen`."""
    database: str | None = None
    """SQLAlchemy URL of the store; None: SQLite in the state directory."""
    region: str = "RegionOne"
    """Name of the region in the catalog."""
    host: str = ""
    """Name of this host; empty: the machine's host name."""
    hypervisor: str = "qemu"
    """Hypervisor driver, by entry point."""
    network: str = "bridge"
    """Network driver, by entry point."""
    storage: str = "file"
    """Storage driver, by entry point."""
    fake: int = 0
    """Number of simulated hosts; 0: this machine is the host."""
    fake_delay: float = 0.0
    """Seconds that each act takes on a simulated host."""
    fake_failures: float = 0.0
    """Share of acts, from 0 to 1, that fail on a simulated host."""
    fake_seed: int = 0
    """Seed of the simulated hosts' failures."""
    unprivileged_uid: int = 64730
    """User and group id under which the control plane runs when it is started as root."""
    log_level: str = "INFO"
    """Least severe level that is logged."""
    token_hours: float = 12.0
    """How long a token is good, in hours."""
    allow_rescope_scoped_token: bool = True
    """Whether a token that has a scope can be exchanged for one with another."""
    allow_expired_window: int = 48 * 3600
    """Seconds after its end in which a token can be validated by those who ask for it."""
    max_active_keys: int = 3
    """How many keys of tokens a rotation leaves, the primary and the staged one included."""
    login_failures: int = 10
    """Failed logins of one user from one address after which each further one has to wait; 0: never."""
    lockout_failure_attempts: int = 8
    """Failed logins after which a user is locked out, from wherever; 0: never."""
    lockout_duration: int = 60
    """Seconds for which a user is locked out; 0: until an administrator enables the user again."""
    password_expires_days: int = 0
    """Days after which a password expires; 0: never. Holds for passwords that are set from then on."""
    unique_last_password_count: int = 0
    """How many passwords of a user, the new one included, must differ when the user changes it; 0: none."""
    minimum_password_age: int = 0
    """Days that a password which its user has set must be used before the user may change it again."""
    password_regex: str = ""
    """Regular expression that a password must match from its start; empty: any."""
    password_regex_description: str = ""
    """What that expression asks for, in words for users."""
    change_password_upon_first_use: bool = False
    """Whether a password that an administrator has set must be changed by its user before it is of use."""
    disable_user_account_days_inactive: int = 0
    """Days without a login after which a user is disabled; 0: never."""
    image_stores: list[str] = msgspec.field(default_factory=lambda: ["file=images", "reserve=reserve"])
    """Stores of image data as NAME=DIRECTORY, the default one first; relative to what the control plane owns."""
    image_store_weights: list[str] = []
    """Stores by how gladly data is read from them, as NAME=NUMBER; 0 for the others."""
    image_web_store: str = "web"
    """Name of the store of images whose data stays on the web; empty: nothing is read from the web."""
    image_locations: bool = True
    """Whether images show where their data is, and clients may add places on the web."""
    image_conversion: Literal["", "raw", "qcow2"] = ""
    """Format that disks are converted to when they are imported; empty: they stay as they came."""
    image_cache_mib: int = 10240
    """MiB of image data from far away that are kept close by; 0: no cache."""
    image_task_hours: float = 48.0
    """How long a finished task of Image is kept, in hours."""
    import_allowed_schemes: list[str] = msgspec.field(default_factory=lambda: ["http", "https"])
    """Schemes of URLs that image data may be fetched from; empty: all but the disallowed."""
    import_disallowed_schemes: list[str] = []
    """Schemes that it may not be fetched from, where none are allowed by name."""
    import_allowed_hosts: list[str] = []
    """Hosts that image data may be fetched from; empty: all but the disallowed."""
    import_disallowed_hosts: list[str] = []
    """Hosts that it may not be fetched from, where none are allowed by name."""
    import_allowed_ports: list[int] = msgspec.field(default_factory=lambda: [80, 443])
    """Ports that image data may be fetched from; empty: all but the disallowed."""
    import_disallowed_ports: list[int] = []
    """Ports that it may not be fetched from, where none are allowed by name."""
    import_networks: list[str] = []
    """Networks that image data may be fetched from although they are not public, e.g. `10.1.0.0/16`."""
    quota_source: Literal["local", "unified"] = "local"
    """Where limits of projects are kept: by each service for itself (local), or by Identity for all (unified)."""
    limit_model: Literal["flat", "strict_two_level"] = "flat"
    """How Identity's limits of projects relate to those of their domains."""
    cpu_allocation_ratio: float = 4.0
    """How many virtual CPUs a host offers for each of its own."""
    ram_allocation_ratio: float = 1.0
    """How much memory a host offers for each byte of its own."""
    disk_allocation_ratio: float = 1.0
    """How much disk a host offers for each byte of its own."""
    reserved_memory_mib: int = 512
    """Memory in MiB that a host keeps for itself."""
    randomize_allocation_candidates: bool = False
    """Whether Placement gives candidates in an order by chance, so that not all take the first."""

    @property
    def control(self) -> Path:
        """What the control plane owns: store, keys, images."""
        return self.state / "control"

    @property
    def agent(self) -> Path:
        """What the agent owns: guests, disks, image cache."""
        return self.state / "agent"

    @property
    def link(self) -> Path:
        """The Unix socket between control plane and agent."""
        return self.state / "run" / "link.sock"

    @property
    def policy(self) -> Path:
        """The operator's policy overrides."""
        return self.state / "policy.yaml"

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the store."""
        return self.database or f"sqlite:///{self.control / 'pileus.db'}"

    @property
    def root_url(self) -> str:
        """The root that the catalog names, without a trailing slash."""
        return (self.public_url or f"http://{self.listen}").rstrip("/")

    @property
    def address(self) -> tuple[str, int]:
        """Address and port of `listen`. Raises ConfigError."""
        host, colon, port = self.listen.rpartition(":")
        if not colon or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ConfigError(f"listen is {self.listen!r}, not of the form ADDRESS:PORT, e.g. 127.0.0.1:5000")
        return host.strip("[]"), int(port)

    @property
    def host_name(self) -> str:
        """Name of this host in the cloud."""
        return self.host or socket.gethostname()


def load(state: Path, overrides: dict[str, Any] | None = None) -> Config:
    """The settings of the cloud in a state directory; `overrides` that are None count as not given.

    Raises ConfigError.
    """
    file = state / "pileus.toml"
    try:
        values: dict[str, Any] = tomllib.loads(file.read_text()) if file.exists() else {}
        values |= {name: value for name, value in (overrides or {}).items() if value is not None}
        config = msgspec.convert({**values, "state": str(state)}, Config, dec_hook=_decode)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, OSError) as error:
        raise ConfigError(f"{file}: {error}") from None
    config.address  # noqa: B018 - the check of its form
    _check_root(config.public_url)
    return config


def _check_root(url: str | None) -> None:
    if url is None:
        return
    try:
        found = urlsplit(url)
        fits = found.scheme in ("http", "https") and found.hostname and not (found.query or found.fragment)
        found.port  # noqa: B018 - the check of its form
    except ValueError:
        fits = False
    if not fits:
        raise ConfigError(f"public_url is {url!r}, not the root of a cloud, e.g. https://cloud.example.org")


def save(config: Config) -> None:
    """Write the settings that differ from their defaults, for the processes of the cloud. Mode 0600: may hold a DSN."""
    plain = Config(state=config.state)
    lines = ["# Written by `pileus up`; edit it while the cloud is down.\n"]
    for name in Config.__struct_fields__:
        value = getattr(config, name)
        if name != "state" and value != getattr(plain, name):
            lines.append(f"{name} = {msgspec.json.encode(value).decode()}\n")
    file = config.state / "pileus.toml"
    partial = file.with_suffix(".new")
    partial.touch(0o600)
    partial.write_text("".join(lines))
    partial.replace(file)


def _decode(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(kind)
