"""`pileus config`: every setting, its value, where that comes from and what it means."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pileus.cli.main import CommandFailure
from pileus.cli.place import EX_CONFIG, add_state

if TYPE_CHECKING:
    from pileus.cli.main import Roles, Subparsers
    from pileus.core.config_origin import Settled

PREFACE = """\
# Configuration

A cloud has one set of settings. A file of them is TOML, `name = value` in each line, without sections. Each setting has
a default; later places in this order count:

1. `/etc/pileus/pileus.toml`, for the cloud in `/var/lib/pileus`; `PILEUS_CONFIG` names another file, for any cloud;
2. `pileus.toml` in the state directory, where options of `pileus up` are kept, `--set NAME=VALUE` among them;
3. the environment of the command: `PILEUS_LISTEN` is `listen`; lists as TOML or separated by commas;
4. options of the command.

All of it is checked before anything is done: each unknown name, wrong type and value out of range is named with its
file and line, and the exit status is 78. `pileus config` prints every setting with its value and origin, passwords
masked; `pileus config --check FILE` checks a file before it is put in place. Settings are read when a process starts:
edit, then `pileus down --keep-servers` and `pileus up`, or restart the units that `pileus install` made.

`policy.yaml` in the state directory overrides policy rules, in the syntax of OpenStack's.

This page is printed by `pileus config --markdown`.
"""


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "config",
        help="show every setting, its value and where it comes from",
        description="Prints all settings as the cloud's processes would take them, passwords masked. Exit status 78 "
        "when they cannot be used.",
    )
    add_state(parser)
    parser.add_argument("--check", type=Path, metavar="FILE", help="check this file alone, and say only what is wrong")
    parser.add_argument("--brief", action="store_true", help="leave out what each setting means")
    parser.add_argument("--markdown", action="store_true", help="print the page that documents all settings")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, roles: Roles) -> int:
    """Run the command; exit status."""
    from pileus.core import config_origin
    from pileus.core.config import ConfigError, check_exposure

    if arguments.markdown:
        print(page(), end="")
        return 0
    try:
        if arguments.check is not None:
            check_exposure(config_origin.check(arguments.check).config)
            print(f"{arguments.check}: every setting can be used")
            return 0
        settled = config_origin.settle(arguments.state)
    except ConfigError as error:
        raise CommandFailure(f"the settings cannot be used:\n  {error}", status=EX_CONFIG) from None
    except OSError as error:
        raise CommandFailure(f"{arguments.check}: {error.strerror}") from None
    _show(settled, arguments.state, brief=arguments.brief)
    return 0


def _show(settled: Settled, state: Path, *, brief: bool) -> None:
    from pileus.core import config_origin

    means = config_origin.meanings()
    print(f"# Settings of the cloud in {state}, read from:")
    for file in config_origin.places(state):
        print(f"#   {file}" + ("" if file.exists() else "  (not there)"))
    for name in config_origin.NAMES:
        if not brief:
            print(f"\n# {means[name]}")
        value = config_origin.shown(name, getattr(settled.config, name))
        print(f"{name} = {value}  # {settled.origins.get(name, 'default')}")


def page() -> str:
    """docs/configuration.md."""
    from pileus.core.config import SECTIONS, STATE, Config
    from pileus.core.config_origin import NAMES, meanings, shown

    means, plain = meanings(), Config(state=STATE)
    lines = [PREFACE, f"`state` is no setting of a file: {means['state'][0].lower()}{means['state'][1:]}."]
    for name in NAMES:
        if name in SECTIONS:
            lines += ["", f"## {SECTIONS[name]}", "", "| setting | default | meaning |", "|---|---|---|"]
        default = getattr(plain, name)
        value = "not set" if default is None else f"`{shown(name, default)}`"
        lines.append(f"| `{name}` | {value} | {means[name].replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"
