"""Remote consoles: who gets a token, what it is good for, and what goes through the WebSocket behind it."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa

from pileus.agent.agent import Agent
from pileus.agent.host import Host
from pileus.agent.image_cache import NoImages
from pileus.agent.link import Link
from pileus.app.console import Console, page
from pileus.contracts.hypervisor import DiskSpec, GuestSpec, Power
from pileus.core import serve
from pileus.core.config import Config
from pileus.core.context import Auth
from pileus.core.http import Edge
from pileus.core.policy import Policy
from pileus.core.seams import ManualClock, Seams
from pileus.core.store import Tx
from pileus.drivers.hypervisor.fake import FakeHypervisor
from pileus.drivers.network.fake import FakeNetwork
from pileus.drivers.storage.fake import FakeStorage
from pileus.services.compute.resources.console import token
from pileus.services.compute.resources.server.table import server
from pileus.services.compute.service import service
from pileus.services.fleet import interface as fleet
from pileus.services.fleet.service import link_service
from tests.api.compute_cloud import Cloud, fault, ok
from tests.api.edge import Served, make_edge
from tests.api.websocket import Refused, Screen, Socket


class Clock(ManualClock):
    """The host's clock, as long as nobody moves it on."""

    def monotonic(self) -> float:
        return time.monotonic()


@dataclass
class House:
    """A control plane on real sockets, and one simulated host that has joined it."""

    cloud: Cloud
    root: str
    hypervisor: FakeHypervisor
    host_id: str

    def server(self, power: Power = "running", **values: Any) -> str:
        """A server that runs on the host."""
        server_id = self.cloud.add_server(None, None, power=power)
        spec = GuestSpec(
            id=server_id,
            name="vm",
            vcpus=1,
            memory_mib=64,
            disks=(DiskSpec(id="root", size_gib=1),),
            nics=(),
            power=power,
        )

        def work(tx: Tx) -> None:
            placed = {"host_id": self.host_id, "host": "fake-1", **values}
            tx.execute(sa.update(server).where(server.c.id == server_id).values(placed))
            fleet.assign(tx, [fleet.Spec(self.host_id, "guest", server_id, spec)])

        self.write(work)
        _until(lambda: self.hypervisor.observe(server_id).state == power)
        return server_id

    def write(self, work: Callable[[Tx], object]) -> None:
        """A transaction."""
        self.cloud.served.store.write_here(work)

    def url(self, server_id: str, protocol: str = "vnc", kind: str = "novnc") -> str:
        """Where a console is, as the API says it, on the address where this house answers."""
        body = {"remote_console": {"protocol": protocol, "type": kind}}
        made = ok(self.cloud.ask("POST", f"/servers/{server_id}/remote-consoles", body, token="member:p1"))
        url: str = made["remote_console"]["url"]
        return url.replace("//testserver", f"//{urlsplit(self.root).netloc}")


