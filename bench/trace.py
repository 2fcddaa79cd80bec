"""Which files of the project run, in order, when one server with a port is created.

    .venv/bin/python bench/trace.py > docs/trace.md

Control plane and agent (of one simulated host) run in this one process, over the real edge and the real link.  Each
file is printed where it is entered for the first time after the POST has come in, with the function that was entered.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import json
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import httptools  # noqa: F401 - loaded before the trace begins

import pileus.app
from pileus.app import host
from pileus.core import serve
from pileus.core.config import Config
from pileus.core.reconcile import Loops
from pileus.core.store import Store
from pileus.services.fleet.interface import observed

SOURCE = Path(pileus.app.__file__).parents[1]


class Trace:
    """Notes each file of the project when it is entered first."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple[str, str]] = {}

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event != "call":
            return
        name = frame.f_code.co_filename
        if name.startswith(str(SOURCE)) and name not in self.seen and not frame.f_code.co_name.startswith("<"):
            thread = threading.current_thread().name
            place = (
                "writer" if thread == "writer" else "agent's driver" if thread.startswith("driver") else "event loop"
            )
            self.seen[name] = (frame.f_code.co_qualname, place)

    def start(self) -> None:
        """Begin, in this thread and in those that start from now on."""
        threading.setprofile_all_threads(self) if hasattr(threading, "setprofile_all_threads") else None
        sys.setprofile(self)

    def stop(self) -> None:
        """End."""
        sys.setprofile(None)


class Client:
    """Calls the public edge without a socket."""

    def __init__(self, edge: Any) -> None:
        self.edge = edge
        self.token = ""

    async def call(
        self, method: str, path: str, body: Any = None, data: bytes = b""
    ) -> tuple[int, dict[bytes, bytes], Any]:
        """One request: status, headers, decoded body."""
        content = json.dumps(body).encode() if body is not None else data
        media = b"application/json" if body is not None else b"application/octet-stream"
        headers = [(b"host", b"trace"), (b"content-type", media), (b"openstack-api-version", b"compute 2.90")]
        if self.token:
            headers.append((b"x-auth-token", self.token.encode()))
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": headers,
            "scheme": "http",
        }
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.edge(scope, receive, send)
        found = b"".join(message.get("body", b"") for message in sent[1:])
        if sent[0]["status"] >= 400:
            raise RuntimeError(f"{method} {path}: {sent[0]['status']} {found[:500]!r}")
        return sent[0]["status"], dict(sent[0]["headers"]), json.loads(found) if found else None


@asynccontextmanager
async def cloud(state: Path, trace: Trace) -> AsyncIterator[Client]:
    """A whole cloud of one simulated host, in this event loop."""
    config = Config(state=state, fake=1)
    config.control.mkdir()
    config.agent.mkdir()
    (config.control / "bootstrap-password").write_text("secret")
    threading.setprofile(trace)  # for the threads of store and drivers; it notes nothing of before the POST
    store = Store(config.database_url)
    pileus.app.declare_tables()
    store.create()
    control = pileus.app.Control(config, store)
    control.bootstrap()
    control.fleet.attach(store)
    loops = Loops(store, control.controllers)
    await loops.start()
    link = serve.server(control.link_edge())
    serving = asyncio.create_task(link.serve(sockets=[serve.listen_unix(config.link)]))
    (agent,) = host.fake_agents(config, ThreadPoolExecutor(2, thread_name_prefix="driver"))
    running = asyncio.create_task(agent.run())
    try:
        yield Client(control.edge())
    finally:
        running.cancel()
        link.should_exit = link.force_exit = True
        await asyncio.gather(serving, running, return_exceptions=True)
        await loops.stop()
        store.close()


async def prepare(client: Client) -> dict[str, Any]:
    """What the server needs; the body of its POST."""
    domain = {"name": "Default"}
    user = {"name": "admin", "password": "secret", "domain": domain}
    identity = {"methods": ["password"], "password": {"user": user}}
    auth = {"identity": identity, "scope": {"project": {"name": "admin", "domain": domain}}}
    _, headers, _ = await client.call("POST", "/identity/v3/auth/tokens", {"auth": auth})
    client.token = headers[b"x-subject-token"].decode()
    network = (await client.call("POST", "/network/v2.0/networks", {"network": {"name": "n"}}))[2]["network"]["id"]
    subnet = {"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/24"}
    await client.call("POST", "/network/v2.0/subnets", {"subnet": subnet})
    flavor = {"name": "f", "vcpus": 1, "ram": 64, "disk": 1}
    flavor_id = (await client.call("POST", "/compute/v2.1/flavors", {"flavor": flavor}))[2]["flavor"]["id"]
    image = {"name": "i", "disk_format": "raw", "container_format": "bare"}
    image_id = (await client.call("POST", "/image/v2/images", image))[2]["id"]
    await client.call("PUT", f"/image/v2/images/{image_id}/file", data=bytes(512))
    await _until("the host is there", lambda: _hosts(client))
    return {"name": "s", "flavorRef": flavor_id, "imageRef": image_id, "networks": [{"uuid": network}]}


async def run(trace: Trace) -> None:
    """Create one server under the trace, until it is ACTIVE."""
    with tempfile.TemporaryDirectory() as directory:
        async with cloud(Path(directory), trace) as client:
            server = await prepare(client)
            await asyncio.sleep(1)
            trace.seen.clear()
            trace.start()
            made = (await client.call("POST", "/compute/v2.1/servers", {"server": server}))[2]["server"]["id"]
            store = client.edge.store
            await _until("the guest runs", lambda: store.read(lambda tx: _running(tx, made)))
            trace.stop()


async def _until(what: str, true: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(600):
        if await true():
            return
        await asyncio.sleep(0.05)
    raise RuntimeError(f"not after 30 s: {what}")


async def _hosts(client: Client) -> bool:
    return bool((await client.call("GET", "/compute/v2.1/os-hypervisors"))[2]["hypervisors"])


def _running(tx: Any, server_id: str) -> bool:
    found = observed(tx, "guest", [server_id]).get(server_id, [])
    return bool(found) and found[0].state == "running" and found[0].current


def main() -> None:
    """Print the trace as a page."""
    atexit.register(gc.freeze)  # as the command line does, and for its reason
    trace = Trace()
    asyncio.run(run(trace))
    print("# What runs when a server is created\n")
    print(
        "Made by `bench/trace.py`: each file of the project that runs from the POST of a server with one port until its"
    )
    print("guest is observed running on a simulated host, in the order in which they are entered.\n")
    print("| | file | first function | where |")
    print("|---|---|---|---|")
    for place, (name, (function, where)) in enumerate(trace.seen.items(), 1):
        print(f"| {place} | `{Path(name).relative_to(SOURCE)}` | `{function}` | {where} |")


if __name__ == "__main__":
    main()
