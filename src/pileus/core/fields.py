"""Typed shapes with windows: one struct for each body and view, the newest, and what differs by version.

A field that was merely added or dropped says so beside its type::

    class ServerCreate(Body):
        name: Name
        description: Annotated[str | None | UnsetType, W(since="2.19")] = UNSET

A field whose type changed has several windows with a type each; `need` makes it required in a window.  A `Guard` names
the policy rule that a caller must pass to set a field of a body or to see a field of a view.  From these come the
validator (`accept`) and the response view (`present`); no operation asks for a version.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import UNSET, UnsetType

from pileus.core.errors import Forbidden, Malformed
from pileus.core.versions import Version, parse

T = TypeVar("T")

__all__ = ["UNSET", "Body", "Guard", "OpenBody", "UnsetType", "View", "W", "accept", "given", "present"]


class Body(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A request body (or a part of one) that takes no other keys than its fields."""


class OpenBody(msgspec.Struct, kw_only=True):
    """A request body that lets unknown keys pass, as Identity's schemas do; the edge keeps them as `ctx.extra`."""


class View(msgspec.Struct, kw_only=True, omit_defaults=False):
    """A response body, or a part of one. A field that is UNSET is left out."""


class W:
    """A window: the versions (both ends included) in which a field exists, its type there, and if it must be given.

    `strict`: the type is JSON's own also where a service takes numbers and booleans in strings.
    """

    __slots__ = ("need", "since", "strict", "type", "until")

    def __init__(
        self,
        type: Any = None,
        *,
        since: str | None = None,
        until: str | None = None,
        need: bool = False,
        strict: bool = False,
    ):
        self.type = type
        self.strict = strict
        self.since = parse(since) if since else None
        self.until = parse(until) if until else None
        self.need = need

    def covers(self, version: Version | None) -> bool:
        """Whether a version lies in the window; without a version only open windows count."""
        if version is None:
            return True
        return (self.since is None or self.since <= version) and (self.until is None or version <= self.until)


class Guard:
    """The policy rule that a caller must pass to set a field (body) or to see it (view), up to a microversion."""

    __slots__ = ("rule", "window")

    def __init__(self, rule: str, *, until: str | None = None) -> None:
        self.rule = rule
        self.window = W(until=until)


class _Nested(typing.NamedTuple):
    attribute: str
    key: str
    struct: type[msgspec.Struct]
    many: str  # "", "list" or "dict"


class Plan(typing.NamedTuple):
    """What a version makes of a struct."""

    forbidden: frozenset[str]  # keys outside their window
    hidden: tuple[str, ...]  # their attribute names
    needed: tuple[str, ...]
    narrowed: tuple[tuple[str, Any, bool], ...]  # key, type in this window, whether strictly
    guarded: tuple[tuple[str, str, str], ...]  # attribute, key, rule
    nested: tuple[_Nested, ...]

    @property
    def idle(self) -> bool:
        return not (self.forbidden or self.needed or self.narrowed or self.guarded or self.nested)


