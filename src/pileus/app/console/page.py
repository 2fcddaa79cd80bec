"""The files that a browser needs for a console: our pages, and noVNC and xterm.js as their registry gives them.

The packages lie here as they were published, by their integrity hash (see `PACKAGES`), and nothing of them is changed;
their licences are served with them (MPL 2.0, MIT).  They are read when this module is imported, for whoever serves them
has given up the right to read the checkout and Python by then, and unpacked for the first browser that comes.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import mimetypes
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

PLACE = Path(__file__).parent

OWN = ("console.css", "serial.html", "serial.js", "vnc.html", "vnc.js")


class Package(NamedTuple):
    """A package of the npm registry."""

    file: str
    integrity: str
    """As the registry says it (Subresource Integrity)."""
    parts: tuple[str, ...]
    """What of it a browser needs: files, and folders with a slash at the end."""


PACKAGES = {
    "novnc": Package(
        "novnc-1.7.0.tgz",
        "sha512-ucEJOx4T2avIRCleodk7YobZj5O2Ga2AeLfQ69A/yjG9HHba2+PDgwSkN3FttrmG+70ZGx21sElNFouK13RzyA==",
        ("LICENSE.txt", "core/", "vendor/pako/LICENSE", "vendor/pako/lib/"),
    ),
    "xterm": Package(
        "xterm-6.0.0.tgz",
        "sha512-TQwDdQGtwwDt+2cgKDLn0IRaSxYu1tSUjgKarSDkUM0ZNiSRXFpjxEsvc/Zgc5kq5omJ+V0a8/kIM2WD3sMOYg==",
        ("LICENSE", "lib/xterm.mjs", "css/xterm.css"),
    ),
    "addon-fit": Package(
        "addon-fit-0.11.0.tgz",
        "sha512-jYcgT6xtVYhnhgxh3QgYDnnNMYTcf8ElbxxFzX0IZo+vabQqSPAjC3c1wJrKB5E19VwQei89QCiZZP86DCPF7g==",
        ("LICENSE", "lib/addon-fit.mjs"),
    ),
}
"""By the folder under which they are served."""


class File(NamedTuple):
    """A file as it is served."""

    content: bytes
    media: str
    tag: bytes
    """What tells this version from others, as an entity tag (RFC 9110, 8.8.3)."""


def _file(name: str, content: bytes) -> File:
    return File(content, _media(name), f'"{hashlib.sha256(content).hexdigest()[:32]}"'.encode())


def integrity(data: bytes) -> str:
    """The hash of a package's file, as the registry says it."""
    return "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()


_READ = {name: (PLACE / name).read_bytes() for name in (*OWN, *(package.file for package in PACKAGES.values()))}


def _unpack() -> Iterator[tuple[str, File]]:
    for name in OWN:
        yield name, _file(name, _READ[name])
    for folder, package in PACKAGES.items():
        content = gzip.decompress(_READ[package.file])  # tarfile would import that late
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in archive:
                name = member.name.partition("/")[2]
                wanted = any(name == part or (part.endswith("/") and name.startswith(part)) for part in package.parts)
                data = archive.extractfile(member) if wanted and member.isfile() else None
                if data is not None and not name.endswith((".map", ".d.ts")):
                    yield f"{folder}/{name}", _file(name, data.read())


def _media(name: str) -> str:
    if name.endswith((".js", ".mjs")):
        return "text/javascript; charset=utf-8"
    if name.endswith((".html", ".css")):
        return f"text/{name.rpartition('.')[2]}; charset=utf-8"
    return mimetypes.guess_type(name)[0] or "text/plain; charset=utf-8"


@cache
def files() -> dict[str, File]:
    """All files by their path below `/console/`."""
    return dict(_unpack())


HEADERS = [
    (b"cache-control", b"no-cache"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (
        b"content-security-policy",
        (
            b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:;"
            b" font-src 'self'; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'"
        ),
    ),
]
"""The page's address holds a token, which no other place is told; what it loads comes from here alone."""
