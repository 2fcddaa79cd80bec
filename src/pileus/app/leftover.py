"""What is left over in a cloud's store and among its files, and how it is mended.

A check looks; what it finds is mended, when somebody asks for it, by a transaction that looks again: so nothing is
taken that came into use meanwhile, and the cloud may run.  What may be dear to somebody is mended when it is named.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from pileus.app.backup import image_places
from pileus.app.schema import COPIES
from pileus.cli.main import Leftover
from pileus.core.config import Config
from pileus.core.quota import usage
from pileus.core.store import Tx
from pileus.services.compute.resources.keypair import keypair
from pileus.services.compute.resources.migration import migration
from pileus.services.compute.resources.server.table import server
from pileus.services.compute.resources.server_group import server_group
from pileus.services.compute.rules import holding
from pileus.services.fleet import interface as fleet
from pileus.services.fleet.resources.assignment import assignment
from pileus.services.image.resources.image.table import image
from pileus.services.image.resources.store import copy, disposal
from pileus.services.image.resources.usage import held
from pileus.services.network import interface as network
from pileus.services.network.resources.floatingip.table import floatingip
from pileus.services.network.resources.network.table import network as network_table
from pileus.services.network.resources.port.table import port
from pileus.services.network.resources.router.table import router
from pileus.services.network.resources.security_group.table import group as security_group
from pileus.services.network.resources.security_group.table import rule as security_group_rule
from pileus.services.network.resources.subnet.table import subnet
from pileus.services.placement import interface as placement
from pileus.services.placement.resources.consumer import allocation

AGE = 3600.0
"""Seconds that a file has to lie there untouched before it can count as left over."""


class Place(NamedTuple):
    """Where to look: a transaction, and the directories of the cloud."""

    tx: Tx
    config: Config


class Check(NamedTuple):
    """One kind of finding, by the first word of its keys."""

    find: Callable[[Place], Iterator[Leftover]]
    mend: Callable[[Place, str], str | None]
    """Mends what a key's rest names, and says what it did; None when there is nothing to mend any more."""


# -- quotas --------------------------------------------------------------------------------------------------------

_NETWORK = {
    "network": network_table,
    "subnet": subnet,
    "port": port,
    "router": router,
    "floatingip": floatingip,
    "security_group": security_group,
    "security_group_rule": security_group_rule,
}


def _counts(tx: Tx) -> dict[tuple[str, str, str], int]:
    """What there is, by holder, service and resource."""
    there: Counter[tuple[str, str, str]] = Counter()
    for row in tx.all(sa.select(server).where(server.c.deleted_at.is_(None))):
        if holding.counted(row.mode, row.task):
            for name, amount in holding.quota(row.flavor, row.previous).items():
                there[row.project_id, "compute", name] += amount
    for row in tx.all(sa.select(server_group.c.project_id)):
        there[row.project_id, "compute", "server_groups"] += 1
    for row in tx.all(sa.select(keypair.c.user_id)):
        there[row.user_id, "compute", "key_pairs"] += 1
    for name, table in _NETWORK.items():
        query = sa.select(table.c.project_id, sa.func.count().label("number")).where(table.c.project_id != "")
        if table is port:
            query = query.where(port.c.device_owner != "network:dhcp")
        for row in tx.all(query.group_by(table.c.project_id)):
            there[row.project_id, "network", name] += row.number
    for row in tx.all(sa.select(image).where(image.c.owner.is_not(None))):
        for name, amount in held(row).items():
            there[row.owner, "image", name] += amount
    return there


def _known(service: str, resource: str) -> bool:
    names: Mapping[str, frozenset[str]] = {
        "compute": frozenset({"instances", "cores", "ram", "server_groups", "key_pairs"}),
        "network": frozenset(_NETWORK),
        "image": frozenset({"image_count_total", "image_count_uploading", "image_size_total", "image_stage_total"}),
    }
    return resource in names.get(service, frozenset())


