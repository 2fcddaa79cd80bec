"""The formats of what is imported: conversion, packages, and what is refused."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.image_cloud import ImageCloud, image_cloud
from tests.api.test_image_import import IDLE, failed, usage

qemu_img = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")


@pytest.fixture(name="cloud")
def one_cloud(tmp_path: Path, database_url: str) -> Iterator[ImageCloud]:
    with image_cloud(tmp_path, database_url) as cloud:
        yield cloud


def converting(output: str) -> dict[str, Any]:
    from pileus.drivers.storage.convert import convert_image

    return {"convert": convert_image, "conversion": output}


def disk(place: Path, form: str, data: bytes) -> bytes:
    plain, made = place / "plain", place / f"made.{form}"
    plain.write_bytes(data)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", form, str(plain), str(made)], check=True)
    return made.read_bytes()


@qemu_img
def test_a_disk_is_converted_when_that_is_asked_for(tmp_path: Path, database_url: str) -> None:
    plain = bytes(range(256)) * 4096
    with image_cloud(tmp_path, database_url, **converting("raw")) as cloud:
        image_id = cloud.make("qcow2")
        cloud.put(image_id, disk(tmp_path, "qcow2", plain), "stage")
        cloud.start(image_id, "glance-direct", all_stores=True)
        cloud.settle()
        image = cloud.show(image_id)
        assert (image["status"], image["disk_format"], image["size"]) == ("active", "raw", len(plain))
        assert image["os_hash_value"] == hashlib.sha512(plain).hexdigest()
        assert cloud.data(image_id) == plain
        assert len(cloud.files()) == 2
        assert usage(cloud) == {**IDLE, "image_count_total": 1, "image_size_total": 2}


def test_a_disc_is_not_converted(tmp_path: Path, database_url: str) -> None:
    disc = bytes(0x8000) + b"\x01CD001\x01" + bytes(100_000)
    with image_cloud(tmp_path, database_url, **converting("qcow2")) as cloud:
        image_id = cloud.make("iso")
        cloud.put(image_id, disc, "stage")
        cloud.start(image_id, "glance-direct")
        cloud.settle()
        image = cloud.show(image_id)
        assert (image["status"], image["disk_format"]) == ("active", "iso")
        assert cloud.data(image_id) == disc


@qemu_img
def test_a_disk_that_cannot_be_converted(tmp_path: Path, database_url: str) -> None:
    sound = bytearray(disk(tmp_path, "qcow2", bytes(range(256)) * 4096))
    sound[0x30000:0x40000] = b"\xff" * 0x10000  # the tables that lead to the data
    with image_cloud(tmp_path, database_url, **converting("raw")) as cloud:
        image_id = cloud.make("qcow2")
        cloud.put(image_id, bytes(sound), "stage")
        cloud.start(image_id, "glance-direct")
        cloud.settle()
        assert "cannot be converted" in failed(cloud, image_id)
        assert cloud.show(image_id)["disk_format"] == "qcow2"


@qemu_img
def test_a_backing_file_is_never_opened(tmp_path: Path, database_url: str) -> None:
    hostile = tmp_path / "hostile"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-F", "raw", "-b", "/etc/passwd", str(hostile), "1M"]
    subprocess.run(command, check=True)
    with image_cloud(tmp_path, database_url, **converting("raw")) as cloud:
        image_id = cloud.make("qcow2")
        cloud.put(image_id, hostile.read_bytes(), "stage")
        cloud.start(image_id, "glance-direct")
        cloud.settle()
        assert "backing file" in failed(cloud, image_id)


def package(first: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in (first, "disk.vmdk"):
            part = tarfile.TarInfo(name)
            part.size = 5000
            tar.addfile(part, io.BytesIO(bytes(5000)))
    return file.getvalue()


@pytest.mark.parametrize("staged", [False, True])
def test_a_package_begins_with_its_description(cloud: ImageCloud, *, staged: bool) -> None:
    def write(data: bytes) -> str:
        image_id = cloud.make("vmdk", "ova")
        answer = cloud.put(image_id, data, "stage" if staged else "file")
        if staged:
            cloud.start(image_id, "glance-direct")
            cloud.settle()
        else:
            assert answer.status in (204, 415)
        return image_id

    image = cloud.show(write(package("machine.ovf")))
    assert (image["status"], image["virtual_size"]) == ("active", None)
    for hostile in (package("disk0.vmdk"), package("../x.ovf"), b"no package", b""):
        assert cloud.show(write(hostile))["status"] == "queued", hostile[:20]
