"""The composition root: the only file that sees everything, and puts it together.

It is imported at each start of `pileus`, so it imports late what a command may not need.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import logging
import os
import signal
import socket
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pileus.cli.main import CommandFailure, Found, Roles
from pileus.cli.place import settings
from pileus.cli.supervise import hold
from pileus.core.config import STATE, Config

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from pileus.agent.agent import Agent
    from pileus.contracts.images import ImageConverter, ImageStore
    from pileus.contracts.network import Network
    from pileus.core.api import Service
    from pileus.core.http import Edge
    from pileus.core.reconcile import Controller
    from pileus.core.store import Store
    from pileus.services.identity.interface import Keys
    from pileus.services.image.interface import ImageStores

logger = logging.getLogger(__name__)


def driver(group: str, name: str) -> Any:
    """The class of a driver, found by its entry point, so that others may bring their own. Raises LookupError."""
    for found in entry_points(group=f"pileus.{group}", name=name):
        return found.load()
    names = ", ".join(sorted(point.name for point in entry_points(group=f"pileus.{group}")))
    raise LookupError(f"there is no {group} driver {name!r}; there are: {names}")


SERVICES = ("fleet", "identity", "image", "placement", "network", "compute")
"""Folders of all services that have a door plate."""


def declare_tables() -> None:
    """Import every service, so that `core.store.metadata` holds all tables."""
    for name in SERVICES:
        import_module(f"pileus.services.{name}.service")


def public_services() -> list[Service]:
    """The services that users reach, each with its OpenAPI document."""
    from pileus.core import openapi

    found: list[Service] = [import_module(f"pileus.services.{name}.service").service() for name in SERVICES]
    for service in found:
        service.outer = [*service.outer, openapi.resource(service)]
    return found


# -- the control plane ---------------------------------------------------------------------------------------------


def image_stores(config: Config) -> ImageStores:
    """The stores of image data, and what is needed to import into them. Raises ConfigError."""
    from pileus.core.config import ConfigError
    from pileus.drivers.images.web import WebImageStore
    from pileus.services.image import interface as image

    try:
        settings = image.ImageSettings.of(config)
        roots = {name: config.control / place for name, place in map(image.named, config.image_stores)}
        directory = driver("images", "file")
        stores: dict[str, ImageStore] = {name: directory(root=root) for name, root in roots.items()}
        if config.image_web_store:
            stores[config.image_web_store] = WebImageStore(settings.addresses.check, settings.addresses.judge)
        return image.ImageStores(
            stores,
            next(iter(roots), ""),
            staging=directory(root=config.control / "staging"),
            cache=directory(root=config.control / "image-cache") if settings.cache_room > 0 else None,
            convert=_image_converter() if settings.conversion else None,
            settings=settings,
        )
    except ValueError as error:
        raise ConfigError(f"the settings of image stores and imports: {error}") from None


def _image_converter() -> ImageConverter:
    """What changes the format of images that are imported: as unprivileged as the control plane itself."""
    from pileus.drivers.storage.convert import convert_image

    return convert_image


class Control:
    """The control plane of one process: services, their loops, and the edges that serve them."""

    def __init__(self, config: Config, store: Store) -> None:
        from pileus.core.policy import Policy
        from pileus.services.compute import service as compute
        from pileus.services.fleet import controllers as fleet_controllers
        from pileus.services.fleet import service as fleet
        from pileus.services.fleet.interface import Fleet
        from pileus.services.identity import interface as identity_interface
        from pileus.services.image import controllers as image_controllers
        from pileus.services.image import interface as image_interface
        from pileus.services.network import controllers as network_controllers

        self.config = config
        self.store = store
        self.fleet = Fleet(store.seams.clock)
        lifetime = timedelta(hours=config.token_hours)
        window = timedelta(seconds=config.allow_expired_window)
        keys = token_keys(config)
        keys.prepare(store)
        self.tokens = identity_interface.Tokens(
            keys, lifetime=lifetime, window=window, rescope_scoped=config.allow_rescope_scoped_token
        )
        secrets = identity_interface.Secrets(config.control / "keys")
        secrets.prepare(store)
        self.stores = image_stores(config)
        self.public = public_services()
        self.link: Service = fleet.link_service([image_interface.host_resource])
        self.policy = Policy(overrides=config.policy)
        for service in [*self.public, self.link]:
            self.policy.add(service.rules)
            for resource in [*service.resources, *service.outer]:
                self.policy.add(resource.rules)
        model = identity_interface.limit_model(config)
        for service in self.public:
            if service.quota is not None:
                unified = config.quota_source == "unified"
                service.quota.source = identity_interface.UnifiedLimits(model, config.region) if unified else None
        self.provided: Mapping[type[Any], Any] = {
            Config: config,
            identity_interface.LimitModel: model,
            Fleet: self.fleet,
            identity_interface.Tokens: self.tokens,
            identity_interface.Secrets: secrets,
            identity_interface.Compliance: identity_interface.compliance(config),
            identity_interface.Throttle: identity_interface.Throttle(config.login_failures),
            image_interface.ImageStores: self.stores,
        }
        self.controllers: list[Controller] = [
            *fleet_controllers.controllers(),
            *image_controllers.controllers(self.stores),
            *network_controllers.controllers(self.fleet),
            *compute.controllers(self.fleet, config),
        ]

    def edge(self) -> Edge:
        """The public edge."""
        from pileus.core.http import Edge

        return Edge(
            self.public,
            self.store,
            self.policy,
            self.tokens.authenticate,
            self.provided,
            public_url=self.config.public_url,
        )

    def link_edge(self) -> Edge:
        """The edge that agents dial: who may connect at all is decided by the socket's peer."""
        from pileus.core.context import Auth
        from pileus.core.http import Edge
        from pileus.core.store import Tx

        def host(tx: Tx, token: str, headers: Mapping[bytes, bytes]) -> Auth:
            return Auth(user_id=token, roles=frozenset({"host"}))

        return Edge([self.link], self.store, self.policy, host, self.provided)

    def bootstrap(self) -> None:
        """Make what a cloud cannot be without, and what `pileus prepare` fetched; changes nothing that is there."""
        from pileus.cli import definition
        from pileus.services.fleet import interface as fleet
        from pileus.services.identity import interface as identity
        from pileus.services.image import interface as image

        root = self.config.root_url
        offers = [
            identity.Offer(_NAMES[service.type], service.type, root + _catalog_path(service))
            for service in self.public
            if service.type in _NAMES
        ]
        first = self.config.control / "bootstrap-password"
        password_hash = identity.hash_password(first.read_text().strip()) if first.exists() else None
        self.store.write_here(
            lambda tx: identity.bootstrap(
                tx, admin_password_hash=password_hash, region=self.config.region, offers=offers
            )
        )
        self.store.write_here(fleet.begin)
        definitions = definition.documents(self.config.state)
        self.store.write_here(lambda tx: image.offer_definitions(tx, definitions))
        first.unlink(missing_ok=True)

    async def serve(self, public: socket.socket, link: socket.socket) -> None:
        """Serve until SIGTERM or SIGINT."""
        from pileus.core import serve
        from pileus.core.reconcile import Loops
        from pileus.drivers.host.peer import peer_uid

        self.fleet.attach(self.store)
        loops = Loops(self.store, self.controllers)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with AsyncExitStack() as stack:
            await loops.start()
            stack.push_async_callback(loops.stop)
            servers = [serve.server(self.edge()), serve.server(self.link_edge(), serve.checked(peer_uid))]
            tasks = [
                asyncio.create_task(server.serve(sockets=[listener]))
                for server, listener in zip(servers, (public, link), strict=True)
            ]
            logger.info("serving %s", self.config.root_url)
            await asyncio.wait([asyncio.create_task(stop.wait()), *tasks], return_when=asyncio.FIRST_COMPLETED)
            self.fleet.close()
            for server in servers:
                server.should_exit = True
            await asyncio.gather(*tasks)


