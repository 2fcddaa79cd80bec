"""A session at the terminal of a new cloud, from its installation to an explained refusal, as it really went.

    sudo .venv/bin/python -m bench.first_hour > docs/first-hour.md

Plays the lines below on a machine of its own (`bench.machine`), with real guests, and prints them with what they
printed.  What is committed is what is played.  It ends, and prints no page, where a line has another status than it
ought to have.  It takes about five minutes, and needs a network for the one line that needs it: `./pileus prepare`.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.machine import STATE, Machine, export

ROOT = Path(__file__).parent.parent
PATIENCE = 180.0
"""Seconds that may pass before what a line waits for."""


@dataclass(frozen=True)
class Line:
    """One line that is typed, with `{name}` for what a line before it has printed.

    `once` is asked, unseen, until its status is 0 before the line is typed; `keeps` finds names in what it prints.
    """

    command: str
    status: int = 0
    once: str = ""
    keeps: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """Words, and then lines that are typed; before them the machine may be booted anew."""

    words: str
    lines: Sequence[Line] = ()
    title: str = ""
    boots: bool = False


class Failure(Exception):
    """A line did not do what it ought to."""


SSH = (
    "ssh -i /var/lib/pileus/hello.key -o StrictHostKeyChecking=accept-new "
    "-o UserKnownHostsFile=/var/lib/pileus/known_hosts cirros@{address}"
)
ANSWERS = (
    "ssh -i /var/lib/pileus/hello.key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes "
    "-o ConnectTimeout=3 cirros@{address} true"
)
STOPPED = "./pileus openstack server show hello -f value -c status | grep -q SHUTOFF"

INSTALL = (
    Part(
        "In a fresh checkout, as root, on Debian 12. `prepare` is what needs a network: it makes a Python environment, "
        "installs system packages (they were there already), builds a small image from packages, and fetches metadata "
        "definitions.",
        [Line("./pileus prepare")],
        title="Install",
    ),
    Part(
        "From here on this machine, `lab`, has no network but its loopback. The first `up` makes a cloud, and leaves "
        "something in it to look at.",
        [
            Line("./pileus up --detach", keeps={"address": r"cirros@([0-9.]+)"}),
            Line("./pileus status"),
            Line("./pileus openstack server list"),
            Line(f"{SSH} 'uname -a; ip -4 -o addr show eth0; df -h /'"),
        ],
        boots=True,
    ),
    Part(
        "`install` makes the cloud a service of systemd. This machine has none, and is told what to do instead. Below "
        "another root the units are written as a packager would; systemd's own verifier has nothing to say about them.",
        [
            Line("./pileus install", 69),
            Line("./pileus install --root /tmp/package"),
            Line(
                "cd /tmp/package/etc/systemd/system && "
                "systemd-analyze verify --man=no pileus-control.service pileus-agent.service pileus.target"
            ),
        ],
    ),
)

REBOOT = (
    Part(
        "A file is left on the guest's disk. Then the plug is pulled: every process of the machine is killed at once, "
        "guests included, and with them goes all that its kernel held: interfaces, namespaces, rules.",
        [Line(f"{SSH} 'echo precious > kept.txt; sync; cat /proc/sys/kernel/random/boot_id'")],
        title="A reboot",
    ),
    Part(
        "The machine is on again, and nothing runs. `up` brings everything back; the guest boots from its disk, as any "
        "computer does, and answers at the address that it had.",
        [
            Line("./pileus status", 3),
            Line("./pileus up --detach"),
            Line("./pileus openstack server list"),
            Line(f"{SSH} 'cat kept.txt; cat /proc/sys/kernel/random/boot_id'", once=ANSWERS),
        ],
        boots=True,
    ),
)

AGENT = (
    Part(
        "A session on the guest counts the seconds while the agent is killed. Before one has looked there is another "
        "agent; the guest is the same process, and the session the same connection.",
        [
            Line(f"{SSH} 'n=0; while sleep 1; do n=$((n+1)); echo $n; done' > /tmp/count.txt 2>&1 &"),
            Line("pgrep -l qemu", once="test -s /tmp/count.txt"),
            Line("pgrep -af 'pileus agent'", keeps={"agent": r"(?m)^(\d+)"}),
            Line("tail -n 1 /tmp/count.txt; kill -9 {agent}"),
            Line("./pileus status"),
            Line("pgrep -af 'pileus agent'"),
            Line("tail -n 1 /var/lib/pileus/log/supervisor.log"),
            Line("pgrep -l qemu; tail -n 1 /tmp/count.txt", once="test $(tail -n 1 /tmp/count.txt) -ge 15"),
        ],
        title="A killed agent",
    ),
)

BACKUP = (
    Part(
        "A backup is one file, made while the cloud serves. Then somebody deletes the wrong server, and its address.",
        [
            Line("./pileus backup", keeps={"file": r"(?m)^(/\S+\.tar)$"}),
            Line("./pileus openstack floating ip delete {address}"),
            Line("./pileus openstack server delete hello --wait"),
            Line("./pileus status"),
            Line("./pileus restore {file}"),
            Line("./pileus openstack server list"),
        ],
        title="A backup, and going back to it",
    ),
    Part(
        "Server, port and address are as they were. Disks are in no backup: this one was made anew from the server's "
        "image, so the guest has other host keys, and the file is gone.",
        [
            Line("ssh-keygen -R {address} -f /var/lib/pileus/known_hosts"),
            Line(f"{SSH} 'hostname; cat kept.txt'", 1, once=ANSWERS),
        ],
    ),
)

TRACE = (
    Part(
        "Each answer carries the id of its request, and each event of a server has it. By that id the whole story is "
        "told, from the call to the host and back.",
        [
            Line("./pileus openstack server stop hello"),
            Line("./pileus openstack server event list hello", keeps={"request": r"(req-[0-9a-f-]{36}) [^\n]* stop "}),
            Line("./pileus trace {request}", once=STOPPED),
        ],
        title="A trace",
    ),
)

MANY = "--flavor m1.nano --image tiny --network private --min 20 --max 20 many"
REFUSAL = (
    Part(
        "What cannot be is refused at once, in words.",
        [
            Line("./pileus openstack server pause hello", 1),
            Line(f"./pileus openstack server create {MANY}", 1),
        ],
        title="An explained refusal",
    ),
    Part(
        "That no host can take a server is found by the scheduler; `explain` gives the reason of each.",
        [
            Line("./pileus openstack flavor create --vcpus 1 --ram 128 --disk 90000 huge -f value -c id"),
            Line("./pileus openstack server create --flavor huge --image tiny --network private --wait big", 1),
            Line("./pileus openstack server show big -f yaml -c status -c fault"),
            Line("./pileus explain server big"),
            Line("./pileus explain server hello"),
        ],
    ),
)

DOCTOR = (
    Part(
        "`doctor` tries each thing that matters about a host, and looks for what is left over. `down` ends all of it, "
        "and keeps it for the next `up`.",
        [
            Line("./pileus openstack server delete big --wait"),
            Line("./pileus doctor"),
            Line("./pileus down"),
            Line("./pileus status", 3),
        ],
        title="The end of the day",
    ),
)

HEAD = """\
# The first hour

