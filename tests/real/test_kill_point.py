"""SIGKILL at named points of a server's life: what was asked is reached, nothing is left over, nobody else notices.

At each point the process that reaches it dies; those that are named beside it are killed at the same moment.  The
supervisor brings them back, or `up` when it died too.  Creation and deletion have a server for each test; all other
acts are done to one, `victim`, one after the other.  Beside it is one that nobody may touch: `hello`, whose process is
the same from the first test to the last.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pileus.cli.main import CommandFailure
from tests.effort import LONG
from tests.real.cloud import Cloud, Failure, until
from tests.real.tenant import SDK, Tenant, administrator

if TYPE_CHECKING:
    from openstack.connection import Connection

pytestmark = [pytest.mark.slow, SDK]

Act = Callable[["Connection"], object]
"""What a user does in a session of the SDK."""

CREATE = (
    ("edge.compute.resources.server.operations.create.create", ""),
    ("loop.compute.scheduler.begun", ""),
    ("loop.compute.scheduler.done", "agent"),
    ("agent.network.ensured", ""),
    ("agent.disk.made", ""),
    ("agent.guest.ensured", ""),
    ("agent.guest.ensured", "control"),
    ("loop.compute.folder.begun", "agent"),
)
DELETE = (
    ("edge.compute.resources.server.operations.delete.delete", ""),
    ("agent.guest.removed", ""),
    ("agent.disk.removed", "control"),
    ("loop.compute.folder.done", ""),
)


@pytest.fixture(scope="module", autouse=True)
def bystander(cloud: Cloud) -> Iterator[int]:
    """The server `hello`, whose process must live through all of this."""
    cloud.pileus("up", "--detach")
    (pid,) = cloud.guests().values()
    yield pid
    assert list(cloud.guests().values()) == [pid]


@pytest.fixture(scope="module")
def admin(cloud: Cloud, bystander: int) -> Tenant:
    """Who asks for everything."""
    return administrator(cloud)


def ask(admin: Tenant, act: Act) -> str:
    """Let the administrator ask for something; what went wrong, as the control plane may die before it answers."""
    from keystoneauth1.exceptions import ClientException
    from openstack.exceptions import SDKException

    try:
        admin.do(act)
    except (ClientException, SDKException) as failure:
        return str(failure)
    return ""


def create(admin: Tenant) -> None:
    """Ask for the server `victim`; the control plane may die before it answers, and the client may ask again."""

    def act(session: Connection) -> None:
        session.compute.create_server(
            name="victim",
            image_id=session.image.find_image("tiny", ignore_missing=False).id,
            flavor_id=session.compute.find_flavor("m1.nano", ignore_missing=False).id,
            networks=[{"uuid": session.network.find_network("private", ignore_missing=False).id}],
        )

    said = ask(admin, act)
    # One list is asked for: the control plane may die after it has answered once.
    [listed] = until(lambda: [one for one in [names(admin.cloud)] if one is not None], "the control plane answers", 30)
    if "victim" not in listed:
        assert said, "it was accepted, and is lost"
        admin.do(act)


def delete(session: Connection) -> None:
    """Ask that `victim` goes."""
    session.compute.delete_server(session.compute.find_server("victim", ignore_missing=False))


def names(cloud: Cloud) -> list[str] | None:
    """The names of all servers; None while the cloud does not answer."""
    try:
        return [server["name"] for server in cloud.get("/compute/v2.1/servers")["servers"]]
    except CommandFailure:
        return None


def folders(cloud: Cloud) -> list[str]:
    """The folders of guests' disks."""
    return [entry.name for entry in (cloud.state / "agent" / "disks").glob("[!.]*") if entry.is_dir()]


def status(cloud: Cloud, name: str) -> str | None:
    """The status of a server, `GONE` when there is no such; None while the cloud does not answer."""
    try:
        servers = cloud.get("/compute/v2.1/servers/detail")["servers"]
    except CommandFailure:
        return None
    return next((str(server["status"]) for server in servers if server["name"] == name), "GONE")


