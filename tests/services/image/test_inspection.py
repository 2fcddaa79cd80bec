"""The inspection of image files: real ones, hostile ones, and random ones."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pileus.contracts.images import ImageFacts
from pileus.services.image.rules.inspection import LARGEST, REACH, TAIL, Inspector, Refused, inspect, judge

MIB = 1 << 20
qemu_img = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")


def look(data: bytes, step: int = 65_536) -> ImageFacts:
    inspector = Inspector()
    for place in range(0, len(data), step):
        inspector.feed(data[place : place + step])
    return inspector.facts()


def header(**changes: int) -> bytes:
    """A qcow2 header of version 3 with 64 KiB clusters and 10 MiB, within a file that holds its tables."""
    fields = {
        "version": 3,
        "backing_offset": 0,
        "backing_size": 0,
        "cluster_bits": 16,
        "size": 10 * MIB,
        "crypt": 0,
        "l1_size": 1,
        "l1_offset": 3 << 16,
        "refcount_offset": 1 << 16,
        "refcount_clusters": 1,
        "snapshots": 0,
        "snapshots_offset": 0,
        "incompatible": 0,
        "compatible": 0,
        "autoclear": 0,
        "refcount_order": 4,
        "header_length": 112,
        "compression": 0,
    }
    assert changes.keys() <= fields.keys()
    packed = struct.pack(">IQIIQIIQQIIQQQQIIB", *(fields | changes).values())
    return (b"QFI\xfb" + packed).ljust(4 << 16, b"\0")


def test_a_sound_header_is_safe() -> None:
    facts = look(header())
    assert facts == ImageFacts(format="qcow2", virtual_size=10 * MIB)
    judge(facts, "qcow2")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 4}, "unknown version"),
        ({"backing_offset": 0x200, "backing_size": 11}, "backing file"),
        ({"incompatible": 1 << 2}, "data file"),
        ({"incompatible": 1 << 1}, "marked as corrupt"),
        ({"incompatible": 1 << 5}, "unknown feature"),
        ({"incompatible": 1 << 63}, "unknown feature"),
        ({"incompatible": 1 << 3}, "compression type"),
        ({"compression": 1}, "compression type"),
        ({"incompatible": 1 << 3, "compression": 2}, "compression type"),
        ({"crypt": 1}, "encrypted"),
        ({"crypt": 2}, "encrypted"),
        ({"cluster_bits": 8}, "cluster size"),
        ({"cluster_bits": 22}, "cluster size"),
        ({"cluster_bits": 2**32 - 1}, "cluster size"),
        ({"header_length": 100}, "header length"),
        ({"header_length": 109}, "header length"),
        ({"header_length": 2**32 - 8}, "header length"),
        ({"size": 2**63}, "virtual size"),
        ({"size": LARGEST + 1}, "virtual size"),
        ({"size": 2 << 30}, "L1 table"),
        ({"l1_size": 0}, "L1 table"),
        ({"l1_size": 2**32 - 1}, "L1 table"),
        ({"l1_offset": 1}, "L1 table"),
        ({"l1_offset": 0}, "L1 table"),
        ({"l1_offset": 4 << 16}, "L1 table"),
        ({"l1_offset": 2**64 - (1 << 16)}, "L1 table"),
        ({"refcount_offset": 0}, "refcount table"),
        ({"refcount_offset": 7}, "refcount table"),
        ({"refcount_clusters": 0}, "refcount table"),
        ({"refcount_clusters": 2**32 - 1}, "refcount table"),
        ({"refcount_order": 7}, "refcount table"),
        ({"snapshots": 1}, "snapshot table"),
        ({"snapshots": 70_000, "snapshots_offset": 2 << 16}, "snapshot table"),
        ({"snapshots": 1, "snapshots_offset": 2**64 - 8}, "snapshot table"),
    ],
)
def test_hostile_headers_are_refused_by_name(changes: dict[str, int], reason: str) -> None:
    facts = look(header(**changes))
    assert facts.format == "qcow2"
    assert reason in facts.unsafe
    with pytest.raises(Refused, match=reason):
        judge(facts, "qcow2")


def extension(kind: int, data: bytes, *, length: int | None = None) -> bytes:
    packed = struct.pack(">II", kind, len(data) if length is None else length) + data
    return packed.ljust((len(packed) + 7) // 8 * 8, b"\0")


@pytest.mark.parametrize(
    ("extensions", "reason"),
    [
        (extension(0x44415441, b"/etc/shadow"), "data file"),
        (extension(0x6803F857, b"\0" * 48) + extension(0x44415441, b"/etc/shadow"), "data file"),
        (extension(0x0537BE77, b"\0" * 16), "encrypted"),
        (extension(0x6803F857, b"", length=2**32 - 1), "header extension"),
    ],
)
def test_hostile_header_extensions_are_refused(extensions: bytes, reason: str) -> None:
    data = header()
    facts = look(data[:112] + extensions + data[112 + len(extensions) :])
    assert reason in facts.unsafe


def test_unknown_extensions_are_let_pass() -> None:
    data, more = header(), extension(0x6803F857, b"\0" * 48) + extension(0xDEADBEEF, b"abc") + extension(0, b"")
    assert look(data[:112] + more + data[112 + len(more) :]).unsafe == ()


def test_what_is_cut_off_is_refused() -> None:
    for length in (4, 8, 30, 71, 80, 103):
        with pytest.raises(Refused):
            judge(look(header()[:length]), "qcow2")


@pytest.mark.parametrize("step", [1, 3, 4095, 65_536, 10 * MIB])
def test_pieces_of_any_size_give_the_same_answer(step: int) -> None:
    data = b"QFI\xfb" + header()[4:] if step == 1 else header() + bytes(MIB)
    assert look(data, step) == look(data)


def test_nothing_passes_for_raw_that_is_something_else() -> None:
    for magic in (
        b"QFI\xfb",
        b"KDMV",
        b"COWD",
        b"vhdxfile",
        b"conectix",
        b"LUKS\xba\xbe",
        b"QED\0",
        b"WithoutFreeSpace",
        b"WithouFreSpacExt",
        b"Bochs Virtual HD Image\0",
        b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n",
        b"QFI\xfb\0\0\0\1",
    ):
        with pytest.raises(Refused, match="does not match"):
            judge(look(magic + bytes(MIB)), "raw")
    with pytest.raises(Refused, match="does not match"):
        judge(look(bytes(64) + b"\x7f\x10\xda\xbe" + bytes(MIB)), "raw")
    with pytest.raises(Refused, match="does not match"):
        judge(look(bytes(MIB) + b"conectix" + bytes(504)), "raw")


def test_a_disc_is_a_raw_disk_too() -> None:
    disc = bytes(0x8001) + b"CD001" + bytes(MIB)
    assert look(disc) == ImageFacts(format="iso", virtual_size=len(disc))
    judge(look(disc), "iso")
    judge(look(disc), "raw")
    with pytest.raises(Refused):
        judge(look(bytes(MIB)), "iso")


def test_nothing_is_two_things_at_once() -> None:
    both = header()[:0x8001] + b"CD001" + header()[0x8006:]
    for said in ("qcow2", "iso", "raw"):
        with pytest.raises(Refused):
            judge(look(both), said)
    with pytest.raises(Refused, match="several formats"):
        judge(look(header() + b"conectix" + bytes(504)), "qcow2")


def test_kernels_are_raw_data() -> None:
    judge(look(b"MZ" + bytes(5000)), "aki")
    with pytest.raises(Refused):
        judge(look(header()), "ari")


def test_an_empty_file_is_raw() -> None:
    assert look(b"") == ImageFacts(format="raw", virtual_size=0)
    with pytest.raises(Refused):
        judge(look(b""), "qcow2")


def vmdk(descriptor: bytes, *, capacity: int = 20_480, gd_offset: int = 21, place: int = 1, length: int = 20) -> bytes:
    front = b"KDMV" + struct.pack("<IIQQQQIQQ", 1, 3, capacity, 128, place, length, 512, 21, gd_offset)
    return front.ljust(512, b"\0") + descriptor.ljust(20 * 512, b"\0") + bytes(65_536)


def elsewhere(hidden: bytes, shown: bytes, place: int = 64) -> bytes:
    """A VMDK whose header names a descriptor at a sector of its own, and not the one at 0x200."""
    data = bytearray(vmdk(hidden, place=place))
    data[place * 512 : place * 512 + len(shown)] = shown
    return bytes(data)


PARENT = b'parentFileNameHint="/etc/shadow"\n'
SOUND = (
    b"# Disk DescriptorFile\nversion=1\nCID=9f9f9f9f\nparentCID=ffffffff\n"
    b'createType="monolithicSparse"\nRW 20480 SPARSE "disk.vmdk"\n'
)


def streamed(descriptor: bytes, *, capacity: int = 20_480) -> bytes:
    """A VMDK whose second header, at its end, is the one that counts; `capacity` is what that says."""
    end = 2**64 - 1
    second = vmdk(descriptor, capacity=capacity)[:512]
    marker = struct.pack("<QII", 1, 0, 3).ljust(512, b"\0")
    text = descriptor.replace(b"monolithicSparse", b"streamOptimized")
    return vmdk(text, gd_offset=end) + marker + second + bytes(512)


def two_seconds() -> bytes:
    """A VMDK that ends within a sector: bytes counted from its end lead to one second header, sectors to another."""
    first = vmdk(SOUND, gd_offset=2**64 - 1)
    mine, theirs = vmdk(SOUND)[:412], vmdk(SOUND, capacity=1 << 40)[:512]
    return first + bytes(100) + mine + theirs + bytes(100)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (vmdk(SOUND.replace(b"monolithicSparse", b"monolithicFlat")), "names other files"),
        (vmdk(SOUND.replace(b"SPARSE", b"FLAT")), "names other files"),
        (vmdk(SOUND + b'RW 1 FLAT "/etc/shadow" 0\n'), "names other files"),
        (vmdk(SOUND + b'createType="twoGbMaxExtentFlat"\n'), "names other files"),
        (vmdk(SOUND, capacity=0), "names other files"),
        (vmdk(SOUND + b'parentFileNameHint="/etc/shadow"\n'), "backing file"),
        (vmdk(SOUND.replace(b"ffffffff", b"12345678")), "backing file"),
        (vmdk(SOUND, gd_offset=2**64 - 1), "header and footer differ"),
        (vmdk(b""), "no descriptor"),
        (vmdk(SOUND, place=0), "misplaced descriptor"),
        (vmdk(SOUND, place=2**64 - 1), "misplaced descriptor"),
        (elsewhere(SOUND + PARENT, SOUND), "backing file"),
        (elsewhere(SOUND + PARENT, SOUND), "misplaced descriptor"),
        (elsewhere(SOUND, SOUND), "misplaced descriptor"),
        (vmdk(SOUND + bytes(1000) + PARENT), "backing file"),
        (vmdk((SOUND + b"\n" * 9000 + PARENT), length=1), "backing file"),
        (vmdk(SOUND.ljust(20 * 512 - 30, b"\n") + PARENT[:24], length=0), "backing file"),
        (streamed(SOUND)[:-1], "header and footer differ"),
        (streamed(SOUND) + b"\0", "header and footer differ"),
        (two_seconds(), "header and footer differ"),
        (streamed(SOUND, capacity=1 << 40), "header and footer differ"),
        (SOUND + bytes(2048), "names other files"),
        (b"# a comment\n\nversion=1\n" + bytes(2048), "names other files"),
        (b"COWD" + bytes(2048), "names other files"),
    ],
)
def test_vmdk_stays_within_its_file(data: bytes, reason: str) -> None:
    facts = look(data)
    assert facts.format == "vmdk"
    assert reason in facts.unsafe


def test_a_sound_vmdk_is_safe() -> None:
    assert look(vmdk(SOUND)) == ImageFacts(format="vmdk", virtual_size=20_480 * 512)
    assert look(streamed(SOUND)) == ImageFacts(format="vmdk", virtual_size=20_480 * 512)


VDI = {"version": 0x00010001, "kind": 1, "link": b"", "parent": b""}


def vdi(**changes: object) -> bytes:
    fields = VDI | changes
    front = b"<<< a disk >>>\n".ljust(64, b"\0") + struct.pack(
        "<IIII", 0xBEDA107F, fields["version"], 400, fields["kind"]
    )
    size = struct.pack("<QIIII", 10 * MIB, 1 << 20, 0, 10, 0)
    ids = b"".join(one.ljust(16, b"\0") for one in (b"image", b"snapshot", fields["link"], fields["parent"]))  # type: ignore[attr-defined]
    return (front.ljust(368, b"\0") + size + ids).ljust(MIB, b"\0")


@pytest.mark.parametrize(
    ("changes", "unsafe"),
    [
        ({}, ()),
        ({"kind": 2}, ()),
        ({"kind": 3}, ("backing file",)),
        ({"kind": 4}, ("backing file",)),
        ({"link": b"another disk"}, ("backing file",)),
        ({"parent": b"another disk"}, ("backing file",)),
        ({"version": 0x00010000}, ("unknown version",)),
    ],
)
def test_vdi_stays_within_its_file(changes: dict[str, object], unsafe: tuple[str, ...]) -> None:
    assert look(vdi(**changes)) == ImageFacts(format="vdi", virtual_size=10 * MIB, unsafe=unsafe)


def test_a_huge_descriptor_costs_no_time() -> None:
    hostile = vmdk(b"") + b"\n" * REACH
    assert look(b"#" + b" " * REACH).format == "raw"
    assert look(b"\n" * REACH).format == "raw"
    assert look(hostile).unsafe


@qemu_img
@pytest.mark.parametrize(
    ("said", "options"),
    [
        ("qcow2", ["-f", "qcow2"]),
        ("qcow2", ["-f", "qcow2", "-o", "compat=0.10"]),
        ("qcow2", ["-f", "qcow2", "-o", "compression_type=zstd,extended_l2=on"]),
        ("qcow2", ["-f", "qcow2", "-o", "cluster_size=512"]),
        ("qcow2", ["-f", "qcow2", "-o", "cluster_size=2M"]),
        ("vmdk", ["-f", "vmdk"]),
        ("vhd", ["-f", "vpc", "-o", "force_size=on"]),
        ("vhd", ["-f", "vpc", "-o", "subformat=fixed,force_size=on"]),
        ("vhdx", ["-f", "vhdx"]),
        ("vdi", ["-f", "vdi"]),
        ("raw", ["-f", "raw"]),
    ],
)
def test_what_qemu_makes_is_safe(tmp_path: Path, said: str, options: list[str]) -> None:
    subprocess.run(["qemu-img", "create", "-q", *options, str(tmp_path / "disk"), "10M"], check=True)
    facts = look((tmp_path / "disk").read_bytes())
    assert facts == ImageFacts(format=said, virtual_size=10 * MIB)
    judge(facts, said)


@qemu_img
def test_overlays_that_qemu_makes_are_refused(tmp_path: Path) -> None:
    base, over = tmp_path / "base", tmp_path / "over"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(base), "10M"], check=True)
    for form in ("qcow2", "vmdk"):
        base_form = "qcow2"
        if form == "vmdk":
            base_form = "vmdk"
            subprocess.run(["qemu-img", "create", "-q", "-f", "vmdk", str(base), "10M"], check=True)
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", form, "-b", str(base), "-F", base_form, str(over)], check=True
        )
        with pytest.raises(Refused, match="backing file"):
            judge(look(over.read_bytes()), form)


@qemu_img
@pytest.mark.parametrize(
    "data",
    [
        elsewhere(SOUND + PARENT, SOUND),
        vmdk(SOUND + PARENT),
        vmdk(SOUND + b"\n" * 9000 + PARENT, length=1),
        vmdk(PARENT + SOUND, place=0),
    ],
)
def test_what_qemu_takes_for_an_overlay_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "disk").write_bytes(data.replace(b"/etc/shadow", b"/a/b/c/d/e/"))
    command = ["qemu-img", "info", "--output=json", "-f", "vmdk", str(tmp_path / "disk")]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert found["backing-filename"] == "/a/b/c/d/e/"
    with pytest.raises(Refused, match="backing file"):
        judge(look(data), "vmdk")


MAGICS = st.sampled_from(
    [b"", b"QFI\xfb", b"KDMV", b"vhdxfile", b"conectix", b"LUKS\xba\xbe\0\1", b"QED\0", b"# Disk "]
)
NUMBERS = st.integers(0, 2**64 - 1).map(lambda number: struct.pack(">Q", number))
SMALL = st.integers(0, 300).map(lambda number: struct.pack(">I", number))


@given(MAGICS, st.lists(st.one_of(NUMBERS, SMALL, st.binary(max_size=40)), max_size=60), st.binary(max_size=600))
def test_random_files_raise_nothing_but_a_refusal(magic: bytes, parts: list[bytes], end: bytes) -> None:
    facts = look(magic + b"".join(parts) + end, 512)
    for said in ("qcow2", "raw", "vmdk", "vhd", "vhdx", "vdi", "iso", "aki"):
        try:
            judge(facts, said)
        except Refused:
            continue
        assert not facts.unsafe
        assert 0 <= facts.virtual_size <= LARGEST


@given(st.binary(max_size=REACH), st.binary(max_size=TAIL), st.integers(0, 2**63))
def test_bytes_that_do_not_fit_together_raise_nothing(head: bytes, tail: bytes, size: int) -> None:
    assert inspect(head, tail, size).format


@given(st.data())
def test_a_sound_file_with_random_damage_raises_nothing_but_a_refusal(data: st.DataObject) -> None:
    damaged = bytearray(data.draw(st.sampled_from([header(), vmdk(SOUND)])))
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=12)):
        damaged[place] = value
    try:
        judge(look(bytes(damaged)), "qcow2")
    except Refused:
        return
    assert struct.unpack(">Q", damaged[8:16]) == (0,)
    assert not damaged[79] & 1 << 2
