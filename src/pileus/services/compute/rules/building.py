"""What a new server is called, and whether it can be made of an image, a flavor and a list of disks.

The messages are those that upstream's clients look for (Compute API reference, "Create Server").
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from pileus.core.errors import BadRequest
from pileus.services.compute.rules.machine import MachineError, machine

GIB = 2**30


class Image(Protocol):
    """An image as this module looks at it."""

    @property
    def id(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def virtual_size(self) -> int | None: ...
    @property
    def min_disk(self) -> int: ...
    @property
    def min_ram(self) -> int: ...


class Device(NamedTuple):
    """An entry of `block_device_mapping_v2`, as far as it matters."""

    source: str | None
    destination: str | None
    uuid: str | None
    boot_index: int | None
    size: int | None
    guest_format: str | None


def host_name(name: str, server_id: str) -> str:
    """A host name of at most 63 characters for a server's name (RFC 1123); of its id when nothing is left of it."""
    text = re.sub(r"[ _.]", "-", name.encode("latin-1", "ignore").decode("latin-1")[:63])
    return re.sub(r"[^a-zA-Z0-9-]+", "", text).lower().strip("-") or f"server-{server_id}"


def numbered(name: str, count: int, index: int) -> str:
    """The name of one of several servers made at once."""
    return f"{name}-{index + 1}" if count > 1 else name


def check_machine(flavor: Mapping[str, Any], properties: Mapping[str, str | None]) -> None:
    """Raise BadRequest for a flavor and properties of an image that contradict each other or themselves."""
    option = properties.get("img_config_drive") or "optional"
    if option not in ("optional", "mandatory"):
        raise BadRequest(f"Image's config drive option '{option}' is invalid")
    try:
        machine(flavor, properties)
    except MachineError as error:
        raise BadRequest(str(error)) from None


def check_disk_config(asked: str | None, image_id: str, properties: Mapping[str, str | None]) -> None:
    """Raise BadRequest when a guest is to grow its file system by itself, and its image says that it never does."""
    if asked == "AUTO" and (properties.get("auto_disk_config") or "").strip().lower() == "disabled":
        raise BadRequest(f"Requested image {image_id} has automatic disk resize disabled.")


def check_image(image: Image, flavor: Mapping[str, Any]) -> None:
    """Raise BadRequest unless the image can boot with the flavor."""
    if image.status != "active":
        raise BadRequest(f"Image {image.id} is not active.")
    if image.virtual_size is None:
        raise BadRequest(f"Image {image.id} is unacceptable: it is not a disk that can be booted.")
    check_flavor({"virtual_size": image.virtual_size, "min_disk": image.min_disk, "min_ram": image.min_ram}, flavor)


def check_flavor(image: Mapping[str, Any], flavor: Mapping[str, Any]) -> None:
    """Raise BadRequest unless an image, of which a server keeps a copy, fits in the flavor."""
    size, least = image.get("virtual_size") or 0, (image.get("min_disk") or 0) * GIB
    if flavor["ram"] < (image.get("min_ram") or 0):
        raise BadRequest("Flavor's memory is too small for requested image.")
    disk = flavor["disk"] * GIB
    if not disk:
        return
    if size > disk:
        raise BadRequest(
            f"Flavor's disk is too small for requested image. Flavor disk is {disk} bytes, image is {size} bytes."
        )
    if least > disk:
        raise BadRequest(
            "Flavor's disk is smaller than the minimum size specified in image metadata. Flavor disk is "
            f"{disk} bytes, minimum size is {least} bytes."
        )


def snapshot_size(flavor: Mapping[str, Any], image: Mapping[str, Any]) -> int:
    """The disk in GiB that an image of a server's root disk asks for at least."""
    return max(flavor["disk"] or -(-(image.get("virtual_size") or 0) // GIB), image.get("min_disk") or 0)


def check_user_data(text: str | None) -> None:
    """Raise BadRequest unless the text is base 64."""
    try:
        base64.b64decode("".join((text or "").split()), validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("User data needs to be valid base 64.") from None


def boot_image(image_ref: str | None, devices: Sequence[Device], flavor: Mapping[str, Any]) -> str:
    """The image that a server boots from: the one asked for, or that of the list's local boot disk.

    Raises BadRequest when there is none, and for disks that no host can make: volumes, and more than the flavor has.
    """
    found = image_ref or None
    ephemeral = swap = 0
    for one in devices:
        if one.destination == "volume" or one.source in ("volume", "snapshot"):
            raise BadRequest("Block Device Mapping is Invalid: this cloud has no volumes to boot from or to attach.")
        if one.source == "image":
            if one.boot_index != 0 or one.uuid is None or (found is not None and one.uuid != found):
                raise BadRequest(
                    "Block Device Mapping is Invalid: Boot sequence for the instance and image/block device mapping "
                    "combination is not valid."
                )
            found = one.uuid
        elif one.source == "blank" and one.guest_format == "swap":
            swap += one.size or 0
        elif one.source == "blank":
            ephemeral += one.size or 0
        else:
            raise BadRequest("Block Device Mapping is Invalid: an entry names no source.")
    if ephemeral > flavor["ephemeral"]:
        raise BadRequest("Ephemeral disks requested are larger than the instance type allows.")
    if swap > flavor["swap"]:
        raise BadRequest("Swap drive requested is larger than instance type allows.")
    if found is None:
        raise BadRequest("Invalid imageRef provided.")
    return found
