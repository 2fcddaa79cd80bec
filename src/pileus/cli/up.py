"""`pileus up`: make a cloud of this machine, or bring it back."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pileus.cli import prepare, systemd
from pileus.cli.client import CLOUD, Api, ApiFailure, connect
from pileus.cli.credential import keep_credentials
from pileus.cli.main import CommandFailure
from pileus.cli.place import EX_CONFIG, add_state, exposed, occupied, settings
from pileus.cli.progress import Progress, Step
from pileus.cli.status import REFUSED
from pileus.cli.supervise import PROCESSES, end, kept, log_file, supervisor, undisturbed

if TYPE_CHECKING:
    from pileus.cli.main import Roles, Subparsers
    from pileus.core.config import Config

READY_TIMEOUT = 60.0
"""Seconds that the processes may take to serve."""

SHARE = 0.02
"""Seconds more for each simulated host."""

ENDS = 3
"""How often processes may end by themselves before they are given up."""


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "up",
        help="make a cloud of this machine, or bring it back",
        description="Starts the cloud, makes demo content on the first day, and says what to try next. Settings that "
        "are given are kept in pileus.toml. Running it again is quick and changes nothing that you changed.",
    )
    add_state(parser)
    parser.add_argument("--detach", action="store_true", help="return when the cloud serves, instead of staying")
    parser.add_argument("--listen", metavar="ADDR:PORT", help="where the API listens (default: 127.0.0.1:5000)")
    parser.add_argument(
        "--public-url", metavar="URL", help="the root that the catalog names (default: http://ADDR:PORT, or https)"
    )
    parser.add_argument("--no-demo", action="store_true", help="make no demo content")
    parser.add_argument("--fake", type=int, metavar="N", help="simulate N hosts: no root, no QEMU, no packets")
    parser.add_argument(
        "--fake-delay", type=float, metavar="SECONDS", help="how long each act of a simulated host takes"
    )
    parser.add_argument("--fake-failures", type=float, metavar="SHARE", help="share of acts that fail, from 0 to 1")
    parser.add_argument(
        "--no-backup", action="store_true", help="upgrade the store's schema without a copy of it before"
    )
    parser.add_argument("--tls", action="store_true", default=None, help="speak TLS, with an authority of its own")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any setting of `pileus config`; may be repeated",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, roles: Roles) -> int:
    """Run the command; exit status."""
    progress, began = Progress(), time.monotonic()
    undisturbed(arguments.state)
    config = _configure(arguments)
    if not config.fake:
        if os.getuid() != 0:
            raise CommandFailure(
                "a cloud with real servers needs root: try `sudo ./pileus up`, or `./pileus up --fake 1`"
            )
        roles.join_host(config.state)
        prepare.prepare(config.state, progress)
    if not kept(config.state) and config.control.exists():
        _upgrade(config, roles, progress, backup=not arguments.no_backup)
    pid = _start(config, progress)
    if not arguments.no_demo:
        _demo(config)
    progress.line(f"  the cloud is up after {time.monotonic() - began:.1f} s")
    for line in _closing(config):
        print(line)
    if arguments.detach:
        return 0
    if not pid:
        print("\nsystemd keeps it running. `systemctl stop pileus.target` stops all but the servers.", flush=True)
        return 0
    print("\nCtrl-C stops the control plane and the agent; servers keep running until `pileus down`.", flush=True)
    return _stay(config, pid)


def _configure(arguments: argparse.Namespace) -> Config:
    from pileus.core.config_origin import keep

    state: Path = arguments.state
    names = ("listen", "public_url", "fake", "fake_delay", "fake_failures", "tls")
    given = {name: getattr(arguments, name) for name in names} | _given(arguments.set)
    config = settings(state, given)
    exposed(config)
    state.mkdir(mode=0o755, parents=True, exist_ok=True)
    _check_passable(state)
    if not kept(state):
        keep(state, given)
    elif settings(state) != config:
        raise CommandFailure(
            "the cloud runs with other settings: `pileus down --keep-servers` first, then `up` with the new ones"
        )
    return config


def _given(words: list[str]) -> dict[str, Any]:
    """What `--set` says. Raises CommandFailure."""
    from pileus.core.config_origin import from_text

    found = {}
    for word in words:
        name, equals, text = word.partition("=")
        try:
            if not equals:
                raise ValueError(f"{word!r} is not of the form NAME=VALUE")
            found[name] = from_text(name, text)
        except ValueError as error:
            raise CommandFailure(f"--set: {error}", status=EX_CONFIG) from None
    return found


def _check_passable(state: Path) -> None:
    """The cloud's processes without privilege must be able to reach what is theirs. Raises CommandFailure."""
    if os.getuid() != 0:
        return
    state.chmod(state.stat().st_mode | 0o011)
    for place in state.parents:
        if not place.stat().st_mode & 0o001:
            raise CommandFailure(
                f"{place} lets only its owner pass, and parts of the cloud run as users of their own: "
                f"choose another place by --state, or `chmod o+x {place}`"
            )


