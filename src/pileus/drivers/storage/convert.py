"""Images in other formats, made into qcow2 by a child without privilege.

What tenants sent is parsed here, so the child is a user of its own that may read one file and write one, with limits on
memory and time (QEMU's manual, qemu-img).
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

from pileus.contracts.storage import StorageFailure
from pileus.drivers.host.process import ChildFailure, Identity, run

_MEMORY = 1 << 30
_SECONDS = 600

_NAMES = {"vhd": "vpc", "iso": "raw", "ami": "raw", "ari": "raw", "aki": "raw"}
"""QEMU's names of formats that Image calls otherwise; the bytes of a disc, or of a plain file system, are a disk."""


def convert(source: Path, form: str, target: Path, *, uid: int) -> None:
    """Make the qcow2 file `target` of `source`; the child runs as user and group `uid`.

    `form` is the format as Image calls it (Image API, `disk_format`).

    Post-condition: `target` is whole and root's, or StorageFailure was raised and it is not there.  It is permanent
    when QEMU refused the data: fetching them again would not make them better.
    """
    identity = Identity(uid, uid) if os.geteuid() == 0 else None
    target.unlink(missing_ok=True)
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.close(descriptor)
        if identity is not None:
            os.chown(target, uid, uid)
            os.chown(source, uid, uid)
        argv = ["qemu-img", "convert", "-f", _NAMES.get(form, form), "-O", "qcow2", "-q", str(source), str(target)]
        run(argv, identity=identity, timeout=_SECONDS, limits={resource.RLIMIT_AS: _MEMORY, resource.RLIMIT_CORE: 0})
        if identity is not None:
            os.chown(target, 0, 0)
    except (ChildFailure, OSError) as error:
        target.unlink(missing_ok=True)
        refused = isinstance(error, ChildFailure) and error.status == 1 and "No space left" not in error.output
        message = f"an image of format {form} cannot be converted: {error}"
        raise StorageFailure(message, permanent=refused) from error
