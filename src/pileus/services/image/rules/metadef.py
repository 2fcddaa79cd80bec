"""What metadata definitions look like, as the JSON schemas that clients may ask for.

Source: Image API reference, "Metadata definition schemas"; JSON Schema draft 4.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_TYPES = ["array", "boolean", "integer", "number", "object", "string", None]
_COUNT = {"$ref": "#/definitions/positiveInteger"}
_COUNT_0 = {"$ref": "#/definitions/positiveIntegerDefault0"}
_STRINGS = {"$ref": "#/definitions/stringArray"}
_PROPERTIES = {"$ref": "#/definitions/property"}


def _text(longest: int | None = None, description: str | None = None, **more: Any) -> Schema:
    found: Schema = {"type": "string", **more}
    if description is not None:
        found["description"] = description
    if longest is not None:
        found["maxLength"] = longest
    return found


def _moments(what: str) -> Schema:
    return {
        "created_at": _text(None, f"When {what} was made", readOnly=True, format="date-time"),
        "updated_at": _text(None, f"When {what} was changed last", readOnly=True, format="date-time"),
    }


_LINKS = {"self": _text(readOnly=True), "schema": _text(readOnly=True)}

_PROPERTY: Schema = {
    "name": _text(80),
    "title": _text(),
    "description": _text(),
    "operators": {"type": "array", "items": {"type": "string"}},
    "type": {"type": "string", "enum": _TYPES},
    "required": _STRINGS,
    "minimum": {"type": "number"},
    "maximum": {"type": "number"},
    "maxLength": _COUNT,
    "minLength": _COUNT_0,
    "pattern": {"type": "string", "format": "regex"},
    "enum": {"type": "array"},
    "readonly": {"type": "boolean"},
    "default": {},
    "items": {
        "type": "object",
        "properties": {"type": {"type": "string", "enum": _TYPES}, "enum": {"type": "array"}},
    },
    "maxItems": _COUNT,
    "minItems": _COUNT_0,
    "uniqueItems": {"type": "boolean", "default": False},
    "additionalItems": {"type": "boolean"},
}

_DEFINITIONS: Schema = {
    "positiveInteger": {"type": "integer", "minimum": 0},
    "positiveIntegerDefault0": {"allOf": [_COUNT, {"default": 0}]},
    "stringArray": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
    "property": {
        "type": "object",
        "additionalProperties": {"type": "object", "required": ["title", "type"], "properties": _PROPERTY},
    },
}

_BASICS = {name: part for name, part in _DEFINITIONS.items() if name != "property"}


def _schema(name: str, properties: Schema, required: list[str]) -> Schema:
    return {"name": name, "properties": properties, "additionalProperties": False, "required": required}


_NAMESPACE = _schema(
    "namespace",
    {
        "namespace": _text(80, "The namespace's name, which no other has"),
        "display_name": _text(80, "A name for people"),
        "description": _text(500, "What the namespace is, for people"),
        "visibility": _text(None, "Who may see the namespace", enum=["public", "private"]),
        "protected": {"type": "boolean", "description": "Whether deleting the namespace is refused"},
        "owner": _text(255, "The project that the namespace belongs to"),
        **_moments("the namespace"),
        **_LINKS,
        "resource_type_associations": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": _text(), "prefix": _text(), "properties_target": _text()},
            },
        },
        "properties": _PROPERTIES,
        "objects": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": _text(),
                    "description": _text(),
                    "required": _STRINGS,
                    "properties": _PROPERTIES,
                },
            },
        },
        "tags": {"type": "array", "items": {"type": "object", "properties": {"name": _text()}}},
    },
    ["namespace"],
)

_OBJECT = _schema(
    "object",
    {
        "name": _text(80),
        "description": _text(),
        "required": _STRINGS,
        "properties": _PROPERTIES,
        **_LINKS,
        **_moments("the object"),
    },
    ["name"],
)

_NAMED = _schema("property", _PROPERTY, ["type", "title", "name"])

_ASSOCIATION = _schema(
    "resource_type_association",
    {
        "name": _text(80, "A resource type, as Orchestration calls it where it knows it"),
        "prefix": _text(80, "What the names of properties begin with there, the separator included"),
        "properties_target": _text(80, "Which of several sets of properties is meant, where there are several"),
        **_moments("the association"),
    },
    ["name"],
)

_TAG = _schema("tag", {"name": _text(80), **_moments("the tag")}, ["name"])


def _collection(name: str, item: Schema, definitions: Schema | None, *, keyed: bool = False) -> Schema:
    inner = {"type": "object", "additionalProperties": item} if keyed else {"type": "array", "items": item}
    found: Schema = {
        "name": name,
        "properties": {name: inner, **{key: {"type": "string"} for key in ("first", "next", "schema")}},
        "links": [
            {"rel": "first", "href": "{first}"},
            {"rel": "next", "href": "{next}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    }
    return found if definitions is None else {**found, "definitions": definitions}


SCHEMAS: dict[str, Schema] = {
    "namespace": {**_NAMESPACE, "definitions": _DEFINITIONS},
    "namespaces": _collection("namespaces", _NAMESPACE, _DEFINITIONS),
    "object": {**_OBJECT, "definitions": _DEFINITIONS},
    "objects": _collection("objects", _OBJECT, _DEFINITIONS),
    "property": {**_NAMED, "definitions": _BASICS},
    "properties": _collection("properties", {**_NAMED, "required": ["type", "title"]}, _BASICS, keyed=True),
    "resource_type": _ASSOCIATION,
    "resource_types": _collection("resource_type_associations", _ASSOCIATION, None),
    "tag": _TAG,
    "tags": _collection("tags", _TAG, None),
}
"""The schemas by the last part of their path."""
