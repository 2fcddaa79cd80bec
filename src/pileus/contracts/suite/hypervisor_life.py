"""What a guest's life has besides power: suspension, cards, acts, consoles and counters, snapshots; as tests."""

from __future__ import annotations

import socket
import struct
import uuid
from pathlib import Path
from typing import Literal

import pytest

from pileus.contracts.hypervisor import GuestFailure, Power
from pileus.contracts.suite.hypervisor_session import HypervisorFixture, Session, eventually

SECRET = "5ecret-Pa55"


class SuspensionContract(HypervisorFixture):
    """Memory that is put aside."""

    def test_suspend_and_resume(self, session: Session) -> None:
        session.ensure("running")
        session.booted(1)
        suspended = session.ensure("suspended")
        assert suspended.started_at is None
        assert session.ensure("suspended") == suspended
        session.reopen()
        assert session.driver.observe(session.guest) == suspended
        assert session.driver.guests() == [session.guest]
        resumed = session.ensure("running")
        assert resumed.started_at is not None
        session.stays_at(1)
        session.ensure("suspended")
        session.ensure("running")
        session.stays_at(1)

    def test_a_paused_guest_is_suspended_and_wakes_paused(self, session: Session) -> None:
        session.ensure("running")
        session.booted(1)
        session.ensure("paused")
        session.ensure("suspended")
        session.ensure("paused")
        session.ensure("running")
        session.stays_at(1)

    def test_a_suspended_guest_that_is_stopped_forgets(self, session: Session) -> None:
        session.ensure("running")
        session.booted(1)
        session.ensure("suspended")
        session.ensure("stopped")
        session.ensure("running")
        session.booted(2)

    def test_a_reboot_of_a_suspended_guest_starts_it_anew(self, session: Session) -> None:
        session.ensure("running")
        session.booted(1)
        session.ensure("suspended")
        assert session.ensure("running", nonce=1).reboot_nonce == 1
        session.booted(2)
        session.ensure("running", nonce=1)
        session.stays_at(2)

    def test_a_guest_may_be_wanted_suspended_from_the_start(self, session: Session) -> None:
        session.ensure("suspended")
        session.ensure("running")
        session.booted(1)

    def test_a_guest_that_turned_itself_off_is_not_suspended(self, session: Session) -> None:
        session.ensure("running")
        session.booted(1)
        session.harness.power_off(session.guest)
        assert eventually(lambda: session.driver.observe(session.guest).state == "shutdown", session.harness.patience)
        session.ensure("suspended", expect="shutdown")


class CardContract(HypervisorFixture):
    """Cards that come and go."""

    def test_a_running_guest_gets_cards_and_loses_them(self, session: Session) -> None:
        first = session.ensure("running", cards=1)
        assert first.nics == ("port0",)
        session.booted(1)
        assert session.ensure("running", cards=3).nics == ("port0", "port1", "port2")
        session.reopen()
        assert session.driver.observe(session.guest).nics == ("port0", "port1", "port2")
        assert session.ensure("running", cards=1) == first
        assert session.ensure("running", cards=0).nics == ()
        assert session.ensure("running", cards=2).nics == ("port0", "port1")
        assert session.driver.observe(session.guest).nics == ("port0", "port1")
        session.stays_at(1)

    def test_cards_of_a_guest_at_rest_are_those_of_its_spec(self, session: Session) -> None:
        assert session.ensure("stopped", cards=2).nics == ("port0", "port1")
        assert session.ensure("stopped", cards=1).nics == ("port0",)
        assert session.ensure("paused", cards=1).nics == ("port0",)
        assert session.ensure("stopped", cards=0).nics == ()

    def test_a_paused_guest_gets_cards_and_loses_them_when_it_goes_on(self, session: Session) -> None:
        session.ensure("running")
        session.booted(1)
        session.ensure("paused")
        assert session.ensure("paused", cards=1).nics == ("port0",)
        assert session.ensure("running", cards=1).nics == ("port0",)
        session.ensure("paused", cards=1)
        assert session.ensure("paused", cards=2).nics == ("port0", "port1")
        session.ensure("paused", cards=1)
        session.reopen()
        assert session.ensure("running", cards=1).nics == ("port0",)
        assert session.ensure("running", cards=2).nics == ("port0", "port1")
        session.stays_at(1)

    def test_a_suspended_guest_wakes_with_the_cards_that_it_is_to_have_then(self, session: Session) -> None:
        session.ensure("running", cards=1)
        session.booted(1)
        session.ensure("running", cards=3)
        session.ensure("running", cards=2)
        session.ensure("suspended", cards=2)
        assert session.ensure("running", cards=2).nics == ("port0", "port1")
        assert session.ensure("suspended", cards=2).nics == ("port0", "port1")
        assert session.ensure("suspended", cards=1).nics == ("port0",)
        assert session.ensure("running", cards=1).nics == ("port0",)
        session.stays_at(1)


