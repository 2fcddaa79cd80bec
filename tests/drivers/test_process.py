"""Children of the agent: what they are given, how they end, and that nothing is mistaken for them."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pileus.drivers.host.cgroup import Cgroups
from pileus.drivers.host.process import Child, ChildFailure, Identity, apart, lock_holder, run, spawn

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a child another identity")


def test_a_program_is_run_to_its_end() -> None:
    assert run(["cat"], content=b"content") == b"content"
    with pytest.raises(ChildFailure, match="sh ended with status 3: no") as failure:
        run(["sh", "-c", "echo no >&2; exit 3"])
    assert failure.value.status == 3
    with pytest.raises(FileNotFoundError):
        run(["no-such-program"])


def test_a_program_that_takes_too_long_is_killed() -> None:
    begin = time.monotonic()
    with pytest.raises(ChildFailure, match="not end in time") as failure:
        run(["sleep", "60"], timeout=0.2)
    assert failure.value.status is None
    assert time.monotonic() - begin < 5


def test_a_program_that_is_given_up_is_killed() -> None:
    begin = time.monotonic()
    with pytest.raises(ChildFailure):
        run(["sleep", "60"], given_up=lambda: time.monotonic() - begin > 0.3)
    assert time.monotonic() - begin < 5
    assert run(["cat"], content=b"content" * 100_000, given_up=lambda: False) == b"content" * 100_000


@pytest.mark.parametrize("uid", [None, pytest.param(65_000, marks=needs_root)])
def test_work_of_an_agent_ends_with_it(tmp_path: Path, uid: int | None) -> None:
    told = tmp_path / "pid"
    life = f"""
from pileus.drivers.host.process import Identity, run
file = open({str(told)!r}, "wb")
run(["sh", "-c", f"echo $$ >&{{file.fileno()}}; exec sleep 60"], pass_fds=[file.fileno()], timeout=60,
    identity={None if uid is None else f"Identity({uid}, {uid})"}, limits={{{int(resource.RLIMIT_CORE)}: 0}})
