"""The command line: finds the commands, reads the arguments, runs one.

A command is a module of this package with a function `register(subparsers)`.  It adds its own parser, and sets the
default `run` to a function that takes the parsed arguments and the `Roles`, and gives the exit status.  What is slow
to import is imported by that function, so that `pileus --help` stays quick.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, NamedTuple

import pileus
import pileus.cli

if TYPE_CHECKING:
    from pileus.core.config import Config

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

Role = Callable[[argparse.Namespace], int]
"""Runs a process of the cloud to its end with the parsed arguments of its command; exit status."""


Found = tuple[str, Literal["good", "note", "bad"], str, str]
"""A fact of the host: its name, how it is judged, what was found, and what to do about it."""


class Leftover(NamedTuple):
    """Something in a cloud that nothing leads to any more, or that is not what it should be."""

    key: str
    """What it is called: KIND/ID."""
    found: str
    """What is wrong, for people."""
    mending: str
    """What would be done about it, for people."""
    named: bool = False
    """Whether it may be dear to somebody, so that nothing is done unless it is named."""
    by_hand: bool = False
    """Whether only people can mend it."""


class Told(NamedTuple):
    """One moment of a story."""

    at: float
    """Seconds since the epoch."""
    where: str
    """Who tells it: a service, a process, `request` or `store`."""
    text: str
    request_id: str
    """Of the request that led to it; empty where none is known."""


@dataclass(frozen=True, kw_only=True)
class Roles:
    """What the commands may start but not import: supplied by the composition root, `pileus.app`."""

    control: Role
    """The control plane: API and loops, in this process."""
    agent: Role
    """The agent of this host, in this process."""
    metadata_server: Role
    """The agent's child that answers guests, in this process."""
    join_host: Callable[[Path], None]
    """Puts this process, which has one thread, where the host's mounts are; given the state directory."""
    teardown: Callable[[argparse.Namespace, Callable[[str], None]], str]
    """Ends all guests and takes all networks off this host; shows what it does, and says what it did."""
    examine_host: Callable[[Config], Iterable[Found]]
    """What the drivers find on this host, by trying."""
    tell_story: Callable[[Config, str], list[Told]]
    """What the store knows of a request or of a thing, by its id. Raises CommandFailure when it cannot be read."""
    examine_store: Callable[[Config], list[Leftover]]
    """What is left over in the store and among the control plane's files. Raises CommandFailure."""
    mend_store: Callable[[Config, Sequence[str], Callable[[str], None]], None]
    """Mends what is left over, by keys; says what it does line by line."""
    backup: Callable[[Config, Path, bool, Callable[[str], None]], str]
    """Writes a backup to a new file, with data of images or without; shows what it does, and says what it wrote."""
    examine_backup: Callable[[Path, Callable[[str], None]], str]
    """Reads all of a backup and says what it is. Raises CommandFailure when this Pileus cannot use it."""
    restore: Callable[[Path, Path, bool, Callable[[str], None]], str]
    """Puts a backup in the place of what a state directory has, with its settings or without; where that is kept."""
    upgrade: Callable[[Config, bool, Callable[[str], None]], None]
    """Brings the store to this version's schema, with a copy of it before or without; says what it does."""
    rotate_keys: Callable[[Config, bool], None]
    """Makes the next keys of tokens and secrets the primary ones; True: what tokens' old keys sealed is void."""


class CommandFailure(Exception):
    """A command could not do what was asked: the message is for people, and says what to do.

    `status` is what the process exits with.
    """

    def __init__(self, message: str, *, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def commands(only: str | None = None) -> Iterator[ModuleType]:
    """The modules that hold commands, by name; with `only`, that command's module alone when there is one."""
    names = sorted(module.name for module in pkgutil.iter_modules(pileus.cli.__path__))
    wanted = [name for name in names if only is not None and name == only.replace("-", "_")]
    found = [module for module in map(_load, wanted or names) if hasattr(module, "register")]
    yield from found or [module for module in map(_load, names) if hasattr(module, "register")]


def _load(name: str) -> ModuleType:
    return importlib.import_module(f"{pileus.cli.__name__}.{name}")


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser of the whole command line, or of one command, which is quicker."""
    parser = argparse.ArgumentParser(
        prog="pileus",
        description="A whole OpenStack cloud in one Python package.",
        epilog="Try `pileus up`: it makes a cloud of this machine. `pileus COMMAND --help` says more of a command.",
    )
    parser.add_argument("--version", action="version", version=f"pileus {pileus.__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    for module in commands(only):
        module.register(subparsers)
    return parser


def main(argv: Sequence[str], find_roles: Callable[[], Roles]) -> int:
    """Run one command; exit status: 0 done, 1 failed, 2 wrong arguments, 130 interrupted.

    The roles are asked for once the arguments are understood: help waits for nothing that it does not show.
    """
    try:
        try:
            return _run(argv, find_roles)
        finally:
            sys.stdout.flush()
    except CommandFailure as failure:
        print(f"pileus: {failure}", file=sys.stderr)
        return failure.status
    except BrokenPipeError:
        # Whoever read our output has gone, as `| head` does; what is still buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        what = "is read-only: see `dmesg`" if error.errno == errno.EROFS else "is full: make room"
        print(f"pileus: the disk of {error.filename or 'a file'} {what}, and try again", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(argv: Sequence[str], find_roles: Callable[[], Roles]) -> int:
    named = argv[0] if argv and not argv[0].startswith("-") else None
    arguments = build_parser(named).parse_args(argv)
    run: Callable[[argparse.Namespace, Roles], int] = arguments.run
    return run(arguments, find_roles())
