"""An image service with several stores, its loops, and a server of the web to import from."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from pileus.contracts.images import ImageStore
from pileus.core.reconcile import Controller
from pileus.core.seams import ManualClock, Seams
from pileus.core.store import Tx
from pileus.drivers.images.fake import FakeImageStore
from pileus.drivers.images.file import FileImageStore
from pileus.drivers.images.web import WebImageStore
from pileus.services.image.controllers import controllers
from pileus.services.image.interface import AddressFilter, ImageSettings, ImageStores
from pileus.services.image.service import service
from tests.api.edge import Client, Response, Served, make_edge

OCTETS = {"content-type": "application/octet-stream"}
LOOPBACK = (ip_network("127.0.0.0/8"),)


class Site:
    """What is on the web: paths to bodies, to redirects, or to a function that answers."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes | str | Callable[[BaseHTTPRequestHandler], None]] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.asked.append((self.command, self.path, self.headers.get("range")))
                page = site.pages.get(self.path)
                if callable(page):
                    page(self)
                elif isinstance(page, str):
                    self.send_response(302)
                    self.send_header("Location", page)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                elif page is None:
                    self.send_error(404)
                else:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(page)))
                    self.end_headers()
                    if self.command == "GET":
                        self.wfile.write(page)

            def do_HEAD(self) -> None:
                self.do_GET()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class ImageCloud:
    """An edge, its stores `file`, `reserve` and `web`, its clock and its loops."""

    def __init__(self, place: Path, url: str, site: Site | None = None, **settings: Any) -> None:
        self.clock = ManualClock()
        self.file = FileImageStore(place / "images")
        self.reserve = FakeImageStore()
        self.staging = FileImageStore(place / "staging")
        self.cache = FileImageStore(place / "cache")
        ports = (site.port,) if site is not None else (80,)
        addresses = settings.pop("addresses", AddressFilter(allowed_ports=ports, networks=LOOPBACK))
        web = WebImageStore(addresses.check, addresses.judge, timeout=2)
        stores: dict[str, ImageStore] = {"file": self.file, "reserve": self.reserve, "web": web}
        self.stores = ImageStores(
            stores,
            "file",
            staging=self.staging,
            cache=self.cache,
            convert=settings.pop("convert", None),
            settings=replace(ImageSettings(cache_room=1 << 20), addresses=addresses, **settings),
        )
        self.served: Served = make_edge(
            url, service(), provided={ImageStores: self.stores}, seams=Seams(self.clock, seed=1)
        )
        self.member = self.served.client("member:p1")
        self.admin = self.served.client("admin:ops")
        self.other = self.served.client("member:p2")
        self.reader = self.served.client("reader:p1")

    def ask(self, method: str, path: str, json: Any = None, by: Client | None = None, **headers: str) -> Response:
        return (by or self.member).request(method, f"/image/v2{path}", json=json, headers=headers)

    def make(self, disk_format: str | None = "raw", container_format: str | None = "bare", **more: Any) -> str:
        body = {"disk_format": disk_format, "container_format": container_format, **more}
        answer = self.ask("POST", "/images", {name: value for name, value in body.items() if value is not None})
        assert answer.status == 201, answer
        return str(answer.json["id"])

    def put(self, image_id: str, data: bytes, verb: str = "file", **headers: str) -> Response:
        path = f"/image/v2/images/{image_id}/{verb}"
        return self.member.request("PUT", path, data=data, headers=OCTETS | headers)

    def start(self, image_id: str, name: str, by: Client | None = None, /, **more: Any) -> Response:
        given: dict[str, Any] = {
            key: more.pop(key) for key in ("uri", "glance_image_id", "glance_region") if key in more
        }
        body = {"method": {"name": name, **given}, **more}
        return self.ask("POST", f"/images/{image_id}/import", body, by)

    def show(self, image_id: str) -> Any:
        return self.ask("GET", f"/images/{image_id}").json

    def tasks(self, image_id: str) -> Any:
        return self.ask("GET", f"/images/{image_id}/tasks").json["tasks"]

    def data(self, image_id: str, **headers: str) -> bytes:
        return self.ask("GET", f"/images/{image_id}/file", None, None, **headers).body

    def files(self) -> list[str]:
        """Names of all that is in the stores and beside them."""
        places = [path for store in (self.file, self.staging, self.cache) for path in (store.incoming, store.data)]
        found = [f"{path.parent.name}/{one.name}" for path in places for one in path.iterdir()]
        return sorted(found + [f"reserve/{name}" for name in (*self.reserve.incoming, *self.reserve.data)])

    def settle(self) -> None:
        """Let the loops work until nothing is left to do."""
        settle(self.served, self.stores)


def settle(served: Served, stores: ImageStores) -> None:
    """Let the loops of Image work until nothing is left to do, or nothing changes any more."""

    async def run() -> None:
        for _ in range(20):
            idle = True
            for controller in controllers(stores):
                keys = await served.store.read(partial(_keys, controller))
                if keys:
                    idle = False
                    await controller.reconcile(served.store, keys)
            if idle:
                return

    served.run(run())


def _keys(controller: Controller, tx: Tx) -> list[str]:
    return list(controller.keys(tx))


@contextmanager
def image_cloud(place: Path, url: str, site: Site | None = None, **settings: Any) -> Iterator[ImageCloud]:
    cloud = ImageCloud(place, url, site, **settings)
    with cloud.served:
        yield cloud
