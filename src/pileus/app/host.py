"""The host side: the agent with its drivers, its children, and what ends or examines what they made."""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import signal
import socket
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pileus.app.readiness import tell
from pileus.app.service import alone, driver
from pileus.cli.main import Found
from pileus.cli.place import settings
from pileus.core.config import STATE, Config

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from pileus.agent.agent import Agent
    from pileus.contracts.network import Network


def agent(arguments: argparse.Namespace) -> int:
    """Run the agent of this host, or of the simulated hosts."""
    from concurrent.futures import ThreadPoolExecutor

    from pileus.core import log
    from pileus.drivers.host.limit import allow_files

    config = settings(arguments.state)
    log.start("agent", config.log_level, config.log_levels)
    alone(config, "agent")
    allow_files()
    config.agent.mkdir(mode=0o711, exist_ok=True)
    if not config.fake:
        join_host(config.state)
    pool = ThreadPoolExecutor(8 if config.fake else 48, thread_name_prefix="driver")
    agents = fake_agents(config, pool) if config.fake else [_host_agent(config, pool)]
    try:
        asyncio.run(_run_agents(agents))
    finally:
        for one in agents:
            if one.host.metadata is not None:
                one.host.metadata.close()
            one.host.network.close()
            one.host.hypervisor.close()
        pool.shutdown(wait=False, cancel_futures=True)
    return 0


def join_host(state: Path) -> None:
    """Put this process, which has one thread, where the host's mounts are."""
    if sys.platform == "linux":
        from pileus.drivers.host import mount

        mount.join_host(state)


async def _run_agents(agents: list[Agent]) -> None:
    tasks = [asyncio.create_task(one.run()) for one in agents]
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    stopping = asyncio.create_task(stop.wait())
    telling = asyncio.create_task(tell(", ".join(one.host.name for one in agents[:3])))
    await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in [telling, stopping, *tasks]:
        task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    for failure in found:
        if isinstance(failure, BaseException) and not isinstance(failure, asyncio.CancelledError):
            raise failure


def _link(config: Config) -> Any:
    from pileus.agent.link import Link
    from pileus.drivers.host.peer import peer_uid

    trusted = config.unprivileged_uid if os.getuid() == 0 else os.getuid()
    return Link(config.link, peer_uid=peer_uid, trusted=trusted)


def _host_agent(config: Config, pool: ThreadPoolExecutor) -> Agent:
    from pileus.agent.agent import Agent
    from pileus.agent.host import Host
    from pileus.agent.image_cache import FileImageCache
    from pileus.agent.metadata import Metadata
    from pileus.drivers.storage.convert import convert

    converter = config.unprivileged_uid + 2
    host = Host(
        name=config.host_name,
        state=config.agent,
        hypervisor=driver("hypervisor", config.hypervisor)(state=config.agent / "hypervisor"),
        network=_network(config),
        storage=driver("storage", config.storage)(root=config.agent / "disks", uid=converter),
        images=FileImageCache(config.agent / "cache", functools.partial(convert, uid=converter), reader=converter),
        metadata=Metadata(functools.partial(_start_metadata, config)),
    )
    return Agent(host, _link(config), pool)


def _network(config: Config) -> Network:
    """This host's network driver."""
    found: Network = driver("network", config.network)(state=config.agent / "network", prefix=prefix(config))
    return found


def prefix(config: Config) -> str:
    """What the names of a cloud's networks on this host begin with: those of other directories do not share them."""
    own = f"p{zlib.crc32(str(config.state).encode()) & 0xFFFFF:05x}"
    return "pileus" if config.state == STATE else own


def _start_metadata(config: Config, channel: socket.socket) -> Callable[[], bool]:
    from pileus.drivers.host.process import spawn

    uid = str(config.unprivileged_uid + 1)  # not the control plane's: each sees none of the other's secrets
    argv = [sys.executable, "-m", "pileus", "metadata-server", "--uid", uid, str(channel.fileno())]
    child = spawn(argv, pass_fds=[channel.fileno()], stderr=2)
    return child.alive


