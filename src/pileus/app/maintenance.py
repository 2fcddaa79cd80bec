"""What the commands of operators may start: imported at each start of `pileus`, so what does the work is found late."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pileus.core.config import Config

if TYPE_CHECKING:
    from pileus.app.child import Say
    from pileus.cli.main import Leftover, Told


def backup(config: Config, target: Path, images: bool, say: Say) -> str:
    """Write a backup of a cloud, which may run, to a new file; what to say of it."""
    from pileus.app import backup

    return backup.backup(config, target, images, say)


def examine_backup(file: Path, say: Say) -> str:
    """Read all of a backup and say what it is. Raises CommandFailure when this Pileus cannot use it."""
    from pileus.app import restore

    return restore.examine_backup(file, say)


def restore(state: Path, file: Path, with_settings: bool, say: Say) -> str:
    """Put a backup in the place of what a state directory has; where that is kept."""
    from pileus.app import restore

    return restore.restore(state, file, with_settings, say)


def examine_store(config: Config) -> list[Leftover]:
    """What is left over on this host, in the store and among the control plane's files. Raises CommandFailure."""
    from pileus.app import remains, repair

    return [*remains.examine(config), *repair.examine(config)]


def mend_store(config: Config, keys: Sequence[str], say: Say) -> None:
    """Mend what is left over, by keys; says what it does line by line."""
    from pileus.app import remains, repair

    here = [key for key in keys if key.partition("/")[0] in remains.KINDS]
    for key in here:
        say(f"{key} {remains.mend(config, key) or 'is as it should be by now'}")
    if rest := [key for key in keys if key not in here]:
        repair.mend(config, rest, say)


def tell_story(config: Config, wanted: str) -> list[Told]:
    """What the store knows of a request or of a thing, by its id. Raises CommandFailure when it cannot be read."""
    from pileus.app import repair

    return repair.tell(config, wanted)
