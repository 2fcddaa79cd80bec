"""The control plane: services, their loops, and the edges that serve them, put together in one process."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pileus.app.encryption import Freshness, certify, open_context
from pileus.app.readiness import tell
from pileus.app.service import alone, driver, public_services
from pileus.cli.main import CommandFailure
from pileus.cli.place import exposed, settings
from pileus.core.config import Config

if TYPE_CHECKING:
    import ssl

    from pileus.contracts.images import ImageConverter, ImageStore
    from pileus.core.api import Service
    from pileus.core.http import Edge
    from pileus.core.reconcile import Controller
    from pileus.core.store import Store
    from pileus.services.identity.interface import Keys
    from pileus.services.image.interface import ImageStores

logger = logging.getLogger(__name__)


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
        hosts = [image_interface.host_resource, image_interface.snapshot_resource, *compute.host_resources()]
        self.link: Service = fleet.link_service(hosts)
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

        return Edge([self.link], self.store, self.policy, host, self.provided, level=logging.DEBUG)

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
        password_hash = None
        if first.exists() and self.store.read_here(identity.lacks_administrator):
            password_hash = identity.hash_password(first.read_text().strip())
        self.store.write_here(
            lambda tx: identity.bootstrap(
                tx, admin_password_hash=password_hash, region=self.config.region, offers=offers
            )
        )
        self.store.write_here(fleet.begin)
        definitions = definition.documents(self.config.state)
        self.store.write_here(lambda tx: image.offer_definitions(tx, definitions))
        first.unlink(missing_ok=True)

    async def serve(
        self,
        public: socket.socket,
        link: socket.socket,
        figures: socket.socket | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Serve until SIGTERM or SIGINT, over TLS with a context, whose certificate SIGHUP has read again."""
        from pileus.app.console import Console
        from pileus.app.figures import probes
        from pileus.core import serve
        from pileus.core.drain import Drain
        from pileus.core.reconcile import Loops
        from pileus.drivers.host.peer import peer_uid

        self.fleet.attach(self.store)
        loops = Loops(self.store, self.controllers)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        renewal = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, renewal.set)
        async with AsyncExitStack() as stack:
            await loops.start()
            stack.push_async_callback(loops.stop)
            if context is not None:
                fresh = asyncio.create_task(Freshness(self.config, context).run(renewal))
                stack.callback(fresh.cancel)
            edge, link_edge = self.edge(), self.link_edge()
            public_edge = Drain(edge)
            probe, open_probe = probes(self, loops, (edge, link_edge), public_edge)
            servers = [
                serve.server(Console(probe, self.fleet, self.store, self.config), context=context, websockets=True),
                serve.server(link_edge, serve.checked(peer_uid)),
                serve.server(open_probe),
            ]
            tasks = [
                asyncio.create_task(server.serve(sockets=[listener]))
                for server, listener in zip(servers, (public, link, figures), strict=True)
                if listener is not None
            ]
            logger.info("serving %s", self.config.root_url)
            telling = asyncio.create_task(tell(f"serves {self.config.root_url}"))
            await asyncio.wait([asyncio.create_task(stop.wait()), *tasks], return_when=asyncio.FIRST_COMPLETED)
            telling.cancel()
            # The link stays until all is answered: requests may wait for what only a host knows.
            await public_edge.end(requests=self.config.drain_seconds, transfers=self.config.drain_transfer_seconds)
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
    from pileus.app import schema, soundness
    from pileus.core import log, privilege, serve
    from pileus.core.store import Store, load_driver
    from pileus.drivers.host.limit import allow_files
    from pileus.services.identity.interface import KeyFailure

    config = settings(arguments.state)
    gc.disable()  # all that a start makes stays
    log.start("control", config.log_level, config.log_levels)
    allow_files()
    exposed(config)
    alone(config, "control")
    os.umask(0o077)
    config.control.mkdir(mode=0o700, exist_ok=True)
    try:
        public = serve.listen_tcp(*config.address)
        metrics = config.metrics_address
        figures = serve.listen_tcp(*metrics, "metrics_listen") if metrics else None
    except serve.ListenFailure as failure:
        raise CommandFailure(str(failure)) from None
    link = serve.listen_unix(config.link)
    if os.getuid() == 0:
        os.chown(config.link, config.unprivileged_uid, config.unprivileged_uid)
    if os.getuid() == 0:
        privilege.give_away(config.control, config.unprivileged_uid)
    soundness.check(config)
    certify(config)
    schema.bring_up(config, True, logger.info)
    load_driver(config.database_url)
    packages = ("pileus.app", "pileus.core", "pileus.contracts", "pileus.services", "pileus.drivers.images")
    privilege.preload(*packages, "pileus.cli.definition", "pileus.drivers.host.peer", but="pileus.contracts.suite")
    if config.image_conversion:
        _image_converter()
    driver("images", "file")  # what is installed cannot be looked up in a Python that is root's alone to read
    privilege.drop(config.unprivileged_uid)
    context = open_context(config)
    store = Store(config.database_url)
    try:
        cloud = Control(config, store)
    except KeyFailure as failure:
        raise CommandFailure(str(failure)) from None
    cloud.bootstrap()
    _calm_collector()
    try:
        asyncio.run(cloud.serve(public, link, figures, context))
    finally:
        store.close()
    return 0


def _calm_collector() -> None:
    """Keep the collector of cycles from what the start made, which stays, and let it look less often at the rest.

    A large answer is thousands of objects; each few hundred of them would have it go through all that there is.  What a
    start leaves behind, some three thousand objects, is not worth a look through a hundred thousand.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    gc.enable()


def upgrade(config: Config, backup: bool, say: Callable[[str], None]) -> None:
    """Bring the store of a cloud that rests to this version's schema. Raises CommandFailure."""
    from pileus.app import schema, soundness
    from pileus.core import privilege

    if os.getuid() == 0:
        privilege.give_away(config.control, config.unprivileged_uid)
    soundness.check(config)
    schema.bring_up(config, backup, say)


def rotate_keys(config: Config, forget: bool) -> None:
    """Make the next keys of tokens and secrets the primary ones. Raises CommandFailure."""
    from pileus.app.repair import in_store
    from pileus.services.identity.interface import Secrets

    keys, secrets = token_keys(config), Secrets(config.control / "keys")

    def rotate(store: Store, say: Callable[[str], None]) -> None:
        store.write_here(lambda tx: keys.rotate(tx, forget=forget))
        store.write_here(secrets.rotate)

    in_store(config, rotate, lambda text: None)