"""
    with subprocess.Popen([sys.executable, "-c", life]) as agent:
        deadline = time.monotonic() + 20
        while not (told.exists() and told.read_bytes().endswith(b"\n")) and time.monotonic() < deadline:
            time.sleep(0.02)
        child = Child.adopt(int(told.read_text()))
        agent.kill()
    assert child is not None
    assert child.wait(5)


def test_limits_hold_from_the_first_instruction() -> None:
    limits = {resource.RLIMIT_FSIZE: 4096, resource.RLIMIT_CORE: 0, resource.RLIMIT_AS: 1 << 30}
    told = run(["sh", "-c", "ulimit -c; ulimit -v"], limits=limits).split()
    assert told == [b"0", b"1048576"]
    assert resource.getrlimit(resource.RLIMIT_AS)[0] != 1 << 30


def test_a_child_cannot_gain_privilege_and_the_agent_still_can() -> None:
    def flag(text: str) -> str:
        return next(line for line in text.splitlines() if line.startswith("NoNewPrivs:"))

    own = Path("/proc/thread-self/status")
    before = flag(own.read_text())
    assert flag(run(["cat", "/proc/self/status"]).decode()) == "NoNewPrivs:\t1"
    assert flag(own.read_text()) == before


@needs_root
def test_a_child_has_its_identity_and_no_group_of_the_agent() -> None:
    told = run(["sh", "-c", "id -u; id -g; id -G"], identity=Identity(65_000, 65_001, (65_002,))).split()
    assert told == [b"65000", b"65001", b"65001", b"65002"]


def test_a_child_outlives_and_is_reaped(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as out:
        child = spawn(["sh", "-c", "echo $PWD $HOME; read line; exit 7"], cwd=tmp_path, stdout=out.fileno())
    assert child.wait(5)
    assert child.status == 7
    assert not Path(f"/proc/{child.pid}").exists()
    assert (tmp_path / "out").read_text().strip() == str(tmp_path)


def test_whoever_waits_for_a_child_finds_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also who waits while another thread is just being told it."""
    waitid = os.waitid

    def slow(kind: int, number: int, options: int) -> Any:
        found = waitid(kind, number, options)
        time.sleep(0.2)
        return found

    monkeypatch.setattr(os, "waitid", slow)
    child = spawn(["false"])
    seen: list[int | None] = []

    def wait() -> None:
        child.wait(5)
        seen.append(child.status)

    threads = [threading.Thread(target=wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1, 1]


def test_ending_is_gentle_at_first() -> None:
    polite = spawn(["sh", "-c", "trap 'exit 5' TERM; echo; while :; do sleep 0.05; done"])
    time.sleep(0.3)
    assert polite.alive()
    assert polite.end(5)
    assert polite.status == 5
    stubborn = spawn(["sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"])
    time.sleep(0.3)
    assert stubborn.end(0.2)
    assert stubborn.status == -signal.SIGKILL
    stubborn.kill()


def test_only_a_process_that_lives_is_adopted() -> None:
    child = spawn(["sleep", "60"])
    adopted = Child.adopt(child.pid)
    assert adopted is not None
    child.kill()
    assert adopted.wait(5)
    assert not child.alive()
    assert Child.adopt(child.pid) is None


LOCKER = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(60)
"""


def test_the_holder_of_a_lock_is_named(tmp_path: Path) -> None:
    pidfile, told = tmp_path / "pid", tmp_path / "told"
    assert lock_holder(pidfile) is None
    pidfile.write_text("1\n")
    assert lock_holder(pidfile) is None
    with told.open("w") as out:
        child = spawn([sys.executable, "-c", LOCKER, str(pidfile)], stdout=out.fileno())
    deadline = time.monotonic() + 10
    while not told.read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert lock_holder(pidfile) == child.pid
    # Asking opens and closes the file, which must not drop a lock of anybody's.
    assert lock_holder(pidfile) == child.pid
    child.kill()
    assert child.wait(5)
    assert lock_holder(pidfile) is None
    with pidfile.open("w") as own:
        fcntl.lockf(own, fcntl.LOCK_EX)
        assert lock_holder(pidfile) is None
    (tmp_path / "link").symlink_to(pidfile)
    with pytest.raises(OSError, match="link"):
        lock_holder(tmp_path / "link")


def test_what_is_done_apart_leaves_no_thread() -> None:
    before = threading.active_count()
    assert apart(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        apart(lambda: 1 / 0)
    with pytest.raises(FileNotFoundError):
        apart(lambda: None, namespace="no-such-namespace")
    assert threading.active_count() == before


def test_control_groups_that_are_not_there(tmp_path: Path) -> None:
    for content in ("", "25 1 0:24 / /sys rw - sysfs sysfs rw\n"):
        (tmp_path / "mountinfo").write_text(content)
        groups = Cgroups("pileus-test", tmp_path / "mountinfo")
        assert groups.kind == "none"
        assert groups.reason == "no control groups are mounted"
        groups.create("guest", memory_mib=1, pids=1)
        groups.add("guest", os.getpid())
        assert groups.names() == []
        assert groups.pids("guest") == []
        groups.remove("guest")


@needs_root
def test_version_2_is_told_its_limits(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(f"30 25 0:27 / {tmp_path} rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n")
    groups = Cgroups("parent", tmp_path / "mountinfo")
    assert groups.kind == "v2"
    groups.create("guest", memory_mib=64, pids=20)
    folder = tmp_path / "parent" / "guest"
    assert (folder / "memory.max").read_text() == str(64 << 20)
    assert (folder / "pids.max").read_text() == "20"
    assert groups.names() == ["guest"]


@needs_root
def test_a_control_group_is_emptied_and_removed() -> None:
    groups = Cgroups(f"pileus-test-{os.getpid()}")
    if groups.kind == "none":
        pytest.skip(groups.reason)
    groups.create("guest", memory_mib=64, pids=20)
    child = spawn(["sleep", "60"])
    groups.add("guest", child.pid)
    assert groups.pids("guest") == [child.pid]
    assert groups.names() == ["guest"]
    groups.remove("guest")
    assert child.wait(5)
    assert groups.names() == []
    assert not list(Path("/sys/fs/cgroup").glob(f"**/pileus-test-{os.getpid()}"))
    groups.remove("guest")
