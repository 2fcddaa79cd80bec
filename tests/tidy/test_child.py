"""Every place that starts a process is known, with what its child reads; what tenants wrote is read in confinement."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

from tests.tidy.tree import PACKAGE, ROOT, parse, sources

STARTS = {
    "pileus.drivers.host.process": {"run", "spawn"},
    "pileus.drivers.host.netservice": {"daemon"},
    "pileus.drivers.host.confinement": {"confined"},
    "subprocess": {"run", "Popen", "call", "check_call", "check_output", "getoutput", "getstatusoutput"},
    "os": {"fork", "forkpty", "system", "popen", "posix_spawn", "posix_spawnp", "startfile"}
    | {f"{kind}{more}" for kind in ("exec", "spawn") for more in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")},
    "asyncio": {"create_subprocess_exec", "create_subprocess_shell"},
    "pty": {"fork", "spawn"},
    "multiprocessing": {"Process", "Pool", "get_context"},
    "concurrent.futures": {"ProcessPoolExecutor"},
}
"""What starts a process, by module."""

MACHINERY = {
    "drivers/host/process.py": "where it is done",
    "drivers/host/confinement.py": "where it is done, for what tenants wrote",
    "drivers/host/netservice.py": "network daemons: a user of their own, two capabilities, in a namespace",
}

READS_TENANTS = {
    "drivers/storage/convert.py": "image files",
    "drivers/storage/file/driver.py": "disks that guests wrote, when they are copied",
    "drivers/hypervisor/qemu/backup.py": "disks that guests wrote, when a snapshot of them is taken",
}
"""Modules whose children parse what tenants wrote."""

OWN_WORDS = {
    "drivers/host/netfilter.py": "nft reads rules of ours, in which ids and addresses were checked",
    "drivers/network/bridge/daemon.py": "dnsmasq, of netservice; it hears guests, and its limits are the filter's",
    "drivers/storage/file/format.py": "makes empty file systems; a label is all that is a tenant's",
    "drivers/hypervisor/qemu/accelerator.py": "asks QEMU what it can, with no guest",
    "drivers/hypervisor/qemu/guest.py": "QEMU itself: own uid, seccomp, control group; see qemu/command",
    "drivers/hypervisor/qemu/tpm.py": "the TPM of one guest, under the guest's uid, in the guest's directory",
    "app/host.py": "the metadata server, which gives up its privilege before it hears anybody",
}
"""Modules of the host's side whose children read what we wrote, or are bounded as their reason says."""

OPERATOR = ("cli/", "app/backup.py", "app/restore.py", "app/child.py", "core/privilege.py")
"""What an operator starts: commands, the supervisor, its parts, and forks of our own code without an exec."""


def starts(path: Path) -> Iterator[ast.Call]:
    """Each call in a module that starts a process."""
    tree = parse(path)
    names: dict[str, tuple[str, str]] = {}
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            for one in node.names:
                names[one.asname or one.name] = (node.module, one.name)
                modules[one.asname or one.name] = f"{node.module}.{one.name}"
        elif isinstance(node, ast.Import):
            for one in node.names:
                modules[one.asname or one.name] = one.name
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        callee = node.func
        if isinstance(callee, ast.Name) and callee.id in names:
            module, name = names[callee.id]
        elif isinstance(callee, ast.Attribute) and isinstance(callee.value, ast.Name | ast.Attribute):
            module, name = modules.get(ast.unparse(callee.value), ""), callee.attr
        else:
            continue
        if name in STARTS.get(module, ()):
            yield node


@functools.cache
def starters() -> dict[str, list[ast.Call]]:
    """The modules of the package that start processes, by path below it."""
    found = {}
    for path, _ in sources(PACKAGE):
        if calls := list(starts(path)):
            found[str((ROOT / path).relative_to(PACKAGE))] = calls
    return found


def test_every_module_that_starts_a_process_is_known() -> None:
    known = {*MACHINERY, *READS_TENANTS, *OWN_WORDS}
    found = {name for name in starters() if not name.startswith(OPERATOR)}
    assert found - known == set(), "say what its children read"
    assert known - found == set(), "starts none any more"


def test_what_tenants_wrote_is_read_without_privilege_and_under_limits() -> None:
    wrong = []
    for name in READS_TENANTS:
        text = (PACKAGE / name).read_text(encoding="utf-8")
        for call in starters()[name]:
            if isinstance(call.func, ast.Name) and call.func.id == "confined":
                continue
            words = ast.get_source_segment(text, call) or ""
            given = {one.arg for one in call.keywords}
            bounded = "limits" in given or "prlimit" in text
            makes = (
                '"create"' in words or '"cp"' in words
            )  # reads no image: what is made has a size, or is copied whole
            if not makes and not ("identity" in given and bounded):
                wrong.append(f"{name}:{call.lineno}")
    assert wrong == []


def test_nothing_goes_through_a_shell() -> None:
    wrong = [
        f"{name}:{call.lineno}"
        for name, calls in starters().items()
        for call in calls
        if any(one.arg == "shell" for one in call.keywords)
        or (isinstance(call.func, ast.Attribute) and call.func.attr in {"system", "popen", "create_subprocess_shell"})
    ]
    assert wrong == []


def test_the_finder_finds() -> None:
    found = starters()
    assert "drivers/storage/convert.py" in found
    assert "cli/supervise.py" in found
    assert len(found["drivers/host/process.py"]) == 2
