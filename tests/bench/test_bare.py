"""A guest that is started by hand is started as the driver does, but for what hands have to do otherwise."""

from __future__ import annotations

import json
from pathlib import Path

from bench.bare import command
from pileus.contracts.hypervisor import DiskSpec, GuestPlan, GuestSpec, NicAttachment, NicSpec
from pileus.drivers.hypervisor.qemu.command import Descriptors, arguments
from pileus.drivers.hypervisor.qemu.device import Board


def driven() -> list[str]:
    """What the driver starts, of a guest with a disk and a card."""
    spec = GuestSpec(
        id="3b0b5c04-f903-4fd9-a093-8aad64054bdc",
        name="one",
        vcpus=1,
        memory_mib=128,
        disks=(DiskSpec(id="root", image_id="tiny", size_gib=1, boot_index=0),),
        nics=(NicSpec(port_id="p1", mac_address="fa:16:3e:00:00:01", mtu=1500),),
        power="running",
    )
    plan = GuestPlan(
        spec=spec,
        disks={"root": Path("/cloud/disks/root.qcow2")},
        nics={"p1": NicAttachment(port_id="p1", device="tap1", namespace="net")},
    )
    descriptors = Descriptors(process=10, qmp=11, serial=12, console=13, taps={"p1": 14})
    board = Board("q35", 2)
    return arguments("qemu-system-x86_64", plan, descriptors, accelerator="tcg", board=board, cards={"p1": 1})


def test_what_is_started_by_hand_differs_in_sockets_disk_and_halt_alone() -> None:
    argv = driven()
    assert "-S" in argv
    words = command(argv, Path("/hand/disk.qcow2"), 7)
    disk = next(json.loads(word) for word in words if word.startswith("{") and '"qcow2"' in word)
    assert disk["file"]["filename"] == "/hand/disk.qcow2"
    assert "tap,id=net-p1,fd=7,vhost=off" in words
    assert "socket,id=qmp,path=qmp.sock,server=on,wait=off" in words
    serial = "socket,id=serial,path=serial.sock,server=on,wait=off,logfile=console.log,logappend=on"
    assert serial in words
    changed = {
        "-S": None,
        "-add-fd": None,
        "fd=13,set=1": None,
        "socket,id=qmp,fd=11,server=on,wait=off": "socket,id=qmp,path=qmp.sock,server=on,wait=off",
        "socket,id=serial,fd=12,server=on,wait=off,logfile=/dev/fdset/1,logappend=on": serial,
        "tap,id=net-p1,fd=14,vhost=off": "tap,id=net-p1,fd=7,vhost=off",
        next(word for word in argv if "/cloud/disks/root.qcow2" in word): json.dumps(disk),
    }
    assert words == [new for word in argv if (new := changed.get(word, word)) is not None]
