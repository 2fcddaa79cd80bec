"""Work on what the control plane owns, from a command of root's: done by a child that is the control plane's user.

Root does not open such files itself: who has broken into the control plane may have left links among them.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from pileus.cli.main import CommandFailure
from pileus.core import privilege

Say = Callable[[str], None]

_FAILED = "\x00"
"""What the last line of a child begins with that could not do its work."""


def as_owner(uid: int, work: Callable[[Say], None], say: Say, begin: Callable[[], object] = lambda: None) -> None:
    """Run work in a child that gave up its privilege, and pass on what it says; before it gives up, it does `begin`.

    What the work needs of our code must be imported before.  The child may outlive whoever asked for it.  Raises
    CommandFailure with the message of the CommandFailure or OSError that the work raised.  Only while there is one
    thread.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _run(uid, work, writer, begin)
    os.close(writer)
    failure = CommandFailure("")
    with os.fdopen(reader, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith(_FAILED):
                number, _, text = line[1:].strip().partition(" ")
                failure = CommandFailure(text.replace("\x01", "\n"), status=int(number))
            else:
                say(line.rstrip("\n"))
    _, status = os.waitpid(child, 0)
    if str(failure):
        raise failure
    if status:
        raise CommandFailure(f"a child of this command ended with status {status}")


def _run(uid: int, work: Callable[[Say], None], writer: int, begin: Callable[[], object]) -> None:
    status = 1
    try:
        begin()
        privilege.drop(uid)
        os.umask(0o077)
        work(lambda text: _write(writer, text))
        status = 0
    except CommandFailure as failure:
        _write(writer, f"{_FAILED}{failure.status} {failure}".replace("\n", "\x01"))
    except Exception as error:
        name = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
        _write(writer, f"{_FAILED}1 {name}{error}".replace("\n", "\x01"))
    finally:
        os._exit(status)


def _write(writer: int, text: str) -> None:
    os.write(writer, f"{text}\n".encode())
