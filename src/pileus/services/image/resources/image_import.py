"""Import: data that was staged, that is on the web, or that another image has, comes into the stores by a task.

Source: https://docs.openstack.org/api-ref/image/v2/#interoperable-image-import; https://docs.openstack.org/api-ref/image/v2/#tasks
for the older way, a task of the type `import` that makes its image itself.

A request writes the task, and lets the image wait for it, in one transaction.  From then on the image's `import_task`
names the only task that may change its data; each function here that a loop calls looks at that first, and raises Lost
when it is another's by now, or the image is gone.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import sqlalchemy as sa

from pileus.core.api import Reply, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Conflict, Fault, Forbidden
from pileus.core.policy import Rule
from pileus.core.store import Tx
from pileus.services.image.resources import place, task
from pileus.services.image.resources.image import policy
from pileus.services.image.resources.image.operations import create as create_image
from pileus.services.image.resources.image.table import Record, prop
from pileus.services.image.resources.store import STAGING, ImageStores, copy, dispose
from pileus.services.image.resources.task import Lost, owned
from pileus.services.image.resources.usage import change, copies

COPIED = ("hw_", "trait:", "os_distro", "os_secure_boot", "os_type")
"""How the names of the properties begin that an image takes over from the one that its data comes from."""

resource = Resource(
    "import",
    "imports",
    rules=[Rule("copy_image", policy.ADMIN, "Copy an image's data to further stores")],
)


# -- what users ask for --------------------------------------------------------------------------------------------


@resource.post("/images/{image_id}/import", policy="modify_image", guarded=True, status=202)
def begin(ctx: Context, image_id: str, body: dict[str, Any]) -> Reply | None:
    """Have an image's data come into stores.

    Raises BadRequest (an unknown method, a URL that data may not be fetched from, stores that hold it already),
    Forbidden, NotFound, Conflict (the image's status, a missing format, an unknown store, another import) and TooLarge
    (quota).
    """
    stores = ctx.of(ImageStores)
    method = _method(stores, body)
    record = policy.get(ctx, image_id)
    row = record.row
    _check_status(row, method["name"])
    if method["name"] == "copy-image":
        policy.require(ctx, record, "copy_image")
        ctx.allows(ctx.operation, policy.target(ctx, row))  # asked, as each import does; copying has its own rule
    else:
        policy.require(ctx, record, "modify_image")
    targets = _targets(ctx, stores, body)
    if method["name"] == "copy-image":
        targets = _missing(record, targets, everywhere=body.get("all_stores", False))
        if not targets:
            return None
    if row.import_task is not None:
        raise Conflict(f"New operation on image '{image_id}' is not permitted as prior operation is still in progress")
    source_id = _source(ctx, method) if method["name"] == "glance-download" else None
    draft = task.Draft(
        type="api_image_import",
        image_id=image_id,
        input={"image_id": image_id, "import_req": body, "backend": targets},
        source_id=source_id,
    )
    _wait(ctx.tx, row, task.create(ctx, draft), targets, stays=method["name"] == "copy-image")
    return None


def _method(stores: ImageStores, body: dict[str, Any]) -> dict[str, Any]:
    method = body.get("method")
    if not isinstance(method, dict):
        raise BadRequest("Import request requires a 'method' field.")
    if "name" not in method:
        raise BadRequest("Import request requires a 'name' field.")
    if method["name"] not in stores.methods:
        raise BadRequest(f"Unknown import method name '{method['name']}'.")
    for name, default in (("all_stores_must_succeed", True), ("all_stores", False)):
        if not isinstance(body.get(name, default), bool):
            raise BadRequest(f"'{name}' must be boolean value only")
    if method["name"] == "web-download":
        stores.check_url(method.get("uri"), "URI for web-download")
    if method["name"] == "glance-download":
        _check_glance(method)
    return method


def _check_glance(method: dict[str, Any]) -> None:
    for name in ("glance_region", "glance_image_id"):
        if not isinstance(method.get(name), str):
            raise BadRequest(f"'{name}' needs to be set for glance-download import method")
    try:
        UUID(method["glance_image_id"])
    except ValueError:
        raise BadRequest(f"Remote image id does not look like a UUID: {method['glance_image_id']}") from None
    method.setdefault("glance_service_interface", "public")


def _check_status(row: sa.Row[Any], method: str) -> None:
    if method == "copy-image":
        if row.status != "active":
            raise Conflict("Only images with status active can be targeted for copying")
    elif row.status == "active":
        raise Conflict("Image with status active cannot be target for import")
    elif method == "glance-direct":
        if row.status != "uploading" or row.stage_size is None:
            raise Conflict("Image needs to be staged before 'glance-direct' method can be used")
    elif row.status != "queued":
        raise Conflict(f"Image needs to be in 'queued' state to use '{method}' method")
    for name in ("container_format", "disk_format"):
        if not row._mapping[name]:
            raise Conflict(f"'{name}' needs to be set before import")


def _targets(ctx: Context, stores: ImageStores, body: dict[str, Any]) -> list[str]:
    """The stores that a request names. Raises BadRequest for too many ways of naming, and Conflict for unknown ones."""
    header = ctx.headers.get(b"x-image-meta-store")
    if body.get("all_stores", False):
        if "stores" in body or header is not None:
            raise BadRequest("All_stores parameter can't be used with x-image-meta-store header or stores parameter")
        return stores.writable
    named = body.get("stores")
    if named is None:
        named = [header.decode("latin-1") if header is not None else stores.default]
    elif header is not None:
        raise BadRequest("Stores parameter and x-image-meta-store header can't be both specified")
    if not isinstance(named, list) or not named or not all(isinstance(name, str) for name in named):
        raise BadRequest("'stores' must be a list of names of stores")
    for name in named:
        if name not in stores.writable:
            raise Conflict(f"There is no image store of the name {name} that takes data.")
    return list(dict.fromkeys(named))


def _missing(record: Record, targets: list[str], *, everywhere: bool) -> list[str]:
    """The stores that do not hold an image's data yet. Raises BadRequest when one does that was asked for by name."""
    there = {one.store for one in place.places(record)}
    held = [name for name in targets if name in there]
    if held and not everywhere:
        raise BadRequest(f"Image is already present at store '{held[0]}'")
    return [name for name in targets if name not in there]


def _source(ctx: Context, method: dict[str, Any]) -> str | None:
    """The image of this cloud that is to be taken over, if it is there and the caller may read its data."""
    region = ctx.of(ImageStores).settings.region
    if method["glance_region"] != region or method["glance_service_interface"] not in ("public", "internal", "admin"):
        return None
    try:
        found = policy.get(ctx, method["glance_image_id"], "download_image").row
    except Fault:
        return None
    return str(found.id) if found.status == "active" else None


def _wait(tx: Tx, row: sa.Row[Any], task_id: str, targets: list[str], *, stays: bool) -> None:
    """Let an image wait for a task."""
    failed = [name for name in (row.failed or "").split(",") if name and name not in targets]
    values = {"import_task": task_id, "importing": ",".join(targets), "failed": ",".join(failed)}
    change(tx, row, values if stays else {**values, "status": "importing"})


@resource.post("/tasks", policy="tasks_api_access", status=201)
def create(ctx: Context, body: dict[str, Any]) -> Reply:
    """Make an image of what is on the web, by a task. Raises BadRequest, Forbidden and TooLarge (quota)."""
    for name in ("type", "input"):
        if name not in body:
            raise BadRequest(f"Task '{name}' is required")
    given = body["input"]
    if body["type"] != "import":
        raise BadRequest(f"Provided type of task is unsupported: {body['type']}")
    if not isinstance(given, dict) or not isinstance(given.get("image_properties"), dict):
        raise BadRequest("Input does not contain 'image_properties' field")
    if not isinstance(given.get("import_from_format"), str):
        raise BadRequest("Input does not contain 'import_from_format' field")
    stores = ctx.of(ImageStores)
    if "web-download" not in stores.methods:
        raise Forbidden("Nothing is fetched from the web here.")
    stores.check_url(given.get("import_from"), "URI for legacy import task")
    properties = {"disk_format": given["import_from_format"], "container_format": "bare", **given["image_properties"]}
    image_id = create_image(ctx, properties).body["id"]
    draft = task.Draft(type="import", image_id=image_id, input=given)
    number = task.create(ctx, draft)
    _wait(ctx.tx, policy.get(ctx, image_id).row, number, [stores.default], stays=False)
    return Reply(task.view(task.find(ctx, number)), {"Location": f"/v2/tasks/{number}"})


# -- what the loop writes ------------------------------------------------------------------------------------------


def prepare(tx: Tx, todo: sa.Row[Any]) -> sa.Row[Any]:
    """The image of a task, without what an earlier attempt left half done. Raises Lost."""
    row = owned(tx, todo)
    for one in tx.all(sa.select(copy).where(copy.c.image_id == row.id, copy.c.location.is_(None))):
        place.drop(tx, one)
    if row.stage_key is not None and row.stage_size is None:
        dispose(tx, STAGING, key=row.stage_key)
        change(tx, row, {"stage_key": None})
        row = owned(tx, todo)
    return row


def staging(tx: Tx, todo: sa.Row[Any]) -> str:
    """A key under which data may be staged; it is in the image's row before a byte is written."""
    row = owned(tx, todo)
    key = f"{row.id.lower()}.{tx.seams.hex()}"
    change(tx, row, {"stage_key": key})
    return key


def staged(tx: Tx, todo: sa.Row[Any], size: int, also: dict[str, Any] | None = None) -> None:
    """All of the data is staged. Raises Lost and TooLarge."""
    change(tx, owned(tx, todo), {"stage_size": size, **(also or {})})


def converting(tx: Tx, todo: sa.Row[Any]) -> str:
    """A key for a second staged file, noted as one that is to be removed unless the conversion takes it over."""
    row = owned(tx, todo)
    key = f"{row.id.lower()}.{tx.seams.hex()}"
    number = tx.seams.uuid()
    values = {"id": number, "image_id": row.id, "position": -1, "store": STAGING, "key": key, "task_id": todo.id}
    tx.insert(copy, {**values, "created_at": tx.now})
    return key


def converted(tx: Tx, todo: sa.Row[Any], key: str, size: int, form: str) -> None:
    """The converted data takes the place of what was staged before. Raises Lost and TooLarge."""
    row = owned(tx, todo)
    dispose(tx, STAGING, key=row.stage_key)
    tx.execute(sa.delete(copy).where(copy.c.image_id == row.id, copy.c.key == key))
    tx.execute(sa.update(task.task).where(task.task.c.id == todo.id).values(form=form))
    change(tx, row, {"stage_key": key, "stage_size": size})


def adopt(tx: Tx, todo: sa.Row[Any], source: Record) -> None:
    """Take over some properties of the image that the data comes from. Raises Lost."""
    row = owned(tx, todo)
    for name, value in source.properties.items():
        if name.startswith(COPIED):
            tx.upsert(prop, {"image_id": row.id, "name": name, "value": value}, key=("image_id", "name"))


def writing(tx: Tx, todo: sa.Row[Any], store: str) -> str:
    """A key under which the data may be written to a store; it is in a row before a byte is written. Raises Lost."""
    row = owned(tx, todo)
    key = f"{row.id.lower()}.{tx.seams.hex()}"
    last = tx.scalar(sa.select(sa.func.max(copy.c.position)).where(copy.c.image_id == row.id))
    values = {
        "id": tx.seams.uuid(),
        "image_id": row.id,
        "position": max(0, last or 0) + 1,
        "store": store,
        "key": key,
        "task_id": todo.id,
        "created_at": tx.now,
    }
    tx.insert(copy, values)
    change(tx, row, {})
    return key


def written(tx: Tx, todo: sa.Row[Any], key: str, location: str, values: dict[str, Any], *, active: bool) -> None:
    """The data, of which `values` tell, is in a store; `active` makes it readable with that.

    Raises Lost and TooLarge.
    """
    row = owned(tx, todo)
    mine = sa.and_(copy.c.image_id == row.id, copy.c.key == key)
    store = tx.scalar(sa.select(copy.c.store).where(mine))
    left = [name for name in row.importing.split(",") if name and name != store]
    news: dict[str, Any] = {"importing": ",".join(left), "copies": copies(row) + 1}
    if row.location is None or (row.data_key is None and row.status == "importing"):
        # A place on the web may be known of an image that waited for data: what comes now is the data.
        tx.execute(sa.delete(copy).where(mine))
        news |= {"copies": 1, "store": store, "location": location, "location_metadata": None, "data_key": key}
        news |= values
    else:
        tx.execute(sa.update(copy).where(mine).values(location=location))
    if active and row.status == "importing":
        news["status"] = "active"
    change(tx, row, news)


def missed(tx: Tx, todo: sa.Row[Any], store: str) -> None:
    """The data could not be written to a store. Raises Lost."""
    row = owned(tx, todo)
    for one in tx.all(sa.select(copy).where(copy.c.image_id == row.id, copy.c.location.is_(None))):
        place.drop(tx, one)
    left = [name for name in row.importing.split(",") if name and name != store]
    failed = [*[name for name in (row.failed or "").split(",") if name], store]
    change(tx, row, {"importing": ",".join(left), "failed": ",".join(dict.fromkeys(failed))})


def succeed(tx: Tx, todo: sa.Row[Any], stores: ImageStores) -> None:
    """All is done that could be: let go of the image. Raises Lost."""
    row = owned(tx, todo)
    if row.stage_key is not None:
        dispose(tx, STAGING, key=row.stage_key)
    status = "active" if row.status == "importing" and row.location is not None else row.status
    values = {"status": status, "stage_key": None, "stage_size": None, "import_task": None, "importing": ""}
    change(tx, row, values)
    task.end(tx, todo, "success", "", stores.settings.task_lifetime)


def fail(tx: Tx, todo: sa.Row[Any], stores: ImageStores, message: str, blamed: list[str] | None = None) -> None:
    """Undo what a task did, let the image wait for data again, and say why.

    `blamed` are the stores that failed; None: the data never came so far.  An image that was active before stays so,
    and one that became active keeps what it has.
    """
    task.end(tx, todo, "failure", message, stores.settings.task_lifetime)
    try:
        row = owned(tx, todo)
    except Lost:
        return
    values: dict[str, Any] = {"stage_key": None, "stage_size": None, "import_task": None, "importing": ""}
    if row.stage_key is not None:
        dispose(tx, STAGING, key=row.stage_key)
    undone = row.status == "importing" or copying(todo)
    gone = 0
    for one in tx.all(sa.select(copy).where(copy.c.image_id == row.id, copy.c.task_id == todo.id)):
        if undone or one.location is None:
            gone += one.location is not None
            place.drop(tx, one)
    values["copies"] = copies(row) - gone
    if row.status == "importing":
        values |= {"status": "queued", **_without_data(tx, row)}
    targets = todo.input.get("backend", [])
    failed = [*[name for name in (row.failed or "").split(",") if name], *(targets if blamed is None else blamed)]
    change(tx, row, {**values, "failed": ",".join(dict.fromkeys(failed))})


def copying(todo: sa.Row[Any]) -> bool:
    """Whether a task copies data that the image has."""
    return bool(todo.input.get("import_req", {}).get("method", {}).get("name") == "copy-image")


def _without_data(tx: Tx, row: sa.Row[Any]) -> dict[str, Any]:
    """An image's columns once its own data is gone; a place on the web stays known."""
    if row.location is None or row.data_key is None:
        return {}
    dispose(tx, row.store, location=row.location)
    names = ("store", "location", "location_metadata", "data_key", "size", "virtual_size", "checksum", "os_hash_algo")
    return {**dict.fromkeys((*names, "os_hash_value")), "copies": 0}