@pytest.mark.parametrize(("point", "other"), CREATE)
def test_a_create_is_finished(cloud: Cloud, bystander: int, admin: Tenant, point: str, other: str) -> None:
    armed = cloud.arm(point)
    create(admin)
    until(lambda: not armed.exists(), f"{point} is reached", 60)
    if other:
        cloud.kill(other)
    until(lambda: status(cloud, "victim") == "ACTIVE", "ACTIVE", 60)
    assert (names(cloud) or []).count("victim") == 1
    guests = cloud.guests()
    assert bystander in guests.values()
    assert len(guests) == 2
    admin.do(delete)
    until(lambda: status(cloud, "victim") == "GONE", "gone", 60)
    until(lambda: list(cloud.guests().values()) == [bystander], "the guest is gone", 30)


@pytest.mark.parametrize(("point", "other"), DELETE)
def test_a_delete_is_finished(cloud: Cloud, bystander: int, admin: Tenant, point: str, other: str) -> None:
    create(admin)
    until(lambda: status(cloud, "victim") == "ACTIVE", "ACTIVE", 60)
    armed = cloud.arm(point)
    ask(admin, delete)
    until(lambda: not armed.exists(), f"{point} is reached", 60)
    if other:
        cloud.kill(other)
    until(lambda: status(cloud, "victim") == "GONE", "gone", 60)
    until(lambda: list(cloud.guests().values()) == [bystander], "the guest is gone", 30)
    until(lambda: len(folders(cloud)) == 1, "its files are gone", 30)


def test_everything_is_killed_and_comes_back(cloud: Cloud, bystander: int) -> None:
    cloud.kill("supervisor", "control", "agent")
    cloud.pileus("up", "--detach", timeout=60)
    assert list(cloud.guests().values()) == [bystander]


# -- what is between ---------------------------------------------------------------------------------------------------

OPERATION = "edge.compute.resources.server.operations"

POINTS = {
    "attach": (f"{OPERATION}.interface.attach", "agent.network.ensured", "qemu.card.backed"),
    "detach": (f"{OPERATION}.interface.detach", "qemu.card.unplugged"),
    "snapshot": (
        f"{OPERATION}.image.create_image",
        "qemu.backup.begun",
        "qemu.backup.written",
        "agent.snapshot.taken",
        "agent.snapshot.sent",
        "loop.compute.snapshot.begun",
    ),
    "rebuild": (
        f"{OPERATION}.rebuild.rebuild",
        "storage.disk.written",
        "agent.disk.made",
        "qemu.guest.ended",
        "qemu.guest.recorded",
        "qemu.guest.spawned",
        "storage.settle.unlinked",
        "agent.disk.settled",
        "loop.compute.folder.begun",
    ),
    "resize": (
        f"{OPERATION}.resize.resize",
        "agent.guest.rests",
        "storage.copy.held",
        "storage.copy.written",
        "qemu.guest.greeted",
        "agent.guest.ensured",
    ),
    "confirm": (f"{OPERATION}.resize.confirm_resize", "storage.settle.unlinked"),
    "revert": (f"{OPERATION}.resize.revert_resize", "qemu.guest.ended", "agent.guest.ensured", "agent.disk.settled"),
}
"""The points of each act, in the order in which they are reached."""

EVERYTHING = ("supervisor", "control", "agent", "qemu", "dnsmasq")


class Step(NamedTuple):
    """An act, the point at which a process dies, and those that are killed with it."""

    act: str
    point: str
    others: tuple[str, ...] = ()


USUAL = (
    Step("attach", "qemu.card.backed"),
    Step("detach", "qemu.card.unplugged", ("control",)),
    Step("snapshot", "qemu.backup.written"),
    Step("snapshot", "agent.snapshot.sent", ("control",)),
    Step("rebuild", "qemu.guest.ended"),
    Step("rebuild", "qemu.guest.spawned", ("control",)),
    Step("resize", "storage.copy.written"),
    Step("confirm", "storage.settle.unlinked"),
    Step("resize", f"{OPERATION}.resize.resize", ("agent",)),
    Step("revert", "agent.guest.ensured", EVERYTHING),
)
"""What every run tries: each act, each process."""