def _quotas(place: Place) -> Iterator[Leftover]:
    there = _counts(place.tx)
    counted = {(row.project_id, row.service, row.resource): row.used for row in place.tx.all(sa.select(usage))}
    for key in sorted({*there, *counted}):
        used, found = counted.get(key, 0), there.get(key, 0)
        if used != found and _known(key[1], key[2]):
            text = f"{used} are counted of what {key[0]} has of {key[1]} {key[2]}, and there are {found}"
            yield Leftover(f"quota/{'/'.join(key)}", text, f"count {found}")


def _mend_quota(place: Place, rest: str) -> str | None:
    holder, service, resource = rest.rsplit("/", 2)
    key = {"project_id": holder, "service": service, "resource": resource}
    place.tx.insert_missing(usage, {**key, "used": 0}, key=tuple(key))
    same = [usage.c[name] == value for name, value in key.items()]
    # Whoever makes or deletes what is counted holds this row until it is committed: from here on nobody does.
    place.tx.execute(sa.update(usage).where(*same).values(used=usage.c.used))
    used = place.tx.scalar(sa.select(usage.c.used).where(*same))
    found = _counts(place.tx).get((holder, service, resource), 0)
    if used == found:
        return None
    place.tx.execute(sa.update(usage).where(*same).values(used=found))
    return f"counts {found}, not {used}"


# -- what was a server's ---------------------------------------------------------------------------------------------


def _live(tx: Tx) -> set[str]:
    return {row.id for row in tx.all(sa.select(server.c.id).where(server.c.deleted_at.is_(None)))}


def _allocations(place: Place) -> Iterator[Leftover]:
    tx = place.tx
    consumers = {row.consumer_uuid for row in tx.all(sa.select(allocation.c.consumer_uuid).distinct())}
    alive = _live(tx)
    known = {row.id for row in tx.all(sa.select(server.c.id))}
    moves = {row.uuid: row.server_id for row in tx.all(sa.select(migration.c.uuid, migration.c.server_id))}
    for one in sorted(consumers - alive):
        if moves.get(one) in alive:
            continue
        if one in known or one in moves:
            yield Leftover(f"allocation/{one}", f"the server {moves.get(one, one)} is gone", "release it")
        else:
            text = "held by a consumer that is no server: it may be somebody's own"
            yield Leftover(f"allocation/{one}", text, "release it", named=True)


def _mend_allocation(place: Place, rest: str) -> str | None:
    tx = place.tx
    owner = tx.scalar(sa.select(migration.c.server_id).where(migration.c.uuid == rest)) or rest
    alive = sa.select(server.c.id).where(server.c.id == owner, server.c.deleted_at.is_(None))
    if tx.first(alive) is not None or not placement.release(tx, rest):
        return None
    return "is released"


def _ports(place: Place) -> Iterator[Leftover]:
    alive = _live(place.tx)
    columns = (port.c.id, port.c.device_id, port.c.transient)
    for row in place.tx.all(sa.select(*columns).where(port.c.attached_at.is_not(None)).order_by(port.c.id)):
        if row.device_id not in alive:
            mending = "delete it, as it was made for the server" if row.transient else "let it go; it is its user's"
            yield Leftover(f"port/{row.id}", f"is attached to server {row.device_id}, which is gone", mending)


def _mend_port(place: Place, rest: str) -> str | None:
    tx = place.tx
    row = tx.first(sa.select(port).where(port.c.id == rest, port.c.attached_at.is_not(None)))
    if row is None or row.device_id in _live(tx):
        return None
    network.release_ports(tx, [row.device_id])
    return "is deleted" if row.transient else "is free"


def _guests(place: Place) -> Iterator[Leftover]:
    alive = _live(place.tx)
    known = {row.id for row in place.tx.all(sa.select(server.c.id))}
    query = sa.select(assignment.c.id).where(assignment.c.kind == "guest", assignment.c.tombstone.is_(False))
    for row in place.tx.all(query.order_by(assignment.c.id)):
        if row.id not in alive:
            text = "a host is to hold it, and its server is gone"
            yield Leftover(f"assignment/{row.id}", text, "let the host delete it", named=row.id not in known)


def _mend_guest(place: Place, rest: str) -> str | None:
    if rest in _live(place.tx):
        return None
    fleet.tombstone(place.tx, "guest", [rest])
    return "its host deletes it"


# -- data of images --------------------------------------------------------------------------------------------------