def _upgrade(config: Config, roles: Roles, progress: Progress, *, backup: bool) -> None:
    """Bring the store to this version's schema; a step is shown when there is something to do."""
    said: list[str] = []
    with contextlib.ExitStack() as stack:
        step: Step | None = None

        def say(text: str) -> None:
            nonlocal step
            if step is None:
                step = stack.enter_context(progress.step("schema of the store"))
            said.append(text)
            step.say(text)

        roles.upgrade(config, backup, say)
        if step is not None:
            step.result("; ".join(text for text in said if not text.endswith("%")))


def _start(config: Config, progress: Progress) -> int:
    if kept(config.state):
        keep_credentials(config)
        progress.line("  ✓ the cloud runs already")
        _wait(config, _Watch(config, None))
        return supervisor(config.state) or 0
    if systemd.keeps(config.state):
        return _start_units(config, progress)
    with progress.step("control plane and agent") as step:
        for name in PROCESSES:
            end(config.state, name)  # a supervisor that was killed has left them behind
        _check_ports(config)
        keep_credentials(config)
        watch = _Watch(config, step)
        # A session of its own: a terminal that closes must not take the cloud with it.
        process = subprocess.Popen(
            [sys.executable, "-m", "pileus", "supervise", "--state", str(config.state)],
            stdin=subprocess.DEVNULL,
            stdout=_supervisor_log(config),
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
        )
        try:
            _wait(config, watch)
        except (_Unready, KeyboardInterrupt):
            process.terminate()
            process.wait()
            raise
        step.result(config.root_url)
    return process.pid


def _check_ports(config: Config) -> None:
    """Raise CommandFailure when somebody else has a port that is to be listened on."""
    if reason := occupied(config.address):
        raise CommandFailure(f"cannot listen on {config.listen}: {reason}; choose another by --listen")
    if config.metrics_address and (reason := occupied(config.metrics_address)):
        raise CommandFailure(f"cannot listen on {config.metrics_listen}: {reason}; choose another by metrics_listen")


def _start_units(config: Config, progress: Progress) -> int:
    """Let systemd start what it keeps running; 0, for there is no supervisor of ours."""
    with progress.step("control plane and agent, by systemd") as step:
        _check_ports(config)
        keep_credentials(config)
        systemd.systemctl("start", systemd.TARGET, *systemd.SERVICES.values())
        _wait(config, _Watch(config, step))
        step.result(config.root_url)
    return 0


class _Unready(CommandFailure):
    """The processes do not come to serve."""


class _Watch:
    """What an operator sees while the processes come up, and whether they give up."""

    def __init__(self, config: Config, step: Step | None) -> None:
        self._file = log_file(config.state, "supervisor")
        self._read = self._file.stat().st_size if self._file.exists() else 0
        self.step = step

    def say(self, text: str) -> None:
        """Show what is waited for."""
        if self.step is not None:
            self.step.say(text)

    @property
    def hopeless(self) -> bool:
        """Whether a process has ended several times since this began."""
        if not self._file.exists():
            return False
        with self._file.open(errors="replace") as log:
            log.seek(self._read)
            return log.read().count("ended with status") >= ENDS


