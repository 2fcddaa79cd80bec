"""`pileus install` and the units that it puts in place.

Control plane and agent are services of their own, each confined as far as it can bear.  Neither holds what a guest
needs: QEMU and dnsmasq live in control groups and sessions of their own, and a service that stops ends its own main
process alone, so that restarts and upgrades of both drop no guest.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pileus.cli import systemd
from pileus.cli.main import CommandFailure
from pileus.cli.place import add_state, exposed, settings
from pileus.cli.supervise import grace

if TYPE_CHECKING:
    from pileus.cli.main import Roles, Subparsers
    from pileus.core.config import Config

EX_UNAVAILABLE = 69
"""Exit status where there is no systemd (sysexits.h)."""

WANTS = "multi-user.target.wants"

CONTROL = """\
[Unit]
Description=Pileus control plane
Wants=network-online.target
After=network-online.target postgresql.service
PartOf=pileus.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command} control --state {state}
ExecReload=/bin/kill -HUP $MAINPID
{environment}Restart=always
RestartSec=1
# Settings that cannot be used, and a store that is newer: another start would find the same.
RestartPreventExitStatus=65 78
KillMode=mixed
# An upgrade of the store's schema is part of the start.
TimeoutStartSec=30min
TimeoutStopSec={grace}
WatchdogSec=60
LimitNOFILE=65536
UMask=0077

# It is root until it has opened its port and given its files to the user {uid}, whom it is from then on.
CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_NET_BIND_SERVICE CAP_SETGID CAP_SETUID
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={writable}
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
KeyringMode=private
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
# What reads files of tenants is confined by Landlock, which is in no group of systemd before 256.
SystemCallFilter=@system-service landlock_create_ruleset landlock_add_rule landlock_restrict_self
SystemCallErrorNumber=EPERM

[Install]
WantedBy=pileus.target
"""

AGENT = """\
[Unit]
Description=Pileus agent: guests and networks of this host
Wants=network.target
After=network.target nftables.service pileus-control.service
PartOf=pileus.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command} agent --state {state}
{environment}Restart=always
RestartSec=1
RestartPreventExitStatus=78
# Guests, and what serves their networks, are no concern of the service: they go on, and it finds them again.
KillMode=process
Delegate=yes
OOMPolicy=continue
TasksMax=infinity
TimeoutStartSec=5min
TimeoutStopSec=30
WatchdogSec=60
LimitNOFILE=1048576

# It makes namespaces, mounts them and opens devices where all of the host sees them: nothing here may give it mounts
# or devices of its own (ProtectSystem, Private…), and what it is kept from its guests' processes are kept from, too.
CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_IPC_LOCK CAP_KILL \\
    CAP_MKNOD CAP_NET_ADMIN CAP_NET_BIND_SERVICE CAP_NET_RAW CAP_SETGID CAP_SETPCAP CAP_SETUID CAP_SYS_ADMIN \\
    CAP_SYS_CHROOT CAP_SYS_NICE CAP_SYS_PTRACE CAP_SYS_RESOURCE
NoNewPrivileges=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
KeyringMode=private
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @debug @module @obsolete @raw-io @reboot @swap
SystemCallErrorNumber=EPERM

[Install]
WantedBy=pileus.target
"""

TARGET = """\
[Unit]
Description=Pileus cloud
Wants=pileus-control.service pileus-agent.service

