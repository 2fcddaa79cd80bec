"""A guest that is started by hand: the command line that the driver used, and nothing of Pileus around it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pileus.drivers.host.tap import open_tap


class Plug(NamedTuple):
    """Where a guest's card is plugged in."""

    device: str
    namespace: str


def command(argv: Sequence[str], disk: Path, tap: int) -> list[str]:
    """The arguments of a guest's process as one would type them.

    Its first disk is `disk` and its tap the descriptor `tap`; sockets and logs are files of the directory that it is
    started in, and its processors run at once.
    """
    words: list[str] = []
    left = list(argv)
    replaced = False
    while left:
        word = left.pop(0)
        if word == "-S":
            continue
        if word == "-add-fd":
            left.pop(0)
            continue
        if word.startswith("socket,id="):
            name = word.split(",")[1].removeprefix("id=")
            word = re.sub(r",fd=\d+", f",path={name}.sock", word)
            word = re.sub(r"logfile=/dev/fdset/\d+", "logfile=console.log", word)
        elif word.startswith("tap,"):
            word = re.sub(r",fd=\d+", f",fd={tap}", word)
        elif word.startswith("{") and not replaced and json.loads(word).get("driver") == "qcow2":
            image = json.loads(word)
            image["file"]["filename"] = str(disk)
            word, replaced = json.dumps(image), True
        words.append(word)
    return words


class Bare:
    """A process of QEMU with a disk of its own in `folder`, on a card's plug that nobody else uses meanwhile.

    It is there when this has been made; how long that took counts for it, as it counts for a cloud.
    """

    def __init__(self, folder: Path, argv: Sequence[str], base: Path, size: int, plug: Plug) -> None:
        self.console = folder / "console.log"
        disk = folder / "disk.qcow2"
        overlay = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(base), str(disk), str(size)]
        subprocess.run(overlay, check=True)
        tap = open_tap(plug.device, plug.namespace)
        try:
            with (folder / "stderr.log").open("wb") as errors:
                self.process = subprocess.Popen(
                    command(argv, disk, tap), cwd=folder, pass_fds=[tap], stdin=subprocess.DEVNULL, stderr=errors
                )
        finally:
            os.close(tap)

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