def _supervisor_log(config: Config) -> int:
    file = log_file(config.state, "supervisor")
    file.parent.mkdir(mode=0o755, exist_ok=True)
    return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _wait(config: Config, watch: _Watch) -> None:
    """Wait until the API answers and every host of this machine is heard. Raises CommandFailure."""
    limit = READY_TIMEOUT + SHARE * config.fake
    deadline, pause = time.monotonic() + limit, max(0.05, config.fake / 5000)
    said = "waiting for the API"
    api: Api | None = None
    while time.monotonic() < deadline:
        watch.say(said)
        if _answers(config):
            said = "waiting for the hosts"
            fresh, api = api is None, api or Api(config.state)  # each begins with a login, which costs most
            try:
                fleet = api.get("/fleet/v1/hosts")
            except ApiFailure as failure:
                if failure.code == 401 and fresh:
                    raise
                api = None
                fleet = {"hosts": [], "refusals": []}
            if fleet["refusals"]:
                told = [f"\n  host {one['host']}: {one['reason']}" for one in fleet["refusals"]]
                raise CommandFailure(f"the API serves, but hosts refuse this store:{''.join(told)}\n  {REFUSED}")
            heard = [host for host in fleet["hosts"] if host["free_disk_gib"] is not None]
            if len(heard) >= max(1, config.fake):
                return
        elif watch.hopeless:
            raise _Unready(f"the processes of the cloud end again and again:\n{_tail(config)}")
        time.sleep(pause)
    raise _Unready(f"the cloud is not ready after {limit:.0f} s ({said}):\n{_tail(config)}")


def _answers(config: Config) -> bool:
    connection = None
    try:
        connection = connect(config, 5)
        connection.request("GET", "/identity/v3")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        if connection is not None:
            connection.close()


def _tail(config: Config, lines: int = 8) -> str:
    """The last lines of the logs: what an operator would look at first."""
    if systemd.keeps(config.state):
        return "\n".join(systemd.journal(lines))
    found = []
    for process in ("supervisor", "control", "agent"):
        file = log_file(config.state, process)
        if file.exists():
            found += [f"  {file}:", *(f"    {line}" for line in file.read_text(errors="replace").splitlines()[-lines:])]
    return "\n".join(found)


def _demo(config: Config) -> None:
    # The SDK is large; in a process of its own it is gone when its work is done.
    argv = [sys.executable, "-m", "pileus", "demo", "--state", str(config.state)]
    if subprocess.run(argv, check=False).returncode != 0:
        raise CommandFailure("the demo content could not be made; the cloud itself is up (`--no-demo` leaves it out)")


def _closing(config: Config) -> list[str]:
    state = "" if str(config.state) == "/var/lib/pileus" else f" --state {config.state}"
    lines = ["", "Try next:"]
    address = _hello_address(config)
    key = config.state / "hello.key"
    if address and key.exists():
        known = f"-o StrictHostKeyChecking=accept-new -o UserKnownHostsFile={config.state / 'known_hosts'}"
        lines.append(f"  ssh -i {key} {known} cirros@{address}")
    lines += [
        f"  ./pileus openstack{state} server list",
        f"  ./pileus openstack{state} console log show hello",
        f"  ./pileus status{state}      ./pileus doctor{state}      ./pileus down{state}",
        f"  export OS_CLIENT_CONFIG_FILE={config.state / 'clouds.yaml'} OS_CLOUD={CLOUD}    # for any OpenStack client",
    ]
    return lines


def _hello_address(config: Config) -> str | None:
    try:
        servers = Api(config.state).get("/compute/v2.1/servers/detail?name=hello")["servers"]
    except ApiFailure:
        return None
    for server in servers:
        for addresses in server["addresses"].values():
            for one in addresses:
                if one.get("OS-EXT-IPS:type") == "floating":
                    return str(one["addr"])
    return None


def _stay(config: Config, pid: int) -> int:
    """Stay until the supervisor ends, or Ctrl-C or SIGTERM ends it: who keeps services tells them so to end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while supervisor(config.state) == pid:
            time.sleep(0.5)
    except KeyboardInterrupt:
        os.kill(pid, signal.SIGTERM)
        while supervisor(config.state) == pid:
            time.sleep(0.1)
        print("\nThe control plane and the agent are stopped. `pileus up` goes on where you left.")
        return 0
    raise CommandFailure(f"the supervisor ended:\n{_tail(config)}")
