"""Small files that hold a secret: for their owner alone, and whole or not there at all."""

from __future__ import annotations

import os
from pathlib import Path


def write(file: Path, content: bytes) -> None:
    """Put a file in its place, or in that of another, in one step, and wait until it is on the disk (fsync(2)).

    Nobody but its owner can read it at any time (0600), and no link is followed.  Raises OSError.
    """
    partial = file.with_name(f"{file.name}.new")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)
    # What follows from a secret is remembered elsewhere: the power may not take the only copy of it.
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