def _until(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _host(tx: Tx, text: str, headers: Mapping[bytes, bytes]) -> Auth:
    return Auth(user_id=text, roles=frozenset({"host"}))


async def _start(
    served: Served, known: fleet.Fleet, config: Config, place: Path, host: Host, pool: ThreadPoolExecutor
) -> tuple[int, Callable[[], Coroutine[Any, Any, None]]]:
    """Let all of it run; the port, and what ends it."""
    known.attach(served.store)
    public = serve.listen_tcp("127.0.0.1", 0)
    link = serve.listen_unix(place / "link.sock")
    edge = Edge([link_service()], served.store, Policy(), _host, {fleet.Fleet: known})
    console = Console(served.edge, known, served.store, config)
    agent = Agent(host, Link(place / "link.sock"), pool)
    servers = [serve.server(console, websockets=True), serve.server(edge, serve.checked(lambda _: 0))]
    serving = [
        asyncio.create_task(server.serve(sockets=[listener]))
        for server, listener in zip(servers, (public, link), strict=True)
    ]
    running = asyncio.create_task(agent.run())

    async def stop() -> None:
        running.cancel()
        known.close()
        for one in servers:
            one.should_exit = True
        await asyncio.gather(running, *serving, return_exceptions=True)

    return public.getsockname()[1], stop


@pytest.fixture
def house(database_url: str, tmp_path: Path) -> Iterator[House]:
    """See `House`; its clock stands still until it is moved."""
    clock = Clock()
    known = fleet.Fleet(clock)
    config = Config(state=tmp_path, console_allowed_origins=["dashboard.example.org"])
    provided = {fleet.Fleet: known, Config: config}
    hypervisor = FakeHypervisor()
    host = Host(
        name="fake-1",
        state=None,
        hypervisor=hypervisor,
        network=FakeNetwork(),
        storage=FakeStorage(root=tmp_path / "disks"),
        images=NoImages(),
        metadata=None,
    )
    with (
        ThreadPoolExecutor(4) as pool,
        make_edge(database_url, service(), provided=provided, seams=Seams(clock)) as served,
    ):
        served.store.write_here(fleet.begin)
        port, stop = served.run(_start(served, known, config, tmp_path, host, pool))
        _until(lambda: bool(served.store.read_here(lambda tx: fleet.hosts(tx, known))))
        (found,) = served.store.read_here(lambda tx: fleet.hosts(tx, known))
        yield House(Cloud(served, clock, known), f"http://127.0.0.1:{port}", hypervisor, found.id)
        served.run(stop())


# -- the API ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def cloud(database_url: str, tmp_path: Path) -> Iterator[Cloud]:
    """A cloud whose hosts nobody asks."""
    clock = ManualClock()
    known = fleet.Fleet(clock)
    provided = {fleet.Fleet: known, Config: Config(state=tmp_path, console_token_seconds=60)}
    with make_edge(database_url, service(), link_service(), provided=provided, seams=Seams(clock, seed=1)) as served:
        served.store.write_here(fleet.begin)
        yield Cloud(served, clock, known)


@pytest.fixture
def placed(cloud: Cloud) -> str:
    """A server of project p1 on a host."""
    return cloud.add_server(cloud.add_host("h1"), "h1")


def _make(cloud: Cloud, server_id: str, protocol: str = "vnc", kind: str = "novnc", **more: Any) -> Any:
    body = {"remote_console": {"protocol": protocol, "type": kind}}
    return cloud.ask("POST", f"/servers/{server_id}/remote-consoles", body, **more)


def test_a_screen_has_an_address_with_a_token(cloud: Cloud, placed: str) -> None:
    found = ok(_make(cloud, placed, token="member:p1"))["remote_console"]
    assert (found["protocol"], found["type"]) == ("vnc", "novnc")
    assert re.fullmatch(
        r"http://testserver/console/vnc\.html\?path=console%2Fwebsockify%3Ftoken%3D[0-9a-f-]{36}", found["url"]
    )
    assert ok(_make(cloud, placed, token="member:p1"))["remote_console"]["url"] != found["url"]


def test_a_serial_port_has_the_address_of_a_websocket(cloud: Cloud, placed: str) -> None:
    found = ok(_make(cloud, placed, "serial", "serial"))["remote_console"]
    assert re.fullmatch(r"ws://testserver/console/serial\?token=[0-9a-f-]{36}", found["url"])


@pytest.mark.parametrize(
    ("action", "kind", "status"),
    [
        ("os-getVNCConsole", "novnc", 200),
        ("os-getSerialConsole", "serial", 200),
        ("os-getVNCConsole", "xvpvnc", 400),
        ("os-getSPICEConsole", "spice-html5", 400),
        ("os-getRDPConsole", "rdp-html5", 400),
        ("os-getVNCConsole", "other", 400),
    ],
)
def test_the_four_older_actions(cloud: Cloud, placed: str, action: str, kind: str, status: int) -> None:
    path = f"/servers/{placed}/action"
    response = cloud.ask("POST", path, {action: {"type": kind}}, version="2.5", token="member:p1")
    assert response.status == status, response
    if status == 200:
        assert response.json["console"].keys() == {"type", "url"}
    assert cloud.ask("POST", path, {action: {"type": kind}}, version="2.6").status == 404


@pytest.mark.parametrize(
    ("protocol", "kind", "version", "message"),
    [
        ("spice", "spice-html5", "2.104", "Unavailable console type spice-html5"),
        ("spice", "spice-direct", "2.99", "Unavailable console type spice-direct"),
        ("spice", "spice-direct", "2.98", "spice-direct"),
        ("rdp", "rdp-html5", "2.104", "Unavailable console type rdp"),
        ("mks", "webmks", "2.8", "Unavailable console type webmks"),
        ("mks", "webmks", "2.7", "mks"),
        ("vnc", "serial", "2.104", "Invalid console type serial"),
        ("vnc", "xvpvnc", "2.104", "Invalid console type xvpvnc"),
        ("telnet", "novnc", "2.104", "telnet"),
    ],
)
def test_consoles_that_are_not_offered(
    cloud: Cloud, placed: str, protocol: str, kind: str, version: str, message: str
) -> None:
    assert message in fault(_make(cloud, placed, protocol, kind, version=version), 400)


def test_who_may_look(cloud: Cloud, placed: str) -> None:
    assert _make(cloud, placed, token="member:p1").status == 200
    assert _make(cloud, placed, token="admin:ops").status == 200
    assert _make(cloud, placed, token="reader:p1").status == 403
    assert _make(cloud, placed, token="member:p2").status == 404
    assert _make(cloud, "00000000-0000-4000-8000-000000000000").status == 404
    assert _make(cloud, placed, version="2.5").status == 404


def test_a_server_on_no_host_is_not_ready(cloud: Cloud) -> None:
    assert _make(cloud, cloud.add_server(None, None, state="", launched_at=None)).status == 409


def test_a_token_is_kept_as_a_hash_and_forgotten_in_time(cloud: Cloud, placed: str) -> None:
    text = ok(_make(cloud, placed))["remote_console"]["url"][-36:]
    (row,) = cloud.served.store.read_here(lambda tx: tx.all(sa.select(token)))
    assert text not in str(row._mapping)
    cloud.clock.advance(3600)
    ok(_make(cloud, placed))
    assert len(cloud.served.store.read_here(lambda tx: tx.all(sa.select(token)))) == 1


def test_what_a_token_is_good_for(cloud: Cloud, placed: str) -> None:
    text = ok(_make(cloud, placed))["remote_console"]["url"][-36:]
    path = f"/os-console-auth-tokens/{text}"
    found = ok(cloud.ask("GET", path, version="2.31"))["console"]
    assert found == {"instance_uuid": placed, "host": "h1", "port": 0, "internal_access_path": None}
    assert cloud.ask("GET", path, version="2.30").status == 400
    assert cloud.ask("GET", path, token="member:p1").status == 403
    assert fault(cloud.ask("GET", f"{path}x"), 404) == "Token not found"
    cloud.clock.advance(61)
    assert cloud.ask("GET", path).status == 404


@pytest.mark.parametrize("change", [{"host_id": "elsewhere"}, {"deleting_at": True}, {"deleted_at": True}])
def test_a_token_is_worth_nothing_once_its_server_went(cloud: Cloud, placed: str, change: dict[str, Any]) -> None:
    text = ok(_make(cloud, placed))["remote_console"]["url"][-36:]
    values = {name: cloud.clock.now() if value is True else value for name, value in change.items()}
    cloud.served.store.write_here(lambda tx: tx.execute(sa.update(server).values(**values)).rowcount)
    assert cloud.ask("GET", f"/os-console-auth-tokens/{text}").status == 404


# -- the pages -------------------------------------------------------------------------------------------------------


def test_packages_are_what_their_registry_published() -> None:
    for package in page.PACKAGES.values():
        assert page.integrity((page.PLACE / package.file).read_bytes()) == package.integrity


def test_pages_find_all_that_they_load() -> None:
    """Every module and style that a page names, and every module that those import, is served."""
    wanted = [("vnc.html", "vnc.js"), ("serial.html", "serial.js")]
    for name, file in page.files().items():
        if name.endswith((".html", ".js", ".mjs")) and not name.startswith(("xterm/", "addon-fit/")):
            text = file.content.decode()
            found = re.findall(r"(?:from|import)\s+['\"](\.[^'\"]+)['\"]", text)
            found += re.findall(r"(?:href|src)=\"([^\"]+)\"", text)
            wanted += [(name, one) for one in found]
    assert len(wanted) > 60
    for name, one in wanted:
        folder = Path("/") / Path(name).parent
        assert str((folder / one).resolve())[1:] in page.files(), f"{name} loads {one}"


def test_pages_are_served_without_a_token(house: House) -> None:
    with urllib.request.urlopen(house.url(house.server())) as answer:
        text = answer.read().decode()
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert "noVNC" in text
    assert "<script" in text
    with urllib.request.urlopen(f"{house.root}/console/novnc/core/rfb.js") as answer:
        assert answer.headers["content-type"].startswith("text/javascript")
        again = urllib.request.Request(answer.url, headers={"If-None-Match": answer.headers["etag"]})
    for request, status in ((again, 304), (urllib.request.Request(again.full_url, method="POST"), 405)):
        with pytest.raises(urllib.error.HTTPError, match=str(status)):
            urllib.request.urlopen(request)
    with urllib.request.urlopen(f"{house.root}/console/serial?token=x") as answer:
        assert "serial.js" in answer.read().decode()
    for path in ("/console/", "/console/../compute", "/console/page.py"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(house.root + path)


# -- the WebSocket ---------------------------------------------------------------------------------------------------


def test_a_screen_is_seen_through_the_websocket(house: House) -> None:
    server_id = house.server()
    with Socket(house.url(server_id)) as line:
        assert line.subprotocol == "binary"
        screen = Screen(line)
        assert (screen.version, screen.security) == (b"RFB 003.008\n", [1])
        assert (screen.width, screen.height, screen.name) == (320, 200, server_id)
        before = screen.pixels()
        screen.press(0x20)
        assert screen.pixels() != before


def test_what_is_typed_comes_back(house: House) -> None:
    with Socket(house.url(house.server(), "serial", "serial")) as line:
        line.send(b"bytes")
        assert line.read(5) == b"bytes"
        line.send_text("words")
        assert line.read(5) == b"words"


def test_a_token_opens_its_own_console_as_often_as_it_likes(house: House) -> None:
    one, other = house.server(), house.server()
    url = house.url(one, "serial", "serial")
    with Socket(url) as first, Socket(url) as second, Socket(house.url(other)) as third:
        first.send(b"1")
        second.send(b"2")
        assert (first.read(1), second.read(1)) == (b"1", b"2")
        assert third.read(4) == b"RFB "


def test_tokens_that_are_not_good_are_refused(house: House) -> None:
    server_id = house.server()
    url = house.url(server_id)
    for bad in (url.replace("token%3D", "token%3Dbad"), url[:-37], f"{house.root}/console/websockify?token="):
        with pytest.raises(Refused, match="403"):
            Socket(bad)
    with pytest.raises(Refused, match="403"):
        Socket(url.replace("websockify", "elsewhere"))
    house.cloud.clock.advance(601)
    with pytest.raises(Refused, match="403"):
        Socket(url)


def test_a_token_in_a_cookie_is_one_too(house: House) -> None:
    text = house.url(house.server())[-36:]
    with Socket(f"{house.root}/console/websockify?", headers={"Cookie": f"a b=c; token={text}"}) as line:
        assert line.read(4) == b"RFB "


@pytest.mark.parametrize(
    ("origin", "good"),
    [
        ("http://127.0.0.1:1", True),
        ("https://127.0.0.1", False),
        ("http://dashboard.example.org", True),
        ("http://evil.example.org", False),
        ("null", False),
        ("http://[", False),
    ],
)
def test_only_pages_of_this_address_may(house: House, origin: str, good: bool) -> None:
    url = house.url(house.server())
    if good:
        with Socket(url, headers={"Origin": origin}) as line:
            assert line.read(4) == b"RFB "
    else:
        with pytest.raises(Refused, match="403"):
            Socket(url, headers={"Origin": origin})


def test_a_guest_that_does_not_run_has_no_console(house: House) -> None:
    with pytest.raises(Refused, match="503"):
        Socket(house.url(house.server("stopped")))


def test_either_side_that_hangs_up_ends_both(house: House) -> None:
    server_id = house.server()
    url = house.url(server_id, "serial", "serial")
    with Socket(url) as line:
        line.send(b"x")
        assert line.read(1) == b"x"
        house.hypervisor.crash(server_id)
        assert line.receive() == b""
    _until(lambda: house.hypervisor.observe(server_id).state == "running")  # the agent starts it again
    line = Socket(url)
    line.send(b"x")
    assert line.read(1) == b"x"
    threads = _echoes()
    line.close()
    _until(lambda: _echoes() < threads)


def _echoes() -> int:

    return sum(thread.name == "fake-serial" for thread in threading.enumerate())


def test_the_end_of_the_token_and_of_the_server_end_it(house: House) -> None:
    server_id = house.server()
    url = house.url(server_id, "serial", "serial")
    with Socket(url) as line:
        house.write(lambda tx: fleet.tombstone(tx, "guest", [server_id]))
        assert line.receive() == b""
    other = house.server()
    url = house.url(other, "serial", "serial")
    house.cloud.clock.advance(599)  # a second is left
    with Socket(url) as line:
        began = time.monotonic()
        assert line.receive() == b""
        assert time.monotonic() - began < 5


def test_a_browser_that_does_not_read_stops_the_guest(house: House) -> None:
    """What a guest says waits in the guest while nobody reads it, and what is typed into a full pipe waits, too."""
    with Socket(house.url(house.server(), "serial", "serial"), seconds=3) as line:
        line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sent = 0

        def pour() -> None:
            nonlocal sent
            while sent < 256 << 20:
                line.send(b"x" * 65536)
                sent += 65536

        with pytest.raises(TimeoutError):
            pour()
        assert sent < 32 << 20
        line.socket.settimeout(20)
        assert len(line.read(1 << 20)) == 1 << 20


def test_there_is_an_end_to_how_many(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pileus.app.console.proxy.EACH", 2)
    url = house.url(house.server(), "serial", "serial")
    with Socket(url), Socket(url) as line:
        with pytest.raises(Refused, match="503"):
            Socket(url)
        line.close()
    deadline = time.monotonic() + 10
    while True:
        try:
            Socket(url).close()
            break
        except Refused:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_nothing_is_logged_of_a_token(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    url = house.url(house.server())
    with Socket(url) as line:
        line.read(4)
    with pytest.raises(Refused):
        Socket(url.replace("token%3D", "token%3Dbad"))
    assert "console is open" in caplog.text
    assert url[-36:] not in caplog.text