class ActContract(HypervisorFixture):
    """Acts that are no state."""

    def test_an_act_is_applied_once(self, session: Session) -> None:
        assert session.ensure("running", acts={"nmi": 4}).acts == {"nmi": 4}
        session.booted(1)
        after = session.ensure("running", acts={"nmi": 5})
        assert (after.acts, after.faults) == ({"nmi": 5}, {})
        assert session.ensure("running", acts={"nmi": 5}) == after
        assert session.ensure("running", acts={"nmi": 3}) == after
        session.reopen()
        assert session.driver.observe(session.guest) == after
        session.stays_at(1)

    def test_an_act_that_cannot_be_applied_is_told(self, session: Session) -> None:
        session.ensure("stopped")
        seen = session.ensure("stopped", acts={"nmi": 1})
        assert seen.acts == {"nmi": 1}
        assert "not run" in seen.faults["nmi"]
        seen = session.ensure("running", acts={"nmi": 1, "password": 1}, password=SECRET)
        assert seen.acts == {"nmi": 1, "password": 1}
        assert "agent" in seen.faults["password"]
        assert SECRET not in str(seen)
        assert session.ensure("running", acts={"nmi": 2, "password": 1}).faults.keys() == {"password"}

    def test_an_act_that_is_unknown_is_told(self, session: Session) -> None:
        session.ensure("running")
        assert "juggle" in session.ensure("running", acts={"juggle": 1}).faults["juggle"]


class ConsoleContract(HypervisorFixture):
    """Consoles and counters of a guest that runs."""

    def test_the_screen_speaks_rfb(self, session: Session) -> None:
        session.ensure("running")
        for _ in range(2):
            with session.driver.open_console(session.guest, "vnc") as screen:
                width, height = _meet(screen)
                assert width > 0
                assert height > 0
                screen.sendall(struct.pack(">BBHi", 2, 0, 1, 0))
                screen.sendall(struct.pack(">BBHHHH", 3, 0, 0, 0, 4, 2))
                kind, count = struct.unpack(">BxH", _read(screen, 4))
                assert (kind, count >= 1) == (0, True)
                assert len(_read(screen, 12)) == 12

    def test_the_serial_port_goes_both_ways_and_the_last_client_wins(self, session: Session) -> None:
        session.ensure("running")
        session.booted(1)
        with (
            session.driver.open_console(session.guest, "serial") as first,
            session.driver.open_console(session.guest, "serial") as line,
        ):
            del first
            line.settimeout(session.harness.patience)
            line.sendall(b"xyz")
            heard = b""
            while b"xyz" not in heard:
                heard += _read(line, 1)

    def test_consoles_end_with_the_guest(self, session: Session) -> None:
        session.ensure("running")
        session.booted(1)
        with (
            session.driver.open_console(session.guest, "vnc") as screen,
            session.driver.open_console(session.guest, "serial") as line,
        ):
            session.ensure("stopped")
            for one in (screen, line):
                one.settimeout(session.harness.patience)
                assert _drain(one)

    @pytest.mark.parametrize("power", ["stopped", "suspended"])
    def test_a_guest_at_rest_has_no_consoles_and_no_counters(self, session: Session, power: Power) -> None:
        session.ensure(power)
        for guest in (session.guest, str(uuid.uuid4())):
            with pytest.raises(GuestFailure, match="not run"):
                session.driver.open_console(guest, "vnc")
            with pytest.raises(GuestFailure, match="not run"):
                session.driver.open_console(guest, "serial")
            with pytest.raises(GuestFailure, match="not run"):
                session.driver.diagnostics(guest)

    def test_counters_of_a_guest_that_runs(self, session: Session) -> None:
        session.ensure("running", cards=1)
        session.booted(1)
        seen = session.driver.diagnostics(session.guest)
        spec = session.harness.plan(session.guest, "running").spec
        assert seen.state == "running"
        assert seen.driver in ("qemu", "kvm")
        assert 0 <= seen.uptime < 600
        assert len(seen.cpu_time) == spec.vcpus
        assert seen.memory_mib == spec.memory_mib
        assert seen.memory_used_mib >= 0
        assert [disk.id for disk in seen.disks] == [disk.id for disk in spec.disks]
        assert [(nic.port_id, nic.mac_address) for nic in seen.nics] == [("port0", "02:00:00:00:00:00")]
        session.ensure("paused", cards=1)
        assert session.driver.diagnostics(session.guest).state == "paused"


