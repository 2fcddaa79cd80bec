"""The settings of a cloud, each declared once: name, type, range, default and meaning.

Where their values come from is `pileus.core.config_origin`; docs/configuration.md and `pileus config` are made of this.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

STATE = Path("/var/lib/pileus")
"""The state directory of a cloud that root runs."""

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

SECRETS = frozenset({"database"})
"""Settings that may hold a password; it is not shown."""

SECTIONS = {
    "listen": "The API",
    "tls": "TLS",
    "database": "The store",
    "log_level": "Log",
    "host": "Hosts",
    "fake": "Simulated hosts",
    "token_hours": "Identity",
    "image_stores": "Image",
    "quota_source": "Quotas and placement",
    "console_token_seconds": "Consoles",
}
"""Parts of the documentation: the first setting of each."""


class ConfigError(ValueError):
    """The settings cannot be used. The message names each with where it was made, and says what to do."""


class Config(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """All settings of one cloud; docs/configuration.md explains each."""

    state: Path
    """The directory of all that the cloud keeps: set by `--state` or `PILEUS_STATE`, never in a file."""
    listen: str = "127.0.0.1:5000"
    """Where the API listens, ADDRESS:PORT. Off the loopback only over TLS, or with `allow_plain_http`."""
    public_url: str | None = None
    """The root that the catalog and links name, e.g. `https://cloud.example.org`; made from `listen` when not set."""
    region: str = "RegionOne"
    """Name of the region in the catalog."""
    drain_seconds: Annotated[float, Meta(ge=0, le=3600)] = 10.0
    """Seconds that a control plane which is told to end leaves to the requests that it has begun."""
    drain_transfer_seconds: Annotated[float, Meta(ge=0, le=86400)] = 60.0
    """Seconds that it leaves to those of them that move image data."""
    metrics_listen: str = ""
    """ADDRESS:PORT where `/metrics` is given to everybody who reaches it, for Prometheus; where the API listens it is
    for administrators alone. Empty for no such port."""
    tls: bool = False
    """Whether the API speaks TLS with a certificate of the cloud's own authority, renewed by itself. Clients trust
    `ca.pem` in the state directory."""
    tls_names: list[str] = []
    """More names and addresses for that certificate, besides those of `listen`, of `public_url` and of the machine."""
    tls_certificate: str = ""
    """PEM file of a certificate of your own, followed by those in between; the API speaks TLS with it. Read again when
    it changes."""
    tls_key: str = ""
    """PEM file of its key, readable for the user `unprivileged_uid`, so that it can be read again."""
    tls_authority: str = ""
    """PEM file of the authority that clients need for it; empty when their systems know it."""
    allow_plain_http: bool = False
    """Whether the API may listen off the loopback without TLS, for everybody on the way to read passwords: for a proxy
    in front that speaks TLS."""
    database: str | None = None
    """SQLAlchemy URL of the store, e.g. `postgresql+psycopg://user@/pileus`; SQLite in the state directory when not
    set."""
    schema_backups: Annotated[int, Meta(ge=1)] = 3
    """How many copies of the store are kept of those that are made before its schema is upgraded."""
    log_level: Level = "INFO"
    """Least severe level that is logged: `DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`."""
    log_levels: list[str] = []
    """Other levels for parts of the program, as LOGGER=LEVEL, e.g. `pileus.request=WARNING`."""
    log_mib: Annotated[float, Meta(gt=0)] = 16.0
    """MiB after which a log file in the state directory is put aside; the journal has limits of its own."""
    log_files: Annotated[int, Meta(ge=1, le=100)] = 4
    """How many log files that were put aside are kept of each process."""
    host: str = ""
    """Name of this host in the cloud; the machine's host name when empty."""
    hypervisor: str = "qemu"
    """Hypervisor driver, by entry point."""
    network: str = "bridge"
    """Network driver, by entry point."""
    storage: str = "file"
    """Storage driver, by entry point."""
    unprivileged_uid: Annotated[int, Meta(ge=1, le=2**32 - 4)] = 64730
    """User and group id of the control plane when it is started as root; the next one is the metadata server's, the
    one after it that of what converts images."""
    fake: Count = 0
    """Number of simulated hosts; 0 makes this machine the host."""
    fake_delay: Annotated[float, Meta(ge=0)] = 0.0
    """Seconds that each act takes on a simulated host."""
    fake_failures: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """Share of acts, from 0 to 1, that fail on a simulated host."""
    fake_seed: int = 0
    """Seed of those failures."""
    token_hours: Positive = 12.0
    """How long a token is good, in hours."""
    allow_rescope_scoped_token: bool = True
    """Whether a token that has a scope can be exchanged for one with another."""
    allow_expired_window: Count = 48 * 3600
    """Seconds after its end in which a token can be validated with `allow_expired`."""
    max_active_keys: Annotated[int, Meta(ge=1)] = 3
    """How many keys of tokens a rotation leaves; more while tokens that they sealed may still be good."""
    login_failures: Count = 10
    """Failed logins of one user from one address after which each further one has to wait, longer each time; 0 means
    never."""
    lockout_failure_attempts: Count = 8
    """Failed logins after which a user is locked out, from wherever; 0 means never. The first user `admin` is exempt by
    its option `ignore_lockout_failure_attempts`, so that nobody can lock out who runs the cloud."""
    lockout_duration: Count = 60
    """Seconds for which a user is locked out; 0 means until an administrator enables the user again."""
    password_expires_days: Count = 0
    """Days after which a password that is set from now on expires; 0 means never."""
    unique_last_password_count: Count = 0
    """How many passwords of a user, the new one included, must differ when the user changes it."""
    minimum_password_age: Count = 0
    """Days that a password which its user has set must be used before the user may change it again."""
    password_regex: str = ""
    """Regular expression that a password must match from its start; empty allows any."""
    password_regex_description: str = ""
    """What that expression asks for, in words for users."""
    change_password_upon_first_use: bool = False
    """Whether a password that an administrator has set must be changed by its user before it is of use."""
    disable_user_account_days_inactive: Count = 0
    """Days without a login after which a user is disabled; 0 means never."""
    image_stores: list[str] = msgspec.field(default_factory=lambda: ["file=images", "reserve=reserve"])
    """Stores of image data as NAME=DIRECTORY, the default one first; a relative directory is below `control` in the
    state directory."""
    image_store_weights: list[str] = []
    """Stores by how gladly data is read from them, as NAME=NUMBER; 0 for the others."""
    image_web_store: str = "web"
    """Name of the store of images whose data stays on the web; empty means that nothing is read from the web, and
    `web-download` is off."""
    image_locations: bool = True
    """Whether images show where their data is, and clients may add places on the web."""
    image_conversion: Literal["", "raw", "qcow2"] = ""
    """`raw` or `qcow2`: disks are converted to it when they are imported; empty leaves them as they came."""
    image_cache_mib: Count = 10240
    """MiB of image data that are kept close by; 0 means no cache."""
    image_task_hours: Positive = 48.0
    """How long a finished task of Image is kept, in hours."""
    import_allowed_schemes: list[str] = msgspec.field(default_factory=lambda: ["http", "https"])
    """Schemes of URLs that image data may be fetched from; empty means all but the disallowed."""
    import_disallowed_schemes: list[str] = []
    """Schemes that it may not be fetched from, where none are allowed by name."""
    import_allowed_hosts: list[str] = []
    """Hosts that image data may be fetched from; empty means all but the disallowed."""
    import_disallowed_hosts: list[str] = []
    """Hosts that it may not be fetched from, where none are allowed by name."""
    import_allowed_ports: list[Port] = msgspec.field(default_factory=lambda: [80, 443])
    """Ports that image data may be fetched from; empty means all but the disallowed."""
    import_disallowed_ports: list[Port] = []
    """Ports that it may not be fetched from, where none are allowed by name."""
    import_networks: list[str] = []
    """Networks that image data may be fetched from although they are not public, e.g. `["10.1.0.0/16"]`."""
    quota_source: Literal["local", "unified"] = "local"
    """Where limits of projects are kept: by each service for itself (`local`), or by Identity for all (`unified`), see
    docs/limits.md."""
    limit_model: Literal["flat", "strict_two_level"] = "flat"
    """How Identity's limits of projects relate to those of their domains: `flat` or `strict_two_level`."""
    cpu_allocation_ratio: Positive = 4.0
    """How many virtual CPUs a host offers for each of its own."""
    ram_allocation_ratio: Positive = 1.0
    """How much memory a host offers for each byte of its own."""
    disk_allocation_ratio: Positive = 1.0
    """How much disk a host offers for each byte of its own."""
    reserved_memory_mib: Count = 512
    """Memory in MiB that a host keeps for itself."""
    reclaim_instance_interval: int = 0
    """Seconds for which a deleted server can be restored; 0: not at all."""
    shelved_offload_time: int = 0
    """Seconds after which a shelved server leaves its host; 0: at once; -1: never by itself."""
    resize_confirm_window: int = 0
    """Seconds after which a resize is confirmed by itself; 0: never."""
    randomize_allocation_candidates: bool = False
    """Whether Placement gives candidates in an order by chance, so that those who ask at once do not all take the
    first."""
    console_token_seconds: Annotated[int, Meta(ge=1)] = 600
    """Seconds for which the token of a remote console is good."""
    console_session_timeout: bool = True
    """Whether an open console is closed when its token expires; otherwise a token has only to be good when a console is
    opened."""
    console_allowed_origins: list[str] = []
    """Names of hosts, besides the API's own, whose pages may open consoles, e.g. that of a dashboard."""

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
        return (self.public_url or f"{self.scheme}://{self.listen}").rstrip("/")

    @property
    def scheme(self) -> str:
        """What the API speaks where it listens: `https` or `http`."""
        return "https" if self.tls or self.tls_certificate else "http"

    @property
    def tls_directory(self) -> Path:
        """Where the control plane keeps the cloud's own authority and its certificate."""
        return self.control / "tls"

    @property
    def authority(self) -> Path | None:
        """The PEM file that clients need to trust the API; None when their systems know whom to trust."""
        if self.tls_certificate:
            return Path(self.tls_authority) if self.tls_authority else None
        return self.state / "ca.pem" if self.tls else None

    @property
    def address(self) -> tuple[str, int]:
        """Address and port of `listen`. Raises ConfigError."""
        return _address("listen", self.listen, 5000)

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """Address and port of `metrics_listen`; None for none. Raises ConfigError."""
        return _address("metrics_listen", self.metrics_listen, 9105) if self.metrics_listen else None

    @property
    def host_name(self) -> str:
        """Name of this host in the cloud."""
        return self.host or socket.gethostname()