def token_keys(config: Config) -> Keys:
    """The keys that seal this cloud's tokens."""
    from pileus.services.identity.interface import Keys

    lifetime = timedelta(hours=config.token_hours, seconds=config.allow_expired_window)
    return Keys(config.control / "keys", active=config.max_active_keys, lifetime=lifetime)


_NAMES = {
    "identity": "keystone",
    "image": "glance",
    "placement": "placement",
    "network": "neutron",
    "compute": "nova",
}
"""Names of the services in the catalog, as clients and people know them."""


def _catalog_path(service: Service) -> str:
    versioned = {"identity": "/v3", "compute": "/v2.1"}
    return service.mounts[0] + versioned.get(service.type, "")


def control(arguments: argparse.Namespace) -> int:
    """Run the control plane: open what needs privilege, drop it, serve."""
    from pileus.core import log, privilege, serve
    from pileus.core.store import Store, load_driver
    from pileus.services.identity.interface import KeyFailure

    config = settings(arguments.state)
    log.start("control", config.log_level)
    _alone(config, "control")
    os.umask(0o077)
    config.control.mkdir(mode=0o700, exist_ok=True)
    try:
        public = serve.listen_tcp(*config.address)
    except serve.ListenFailure as failure:
        raise CommandFailure(str(failure)) from None
    link = serve.listen_unix(config.link)
    if os.getuid() == 0:
        os.chown(config.link, config.unprivileged_uid, config.unprivileged_uid)
    if os.getuid() == 0:
        privilege.give_away(config.control, config.unprivileged_uid)
    if not privilege.apart(functools.partial(_migrate, config)):
        raise CommandFailure("the store cannot be brought to the schema of this version: see the log above")
    load_driver(config.database_url)
    privilege.preload(
        "pileus.core", "pileus.contracts", "pileus.services", "pileus.drivers.images", but="pileus.contracts.suite"
    )
    if config.image_conversion:
        _image_converter()
    privilege.drop(config.unprivileged_uid)
    store = Store(config.database_url)
    try:
        cloud = Control(config, store)
    except KeyFailure as failure:
        raise CommandFailure(str(failure)) from None
    cloud.bootstrap()
    try:
        asyncio.run(cloud.serve(public, link))
    finally:
        store.close()
    return 0


