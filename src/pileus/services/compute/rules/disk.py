"""Incarnations of a guest's disks: what a server keeps of them, and what each verb makes of that.

A disk that is made anew is another incarnation, in a file of its own; what a server may go back to is kept.  Numbers
are never given twice, so that a file which its host has not deleted yet is never taken for a new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pileus.contracts.hypervisor import DiskSpec

Disks = Mapping[str, Mapping[str, Any]]
"""By a disk's id: `incarnation`, the `last` number given, `copy_of`, `keep`, `image` (instead of the server's: `id`,
`format`, `sha512`), `retired`.  What is missing is as in the first incarnation."""

ROOT, EPHEMERAL, SWAP, RESCUE = "root", "ephemeral", "swap", "rescue"


def incarnation(disks: Disks, name: str) -> int:
    """The number of a disk's incarnation."""
    return int(disks.get(name, {}).get("incarnation", 1))


def _next(disks: Disks, name: str) -> int:
    if name not in disks:
        return 1
    return int(disks[name].get("last", incarnation(disks, name))) + 1


def renewed(disks: Disks, names: Iterable[str], image: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """These disks made anew, from the server's image or from another one; nothing of them is kept.

    Disks of a server's first day are in no row: `known` puts them there first.
    """
    found = dict(disks)
    for name in names:
        number = _next(disks, name)
        found[name] = {"incarnation": number, "last": number} | ({} if image is None else {"image": dict(image)})
    return found


def copied(disks: Disks, names: Iterable[str]) -> dict[str, Any]:
    """These disks begun as copies of what they are, which is kept."""
    found = dict(disks)
    for name in names:
        number, old = _next(disks, name), incarnation(disks, name)
        image = {key: value for key, value in disks.get(name, {}).items() if key == "image"}
        found[name] = {"incarnation": number, "last": number, "copy_of": old, "keep": [old], **image}
    return found


def known(disks: Disks, names: Iterable[str]) -> dict[str, Any]:
    """The same, with the disks that are in their first incarnation written down."""
    return {name: {"incarnation": 1, "last": 1} for name in names if name not in disks} | dict(disks)


def settled(disks: Disks) -> dict[str, Any]:
    """The same, with nothing kept."""
    return {name: {key: value for key, value in one.items() if key != "keep"} for name, one in disks.items()}


def retired(disks: Disks, names: Iterable[str]) -> dict[str, Any]:
    """The same without these disks: their files may go, their numbers are kept."""
    found = dict(disks)
    for name in names:
        if name in disks:
            last = _next(disks, name) - 1
            found[name] = {"incarnation": last, "last": last, "retired": True}
    return found


def reverted(disks: Disks, before: Disks) -> dict[str, Any]:
    """What was before, without giving a number twice; disks that were not there before are retired."""
    found = retired(disks, [name for name in disks if name not in before or before[name].get("retired")])
    for name, one in before.items():
        if not one.get("retired"):
            found[name] = {**one, "last": max(_next(disks, name), _next(before, name)) - 1}
    return found


def gone(disks: Disks) -> tuple[str, ...]:
    """Ids of the disks that the guest has no more."""
    return tuple(sorted(name for name, one in disks.items() if one.get("retired")))


def spec(disks: Disks, plain: DiskSpec) -> DiskSpec:
    """A disk's spec in the incarnation that it is in. `plain` is the first one."""
    one = disks.get(plain.id)
    if one is None:
        return plain
    image = one.get("image") or {
        "id": plain.image_id,
        "format": plain.image_format,
        "sha512": plain.image_sha512,
    }
    return DiskSpec(
        id=plain.id,
        image_id=image["id"],
        image_format=image["format"],
        image_sha512=image["sha512"],
        size_gib=plain.size_gib,
        bus=plain.bus,
        device=plain.device,
        boot_index=plain.boot_index,
        filesystem=plain.filesystem,
        label=plain.label,
        incarnation=incarnation(disks, plain.id),
        copy_of=one.get("copy_of"),
        keep=tuple(one.get("keep", ())),
        limit=plain.limit,
    )
