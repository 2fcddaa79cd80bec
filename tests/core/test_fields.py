"""Windows and guards: one shape, many versions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest

from pileus.core.errors import BadRequest, Forbidden
from pileus.core.fields import UNSET, Body, Guard, UnsetType, View, W, accept, given, present
from pileus.core.versions import Version, parse

Short = Annotated[str, msgspec.Meta(max_length=5)]


class Nic(Body):
    uuid: str
    tag: Annotated[str | UnsetType, W(since="2.42")] = UNSET


class Create(Body):
    name: Annotated[str, W(str, until="2.9"), W(Short, since="2.10")]
    key: Annotated[str | UnsetType, W(until="2.9"), W(since="2.10", need=True)] = UNSET
    kind: Annotated[Literal["ssh", "x509"], W(since="2.2")] = "ssh"
    nics: Annotated[list[Nic] | Literal["auto", "none"] | UnsetType, W(list[Nic], until="2.36"), W(since="2.37")] = (
        UNSET
    )
    host: Annotated[str | UnsetType, Guard("create:host")] = UNSET
    count: int = 1


class Part(View):
    size: Annotated[int | UnsetType, W(since="2.5")] = UNSET


class Show(View):
    id: str
    old: Annotated[int | UnsetType, W(until="2.4")] = UNSET
    part: Part | UnsetType | None = UNSET
    parts: list[Part] | UnsetType = UNSET
    host: Annotated[str | UnsetType, Guard("show:host")] = UNSET


def build(raw: dict[str, Any], version: str) -> Create:
    return accept(raw, Create, parse(version), strict=False, allowed=lambda rule: False)


def test_a_field_outside_its_window_is_an_unknown_one() -> None:
    with pytest.raises(BadRequest, match="'kind' was unexpected"):
        build({"name": "a", "kind": "ssh"}, "2.1")
    assert build({"name": "a", "kind": "x509"}, "2.2").kind == "x509"


def test_a_field_may_be_needed_in_a_window() -> None:
    assert build({"name": "a"}, "2.9").key is UNSET
    with pytest.raises(BadRequest, match="'key' is a required property"):
        build({"name": "a"}, "2.10")


def test_a_type_may_be_narrower_in_a_window() -> None:
    assert build({"name": "longer than five"}, "2.9").name == "longer than five"
    with pytest.raises(BadRequest, match="name"):
        build({"name": "longer than five", "key": "k"}, "2.10")
    with pytest.raises(BadRequest, match="nics"):
        build({"name": "a", "key": "k", "nics": "auto"}, "2.36")
    assert build({"name": "a", "key": "k", "nics": "auto"}, "2.37").nics == "auto"


def test_windows_hold_in_nested_shapes() -> None:
    nics = [{"uuid": "x", "tag": "t"}]
    with pytest.raises(BadRequest, match="'tag' was unexpected"):
        build({"name": "a", "key": "k", "nics": nics}, "2.41")
    assert build({"name": "a", "key": "k", "nics": nics}, "2.42").nics == [Nic(uuid="x", tag="t")]


def test_unknown_fields_are_refused_at_any_depth() -> None:
    with pytest.raises(BadRequest):
        build({"name": "a", "more": 1}, "2.1")
    with pytest.raises(BadRequest):
        build({"name": "a", "nics": [{"uuid": "x", "more": 1}]}, "2.1")


def test_lenient_numbers() -> None:
    assert build({"name": "a", "count": "3"}, "2.1").count == 3
    with pytest.raises(BadRequest):
        accept({"name": "a", "count": "3"}, Create, Version(2, 1))


def test_a_guarded_field_needs_its_rule() -> None:
    with pytest.raises(Forbidden, match="create:host"):
        build({"name": "a", "host": "h"}, "2.1")
    body = accept({"name": "a", "host": "h"}, Create, Version(2, 1), allowed=lambda rule: rule == "create:host")
    assert given(body) == {"name": "a", "kind": "ssh", "host": "h", "count": 1}


@pytest.mark.parametrize("raw", [None, 1, "text", [], [{}]])
def test_what_is_no_object_is_refused(raw: Any) -> None:
    with pytest.raises(BadRequest):
        accept(raw, Create, Version(2, 1))


def test_windows_hold_in_lists_and_in_objects_by_key() -> None:
    nic = {"uuid": "x", "tag": "t"}
    for raw, kind in (([nic], list[Nic]), ({"eth0": nic}, dict[str, Nic])):
        with pytest.raises(BadRequest, match="'tag' was unexpected"):
            accept(raw, kind, parse("2.41"))
        assert accept(raw, kind, parse("2.42"))


def test_a_view_shows_what_its_version_knows() -> None:
    def show(version: str, allowed: bool = True) -> Any:
        view = Show(id="i", old=1, part=Part(size=2), parts=[Part(size=3)], host="h")
        return msgspec.to_builtins(present(view, parse(version), allowed=lambda rule: allowed))

    assert show("2.4") == {"id": "i", "old": 1, "part": {}, "parts": [{}], "host": "h"}
    assert show("2.5") == {"id": "i", "part": {"size": 2}, "parts": [{"size": 3}], "host": "h"}
    assert "host" not in show("2.5", allowed=False)