def whole() -> Iterator[Step]:
    """Every point with every process."""
    for others in ((), ("control",), ("agent",), ("qemu",), ("dnsmasq",), EVERYTHING):
        for act in ("attach", "snapshot", "rebuild"):
            yield from (Step(act, point, others) for point in POINTS[act])
            if act == "attach":  # as many cards go as came
                points = (*POINTS["detach"], "qemu.card.unplugged")
                yield from (Step("detach", point, others) for point in points)
        for number, point in enumerate(POINTS["resize"]):
            yield Step("resize", point, others)
            act = ("confirm", "revert")[number % 2]
            yield Step(act, POINTS[act][number // 2 % len(POINTS[act])], others)


STEPS = tuple(whole()) if LONG else USUAL


class Victim:
    """The server that all of it is done to."""

    def __init__(self, admin: Tenant) -> None:
        self.cloud = cloud = admin.cloud
        self.neighbours = list(cloud.guests())
        create(admin)
        until(lambda: status(cloud, "victim") == "ACTIVE", "ACTIVE", 60)
        self.id = str(admin.do(lambda session: session.compute.find_server("victim", ignore_missing=False).id))
        self.nano = self.flavor()
        self.files = len(self.disks())
        self.dnsmasqs = len(dnsmasqs(cloud))
        disk = cloud.get(f"/compute/v2.1/flavors/{self.nano}")["flavor"]["disk"]
        other = {"name": "m1.other", "vcpus": 1, "ram": 160, "disk": disk}
        self.other = str(admin.do(lambda session: session.compute.create_flavor(**other).id))

    def show(self) -> dict[str, Any] | None:
        """The server, None while the cloud does not answer."""
        try:
            found: dict[str, Any] = self.cloud.get(f"/compute/v2.1/servers/{self.id}")["server"]
        except CommandFailure:
            return None
        return found

    def status(self) -> str:
        """Status, with the task that is under way."""
        found = self.show() or {}
        return f"{found.get('status')} {found.get('OS-EXT-STS:task_state')}"

    def flavor(self) -> str:
        """Id of its flavor."""
        return str((self.show() or {})["flavor"]["id"])

    def ports(self) -> list[str]:
        """Ids of its ports."""
        found = self.cloud.get(f"/network/v2.0/ports?device_id={self.id}")["ports"]
        return [str(port["id"]) for port in found]

    def images(self) -> dict[str, str]:
        """Status of each snapshot by id."""
        found = self.cloud.get("/image/v2/images?image_type=snapshot")["images"]
        return {str(image["id"]): str(image["status"]) for image in found}

    def disks(self) -> list[str]:
        """Files of its disks."""
        folder = self.cloud.state / "agent" / "disks" / self.id
        return sorted(file.name for file in folder.iterdir())

    def snapshots(self) -> list[str]:
        """What the host holds of snapshots."""
        return [str(place) for place in (self.cloud.state / "agent" / "disks" / ".snapshots").glob("*")]

    def plugged(self) -> int:
        """How many cards the guest has, as its host reports them."""
        found = self.cloud.get(f"/compute/v2.1/servers/{self.id}/os-interface")["interfaceAttachments"]
        return len(found)

    def process(self) -> int | None:
        """Pid of its QEMU."""
        return self.cloud.guests().get(self.id)


def kill(cloud: Cloud, victim: Victim, others: tuple[str, ...]) -> None:
    """SIGKILL what is named."""
    pids = []
    if "qemu" in others:
        pids += [victim.process()]
    if "dnsmasq" in others:
        pids += dnsmasqs(cloud)
    cloud.kill(*(name for name in others if name in ("supervisor", "control", "agent")))
    for pid in pids:
        if pid is not None:
            os.kill(pid, signal.SIGKILL)


def dnsmasqs(cloud: Cloud) -> list[int]:
    """Pids of this cloud's dnsmasq."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdecimal():
            try:
                words = (place / "cmdline").read_bytes()
            except OSError:
                continue
            if b"dnsmasq" in words.split(b"\0")[0] and str(cloud.state).encode() in words:
                found.append(int(place.name))
    return found


@pytest.fixture(scope="module")
def victim(cloud: Cloud, bystander: int, admin: Tenant) -> Iterator[Victim]:
    found = Victim(admin)
    yield found
    admin.do(delete)
    until(lambda: list(cloud.guests().values()) == [bystander], "the guest is gone", 30)
    until(lambda: len(folders(cloud)) == 1, "its files are gone", 30)


ENDS = {"resize": "VERIFY_RESIZE None"}
"""Where an act leaves the server, when it is not where it was: ACTIVE."""


def act_of(victim: Victim, act: str) -> Act:
    """What a user asks for."""
    server = victim.id
    match act:
        case "attach":
            return lambda session: session.compute.create_server_interface(
                server, net_id=session.network.find_network("private", ignore_missing=False).id
            )
        case "detach":
            port = victim.ports()[-1]
            return lambda session: session.compute.delete_server_interface(port, server)
        case "snapshot":
            return lambda session: session.compute.create_server_image(server, "kept")
        case "rebuild":
            return lambda session: session.compute.rebuild_server(
                server, image=session.image.find_image("tiny", ignore_missing=False).id
            )
        case "resize":
            other = victim.other if victim.flavor() == victim.nano else victim.nano
            return lambda session: session.compute.resize_server(server, other)
        case "confirm":
            return lambda session: session.compute.confirm_server_resize(server)
        case _:
            return lambda session: session.compute.revert_server_resize(server)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: "-".join([step.act, step.point, *step.others]))
def test_an_act_is_finished(cloud: Cloud, bystander: int, admin: Tenant, victim: Victim, step: Step) -> None:
    before = victim.disks()
    ports, images, flavor, process = len(victim.ports()), set(victim.images()), victim.flavor(), victim.process()
    act = act_of(victim, step.act)
    armed = cloud.arm(step.point)
    said = ask(admin, act)
    try:
        until(lambda: not armed.exists(), f"{step.point} is reached", 90)
    except Failure as failure:
        told = (cloud.state / "log" / "agent.log").read_text().splitlines()[-20:]
        raise Failure(
            "\n".join([f"{failure}: {victim.status()}", f"the client: {said}", "the agent:", *told])
        ) from None
    kill(cloud, victim, step.others)
    if "supervisor" in step.others:
        cloud.pileus("up", "--detach", timeout=90)
    wanted = ENDS.get(step.act, "ACTIVE None")
    until(lambda: victim.status() == wanted, wanted, 90)
    match step.act:
        case "attach" | "detach":
            count = ports + (1 if step.act == "attach" else -1)
            until(lambda: victim.plugged() == len(victim.ports()) == count, f"{count} ports", 60)
        case "snapshot":
            (image,) = set(victim.images()) - images
            until(lambda: victim.images()[image] == "active", "the image is active", 60)
            until(lambda: not victim.snapshots(), "the host has let go of the snapshot", 30)
        case "resize":
            assert victim.flavor() != flavor
        case "revert":
            assert victim.flavor() != flavor
    if step.act != "resize":
        until(lambda: len(victim.disks()) == victim.files, f"as many files as at first: {before}", 30)
    if step.act in ("attach", "detach", "snapshot") and "qemu" not in step.others:
        assert victim.process() == process
    if "dnsmasq" in step.others:
        until(lambda: len(dnsmasqs(cloud)) == victim.dnsmasqs, "dnsmasq serves again", 90)
    everybody = sorted({victim.id, *victim.neighbours})
    until(lambda: sorted(cloud.guests()) == everybody, "all guests run", 60)
    assert bystander in cloud.guests().values()
