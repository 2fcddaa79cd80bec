"""What Image costs: metadata, 64 MiB up and down, and how that grows with the number of images.

    .venv/bin/python -m bench.image [--rounds N] [--grow N]

An upload is compared with a plain loop that hashes the same bytes (md5 and sha512 side by side, in two threads) and
writes them to the same disk.  Every loop is bounded; it talks to loopback alone.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench.cloud import HEADING, Cloud, measure, row, run, together
from pileus.core.store import Store, Tx
from pileus.services.image.resources.image.table import image as images

SIZES = (10, 100, 1_000, 10_000)
MIB = 1 << 20
PIECE = MIB
UPLOAD = 64 * MIB
NEW = {"disk_format": "raw", "container_format": "bare"}


def plain_loop(place: Path, data: bytes) -> float:
    """Milliseconds of hashing and writing the same bytes, with nothing around it, into a new file as an upload does.

    One that is written over takes the page cache's pages of before, which a virtual machine's host has given it
    already; new pages cost several times as much there.
    """
    began = time.perf_counter()
    sums = (hashlib.md5(usedforsecurity=False), hashlib.sha512())
    view = memoryview(data)
    with place.open("xb") as file, ThreadPoolExecutor(2) as pool:
        for start in range(0, len(data), PIECE):
            piece = view[start : start + PIECE]
            jobs = [pool.submit(one.update, piece) for one in sums]
            file.write(piece)
            for job in jobs:
                job.result()
        file.flush()
        os.fsync(file.fileno())
    return (time.perf_counter() - began) * 1000


class Session:
    """The operations that are measured, on one cloud."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.data = os.urandom(UPLOAD)
        self.image = ""

    def create(self, number: int) -> str:
        """POST an image without data; its id."""
        return str(self.cloud.call("POST", "/image/v2/images", {"name": f"bench-{number}", **NEW})["id"])

    def list(self, _: int) -> None:
        """GET 25 images."""
        assert len(self.cloud.call("GET", "/image/v2/images?limit=25")["images"]) == 25

    def upload(self, number: int) -> float:
        """PUT 64 MiB into a new image; milliseconds of the PUT alone."""
        image = self.create(number)
        began = time.perf_counter()
        headers = {"content-type": "application/octet-stream"}
        answer = self.raw("PUT", f"/image/v2/images/{image}/file", self.data, headers)
        spent = (time.perf_counter() - began) * 1000
        if answer.status != http.client.NO_CONTENT:
            raise RuntimeError(f"upload: {answer.status} {answer.read(500)!r}")
        answer.read()
        self.image = image
        return spent

    def download(self, _: int) -> None:
        """GET 64 MiB."""
        answer = self.raw("GET", f"/image/v2/images/{self.image}/file", None, {})
        size = 0
        while piece := answer.read(PIECE):
            size += len(piece)
        assert size == UPLOAD

    def raw(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> http.client.HTTPResponse:
        """A request whose body is bytes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.cloud.port, timeout=60, blocksize=PIECE)
        connection.request(method, path, body, {"x-auth-token": self.cloud.token, **headers})
        return connection.getresponse()


def figures(rounds: int) -> None:
    """The table, one at a time and sixteen at once."""
    cloud = Cloud(1)
    try:
        session = Session(cloud)
        quick: dict[str, tuple[Callable[[int], Any], float, float]] = {
            "image create": (session.create, 38, 5),
            "list of 25": (session.list, 21, 2.5),
        }
        print(HEADING)
        for name, (act, upstream, most) in quick.items():
            print(row(measure(cloud, name, act, rounds, upstream, most)), flush=True)
        plain, sent = [], []
        before = cloud.cpu()
        with tempfile.TemporaryDirectory(dir=cloud.state) as directory:
            for number in range(15):  # in turns, so that both see the same machine
                plain.append(plain_loop(Path(directory) / str(number), session.data))
                sent.append(session.upload(number))
        cpu = (cloud.cpu() - before) / len(sent)
        loop, upload = statistics.median(plain), statistics.median(sent)
        print(f"plain loop over 64 MiB: {loop:.0f} ms")
        print(f"upload 64 MiB: p50 {upload:.0f} ms, {upload / loop:.2f} of the loop (at most 1.5), {cpu:.0f} ms CPU")
        print(row(measure(cloud, "download 64 MiB", session.download, 15, 84, 60)), flush=True)
        for name, (act, _, _) in quick.items():
            p50, rate, spent = together(cloud, act, rounds)
            print(f"{name}, 16 at once: p50 {p50:.2f} ms, {rate:.0f}/s, {spent:.2f} ms CPU each", flush=True)
    finally:
        cloud.close()


def grow(most: int) -> None:
    """How operations grow with the number of images."""
    cloud = Cloud(1)
    try:
        session = Session(cloud)
        acts: dict[str, Callable[[int], Any]] = {
            "list of 10": lambda _: cloud.call("GET", "/image/v2/images?limit=10"),
            "by name": lambda _: cloud.call("GET", "/image/v2/images?name=grown-3"),
            "show": lambda _: cloud.call("GET", f"/image/v2/images/{key(3)}"),
            "create": session.create,
        }
        print(f"{'images':>10} " + " ".join(f"{name:>14}" for name in acts))
        there = 0
        for size in (size for size in SIZES if size <= most):
            fill(cloud, session, there, size)
            there = size
            medians = [measure(cloud, name, act, 60, None, None).p50 for name, act in acts.items()]
            print(f"{size:>10,} " + " ".join(f"{median:>11.2f} ms" for median in medians), flush=True)
    finally:
        cloud.close()


def key(number: int) -> str:
    """The id of an image that `fill` made."""
    return f"00000000-0000-4000-8000-{number:012d}"


def fill(cloud: Cloud, session: Session, begin: int, end: int) -> None:
    """Write copies of one image's row into the store of a cloud, which is down meanwhile."""
    sample = session.create(-100 - begin)
    cloud.pileus("down")
    store = Store(f"sqlite:///{cloud.state / 'control' / 'pileus.db'}")
    now = datetime.now(UTC)

    def write(tx: Tx) -> None:
        row = tx.all(sa.select(images).where(images.c.id == sample))[0]._asdict()
        rows = [
            {**row, "id": key(number), "name": f"grown-{number}", "created_at": now - timedelta(seconds=number)}
            for number in range(begin, end)
        ]
        tx.execute(sa.insert(images), rows)

    store.write_here(write)
    store.close()
    cloud.pileus("up", "--detach", "--no-demo", "--fake", "1", "--listen", f"127.0.0.1:{cloud.port}")
    cloud.hang_up()


if __name__ == "__main__":
    sys.exit(run(__doc__ or "", figures, grow, 10_000, "images"))
