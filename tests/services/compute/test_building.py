"""What new servers are called and made of."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pileus.core.errors import BadRequest
from pileus.services.compute.rules import building, pattern, public_key
from pileus.services.compute.rules.building import Device


class Image(NamedTuple):
    id: str = "i"
    status: str = "active"
    virtual_size: int | None = 1 << 30
    min_disk: int = 0
    min_ram: int = 0


FLAVOR = {"name": "f", "vcpus": 1, "ram": 512, "disk": 1, "ephemeral": 2, "swap": 64}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("web", "web"),
        ("My Server_1", "my-server-1"),
        ("a.b.c", "a-b-c"),
        ("-x-", "x"),
        ("Ünïcode", "ncode"),
        ("日本", "server-ID"),
        ("x" * 80, "x" * 63),
    ],
)
def test_host_names(name: str, expected: str) -> None:
    assert building.host_name(name, "ID") == expected


@given(st.text(min_size=1, max_size=255))
def test_host_names_are_labels(name: str) -> None:
    found = building.host_name(name, "0a")
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", found)


def test_several_are_numbered() -> None:
    assert [building.numbered("a", 2, index) for index in range(2)] == ["a-1", "a-2"]
    assert building.numbered("a", 1, 0) == "a"


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image(status="queued"), "Image i is not active."),
        (Image(virtual_size=None), "not a disk"),
        (Image(min_ram=513), "memory is too small"),
        (Image(virtual_size=(1 << 30) + 1), "disk is too small"),
        (Image(min_disk=2), "smaller than the minimum size"),
    ],
)
def test_images_that_do_not_fit(image: Image, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        building.check_image(image, FLAVOR)


def test_images_that_fit() -> None:
    building.check_image(Image(), FLAVOR)
    building.check_image(Image(virtual_size=1 << 40, min_disk=99), FLAVOR | {"disk": 0})


def device(**changes: Any) -> Device:
    return Device("image", "local", "i", 0, None, None)._replace(**changes)


@pytest.mark.parametrize(
    ("image_ref", "devices"),
    [
        ("i", []),
        ("", [device()]),
        (None, [device(), device(source="blank", uuid=None, boot_index=-1, size=2)]),
        ("i", [device(), device(source="blank", uuid=None, boot_index=-1, size=64, guest_format="swap")]),
    ],
)
def test_disks_that_can_be_made(image_ref: str | None, devices: list[Device]) -> None:
    assert building.boot_image(image_ref, devices, FLAVOR) == "i"


@pytest.mark.parametrize(
    ("image_ref", "devices"),
    [
        (None, []),
        ("", []),
        ("j", [device()]),
        (None, [device(destination="volume")]),
        (None, [device(source="volume")]),
        (None, [device(source="snapshot")]),
        (None, [device(boot_index=1)]),
        ("i", [device(source="blank", uuid=None, size=3)]),
        ("i", [device(source="blank", uuid=None, size=65, guest_format="swap")]),
        ("i", [device(source=None, uuid=None)]),
    ],
)
def test_disks_that_cannot_be_made(image_ref: str | None, devices: list[Device]) -> None:
    with pytest.raises(BadRequest):
        building.boot_image(image_ref, devices, FLAVOR)


def test_user_data() -> None:
    building.check_user_data(None)
    building.check_user_data("IyEvYmluL3NoCg==")
    with pytest.raises(BadRequest):
        building.check_user_data("#")
    with pytest.raises(BadRequest):
        building.check_user_data("abcde")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web", "%web%"),
        ("^web", "web%"),
        ("web$", "%web"),
        ("^web$", "web"),
        ("w.b", "%w_b%"),
        ("w.*b", "%w%b%"),
        ("w.+b", "%w_%b%"),
        ("100%", r"%100\%%"),
        ("a_b", r"%a\_b%"),
        (r"a\.b", "%a.b%"),
        ("", "%%"),
        ("^", "%"),
        ("$", "%"),
    ],
)
def test_patterns(text: str, expected: str) -> None:
    assert pattern.like(text) == expected


ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJX8nHInsdWOCyN3b8wIQXMqHzbbJybgxcibCtO3CHH5 somebody@somewhere"


def test_fingerprint() -> None:
    assert public_key.ssh_fingerprint(ED25519) == "9f:37:2e:c2:c7:69:93:be:05:fd:fe:c1:0f:f3:81:07"


def test_generated_pairs_are_their_own() -> None:
    one, two = public_key.generate("a"), public_key.generate("a")
    assert one.public != two.public
    assert one.private.startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert public_key.ssh_fingerprint(one.public)


@pytest.mark.parametrize("text", ["", "ssh-rsa", "ssh-rsa !!!", "ssh-rsa AAAA", ED25519.replace("ed25519", "rsa", 1)])
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(ValueError):
        public_key.ssh_fingerprint(text)