def metadata_server(arguments: argparse.Namespace) -> int:
    """Run the metadata server as a child of the agent: read the code, drop all privilege, answer guests."""
    from pileus.agent.metadata_server import main
    from pileus.core import privilege
    from pileus.drivers.host.limit import allow_files

    allow_files()  # else whoever has guests on many networks could use up what all networks together may have open
    privilege.drop(arguments.uid)
    main(arguments.channel)
    return 0


def teardown(arguments: argparse.Namespace, say: Callable[[str], None]) -> str:
    """End all guests of this host's cloud and take its networks off the host; says what it did."""
    from concurrent.futures import ThreadPoolExecutor

    config = settings(arguments.state)
    if config.fake or not config.agent.exists():
        return "none here"
    join_host(config.state)
    hypervisor = driver("hypervisor", config.hypervisor)(state=config.agent / "hypervisor")
    network = _network(config)
    guests = hypervisor.guests()
    say(f"{len(guests)} servers")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hypervisor.remove, guests))
    networks = len(network.networks())
    say(f"{networks} networks")
    network.teardown()
    network.close()
    hypervisor.close()
    return f"off the host (servers: {len(guests)}, networks: {networks})"


def examine_host(config: Config) -> Iterator[Found]:
    """What the drivers find on this host, by trying."""
    from pileus.drivers.hypervisor.qemu import probe_accelerator

    if os.getuid() != 0:
        return
    join_host(config.state)
    name, reason = probe_accelerator(2.0)
    if name == "kvm":
        yield "acceleration", "good", "kvm: a probe guest ran", ""
    else:
        fix = "servers run by emulation, about ten times slower; check that /dev/kvm works and virtualization is on"
        yield "acceleration", "note", f"{name}: {reason}", fix
    network = _network(config)
    try:
        facts = network.facts()
    except (OSError, RuntimeError) as error:
        yield "packet filter", "bad", str(error), "load the kernel's nf_tables and bridge netfilter modules"
    else:
        yield "namespaces and packet filter", "good", f"{facts.driver}, filtered by {facts.filter}", ""
    finally:
        network.close()
    yield from examine_isolation()


NEIGHBOURS = 16384
"""How many neighbours a host of many tenants should be able to remember at once."""


def examine_isolation() -> Iterator[Found]:
    """What the kernel leaves tenants to share; see docs/security.md."""
    from pileus.drivers.host import confinement, namespace

    for version in ("ipv4", "ipv6"):
        name = f"{version}/neigh/default/gc_thresh3"
        room = namespace.get_kernel(name)
        if room and int(room) < NEIGHBOURS:
            found = f"{room} neighbours of all networks together ({version}): one guest can fill the table"
            yield "table of neighbours", "note", found, f"sysctl -w net.{name.replace('/', '.')}={NEIGHBOURS}"
    if not confinement.version():
        found = "the kernel has no Landlock: what converts images is confined by its user and its limits alone"
        yield "confinement", "note", found, "add landlock to the kernel's lsm= parameter (Linux 5.13 or newer)"


GREETINGS = 256
"""How many simulated hosts join at once: real ones are as many machines, and do not wait for each other's processor."""


def fake_agents(config: Config, pool: ThreadPoolExecutor) -> list[Agent]:
    """Agents of simulated hosts, which start nothing."""
    from pileus.agent.agent import Agent
    from pileus.agent.host import Host
    from pileus.agent.image_cache import NoImages

    agents = []
    door = asyncio.Semaphore(GREETINGS)
    for number in range(config.fake):
        name = f"fake-{number + 1}"
        state = config.agent / name
        state.mkdir(exist_ok=True)
        hypervisor = driver("hypervisor", "fake")(
            host=name,
            state=state / "guests.jsonl",
            delay=config.fake_delay,
            failures=config.fake_failures,
            seed=config.fake_seed,
        )
        host = Host(
            name=name,
            state=state,
            hypervisor=hypervisor,
            network=driver("network", "fake")(),
            storage=driver("storage", "fake")(root=state / "disks"),
            images=NoImages(),
            metadata=None,
            simulated=True,
        )
        agents.append(Agent(host, _link(config), pool, parallel=4, door=door))
    return agents
