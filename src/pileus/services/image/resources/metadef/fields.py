"""The shapes of namespaces and of what belongs to one.

A definition is kept and given back as it was written, so that nothing of it is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from pileus.core.errors import Forbidden
from pileus.core.fields import Body, View
from pileus.core.listing import Listing
from pileus.services.image.resources.metadef.table import namespace, tag, thing

PATH = "/v2/metadefs/namespaces"
SCHEMA = "/v2/schemas/metadefs"

PAGE = 25
"""How many namespaces a list gives when the request names no limit."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=80)]
Word = Annotated[str, msgspec.Meta(max_length=80)]
Text = Annotated[str, msgspec.Meta(max_length=500)]
Owner = Annotated[str, msgspec.Meta(max_length=255)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Visibility = Literal["public", "private"]
Kind = Literal["array", "boolean", "integer", "number", "object", "string"] | None


class Item(Body):
    """What the items of an array property are."""

    type: Kind | UnsetType = UNSET
    enum: list[Any] | UnsetType = UNSET


class ReadOnly(Body, kw_only=True):
    """Attributes that only the service writes: a body that holds one is refused with 403, see `writable`."""

    created_at: Any = UNSET
    updated_at: Any = UNSET


class Linked(ReadOnly, kw_only=True):
    """Attributes of things that have a path and a schema of their own."""

    self_: Any = msgspec.field(name="self", default=UNSET)
    schema: Any = UNSET


class Definition(Body, kw_only=True):
    """The definition of a property, in the words of JSON schema."""

    type: Kind
    title: str
    description: str | UnsetType = UNSET
    operators: list[str] | UnsetType = UNSET
    required: list[str] | UnsetType = UNSET
    minimum: int | float | UnsetType = UNSET
    maximum: int | float | UnsetType = UNSET
    min_length: Count | UnsetType = msgspec.field(name="minLength", default=UNSET)
    max_length: Count | UnsetType = msgspec.field(name="maxLength", default=UNSET)
    pattern: str | UnsetType = UNSET
    enum: list[Any] | UnsetType = UNSET
    readonly: bool | UnsetType = UNSET
    confidential: bool | UnsetType = UNSET
    default: Any = UNSET
    items: Item | UnsetType = UNSET
    min_items: Count | UnsetType = msgspec.field(name="minItems", default=UNSET)
    max_items: Count | UnsetType = msgspec.field(name="maxItems", default=UNSET)
    unique_items: bool | UnsetType = msgspec.field(name="uniqueItems", default=UNSET)
    additional_items: bool | UnsetType = msgspec.field(name="additionalItems", default=UNSET)


class Part(Definition, kw_only=True):
    """The definition of a property of a namespace or object, where its name is the key."""

    name: Word | UnsetType = UNSET


class Property(Definition, kw_only=True):
    """The definition of a property by itself."""

    name: Name
    created_at: Any = UNSET
    updated_at: Any = UNSET


Parts = dict[Name, Part]


class ObjectBody(Linked, kw_only=True):
    """An object to create, or what it shall be."""

    name: Name
    description: str | UnsetType = UNSET
    required: list[str] | UnsetType = UNSET
    properties: Parts | UnsetType = UNSET


class AssociationBody(ReadOnly, kw_only=True):
    """A resource type for which a namespace shall be."""

    name: Name
    prefix: Word | UnsetType = UNSET
    properties_target: Word | UnsetType = UNSET


class TagBody(ReadOnly, kw_only=True):
    """A tag to create, or what it shall be called."""

    name: Name


class TagsBody(ReadOnly, kw_only=True):
    """Tags to create."""

    tags: list[TagBody]


class NamespaceBody(Linked, kw_only=True):
    """A namespace to create with what belongs to it, or what it shall be."""

    namespace: Name
    display_name: Word | UnsetType = UNSET
    description: Text | UnsetType = UNSET
    visibility: Visibility = "private"
    protected: bool = False
    owner: Owner | UnsetType = UNSET
    resource_type_associations: list[AssociationBody] = msgspec.field(default_factory=list)
    properties: Parts = msgspec.field(default_factory=dict)
    objects: list[ObjectBody] = msgspec.field(default_factory=list)
    tags: list[TagBody] = msgspec.field(default_factory=list)


class Moments(View):
    """When a thing was made, and when it was changed last."""

    created_at: str
    updated_at: str


class Object(Moments, kw_only=True):
    """A set of properties."""

    name: str
    description: str | UnsetType
    required: list[str] | UnsetType
    properties: dict[str, Part] | UnsetType
    self_: str = msgspec.field(name="self")
    schema: str = f"{SCHEMA}/object"


class Objects(View):
    """The objects of a namespace."""

    objects: list[Object]
    schema: str = f"{SCHEMA}/objects"


class Properties(View):
    """The properties of a namespace by name."""

    properties: dict[str, Part]


class Association(Moments):
    """A resource type for which a namespace is."""

    name: str
    prefix: str | UnsetType
    properties_target: str | UnsetType


class Associations(View):
    """The resource types for which a namespace is."""

    resource_type_associations: list[Association]


class ResourceType(Moments):
    """A kind of thing that may have properties."""

    name: str


class ResourceTypes(View):
    """All kinds of things that may have properties."""

    resource_types: list[ResourceType]


class TagName(View):
    """A tag in a list."""

    name: str


class Tag(Moments):
    """A tag."""

    name: str


class Tags(View):
    """The tags of a namespace."""

    tags: list[TagName]


class Namespace(Moments, kw_only=True):
    """A namespace; what belongs to it is left out where there is none, and in lists."""

    namespace: str
    display_name: str | UnsetType
    description: str | UnsetType
    visibility: Visibility
    protected: bool
    owner: str | UnsetType
    resource_type_associations: list[Association] | UnsetType = UNSET
    properties: dict[str, Part] | UnsetType = UNSET
    objects: list[Object] | UnsetType = UNSET
    tags: list[TagName] | UnsetType = UNSET
    self_: str = msgspec.field(name="self")
    schema: str = f"{SCHEMA}/namespace"


def writable(body: ReadOnly | Property) -> None:
    """Raise Forbidden when a body holds an attribute that only the service writes."""
    for name in ("created_at", "updated_at", "self_", "schema"):
        if getattr(body, name, UNSET) is not UNSET:
            raise Forbidden(f"Attribute '{name.rstrip('_')}' is read-only.")


def optional(value: Any) -> Any:
    """A column's value, left out of the response where there is none."""
    return UNSET if value is None else value


def column(value: Any) -> Any:
    """A value of a body for its column; None where it was not given."""
    return None if value is UNSET else value


def moments(row: sa.Row[Any]) -> dict[str, Any]:
    """The moments of a row, as views show them."""
    return {name: f"{row._mapping[name]:%Y-%m-%dT%H:%M:%SZ}" for name in ("created_at", "updated_at")}


def stored(definitions: Mapping[str, Definition]) -> dict[str, Any]:
    """Definitions by name as they are kept."""
    return {name: definition(one) for name, one in definitions.items()}


def definition(body: Definition) -> dict[str, Any]:
    """A definition as it is kept: what was given, without the name and the service's own attributes."""
    found: dict[str, Any] = msgspec.to_builtins(body)
    return {name: value for name, value in found.items() if name not in ("name", "created_at", "updated_at")}


def object_view(space: str, row: sa.Row[Any]) -> Object:
    """An object of a namespace."""
    return Object(
        name=row.name,
        description=optional(row.description),
        required=optional(row.required),
        properties=optional(row.properties),
        self_=f"{PATH}/{space}/objects/{row.name}",
        **moments(row),
    )


def association_view(row: sa.Row[Any]) -> Association:
    """A resource type for which a namespace is."""
    return Association(
        name=row.name, prefix=optional(row.prefix), properties_target=optional(row.properties_target), **moments(row)
    )


def namespace_view(row: sa.Row[Any]) -> Namespace:
    """A namespace without what belongs to it."""
    return Namespace(
        namespace=row.namespace,
        display_name=optional(row.display_name),
        description=optional(row.description),
        visibility=row.visibility,
        protected=row.protected,
        owner=optional(row.owner),
        self_=f"{PATH}/{row.namespace}",
        **moments(row),
    )


_SORT = ("namespace", "display_name", "visibility", "protected", "owner", "created_at", "updated_at")

NAMESPACES = Listing(
    namespace,
    filters={},
    sort={name: namespace.c[name] for name in _SORT},
    order=("created_at:desc",),
    key="namespace",
)

_SORT_INSIDE = ("name", "created_at", "updated_at")

OBJECTS = Listing(
    thing,
    filters={},
    sort={name: thing.c[name] for name in _SORT_INSIDE},
    order=("created_at:desc",),
    key="name",
    maximum=None,
)

TAGS = Listing(
    tag,
    filters={},
    sort={name: tag.c[name] for name in _SORT_INSIDE},
    order=("created_at:desc",),
    key="name",
    maximum=None,
)
