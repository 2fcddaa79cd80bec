"""The file that a backup is: a tar archive whose last member, the manifest, says what must be in it.

::

    store.db | store.dump      the store: an SQLite database, or pg_dump's custom format
    keys/NAME, tls/NAME        what `control/keys` and `control/tls` hold
    settings/NAME              the files of the state directory: settings, policy, credentials
    images/STORE/NAME          data of images, where it was asked for
    manifest.json

A file that was cut short has no manifest; one that was changed does not have the hashes that the manifest names.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import msgspec

from pileus.cli.main import CommandFailure

MANIFEST = "manifest.json"
FORMAT = 1
BLOCK = 1 << 20
_FOLDERS = {"keys": 2, "tls": 2, "settings": 2, "images": 3}
"""First part of a member's name to how many parts it has."""

_STORES = ("store.db", "store.dump")


class Member(msgspec.Struct, frozen=True):
    """One file of a backup."""

    size: int
    """Bytes."""
    sha256: str


class Manifest(msgspec.Struct, kw_only=True):
    """What a backup says of itself."""

    format: int = FORMAT
    version: str
    """Of the Pileus that made it."""
    engine: str
    """`sqlite` or `postgresql`."""
    schema: str
    """The store's revision (`pileus.migration`)."""
    store_id: str
    incarnation: str
    """The last run of a control plane on the store."""
    position: int
    """How far the store had come: what happened after it is not in the backup."""
    made_at: datetime
    images: bool
    """Whether data of images is in it."""
    files: dict[str, Member] = {}


class Writer:
    """Writes a backup into an open file."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._tar = tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - ends in `finish`
        self._files: dict[str, Member] = {}

    def add(self, name: str, path: Path) -> None:
        """Add a file, which nobody writes to meanwhile."""
        with path.open("rb") as source:
            self._add(name, source, os.fstat(source.fileno()).st_size)

    def add_bytes(self, name: str, content: bytes) -> None:
        """Add a small file."""
        self._add(name, io.BytesIO(content), len(content))

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest, with all that was added."""
        manifest.files = self._files
        self._add(MANIFEST, io.BytesIO(msgspec.json.format(msgspec.json.encode(manifest))), None)
        self._tar.close()

    def _add(self, name: str, source: IO[bytes], size: int | None) -> None:
        entry = tarfile.TarInfo(name)
        entry.size = len(source.read()) if size is None else size
        if size is None:
            source.seek(0)
        entry.mode, entry.mtime = 0o600, int(datetime.now(UTC).timestamp())
        hashed = _Hashed(source)
        self._tar.addfile(entry, hashed)
        self._files[name] = Member(entry.size, hashed.digest)


class _Hashed(io.RawIOBase):
    """A file that is hashed while it is read."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        block = self._source.read(size)
        self._hash.update(block)
        return block

    @property
    def digest(self) -> str:
        """Of all that was read."""
        return self._hash.hexdigest()


class Reader:
    """A backup that was checked from its first byte to its last."""

    def __init__(self, tar: tarfile.TarFile, manifest: Manifest) -> None:
        self._tar = tar
        self.manifest = manifest

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder."""
        return sorted(name for name in self.manifest.files if name.startswith(f"{folder}/"))

    def read(self, name: str) -> bytes:
        """The content of a small file."""
        found = self._tar.extractfile(name)
        return b"" if found is None else found.read()

    def extract(self, name: str, target: Path) -> None:
        """Write a file of the backup to a new file of mode 0600; blocks of zeros become holes. Raises OSError."""
        source = self._tar.extractfile(name)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            while source is not None and (block := source.read(BLOCK)):
                if block.count(0) == len(block):
                    stream.seek(len(block), io.SEEK_CUR)
                else:
                    stream.write(block)
            stream.truncate(stream.tell())
            stream.flush()
            os.fsync(stream.fileno())


@contextmanager
def opened(file: Path, progress: Callable[[float], None] = lambda share: None) -> Iterator[Reader]:
    """Open a backup and check all of it. Raises CommandFailure when it is not what its manifest says."""
    with ExitStack() as stack:
        try:
            tar = stack.enter_context(tarfile.open(file, "r:"))
            found = Reader(tar, _check(file, tar, progress))
        except (tarfile.TarError, EOFError, msgspec.DecodeError) as error:
            raise CommandFailure(f"{file} is not a whole backup: {error}") from None
        except OSError as error:
            raise CommandFailure(f"{file} cannot be read: {error.strerror or error}") from None
        yield found


def _check(file: Path, tar: tarfile.TarFile, progress: Callable[[float], None]) -> Manifest:
    entries = {entry.name: entry for entry in tar.getmembers()}
    last = entries.pop(MANIFEST, None)
    content: Any = None if last is None else tar.extractfile(last)
    if content is None:
        raise CommandFailure(f"{file} is not a whole backup: it has no manifest, which is written last")
    manifest = msgspec.json.decode(content.read(), type=Manifest)
    if manifest.format > FORMAT:
        raise CommandFailure(f"{file} was made by Pileus {manifest.version}, which is newer than this one: use that")
    if entries.keys() != manifest.files.keys() or not any(name in entries for name in _STORES):
        raise CommandFailure(f"{file} was changed: it does not hold what its manifest says")
    total, done = sum(one.size for one in manifest.files.values()) or 1, 0
    for name, entry in entries.items():
        if not _plain(name) or not entry.isreg():
            raise CommandFailure(f"{file} was changed: {name} has no place in a backup")
        member, digest = manifest.files[name], hashlib.sha256()
        stream = tar.extractfile(entry)
        while stream is not None and (block := stream.read(BLOCK)):
            digest.update(block)
            done += len(block)
            progress(done / total)
        if entry.size != member.size or digest.hexdigest() != member.sha256:
            raise CommandFailure(f"{file} is damaged: {name} is not what it was when the backup was made")
    return manifest


def _plain(name: str) -> bool:
    """Whether a member's name is of the form that backups have, and leads nowhere else."""
    parts = name.split("/")
    if name in _STORES:
        return True
    return len(parts) == _FOLDERS.get(parts[0]) and not any(part in ("", ".", "..") or "\x00" in part for part in parts)
