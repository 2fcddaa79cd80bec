"""The stores that hold image data, and the rows that say where data is and what of it is to be removed.

Source: https://docs.openstack.org/api-ref/image/v2/#stores for how a store is named.

Data is removed only by a row of `image_disposal`, never because nobody seems to own it: a store's rows may come from an
older copy.  Every byte that is written has its key in a row before it is written, so that nothing can be forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import sqlalchemy as sa

from pileus.contracts.images import ImageConverter, ImageStore
from pileus.core.config import Config
from pileus.core.errors import BadRequest, Unavailable
from pileus.core.store import Instant, Tx, metadata
from pileus.services.image.rules.address import AddressFilter, Unreachable, networks

T = TypeVar("T")

STAGING, CACHE = "staging", "cache"
"""Names of the stores that no request can ask for: what waits to be imported, and what is kept close by."""

disposal = sa.Table(
    "image_disposal",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("store", sa.String(64), nullable=False),
    sa.Column("key", sa.String(128), comment="name under which an upload wrote, which may not be committed"),
    sa.Column("location", sa.String(1024), comment="committed data"),
    sa.Column("created_at", Instant, nullable=False),
)

copy = sa.Table(
    "image_copy",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("image_id", sa.ForeignKey("image_image.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("position", sa.Integer, nullable=False, comment="order among the places of an image"),
    sa.Column("store", sa.String(64), nullable=False),
    sa.Column("key", sa.String(128), comment="name under which it is being written"),
    sa.Column("location", sa.String(1024), comment="committed data; empty while it is being written"),
    sa.Column("metadata", sa.JSON, comment="what clients say of a place"),
    sa.Column("task_id", sa.String(64), comment="the import that wrote it"),
    sa.Column("created_at", Instant, nullable=False),
)
"""Places of an image's data besides the one that the image's own row names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSettings:
    """What an operator decides about image data; docs/configuration.md explains each."""

    weights: Mapping[str, int] = field(default_factory=dict)
    """Stores by how gladly data is read from them; 0 for those that are not named."""
    show_locations: bool = True
    """Whether images show where their data is, and clients may add places on the web."""
    conversion: str = ""
    """Format that imported disks are converted to; empty: they stay as they came."""
    cache_room: int = 0
    """Bytes of data that are kept close by; 0: there is no cache."""
    region: str = "RegionOne"
    """Name of the region that this cloud's images are in."""
    task_lifetime: timedelta = timedelta(hours=48)
    """How long a finished task is kept."""
    addresses: AddressFilter = field(default_factory=AddressFilter)
    """Which places on the web data may be fetched from."""

    @classmethod
    def of(cls, config: Config) -> ImageSettings:
        """What the settings of a cloud say. Raises ValueError."""
        return cls(
            weights={name: int(number) for name, number in map(named, config.image_store_weights)},
            show_locations=config.image_locations,
            conversion=config.image_conversion,
            cache_room=config.image_cache_mib << 20,
            region=config.region,
            task_lifetime=timedelta(hours=config.image_task_hours),
            addresses=AddressFilter(
                allowed_schemes=tuple(config.import_allowed_schemes),
                disallowed_schemes=tuple(config.import_disallowed_schemes),
                allowed_hosts=tuple(config.import_allowed_hosts),
                disallowed_hosts=tuple(config.import_disallowed_hosts),
                allowed_ports=tuple(config.import_allowed_ports),
                disallowed_ports=tuple(config.import_disallowed_ports),
                networks=networks(config.import_networks),
            ),
        )


def named(text: str) -> tuple[str, str]:
    """Name and value of a setting of the form NAME=VALUE. Raises ValueError."""
    name, equal, value = text.partition("=")
    if not equal or not name.replace("-", "_").isidentifier() or not value:
        raise ValueError(f"{text!r} is not of the form NAME=VALUE")
    return name, value