def _address(name: str, text: str, example: int) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"{name} is {text!r}, not of the form ADDRESS:PORT, e.g. 127.0.0.1:{example}")
    return host.strip("[]"), int(port)


def contradictions(config: Config) -> Iterator[tuple[str, str]]:
    """What settings do not say each for itself: the name of one, and what is wrong."""
    for name in ("listen", "metrics_listen"):
        try:
            text = getattr(config, name)
            if text or name == "listen":
                _address(name, text, 5000)
        except ConfigError as error:
            yield name, str(error)
    if config.public_url is not None and not _is_root(config.public_url):
        yield (
            "public_url",
            f"public_url is {config.public_url!r}, not the root of a cloud, e.g. https://cloud.example.org",
        )
    if bool(config.tls_certificate) != bool(config.tls_key):
        lacking = "tls_key" if config.tls_certificate else "tls_certificate"
        yield lacking, f"{lacking} is not set: a certificate and its key belong together"
    if config.tls and config.tls_certificate:
        yield "tls", "tls asks for a certificate of the cloud's own, and tls_certificate names another: choose one"
    for name in ("tls_certificate", "tls_key", "tls_authority"):
        if (path := getattr(config, name)) and not Path(path).is_absolute():
            yield name, f"{name} is {path!r}, not a path from the root"
    for one in config.log_levels:
        logger, equals, level = one.partition("=")
        if not logger or not equals or level not in LEVELS:
            yield "log_levels", f"log_levels has {one!r}, not of the form LOGGER=LEVEL; levels are {', '.join(LEVELS)}"


def check_exposure(config: Config) -> None:
    """Refuse to let passwords and tokens travel in the clear. Raises ConfigError."""
    host = config.address[0]
    if config.scheme == "http" and not config.allow_plain_http and not is_loopback(host):
        raise ConfigError(
            f"listen is {config.listen}, which others can reach, and without TLS whoever is on the way reads passwords "
            "and tokens. Give `--tls` (tls = true), which makes a certificate; or set tls_certificate and tls_key; or, "
            "where a proxy in front speaks TLS and nobody else reaches this address, set allow_plain_http = true"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_root(url: str) -> bool:
    try:
        found = urlsplit(url)
        found.port  # noqa: B018 - the check of its form
    except ValueError:
        return False
    return bool(found.scheme in ("http", "https") and found.hostname and not (found.query or found.fragment))
