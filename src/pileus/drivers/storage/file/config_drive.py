"""Config drives: what a guest is told, on an ISO 9660 file system (Compute API guide, "Metadata").

The file holds the digest of its documents, so that one can see without reading it whether it is the one wanted.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pycdlib

from pileus.contracts.storage import StorageFailure

LABEL = "config-2"
"""By which guests find the drive."""

_APPLICATION = slice(16 * 2048 + 574, 16 * 2048 + 702)
"""Application identifier in the primary volume descriptor (ECMA-119, 8.4.20): it holds the documents' digest."""


def digest(documents: Mapping[str, bytes]) -> str:
    """What tells these documents from others."""
    state = hashlib.sha256()
    for name, content in sorted(documents.items()):
        state.update(struct.pack(">QQ", len(name.encode()), len(content)) + name.encode() + content)
    return state.hexdigest().upper()


def held(path: Path) -> str:
    """The digest of the documents that a drive holds; empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(_APPLICATION.start)
            return file.read(_APPLICATION.stop - _APPLICATION.start).decode("ascii", "replace").rstrip()
    except FileNotFoundError:
        return ""


def iso(documents: Mapping[str, bytes]) -> bytes:
    """ISO 9660 with Rock Ridge and Joliet names, so that every guest reads the paths as they are.

    Raises StorageFailure for a path that leaves the drive.
    """
    disc = pycdlib.PyCdlib()
    disc.new(interchange_level=3, vol_ident=LABEL, app_ident_str=digest(documents), joliet=3, rock_ridge="1.09")
    plain: dict[PurePosixPath, str] = {PurePosixPath("/"): ""}
    for number, (name, content) in enumerate(sorted(documents.items())):
        path = PurePosixPath("/") / name
        if ".." in path.parts:
            raise StorageFailure(f"not a document's path: {name!r}", permanent=True)
        for folder in reversed(path.parents):
            if folder not in plain:
                plain[folder] = f"{plain[folder.parent]}/D{len(plain)}"
                disc.add_directory(plain[folder], rr_name=folder.name, joliet_path=str(folder))
        where = f"{plain[path.parent]}/F{number}.;1"
        disc.add_fp(io.BytesIO(content), len(content), where, rr_name=path.name, joliet_path=str(path))
    written = io.BytesIO()
    disc.write_fp(written)
    disc.close()
    return written.getvalue()