class SnapshotContract(HypervisorFixture):
    """Disks as they are at one moment."""

    @pytest.mark.parametrize("power", ["running", "paused", "stopped", "suspended"])
    @pytest.mark.parametrize("form", ["qcow2", "raw"])
    def test_a_snapshot_is_whole(
        self, session: Session, power: Power, form: Literal["qcow2", "raw"], tmp_path: Path
    ) -> None:
        seen = session.ensure(power)
        target = tmp_path / "snapshot"
        session.snapshot(target, format=form)
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith("snapshot")] == ["snapshot"]
        assert (target.read_bytes()[:4] == b"QFI\xfb") == (form == "qcow2")
        assert target.stat().st_size > 0
        assert target.stat().st_mode & 0o077 == 0
        assert session.driver.observe(session.guest) == seen
        session.snapshot(target, format=form)

    def test_a_snapshot_that_cannot_be_taken_leaves_nothing(self, session: Session, tmp_path: Path) -> None:
        target = tmp_path / "snapshot"
        with pytest.raises(GuestFailure):
            session.snapshot(target)
        session.ensure("stopped")
        with pytest.raises(GuestFailure):
            session.snapshot(target, disk=tmp_path / "absent.qcow2")
        with pytest.raises(GuestFailure):
            session.snapshot(tmp_path / "absent" / "snapshot")
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith("snapshot")] == []


def _meet(screen: socket.socket) -> tuple[int, int]:
    """The handshake of RFB 3.8 without authentication (RFC 6143, 7.1 to 7.3); the size of the screen."""
    screen.settimeout(5)
    assert _read(screen, 12) == b"RFB 003.008\n"
    screen.sendall(b"RFB 003.008\n")
    (count,) = _read(screen, 1)
    assert 1 in _read(screen, count)
    screen.sendall(b"\x01")
    assert _read(screen, 4) == b"\0\0\0\0"
    screen.sendall(b"\x01")
    width, height = struct.unpack(">HH", _read(screen, 4))
    _read(screen, 16)
    _read(screen, *struct.unpack(">I", _read(screen, 4)))
    return width, height


def _read(line: socket.socket, count: int) -> bytes:
    """Exactly so many bytes."""
    found = b""
    while len(found) < count:
        part = line.recv(count - len(found))
        assert part, "the console hung up"
        found += part
    return found


def _drain(line: socket.socket) -> bool:
    """Read until the other end hangs up."""
    try:
        while line.recv(4096):
            continue
    except ConnectionError:
        return True
    return True
