"""An agent that is killed at any point leaves guests that the next one brings to where they are to be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pileus.contracts.hypervisor import GuestObserved, GuestPlan, Power, SnapshotSpec
from pileus.contracts.suite.hypervisor import eventually
from tests.drivers.qemu_host import QemuHarness, guest, harness, needs_qemu, needs_root, processes

__all__ = ["guest", "harness"]

pytestmark = [pytest.mark.real, needs_qemu, needs_root]

AGENT = """
import sys
from pathlib import Path
import msgspec
from pileus.contracts.hypervisor import GuestPlan, SnapshotSpec
from pileus.drivers.hypervisor.qemu import QemuHypervisor
state, work, target = map(Path, sys.argv[1:])
kind, content = work.read_bytes().split(b"\\n", 1)
path = lambda form, value: form(value)
driver = QemuHypervisor(state=state, accelerator="tcg", grace=15)
if kind == b"plan":
    driver.ensure(msgspec.json.decode(content, type=GuestPlan, dec_hook=path))
else:
    spec = msgspec.json.decode(content, type=SnapshotSpec)
    (disk,) = (state.parent / "disks").glob(f"{spec.guest_id}.qcow2")
    driver.snapshot(spec, disk, target)
"""


class Killed:
    """A host whose agent dies at a point."""

    def __init__(self, harness: QemuHarness, guest: str) -> None:
        self.harness = harness
        self.guest = guest
        self.target = harness.root / "snapshot"

    def plan(self, power: Power, *, nonce: int = 0, cards: int = 0, acts: dict[str, int] | None = None) -> GuestPlan:
        found = self.harness.with_cards(self.harness.plan(self.guest, power, nonce), cards)
        return msgspec.structs.replace(found, spec=msgspec.structs.replace(found.spec, acts=acts or {}))

    def dies(self, point: str, work: GuestPlan | SnapshotSpec) -> None:
        """An agent does the work until it comes to the point."""
        failpoints = self.harness.root / "failpoints"
        failpoints.mkdir(exist_ok=True)
        (failpoints / point).touch()
        order = self.harness.root / "work"
        kind = b"plan\n" if isinstance(work, GuestPlan) else b"snapshot\n"
        order.write_bytes(kind + msgspec.json.encode(work, enc_hook=str))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PILEUS_FAILPOINTS": str(failpoints)}
        argv = [sys.executable, "-c", AGENT, str(self.harness.state), str(order), str(self.target)]
        done = subprocess.run(argv, check=False, env=environment, capture_output=True, timeout=60)
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        assert not (failpoints / point).exists()

    def ensure(self, *plans: GuestPlan) -> GuestObserved:
        """The next agent brings the guest to each of these, and the last one's state is seen."""
        driver = self.harness.open()
        try:
            seen = driver.observe(self.guest)
            for plan in plans:
                seen = driver.ensure(plan)
                assert seen.state == plan.spec.power
                assert len(processes(self.guest)) == (0 if plan.spec.power in ("stopped", "suspended") else 1)
            return seen
        finally:
            driver.close()

    def boots(self, count: int) -> bool:
        return eventually(lambda: self.harness.boots(self.guest) == count, self.harness.patience)

    def echoes(self) -> bool:
        """Whether the guest is there and goes on."""
        self.harness.type(self.guest, b"x")
        return (self.harness.directory(self.guest) / "console.log").read_bytes().endswith(b"x")


@pytest.fixture
def killed(harness: QemuHarness, guest: str) -> Iterator[Killed]:
    found = Killed(harness, guest)
    yield found
    driver = harness.open()
    driver.remove(guest)
    driver.close()
    assert harness.leftovers(guest) == []


@pytest.mark.parametrize("point", ["recorded", "spawned", "greeted"])
def test_a_start(killed: Killed, point: str) -> None:
    killed.dies(f"qemu.guest.{point}", killed.plan("running", cards=1))
    killed.ensure(killed.plan("running", cards=1))
    assert killed.boots(1)
    assert killed.echoes()


@pytest.mark.parametrize("point", ["ended", "recorded", "spawned"])
def test_a_reboot(killed: Killed, point: str) -> None:
    killed.ensure(killed.plan("running"))
    assert killed.boots(1)
    killed.dies(f"qemu.guest.{point}", killed.plan("running", nonce=1))
    assert killed.ensure(killed.plan("running", nonce=1)).reboot_nonce == 1
    assert killed.boots(2)
    assert killed.echoes()


@pytest.mark.parametrize("point", ["written", "kept", "taken", "dropped"])
@pytest.mark.parametrize("then", ["suspended", "running"])
def test_a_suspension(killed: Killed, point: str, then: Power) -> None:
    """The memory is written but not kept, kept beside the process, taken in, or deleted after that."""
    killed.ensure(killed.plan("running", cards=1))
    assert killed.boots(1)
    if point in ("taken", "dropped"):
        killed.ensure(killed.plan("suspended", cards=1))
        killed.dies(f"qemu.memory.{point}", killed.plan("running", cards=1))
    else:
        killed.dies(f"qemu.memory.{point}", killed.plan("suspended", cards=1))
    folder = killed.harness.directory(killed.guest)
    assert (folder / "memory").exists() == (point in ("kept", "taken"))
    seen = killed.ensure(killed.plan(then, cards=1), killed.plan("running", cards=1))
    assert seen.nics == ("port0",)
    assert not (folder / "memory").exists()
    assert not (folder / "memory.new").exists()
    assert killed.echoes()
    assert killed.harness.boots(killed.guest) == 1


@pytest.mark.parametrize(("point", "before", "after"), [("backed", 0, 2), ("unplugged", 2, 1)])
def test_cards_that_come_and_go(killed: Killed, point: str, before: int, after: int) -> None:
    killed.ensure(killed.plan("running", cards=before))
    assert killed.boots(1)
    killed.dies(f"qemu.card.{point}", killed.plan("running", cards=after))
    assert killed.ensure(killed.plan("running", cards=after)).nics == tuple(f"port{n}" for n in range(after))
    assert killed.ensure(killed.plan("suspended", cards=after), killed.plan("running", cards=2)).nics == (
        "port0",
        "port1",
    )
    assert killed.harness.boots(killed.guest) == 1
    assert killed.echoes()


def test_an_interrupt_is_sent_once_at_most(killed: Killed) -> None:
    killed.ensure(killed.plan("running"))
    killed.dies("qemu.act.nmi", killed.plan("running", acts={"nmi": 1}))
    seen = killed.ensure(killed.plan("running", acts={"nmi": 1}))
    assert (seen.acts, seen.faults) == ({"nmi": 1}, {})


@pytest.mark.parametrize("point", ["begun", "written"])
def test_a_snapshot(killed: Killed, point: str) -> None:
    killed.ensure(killed.plan("running"))
    assert killed.boots(1)
    disk = killed.plan("running").spec.disks[0].id
    spec = SnapshotSpec(id="00000000-0000-4000-8000-00000000000b", guest_id=killed.guest, disk_id=disk, format="raw")
    killed.dies(f"qemu.backup.{point}", spec)
    assert not killed.target.exists()
    driver = killed.harness.open()
    driver.snapshot(spec, killed.harness.disk(killed.guest), killed.target)
    driver.close()
    assert killed.target.read_bytes()[510:512] == b"\x55\xaa"
    assert [path.name for path in Path(killed.target.parent).glob("snapshot*")] == ["snapshot"]
    assert killed.echoes()
