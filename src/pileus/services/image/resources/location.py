"""Locations: where an image's data is, as far as clients may know and say.

Source: https://docs.openstack.org/api-ref/image/v2/#image-location-apis, #images ("Update image" for `locations`),
#stores ("Delete image from store")

Clients may only add places on the web, and no place is read before an operator's filter has passed it.  What is told by
`POST …/locations` is read once by a task, hashed and inspected, before the image is active.  What is told by a patch is
believed, as upstream does: such an image has no hash of the cloud's own, and no guest boots from it.
"""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Conflict, Forbidden, NotFound
from pileus.core.fields import UNSET, Body, UnsetType
from pileus.core.policy import Rule
from pileus.core.store import Tx
from pileus.services.image.resources import place, task
from pileus.services.image.resources.image import policy
from pileus.services.image.resources.image.table import Record
from pileus.services.image.resources.place import Place
from pileus.services.image.resources.store import ImageStores, dispose
from pileus.services.image.resources.task import owned
from pileus.services.image.resources.usage import change
from pileus.services.image.rules import digest

MOST = 10
"""How many places the data of one image may have."""


class Location(Body):
    """A place of an image's data."""

    url: str
    validation_data: dict[str, Any] | UnsetType = UNSET
    """`os_hash_algo` and `os_hash_value` that the data must have."""


class Entry(msgspec.Struct, kw_only=True):
    """A place as a patch names it."""

    url: str
    metadata: dict[str, Any]
    validation_data: dict[str, Any] = {}


resource = Resource(
    "location",
    "locations",
    rules=[
        Rule("get_image_location", policy.READER, "See where an image's data is"),
        Rule("set_image_location", policy.MEMBER, "Say where an image's data is"),
        Rule("delete_image_location", policy.ADMIN, "Take away a place of an image's data"),
        Rule(
            "add_image_location",
            f"{policy.SERVICE} or (role:member and {policy.PROJECT} and project_id:%(owner)s)",
            "Say where an image's data is, to have it hashed",
        ),
        Rule("fetch_image_location", policy.SERVICE, "Learn where an image's data is"),
    ],
)


@resource.post("/images/{image_id}/locations", policy="add_image_location", guarded=True, status=202)
def add(ctx: Context, image_id: str, body: Location) -> None:
    """Say where an image's data is on the web; a task hashes and inspects it, and makes the image active.

    Raises BadRequest (the hash, the URL), Forbidden, NotFound and Conflict (the image's status, an import).
    """
    stores = ctx.of(ImageStores)
    record = policy.get(ctx, image_id)
    row = record.row
    policy.require(ctx, record, "add_image_location")
    if row.status != "queued":
        raise Conflict(f"It's not allowed to add locations if image status is {row.status}.")
    if stores.web is None or not body.url.lower().startswith("http"):
        raise Forbidden("http store must be enabled to use location API by normal user.")
    told = body.validation_data or {}
    digest.check(told)
    stores.check_url(body.url, "URI for add location")
    if row.import_task is not None:
        raise Conflict(f"New operation on image '{image_id}' is not permitted as prior operation is still in progress")
    work = {"image_id": image_id, "loc_url": body.url, "validation_data": told}
    number = task.create(ctx, task.Draft(type="location_import", image_id=image_id, input=work))
    wanted = [Place(stores.web, body.url, None, {})]
    place.settle(ctx.tx, row, wanted, {"status": "importing", "import_task": number})


@resource.get("/images/{image_id}/locations", policy="fetch_image_location", guarded=True)
def index(ctx: Context, image_id: str) -> list[dict[str, Any]]:
    """Where an image's data is, for other services. Raises Forbidden and NotFound."""
    record = policy.get(ctx, image_id, "fetch_image_location")
    return [place.told(ctx.of(ImageStores), one) for one in place.places(record)]


@resource.delete("/stores/{store_id}/{image_id}", policy="delete_image_location", guarded=True)
def remove(ctx: Context, store_id: str, image_id: str) -> None:
    """Remove an image's data from one of the stores that hold it.

    Raises Forbidden (also for the only store that holds it), NotFound (it does not hold it) and Conflict (an unknown
    store, the image's status).
    """
    stores = ctx.of(ImageStores)
    record = policy.get(ctx, image_id)
    for rule in ("get_image_location", "delete_image_location"):
        policy.require(ctx, record, rule)
    if store_id not in stores.by_name:
        raise Conflict(f"The selected store {store_id} is not available on this node.")
    if record.row.status != "active":
        raise Conflict("It's not allowed to remove image data from store if image status is not 'active'")
    known = list(place.places(record))
    if len(known) == 1:
        raise Forbidden("Cannot delete image data from the only store containing it. Consider deleting the image.")
    found = next((one for one in known if one.store == store_id), None)
    if found is None:
        raise NotFound(f"Image {image_id} is not stored in store {store_id}.")
    _take_away(ctx.tx, record, known, found)


def _take_away(tx: Tx, record: Record, known: list[Place], one: Place) -> None:
    if one.key is not None:
        dispose(tx, one.store, location=one.location)
    place.settle(tx, record.row, [other for other in known if other is not one], {})


# -- as parts of a patch -------------------------------------------------------------------------------------------


