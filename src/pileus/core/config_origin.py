"""Where settings come from: defaults, files, the environment, options; later ones count.

1. `/etc/pileus/pileus.toml`, for the cloud in `/var/lib/pileus`; another file when `PILEUS_CONFIG` names one.
2. `pileus.toml` in the state directory, where options of `pileus up` are kept.
3. The environment: `PILEUS_LISTEN` is the setting `listen`.
4. Options of the command.

All of it is checked before anything is done with it, and everything that is wrong is told at once.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import msgspec

from pileus.core.config import SECRETS, STATE, Config, ConfigError, contradictions

FILE = Path("/etc/pileus/pileus.toml")
"""The operator's file of the cloud in `/var/lib/pileus`."""

PREFIX = "PILEUS_"
OTHERS = frozenset({"config", "state", "failpoints", "keep", "python", "seed", "transcript"})
"""What else the environment may say to this program."""

NAMES = tuple(name for name in Config.__struct_fields__ if name != "state")
"""All settings that can be made, in the order of their declaration."""


class Given(NamedTuple):
    """A setting as somebody made it."""

    name: str
    value: Any
    origin: str
    """`FILE:LINE`, the name of the variable, or the option."""


class Settled(NamedTuple):
    """All settings, and where each comes from."""

    config: Config
    origins: Mapping[str, str]
    """By name; those that are not there are defaults."""


def places(state: Path, environment: Mapping[str, str] = os.environ) -> list[Path]:
    """The files that are read for a cloud, whether or not they are there; what later ones say counts."""
    named = environment.get(f"{PREFIX}CONFIG")
    operator = [Path(named)] if named else [FILE] if state == STATE else []
    return [*operator, state / "pileus.toml"]


def settle(
    state: Path, options: Mapping[str, Any] | None = None, environment: Mapping[str, str] = os.environ
) -> Settled:
    """The settings of the cloud in a state directory; options that are None count as not given. Raises ConfigError."""
    problems: list[str] = []
    given: list[Given] = []
    for file in places(state, environment):
        given += _read(file, problems)
    given += _from_environment(environment, problems)
    for name, value in (options or {}).items():
        if value is not None:
            given.append(Given(name, value, f"--{name.replace('_', '-')}"))
    return _settle(state, given, problems)


def check(file: Path, state: Path = STATE) -> Settled:
    """What one file says, with nothing else. Raises ConfigError, and OSError when it cannot be read."""
    problems: list[str] = []
    file.open("rb").close()
    return _settle(state, list(_read(file, problems)), problems)


def load(state: Path, options: Mapping[str, Any] | None = None) -> Config:
    """The settings of the cloud in a state directory. Raises ConfigError."""
    return settle(state, options).config


def keep(state: Path, options: Mapping[str, Any]) -> None:
    """Write options into the file of the state directory; its other lines stay. Mode 0600: it may hold a password."""
    file = state / "pileus.toml"
    lines = file.read_text().splitlines() if file.exists() else ["# Settings of this cloud: `pileus config` shows all."]
    for name, value in options.items():
        if value is None:
            continue
        first, last = _lines_of("\n".join(lines)).get(name, (len(lines) + 1, len(lines)))
        lines[first - 1 : last] = [f"{name} = {msgspec.json.encode(value).decode()}"]
    text = "".join(f"{line}\n" for line in lines)
    if file.exists() and file.read_text() == text:
        return
    partial = file.with_suffix(".new")
    partial.touch(0o600)
    partial.write_text(text)
    partial.replace(file)


def meanings() -> dict[str, str]:
    """What each setting means, in one line: the words under its declaration."""
    (declared,) = ast.parse(inspect.getsource(Config)).body
    assert isinstance(declared, ast.ClassDef)  # noqa: S101 - what the source of a class parses to
    found = {}
    for one, after in zip(declared.body, declared.body[1:], strict=False):
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            words = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and str(after.value.value)
            found[one.target.id] = " ".join((words or "").split()).rstrip(".")
    return found


def shown(name: str, value: Any) -> str:
    """A value as the file has it, without passwords; `""` for what is not set."""
    if value is None:
        return '""'
    if name in SECRETS:
        value = re.sub(r"(?i)(://[^:/@]*:|[?&]password=)[^@&]*", r"\1***", value)
    return msgspec.json.encode(value).decode()