def _named_data(tx: Tx) -> dict[tuple[str | None, str], str]:
    """Data that rows name, committed or on its way, as store and file, to who names it."""
    found: dict[tuple[str | None, str], str] = {}
    for row in tx.all(sa.select(image)):
        for store, name in ((row.store, row.location), (row.store, row.data_key), (row.store, row.upload_key)):
            found |= {(store, name): row.id} if name is not None else {}
        found |= {("staging", row.stage_key): row.id} if row.stage_key is not None else {}
    for table in (copy, disposal):
        for row in tx.all(sa.select(table)):
            found |= {(row.store, name): row.id for name in (row.key, row.location) if name is not None}
    return found


def _image_data(place: Place) -> Iterator[Leftover]:
    named, places = _named_data(place.tx), image_places(place.config)
    for store, root in sorted(places.items()):
        for folder in ("data", "incoming"):
            for file in sorted((root / folder).glob("*")):
                name = file.name.removesuffix(".restored") if folder == "incoming" else file.name
                if (store, name) in named or _young(file):
                    continue
                text = f"{file} is named by no image" + (", and was never finished" if folder == "incoming" else "")
                yield Leftover(f"file/{store}/{folder}/{file.name}", text, "delete it", named=folder == "data")
    for row in place.tx.all(sa.select(image).where(image.c.status == "active").order_by(image.c.id)):
        if row.store not in places or row.data_key is None:
            continue
        data = places[row.store] / "data" / row.location
        if not data.exists():
            text = f"the data of image {row.name or row.id} is gone: {data}"
            fix = "bring it back from a backup made with --images, or delete the image"
            yield Leftover(f"image/{row.id}", text, fix, by_hand=True)


def _young(file: Path) -> bool:
    try:
        return time.time() - file.stat().st_mtime < AGE
    except FileNotFoundError:
        return True


def _mend_file(place: Place, rest: str) -> str | None:
    store, folder, name = rest.split("/", 2)
    file = image_places(place.config)[store] / folder / name
    if (store, name.removesuffix(".restored")) in _named_data(place.tx) or "/" in name or not file.exists():
        return None
    file.unlink()
    return "is deleted"


# -- files of the control plane --------------------------------------------------------------------------------------


def _files(place: Place) -> Iterator[Leftover]:
    for one in sorted(place.config.control.glob("backup-*")):
        if not _young(one):
            yield Leftover(f"control/{one.name}", "a backup that was killed left it", "delete it")
    for one in sorted(place.config.control.glob(f"{COPIES}/*.partial*")):
        if not _young(one):
            yield Leftover(f"control/{COPIES}/{one.name}", "an upgrade that was killed left it", "delete it")


def _mend_control(place: Place, rest: str) -> str | None:
    path = place.config.control / rest
    folder, _, name = rest.partition("/")
    if folder == COPIES and ".partial" in name and "/" not in name and path.is_file():
        path.unlink()
        return "is deleted"
    if not rest.startswith("backup-") or "/" in rest or not path.is_dir():
        return None
    for above, directories, files in os.walk(path, topdown=False):
        for name in files:
            (Path(above) / name).unlink()
        for name in directories:
            (Path(above) / name).rmdir()
    path.rmdir()
    return "is deleted"


def _never(place: Place, rest: str) -> str | None:
    return None


CHECKS: Mapping[str, Check] = {
    "quota": Check(_quotas, _mend_quota),
    "allocation": Check(_allocations, _mend_allocation),
    "port": Check(_ports, _mend_port),
    "assignment": Check(_guests, _mend_guest),
    "file": Check(_image_data, _mend_file),
    "control": Check(_files, _mend_control),
    "image": Check(lambda place: iter(()), _never),
}
"""Kinds by the first word of a key; data of images is looked at by `file`."""


def find(tx: Tx, config: Config) -> list[Leftover]:
    """All that is left over."""
    return [found for check in CHECKS.values() for found in check.find(Place(tx, config))]


def mend(tx: Tx, config: Config, key: str) -> str | None:
    """Mend one finding, if it is there still; what was done."""
    kind, _, rest = key.partition("/")
    check = CHECKS.get(kind)
    return check.mend(Place(tx, config), rest) if check is not None and rest else None