def _alone(config: Config, name: str) -> None:
    """Be the only process of this name on the state directory until this one ends. Raises CommandFailure."""
    if hold(config.state, name) is None:
        raise CommandFailure(f"another {name} runs on {config.state}")


def _migrate(config: Config) -> None:
    from pileus import migration
    from pileus.core import privilege
    from pileus.core.store import Store, load_driver

    load_driver(config.database_url)
    steps = migration.load()
    privilege.drop(config.unprivileged_uid)
    store = Store(config.database_url)
    try:
        migration.upgrade(store.engine, steps)
    finally:
        store.close()


def rotate_keys(config: Config, forget: bool) -> None:
    """Make the next keys of tokens and secrets the primary ones. Raises CommandFailure."""
    from pileus.core import privilege

    if not privilege.apart(functools.partial(_rotate, config, forget)):
        raise CommandFailure("the keys were not rotated: see the error above")


def _rotate(config: Config, forget: bool) -> None:
    from pileus.core import privilege
    from pileus.core.store import Store, load_driver
    from pileus.services.identity.interface import Secrets

    declare_tables()
    load_driver(config.database_url)
    keys, secrets = token_keys(config), Secrets(config.control / "keys")
    privilege.drop(config.unprivileged_uid)
    store = Store(config.database_url)
    try:
        store.write_here(lambda tx: keys.rotate(tx, forget=forget))
        store.write_here(secrets.rotate)
    finally:
        store.close()


# -- the agent -----------------------------------------------------------------------------------------------------


def agent(arguments: argparse.Namespace) -> int:
    """Run the agent of this host, or of the simulated hosts."""
    from concurrent.futures import ThreadPoolExecutor

    from pileus.core import log

    config = settings(arguments.state)
    log.start("agent", config.log_level)
    _alone(config, "agent")
    config.agent.mkdir(mode=0o711, exist_ok=True)
    if not config.fake:
        join_host(config.state)
    pool = ThreadPoolExecutor(8 if config.fake else 32, thread_name_prefix="driver")
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
    await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in [stopping, *tasks]:
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
    from pileus.agent.agent import Agent, Host
    from pileus.agent.image_cache import FileImageCache
    from pileus.agent.metadata import Metadata
    from pileus.drivers.storage.convert import convert

    host = Host(
        name=config.host_name,
        state=config.agent,
        hypervisor=driver("hypervisor", config.hypervisor)(state=config.agent / "hypervisor"),
        network=_network(config),
        storage=driver("storage", config.storage)(root=config.agent / "disks"),
        images=FileImageCache(config.agent / "cache", functools.partial(convert, uid=config.unprivileged_uid + 1)),
        metadata=Metadata(functools.partial(_start_metadata, config)),
    )
    return Agent(host, _link(config), pool)


def _network(config: Config) -> Network:
    """This host's network driver; clouds in different directories do not share names on one host."""
    own = f"p{zlib.crc32(str(config.state).encode()) & 0xFFFFF:05x}"
    prefix = "pileus" if config.state == STATE else own
    found: Network = driver("network", config.network)(state=config.agent / "network", prefix=prefix)
    return found


def _start_metadata(config: Config, channel: socket.socket) -> Callable[[], bool]:
    from pileus.drivers.host.process import spawn

    uid = str(config.unprivileged_uid + 1)  # not the control plane's: each sees none of the other's secrets
    argv = [sys.executable, "-m", "pileus", "metadata-server", "--uid", uid, str(channel.fileno())]
    child = spawn(argv, pass_fds=[channel.fileno()], stderr=2)
    return child.alive


def metadata_server(arguments: argparse.Namespace) -> int:
    """Run the metadata server as a child of the agent: read the code, drop all privilege, answer guests."""
    from pileus.agent.metadata_server import main

    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(arguments.uid)
        os.setuid(arguments.uid)
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
    return f"{len(guests)} servers and {networks} networks are off the host"


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


def fake_agents(config: Config, pool: ThreadPoolExecutor) -> list[Agent]:
    """Agents of simulated hosts, which start nothing."""
    from pileus.agent.agent import Agent, Host
    from pileus.agent.image_cache import NoImages

    agents = []
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
        )
        agents.append(Agent(host, _link(config), pool, parallel=4))
    return agents


roles = Roles(
    control=control,
    agent=agent,
    metadata_server=metadata_server,
    join_host=join_host,
    teardown=teardown,
    examine_host=examine_host,
    rotate_keys=rotate_keys,
)