def patch(ctx: Context, record: Record, operation: str, position: str | None, value: Any) -> None:
    """Make one change of `/locations` or, with a position, of `/locations/N`.

    Raises BadRequest, Forbidden (locations are not shown, the last one, permission), and Conflict (the image's status,
    hashes that contradict each other).
    """
    stores = ctx.of(ImageStores)
    row = record.row
    if operation == "replace" and not value:
        raise Forbidden("Cannot set locations to empty list.")
    policy.require(ctx, record, "delete_image_location" if operation == "remove" else "set_image_location")
    if not stores.settings.show_locations or stores.web is None:
        raise Forbidden("It's not allowed to change locations if locations are invisible.")
    if row.status not in (("active",) if operation == "remove" else ("active", "queued")):
        raise Conflict(f"It's not allowed to {operation} locations if image status is {row.status}.")
    if row.import_task is not None:
        raise Conflict(f"New operation on image '{row.id}' is not permitted as prior operation is still in progress")
    known = list(place.places(record))
    if operation == "remove":
        _remove_at(ctx.tx, record, known, position)
    elif operation == "add":
        _add_at(ctx, record, known, position, value)
    else:
        _replace(ctx, record, known, value)


def _entries(value: Any) -> list[Entry]:
    try:
        return msgspec.convert(value, list[Entry])
    except msgspec.ValidationError as error:
        raise BadRequest(f"Invalid location: {error}") from None


def _index(position: str | None, length: int, *, end: bool) -> int:
    """A position in a list of a length; `end` is whether it may be the one after the last. Raises BadRequest."""
    last = length if end else length - 1
    if position == "-":
        return last
    if position is None or not position.isdecimal() or len(position) > 19 or (int(position) > last and not end):
        raise BadRequest("Invalid position for a location.")
    return min(int(position), last)


def _remove_at(tx: Tx, record: Record, known: list[Place], position: str | None) -> None:
    if len(known) == 1:
        raise Forbidden("Cannot remove last location in the image.")
    _take_away(tx, record, known, known[_index(position, len(known), end=False)])


def _place(stores: ImageStores, entry: Entry) -> Place:
    """A place on the web. Raises BadRequest for any other."""
    stores.check_url(entry.url, "The location")
    metadata = {name: value for name, value in entry.metadata.items() if name != "store"}
    return Place(stores.web or "", entry.url, None, metadata)


def _news(record: Record, entries: list[Entry]) -> dict[str, Any]:
    """What the places say of the data, and that there is data. Raises Conflict."""
    row = record.row
    known = {name: row._mapping[name] for name in ("checksum", "os_hash_algo", "os_hash_value")}
    news = digest.agree([entry.validation_data for entry in entries], known, row.status)
    return {**news, "status": "active"} if row.status == "queued" else {}


def _add_at(ctx: Context, record: Record, known: list[Place], position: str | None, value: Any) -> None:
    stores = ctx.of(ImageStores)
    entries = _entries([value])
    news = _news(record, entries)
    new = _place(stores, entries[0])
    if len(known) >= MOST:
        raise BadRequest(f"An image has {MOST} locations at most.")
    if any(one.location == new.location for one in known):
        raise BadRequest(f"The location {new.location} is there already.")
    known.insert(_index(position, len(known), end=True), new)
    place.settle(ctx.tx, record.row, known, news)


def _replace(ctx: Context, record: Record, known: list[Place], value: Any) -> None:
    """Set the places of an image that has none, or what is said of those that it has."""
    stores = ctx.of(ImageStores)
    entries = _entries(value)
    news = _news(record, entries)
    if len(entries) > MOST or len({entry.url for entry in entries}) != len(entries):
        raise BadRequest(f"An image has {MOST} locations at most, and each once.")
    if not known:
        place.settle(ctx.tx, record.row, [_place(stores, entry) for entry in entries], news)
        return
    told = {place.told(stores, one)["url"]: one for one in known}
    if told.keys() != {entry.url for entry in entries}:
        raise BadRequest("Locations can be added and removed one by one alone, not replaced by others.")
    wanted = []
    for entry in entries:
        one = told[entry.url]
        metadata = {name: value for name, value in entry.metadata.items() if name != "store"}
        wanted.append(Place(one.store, one.location, one.key, metadata, one.task_id))
    place.settle(ctx.tx, record.row, wanted, news)


# -- what the loop writes ------------------------------------------------------------------------------------------


def verified(tx: Tx, todo: sa.Row[Any], values: dict[str, Any], stores: ImageStores) -> None:
    """The data on the web is what it should be: the image is active. Raises Lost."""
    change(tx, owned(tx, todo), {**values, "status": "active", "import_task": None})
    task.end(tx, todo, "success", "", stores.settings.task_lifetime)


def refused(tx: Tx, todo: sa.Row[Any], message: str, stores: ImageStores, *, kept: bool) -> None:
    """The data on the web is not what it should be, or not there: the image waits for data again.

    `kept` is whether the place stays known.  Raises Lost.
    """
    row = owned(tx, todo)
    gone = {} if kept else {"store": None, "location": None, "location_metadata": None, "copies": None}
    change(tx, row, {"status": "queued", "import_task": None, **gone})
    task.end(tx, todo, "failure", message, stores.settings.task_lifetime)