[Install]
WantedBy=multi-user.target
"""

USERS = """\
# Names for the users that parts of the cloud run as, so that nobody else gets their numbers (sysusers.d(5)).
u pileus {uid} "Pileus control plane" {state}
u pileus-metadata {next_uid} "Pileus metadata server" {state}
"""


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "install",
        help="let systemd start the cloud at boot and keep it running",
        description="Puts units of systemd in place for the control plane and the agent, and has them started at boot. "
        "`pileus up`, `down` and `status` work by these units from then on.",
    )
    add_state(parser)
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="write below this directory and tell nobody, as a packager would"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, roles: Roles) -> int:
    """Run the command; exit status."""
    state: Path = arguments.state
    config = settings(state)
    exposed(config)
    if arguments.root is None:
        _check_host(config)
        state.mkdir(mode=0o755, parents=True, exist_ok=True)
    for file in place(files(config), arguments.root or Path("/")):
        print(f"  ✓ {file}")
    if arguments.root is not None:
        return 0
    if subprocess.run(["systemd-sysusers"], check=False, stdin=subprocess.DEVNULL).returncode:
        print("  · systemd-sysusers failed: the users have numbers and no names, which does no harm")
    systemd.systemctl("daemon-reload")
    running = any(text.startswith("active") for text in systemd.states().values())
    print("The cloud starts at boot." + (" The services that run go on as they were; restart them to use new units:"))
    print("  systemctl restart pileus-control pileus-agent" if running else "  pileus up")
    return 0


def _check_host(config: Config) -> None:
    """Refuse where units would be of no use. Raises CommandFailure."""
    if not systemd.booted():
        raise CommandFailure(
            "systemd does not run this machine, so nothing was installed. Let whatever starts services here run, as "
            f"root: `{_command()} up --detach --state {config.state}` at boot; `up` stays in the foreground without "
            "--detach, as runit, s6 and OpenRC's supervise-daemon like it",
            status=EX_UNAVAILABLE,
        )
    if os.getuid() != 0:
        raise CommandFailure("only root may install services: sudo ./pileus install")


def files(config: Config) -> dict[str, str]:
    """What is to be written, by path below the root. Raises CommandFailure for a path that units cannot hold."""
    for path in (config.state, *_writable(config)):
        if re.search(r"[\s%\\\"']", str(path)):
            raise CommandFailure(f"{path}: units take no directory whose name has spaces, quotes, % or backslashes")
    values = {
        "command": _command(),
        "environment": _environment(),
        "grace": f"{grace(config) + 20:.0f}",
        "next_uid": config.unprivileged_uid + 1,
        "state": config.state,
        "uid": config.unprivileged_uid,
        "writable": " ".join(map(str, _writable(config))),
    }
    head = f"{systemd.MARK}\n# State: {config.state}\n"
    units = str(systemd.UNITS.relative_to("/"))
    return {
        f"{units}/{systemd.SERVICES['control']}": head + CONTROL.format(**values),
        f"{units}/{systemd.SERVICES['agent']}": head + AGENT.format(**values),
        f"{units}/{systemd.TARGET}": head + TARGET.format(**values),
        "etc/sysusers.d/pileus.conf": head + USERS.format(**values),
    }


def links() -> dict[str, str]:
    """What starts at boot: symbolic links below the root, as `systemctl enable` makes them, and where they lead."""
    units = systemd.UNITS.relative_to("/")
    found = {f"{units}/{WANTS}/{systemd.TARGET}": systemd.TARGET}
    found |= {f"{units}/{systemd.TARGET}.wants/{name}": name for name in systemd.SERVICES.values()}
    return {link: str(systemd.UNITS / name) for link, name in found.items()}


def place(wanted: dict[str, str], root: Path) -> list[Path]:
    """Write the files and make the links; what was written.

    Raises CommandFailure before a file that is not ours, or is of a cloud in another directory.
    """
    for name, text in wanted.items():
        file = root / name
        if not file.exists():
            continue
        if not ours(file):
            raise CommandFailure(f"{file} was written by somebody else, and nothing was changed: move it away")
        other, state = (one.splitlines()[1] for one in (file.read_text(errors="replace"), text))
        if other != state:
            _, _, directory = other.partition(": ")
            raise CommandFailure(
                f"{file} is of the cloud in {directory}, and nothing was changed: a machine starts one cloud at boot; "
                f"`pileus uninstall --state {directory}` first"
            )
    written = []
    for name, text in wanted.items():
        file = root / name
        file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.new")
        partial.write_text(text)
        partial.chmod(0o644)
        partial.replace(file)
        written.append(file)
    for name, target in links().items():
        link = root / name
        link.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        written.append(link)
    return written


def ours(file: Path) -> bool:
    """Whether a file was written by this command."""
    return file.read_text(errors="replace").startswith(systemd.MARK)


def _command() -> str:
    """How this very installation is started."""
    return f"{sys.executable} -P -m pileus"


def _environment() -> str:
    """What the services need in their environment: where the package is, unless Python finds it by itself."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    probe = [sys.executable, "-P", "-c", "import importlib.util as u; print((u.find_spec('pileus') or u).origin)"]
    found = subprocess.run(probe, check=False, capture_output=True, text=True, env=environment, cwd="/")
    spec = importlib.util.find_spec("pileus")
    here = spec.origin if spec is not None else None
    if here is None or found.stdout.strip() == here:
        return ""
    return f"Environment=PYTHONPATH={Path(here).parents[1]}\n"


def _writable(config: Config) -> list[Path]:
    """Where the control plane writes."""
    found = [config.state]
    for store in config.image_stores:
        directory = Path(store.partition("=")[2])
        if directory.is_absolute() and not directory.is_relative_to(config.state):
            found.append(directory)
    scheme, _, database = (config.database or "").partition(":///")
    if scheme.startswith("sqlite") and database.startswith("/"):
        parent = Path(database).parent
        found += [parent] if not parent.is_relative_to(config.state) else []
    return found