def from_text(name: str, text: str) -> Any:
    """A setting's value from what a variable or `--set` says. Raises ValueError."""
    if name not in NAMES:
        raise ValueError(_unknown(name))
    kind = type(getattr(Config(state=STATE), name))
    if kind in (str, type(None)):
        return text
    if kind is list and not text.lstrip().startswith("["):
        words = [word.strip() for word in text.split(",") if word.strip()]
        numbers = name.endswith("_ports") and all(word.isdecimal() for word in words)
        return [int(word) for word in words] if numbers else words
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text  # of the wrong type, as the check will say


def _settle(state: Path, given: list[Given], problems: list[str]) -> Settled:
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    hints = get_type_hints(Config, include_extras=True)
    for name, value, origin in given:
        if name not in NAMES:
            problems.append(f"{origin}: {_unknown(name)}")
            continue
        if value == "" and getattr(Config(state=STATE), name) is None:
            value = None
        try:
            values[name] = msgspec.convert(value, hints[name])
        except msgspec.ValidationError as error:
            problems.append(f"{origin}: {name}: {_plain(error)}")
            continue
        origins[name] = origin
    config = Config(state=state, **values)
    problems += [f"{origins.get(name, 'settings')}: {what}" for name, what in contradictions(config)]
    if problems:
        raise ConfigError("\n  ".join(problems))
    return Settled(config, origins)


def _plain(error: msgspec.ValidationError) -> str:
    """msgspec's words without the path, which is of one value."""
    return re.sub(r" - at `\$(.*?)`", lambda found: f" (at {found[1]})" if found[1] else "", str(error))


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, NAMES, 1)
    return f"there is no setting `{name}`" + (f"; did you mean `{near[0]}`?" if near else "")


def _read(file: Path, problems: list[str]) -> Iterator[Given]:
    """What a file says; nothing where there is none."""
    try:
        text = file.read_text()
        values = tomllib.loads(text)
    except FileNotFoundError:
        return
    except OSError as error:
        problems.append(f"{file}: {error.strerror}")
        return
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        found = re.search(r" \(at line (\d+), column \d+\)", str(error))
        words = str(error).replace(found[0], "") if found else str(error)
        line = found[1] if found else len(file.read_bytes().splitlines())
        problems.append(f"{file}:{line}: this is not TOML: {words}")
        return
    lines = _lines_of(text)
    for name, value in values.items():
        yield Given(name, value, f"{file}:{lines[name][0]}" if name in lines else str(file))


def _lines_of(text: str) -> dict[str, tuple[int, int]]:
    """First and last line of each top-level key of a TOML document that parses."""
    lines = text.splitlines()
    starts: list[tuple[str, int]] = []
    for number, line in enumerate(lines, 1):
        found = re.match(r"""\s*\[?\[?["']?([\w-]+)["']?[\]\s.]*(?:=|\]|$)""", line)
        if found and _parses(lines[: number - 1]):  # else it is in the middle of a value
            starts.append((found[1], number))
            if line.lstrip().startswith("["):
                break
    spans: dict[str, tuple[int, int]] = {}
    for name, first in starts:
        last = next((end for end in range(first, len(lines) + 1) if _parses(lines[first - 1 : end])), first)
        spans.setdefault(name, (first, last))
    return spans


def _parses(lines: list[str]) -> bool:
    try:
        tomllib.loads("\n".join(lines))
    except tomllib.TOMLDecodeError:
        return False
    return True


def _from_environment(environment: Mapping[str, str], problems: list[str]) -> Iterator[Given]:
    for variable in sorted(environment):
        name = variable.removeprefix(PREFIX).lower()
        if not variable.startswith(PREFIX) or name in OTHERS or name.startswith("test_"):
            continue
        if name in NAMES:
            yield Given(name, from_text(name, environment[variable]), variable)
        elif near := difflib.get_close_matches(name, NAMES, 1, 0.8):
            problems.append(f"{variable}: there is no setting `{name}`; did you mean {PREFIX}{near[0].upper()}?")
