"""Giving up root: what must be done before, and how.

A process that is started as root opens its sockets, hands the files of its later self to it, reads all its code, and
is somebody else from then on.  Files that belong to that self are not opened before: it may have been broken into, and
have left links where root would write.
"""

from __future__ import annotations

import logging
import os
import pkgutil
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from pathlib import Path

logger = logging.getLogger(__name__)

LATE = (
    "_strptime",
    "encodings.idna",
    "stringprep",
    "uvicorn.lifespan.off",
    "uvicorn.protocols.http.httptools_impl",
    "yaml",
)
"""Modules that others import when they first need them."""


def give_away(directory: Path, uid: int) -> None:
    """Let a user own a directory and all below it, whoever wrote there last. No link is followed.

    The directory's parent must be root's alone to write.
    """
    os.chown(directory, uid, uid)
    for _, directories, files, descriptor in os.fwalk(directory):
        for name in [*directories, *files]:
            if os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_uid != uid:
                os.chown(name, uid, uid, dir_fd=descriptor, follow_symlinks=False)


def preload(*packages: str, but: str) -> None:
    """Import modules, and of packages all that are in them, except below `but`, and what is otherwise imported late.

    A checkout or a Python below a home directory of mode 0700 is readable for its owner alone.
    """
    for name in LATE:
        import_module(name)
    waiting = list(packages)
    for name in waiting:
        module = import_module(name)
        found = pkgutil.iter_modules(getattr(module, "__path__", ()), f"{name}.")
        waiting += [one.name for one in found if not one.name.startswith(but)]


LATE_IMPORT = "is imported late, which fails where root alone may read the code"
"""What the log says of a module that `preload` should have had."""


class _Witness(MetaPathFinder):
    """Finds nothing, and tells of each module that was not imported in time."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: object = None) -> None:
        if fullname not in self._told:
            self._told.add(fullname)
            logger.warning("the module %s %s", fullname, LATE_IMPORT)


def drop(uid: int) -> None:
    """Be this user and group from here on, and no other; nothing where the process is not root's."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        sys.meta_path.insert(0, _Witness())


def apart(work: Callable[[], None]) -> bool:
    """Run work in a process of its own, so that neither what it imports nor what it gives up concerns this one.

    Whether it succeeded; the log says why not.  Only while there is one thread.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except Exception:
            logger.exception("a child of this process failed")
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    return ended == 0