class ImageStores:
    """The stores of this cloud by name, the one that is used when none is named, and the threads that work for them.

    `staging` holds what waits to be imported; without it nothing is.  `cache` holds what is kept close by.  `convert`
    changes the format of staged data.
    """

    def __init__(
        self,
        stores: Mapping[str, ImageStore],
        default: str,
        *,
        staging: ImageStore | None = None,
        cache: ImageStore | None = None,
        convert: ImageConverter | None = None,
        settings: ImageSettings | None = None,
        threads: int = 4,
    ) -> None:
        if default not in stores or stores[default].read_only:
            raise ValueError(f"the default image store {default} is not one to write to")
        if {STAGING, CACHE} & stores.keys():
            raise ValueError(f"no image store may be called {STAGING} or {CACHE}")
        self.by_name = dict(stores)
        self.default = default
        self.staging = staging
        self.cache = cache
        self.convert = convert
        self.settings = settings or ImageSettings()
        self._all = dict(self.by_name)
        if staging is not None:
            self._all[STAGING] = staging
        if cache is not None:
            self._all[CACHE] = cache
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="image")
        self._far = ThreadPoolExecutor(2 * threads, thread_name_prefix="image-far")

    @property
    def writable(self) -> list[str]:
        """Names of the stores that take data, in the operator's order."""
        return [name for name, store in self.by_name.items() if not store.read_only]

    @property
    def web(self) -> str | None:
        """Name of the store whose data is on the web, if there is one."""
        return next((name for name, store in self.by_name.items() if store.kind == "http"), None)

    @property
    def methods(self) -> list[str]:
        """The ways of import."""
        if self.staging is None:
            return []
        found = ["glance-direct", "glance-download"]
        if self.web is not None:
            found.insert(1, "web-download")
        if len(self.writable) > 1:
            found.append("copy-image")
        return found

    def name(self, wanted: str | None) -> str:
        """The name of the store that a request asks for. Raises BadRequest."""
        if wanted is None:
            return self.default
        if wanted not in self.by_name:
            raise BadRequest(f"There is no image store of the name {wanted}.")
        if self.by_name[wanted].read_only:
            raise BadRequest(f"Nothing can be written to the image store {wanted}.")
        return wanted

    def check_url(self, url: Any, what: str) -> None:
        """Raise BadRequest for what is not the URL of a place that data may be fetched from."""
        try:
            if not isinstance(url, str):
                raise Unreachable("it is not text")
            if len(url) > 1024:
                raise Unreachable("it is longer than 1024 characters")
            self.settings.addresses.check(url)
        except Unreachable as reason:
            raise BadRequest(f"{what} does not pass filtering: {url}: {reason}") from None

    def find(self, name: str) -> ImageStore | None:
        """A store by its name, also one that no request can ask for."""
        return self._all.get(name)

    def get(self, name: str) -> ImageStore:
        """A store that a row names. Raises Unavailable when there is none of this name any more."""
        store = self._all.get(name)
        if store is None:
            raise Unavailable(f"The image store {name} is not there.")
        return store

    def weigh(self, names: Iterable[str]) -> list[str]:
        """Names of stores, those first that are gladly read from; equals stay in their order."""
        return sorted(names, key=lambda name: -self.settings.weights.get(name, 0))

    async def run(self, work: Callable[[], T], *, on: ImageStore | None = None) -> T:
        """Run work on files or on much data, outside of the event loop; `on` is the store that it waits for.

        Stores that are far away have threads of their own: a slow server keeps nobody's upload waiting.
        """
        threads = self._far if on is not None and on.kind == "http" else self._threads
        return await asyncio.get_running_loop().run_in_executor(threads, work)


def dispose(tx: Tx, store: str, *, key: str | None = None, location: str | None = None) -> None:
    """Have data removed, soon: what was committed at a location, or whatever was written under a key."""
    number = tx.seams.uuid()
    values = {"id": number, "store": store, "key": key, "location": location, "created_at": tx.now}
    tx.insert(disposal, values)
    tx.changed("image.disposal", number)
