"""The contract of image stores, for every store that the package brings; and the web, which is only read."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_network
from pathlib import Path

import pytest

from pileus.contracts.images import ImageStore, StoreFailure
from pileus.contracts.suite.images import ImageStoreContract, ImageStoreHarness, get, put
from pileus.drivers.images import web
from pileus.drivers.images.fake import FakeImageStore
from pileus.drivers.images.file import FileImageStore
from pileus.drivers.images.web import WebImageStore
from pileus.services.image.rules.address import AddressFilter
from tests.api.image_cloud import Site


class FileHarness:
    def __init__(self, place: Path) -> None:
        self.place = place

    def open(self) -> ImageStore:
        return FileImageStore(self.place / "images")


class FakeHarness:
    def __init__(self) -> None:
        self.store = FakeImageStore()

    def open(self) -> ImageStore:
        return self.store


class TestFile(ImageStoreContract):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> ImageStoreHarness:
        return FileHarness(tmp_path)


class TestFake(ImageStoreContract):
    @pytest.fixture
    def harness(self) -> ImageStoreHarness:
        return FakeHarness()


def test_files_are_private_and_the_directory_may_move(tmp_path: Path) -> None:
    location = put(FileImageStore(tmp_path / "one"), "a-1", b"x")
    path = tmp_path / "one" / "data" / "a-1"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    (tmp_path / "one").rename(tmp_path / "two")
    assert get(FileImageStore(tmp_path / "two"), location) == b"x"


def test_a_url_does_not_say_where_the_directory_is(tmp_path: Path) -> None:
    store = FileImageStore(tmp_path / "one")
    assert store.url(put(store, "a-1", b"x")) == "file:///a-1"


@pytest.fixture(name="site")
def one_site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture(name="far")
def one_web(site: Site) -> WebImageStore:
    addresses = AddressFilter(allowed_ports=(site.port,), networks=(ip_network("127.0.0.0/8"),))
    return WebImageStore(addresses.check, addresses.judge, timeout=1)


def ranged(handler: BaseHTTPRequestHandler) -> None:
    start = int((handler.headers["range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
    handler.send_response(206)
    handler.send_header("Content-Length", str(10 - start))
    handler.end_headers()
    handler.wfile.write(b"0123456789"[start:])


def chunked(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")


def broken(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"5\r\nhello\r\n6\r\n wo")
    handler.close_connection = True


def dripping(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    for _ in range(100):
        try:
            handler.wfile.write(b"x")
        except OSError:
            return
        time.sleep(0.02)


def test_the_web_is_read(site: Site, far: WebImageStore) -> None:
    site.pages |= {"/a?b=c": b"x" * 300_000, "/ranged": ranged, "/chunked": chunked, "/there": "/a?b=c"}
    assert get(far, site.url("/a?b=c#part")) == b"x" * 300_000
    assert far.size(site.url("/a?b=c")) == 300_000
    assert get(far, site.url("/a?b=c"), 299_999) == b"x"  # a server that does not know ranges
    assert get(far, site.url("/ranged"), 7) == b"789"
    assert site.asked[-1] == ("GET", "/ranged", "bytes=7-")
    assert get(far, site.url("/chunked")) == b"hello world"
    assert get(far, site.url("/there")) == b"x" * 300_000


def test_the_web_is_not_written(far: WebImageStore) -> None:
    for call in (far.open_new, far.commit, far.abort):
        with pytest.raises(StoreFailure):
            call("a-1")
    far.remove("http://127.0.0.1/x")
    assert list(far.locations()) == []
    assert (far.read_only, far.path("x"), far.url("http://x/y")) == (True, None, "http://x/y")


def test_a_server_that_goes_away(site: Site, far: WebImageStore) -> None:
    site.pages |= {"/broken": broken}
    with pytest.raises(StoreFailure, match="went away"):
        get(far, site.url("/broken"))
    with pytest.raises(StoreFailure, match="404"):
        far.open(site.url("/none"))
    with pytest.raises(StoreFailure, match="404"):
        far.size(site.url("/none?secret=1"))


def test_a_server_that_is_too_slow(site: Site, far: WebImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "GRACE", 0.3)
    site.pages |= {"/dripping": dripping}
    with pytest.raises(StoreFailure, match="less than"):
        get(far, site.url("/dripping"))


def dripping_head(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    drop(handler, b"x")


def dripping_sizes(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n4;")
    drop(handler, b"x")


def drop(handler: BaseHTTPRequestHandler, sign: bytes) -> None:
    for _ in range(150):
        try:
            handler.wfile.write(sign)
        except OSError:
            return
        time.sleep(0.02)


def test_a_head_has_an_end_and_so_has_what_is_between_chunks(
    site: Site, far: WebImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "HEAD", 0.5)
    monkeypatch.setattr(web, "GRACE", 0.5)
    site.pages |= {"/head": dripping_head, "/sizes": dripping_sizes, "/there": "/head"}
    for path in ("/head", "/there", "/sizes"):
        began = time.monotonic()
        with pytest.raises(StoreFailure, match=r"too slow|timed out"):
            get(far, site.url(path))
        assert time.monotonic() - began < 2, path


def test_an_agreement_on_tls_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "HEAD", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        addresses = AddressFilter(allowed_ports=(port,), networks=(ip_network("127.0.0.0/8"),))
        threading.Thread(target=hello_by_drops, args=(listener,), daemon=True).start()
        began = time.monotonic()
        with pytest.raises(StoreFailure, match="timed out"):
            WebImageStore(addresses.check, addresses.judge).open(f"https://127.0.0.1:{port}/")
        assert time.monotonic() - began < 2


def hello_by_drops(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        client, _ = listener.accept()
        with client:
            for byte in b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03" + bytes(140):
                client.sendall(bytes([byte]))
                time.sleep(0.02)


def test_what_may_be_secret_is_not_told(far: WebImageStore, site: Site) -> None:
    with pytest.raises(StoreFailure) as failure:
        far.open(site.url("/none?signature=secret"))
    assert "secret" not in str(failure.value)


def test_an_address_is_judged_when_the_name_is_resolved(site: Site) -> None:
    addresses = AddressFilter(allowed_ports=(site.port,))
    store = WebImageStore(addresses.check, addresses.judge, timeout=1)
    with pytest.raises(StoreFailure, match="not a public one"):
        store.open(f"http://localhost:{site.port}/a")
    assert site.asked == []