def _struct_of(hint: Any) -> tuple[type[msgspec.Struct], str] | None:
    """The struct that a type hint holds, and how: by itself, as items of a list, or as values of a dict."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _struct_of(get_args(hint)[0])
    if origin in (Union, types.UnionType):
        return next((found for arm in get_args(hint) if (found := _struct_of(arm))), None)
    if origin in (list, tuple, set):
        inner = _struct_of(get_args(hint)[0]) if get_args(hint) else None
        return (inner[0], "list") if inner and not inner[1] else None
    if origin is dict:
        inner = _struct_of(get_args(hint)[1])
        return (inner[0], "dict") if inner and not inner[1] else None
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint, ""
    return None


@functools.cache
def _hints(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return typing.get_type_hints(struct, include_extras=True)


@functools.cache
def plan_of(struct: type[msgspec.Struct], version: Version | None) -> Plan:
    """What a version makes of a struct."""
    hints = _hints(struct)
    forbidden, hidden, needed, narrowed, guarded, nested = set(), [], [], [], [], []
    for attribute, key in zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True):
        hint = hints[attribute]
        markers = hint.__metadata__ if get_origin(hint) is Annotated else ()
        windows = [marker for marker in markers if isinstance(marker, W)]
        window = next((one for one in windows if one.covers(version)), None)
        if windows and window is None:
            forbidden.add(key)
            hidden.append(attribute)
            continue
        if window is not None and window.type is not None:
            narrowed.append((key, window.type, window.strict))
        if window is not None and window.need:
            needed.append(key)
        guards = [marker for marker in markers if isinstance(marker, Guard) and marker.window.covers(version)]
        guarded += [(attribute, key, guard.rule) for guard in guards]
        found = _struct_of(hint)
        if found is not None and (found[0] is struct or not plan_of(found[0], version).idle):
            nested.append(_Nested(attribute, key, *found))
    return Plan(frozenset(forbidden), tuple(hidden), tuple(needed), tuple(narrowed), tuple(guarded), tuple(nested))


def _check(raw: Any, plan: Plan, version: Version | None, where: str) -> None:
    if not isinstance(raw, dict):
        return
    early = sorted(plan.forbidden & raw.keys())
    if early:
        raise _malformed(
            f"Additional properties are not allowed ({', '.join(map(repr, early))} "
            f"{'was' if len(early) == 1 else 'were'} unexpected)"
        )
    for key in plan.needed:
        if key not in raw:
            raise _malformed(f"{key!r} is a required property")
    for key, narrow, strict in plan.narrowed:
        if key in raw:
            _convert(raw[key], narrow, f"{where}.{key}" if where else key, strict=strict)
    for child in plan.nested:
        value = raw.get(child.key)
        inner = plan_of(child.struct, version)
        parts = value if isinstance(value, list) else value.values() if child.many and isinstance(value, dict) else ()
        for part in [value] if not child.many else parts:
            _check(part, inner, version, child.key)


def _malformed(message: str) -> Malformed:
    return Malformed(message, flaw=message)


def _convert(raw: Any, kind: Any, where: str, *, strict: bool) -> Any:
    try:
        return msgspec.convert(raw, kind, strict=strict)
    except msgspec.ValidationError as error:
        text = str(error)
        place = f"{where}: " if where else ""
        message = f"Invalid input. {place}{text.replace('`$.', '`').replace(' - at `$`', '')}"
        raise Malformed(message, flaw=text, given=raw) from None


def accept(
    raw: Any,
    kind: type[T],
    version: Version | None = None,
    *,
    strict: bool = True,
    allowed: Callable[[str], bool] | None = None,
) -> T:
    """A request's decoded JSON as the newest shape `kind`, checked against its windows at `version`.

    `strict=False` takes numbers and booleans in strings, as Compute and Network do.  `allowed(rule)` decides on
    guarded fields.  Raises BadRequest, or Forbidden for a guarded field.
    """
    found = _struct_of(kind)
    if found is not None:
        plan = plan_of(found[0], version)
        if not plan.idle:
            keyed = raw.values() if found[1] == "dict" and isinstance(raw, dict) else ()
            for part in [raw] if not found[1] else raw if isinstance(raw, list) else keyed:
                _check(part, plan, version, "")
                if allowed is not None and isinstance(part, dict):
                    _check_guards(part, plan, version, allowed)
    return typing.cast(T, _convert(raw, kind, "", strict=strict))


def _check_guards(raw: dict[str, Any], plan: Plan, version: Version | None, allowed: Callable[[str], bool]) -> None:
    for _, key, rule in plan.guarded:
        if key in raw and not allowed(rule):
            raise Forbidden(f"Policy doesn't allow {rule} to be performed.")
    for child in plan.nested:
        value = raw.get(child.key)
        inner = plan_of(child.struct, version)
        parts = value if isinstance(value, list) else value.values() if child.many and isinstance(value, dict) else ()
        for part in [value] if not child.many else parts:
            if isinstance(part, dict):
                _check_guards(part, inner, version, allowed)


def present(view: Any, version: Version | None = None, *, allowed: Callable[[str], bool] | None = None) -> Any:
    """Make a view, or a list of views, as it looks at `version` for a caller: fields outside are set to UNSET.

    The views are changed in place and given back.
    """
    if isinstance(view, list):
        for item in view:
            present(item, version, allowed=allowed)
        return view
    if not isinstance(view, msgspec.Struct):
        return view
    plan = plan_of(type(view), version)
    if plan.idle:
        return view
    for attribute in plan.hidden:
        setattr(view, attribute, UNSET)
    if allowed is not None:
        for attribute, _, rule in plan.guarded:
            if getattr(view, attribute) is not UNSET and not allowed(rule):
                setattr(view, attribute, UNSET)
    for child in plan.nested:
        value = getattr(view, child.attribute)
        parts = value.values() if child.many == "dict" and isinstance(value, dict) else value if child.many else [value]
        for part in parts if not isinstance(parts, UnsetType) and parts is not None else ():
            present(part, version, allowed=allowed)
    return view


def given(body: msgspec.Struct) -> dict[str, Any]:
    """The fields of a body that the caller set (those that are not UNSET), by attribute name."""
    return {name: value for name in body.__struct_fields__ if (value := getattr(body, name)) is not UNSET}