A session at the terminal of a new cloud, played by `bench/first_hour.py` and written down as it went: each line that
was typed, and all that it printed. The guest is a real one, emulated, for this machine has no KVM; its two cores had
other work to do. A line that speaks to a guest that boots is typed when it answers, and `trace` when the guest is off.
"""


class Session:
    """A machine, and what was printed on its terminal so far."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.names: dict[str, str] = {}

    def play(self, parts: Sequence[Part]) -> Iterator[str]:
        """The page, piece by piece. Raises Failure."""
        for part in parts:
            if part.title:
                yield f"## {part.title}"
            if part.boots:
                self.machine.cut_power()
                self.machine.boot()
            if part.words:
                yield textwrap.fill(part.words, 120, break_on_hyphens=False)
            if part.lines:
                shown = "\n".join(self._typed(line) for line in part.lines)
                yield f"```console\n{shown}\n```"

    def _typed(self, line: Line) -> str:
        """Type a line; it, and what it printed."""
        if line.once:
            self._wait(line.once)
        command = self._filled(line.command)
        status, text = self.machine.type(command)
        print(f"# {command}\n{text}", file=sys.stderr, flush=True)
        if status != line.status:
            raise Failure(f"{command}: status {status}, not {line.status}\n{text}")
        for name, pattern in line.keeps.items():
            if (found := re.search(pattern, text)) is None:
                raise Failure(f"{command}: no {name} in what it printed\n{text}")
            self.names[name] = found[1]
        return f"# {command}" + (f"\n{text}" if text else "")

    def _wait(self, once: str) -> None:
        deadline = time.monotonic() + PATIENCE
        command = self._filled(once)
        while self.machine.type(command)[0] != 0:
            if time.monotonic() > deadline:
                raise Failure(f"not after {PATIENCE:.0f} s: {command}")
            time.sleep(1)

    def _filled(self, text: str) -> str:
        for name, value in self.names.items():
            text = text.replace(f"{{{name}}}", value)
        return text


def check(page: str, disk: Path) -> None:
    """See that no secret of the cloud is on the page, and no path of where it was recorded. Raises Failure."""
    state = disk / "state"
    secrets = [(state / name).read_text().strip() for name in ("admin-password", "hello.key")]
    said = [word for word in (*secrets, str(disk), str(ROOT), "gAAAA") if word in page]
    if said:
        raise Failure(f"the page would say {len(said)} things that it may not say")


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description="records docs/first-hour.md")
    parser.add_argument("--disk", type=Path, help="where the machine's disk is, and stays")
    disk: Path | None = parser.parse_args().disk
    if STATE.joinpath("control").exists():
        raise SystemExit(f"there is a cloud in {STATE}, whose control groups this would take for its own")
    place = disk or Path(tempfile.mkdtemp(prefix="pileus-hour-", dir="/var/tmp"))
    machine = Machine(place)
    try:
        if not (place / "checkout" / ".venv").exists():
            export(ROOT, place / "checkout")
        machine.boot(network=True)
        parts = (*INSTALL, *REBOOT, *AGENT, *BACKUP, *TRACE, *REFUSAL, *DOCTOR)
        page = "\n\n".join([HEAD.rstrip("\n"), *Session(machine).play(parts)]) + "\n"
        check(page, place)
        print(page, end="")
    finally:
        machine.cut_power()
        if disk is None:
            shutil.rmtree(place)


if __name__ == "__main__":
    main()
