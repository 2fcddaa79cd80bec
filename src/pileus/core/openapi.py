"""OpenAPI documents of services, made of the declarations of their operations.

A document describes one microversion: fields outside their windows are not in it, and those whose type changed have the
type of that version.  Source: OpenAPI Specification 3.1.0, whose schemas are JSON Schema 2020-12.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import msgspec

from pileus.core import fields
from pileus.core.api import Operation, Page, Parameters, Reply, Resource, Service, Stream
from pileus.core.context import Context
from pileus.core.versions import Ledger, Version

Schema = dict[str, Any]

ANYTHING: Schema = {}

_FAULT = {"application/json": {"schema": {"type": "object"}}}

_ENVELOPED = (Page, Reply, Stream, None)
"""Results whose shape the signature does not tell."""


class _Shapes:
    """JSON Schemas of types at one version, and the components that they refer to."""

    def __init__(self, version: Version | None) -> None:
        self.version = version
        self.components: dict[str, Schema] = {}

    def of(self, kind: Any) -> Schema:
        """The schema of a type; that of anything where msgspec has none."""
        try:
            (found,), components = msgspec.json.schema_components(
                [kind], schema_hook=lambda _: ANYTHING, ref_template="#/components/schemas/{name}"
            )
        except (TypeError, RuntimeError):
            return ANYTHING
        self.components |= components
        for struct in _structs(kind):
            self._narrow(struct)
        return found

    def _narrow(self, struct: type[msgspec.Struct]) -> None:
        """Take out of a struct's schema what is not there at the version."""
        schema = self.components.get(struct.__name__)
        if schema is None or "properties" not in schema:
            return
        plan = fields.plan_of(struct, self.version)
        for key in plan.forbidden:
            schema["properties"].pop(key, None)
        for key, kind, _ in plan.narrowed:
            schema["properties"][key] = self.of(kind)
        hints = typing.get_type_hints(struct)
        named = zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True)
        absent = plan.forbidden | {key for _, key, _ in plan.guarded}
        absent |= {key for attribute, key in named if msgspec.UnsetType in typing.get_args(hints[attribute])}
        required = [key for key in (*schema.get("required", ()), *plan.needed) if key not in absent]
        schema["required"] = sorted(set(required))


def _structs(kind: Any, seen: set[Any] | None = None) -> Iterator[type[msgspec.Struct]]:
    """All structs that a type is made of."""
    seen = set() if seen is None else seen
    if kind in seen if isinstance(kind, typing.Hashable) else False:
        return
    if isinstance(kind, typing.Hashable):
        seen.add(kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
        for hint in typing.get_type_hints(kind, include_extras=True).values():
            yield from _structs(hint, seen)
    for part in typing.get_args(kind):
        yield from _structs(part, seen)


def _text(operation: Operation) -> tuple[str, str]:
    """What the operation does: the first line of its docstring, and the rest of it."""
    first, _, rest = (inspect.getdoc(operation.handler) or "").partition("\n")
    return first, rest.strip()


def _request(shapes: _Shapes, operations: list[Operation]) -> Schema | None:
    """The body of one operation, or of all the actions of one path."""
    first = operations[0]
    if "stream" in first.takes:
        binary = {"schema": {"type": "string", "format": "binary"}}
        return {"required": True, "content": {"application/octet-stream": binary}}
    found = []
    for operation in operations:
        key = operation.action or operation.accepts
        if "body" not in operation.takes and operation.action is None:
            return None
        inner = shapes.of(operation.body) if "body" in operation.takes else ANYTHING
        if key is not None:
            inner = {"type": "object", "required": [key], "properties": {key: inner}, "additionalProperties": False}
        found.append(inner)
    schema = found[0] if len(found) == 1 else {"oneOf": found}
    return {"required": True, "content": {media: {"schema": schema} for media in first.media}}


def _response(shapes: _Shapes, operation: Operation) -> Schema | None:
    """The content of a success; None when it has none."""
    gives = operation.gives
    if gives is type(None) or (gives is Reply and operation.wraps is None):
        return None
    if gives is Stream:
        return {"application/octet-stream": {"schema": ANYTHING}}
    inner = ANYTHING if gives in _ENVELOPED else shapes.of(gives)
    if operation.wraps and gives is not Page:
        inner = {"type": "object", "required": [operation.wraps], "properties": {operation.wraps: inner}}
    return {"application/json": {"schema": inner}}


def _answers(shapes: _Shapes, service: Service, operations: list[Operation]) -> Schema:
    found: Schema = {}
    for operation in operations:
        for status in sorted({operation.status(shapes.version), *operation.successes}):
            entry: Schema = {"description": HTTPStatus(status).phrase}
            content = _response(shapes, operation)
            if content is not None and status != HTTPStatus.NO_CONTENT:
                entry["content"] = content
            found[str(status)] = entry
    refusals = frozenset[int]().union(*(operation.refusals for operation in operations))
    if service.ledger is not None:
        refusals |= {HTTPStatus.NOT_ACCEPTABLE}
    for status in sorted(refusals):
        found[str(status)] = {"description": HTTPStatus(status).phrase, "content": _FAULT}
    return found


def _entry(shapes: _Shapes, service: Service, operations: list[Operation]) -> Schema:
    """One method of one path: an operation, or several actions."""
    first = operations[0]
    summary, description = _text(first)
    parameters: list[Schema] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in first.parameters
    ]
    for name, since in first.query.known.items():
        if since is None or shapes.version is None or since <= shapes.version:
            parameters.append({"name": name, "in": "query", "schema": {"type": "string"}})
    if service.ledger is not None:
        parameters.append({"$ref": "#/components/parameters/version"})
    found: Schema = {
        "operationId": first.name if len(operations) == 1 else f"{first.name}…",
        "tags": [first.resource.singular],
        "summary": summary if len(operations) == 1 else "An action",
        "description": description if len(operations) == 1 else "\n".join(_text(one)[0] for one in operations),
        "parameters": parameters,
        "responses": _answers(shapes, service, operations),
    }
    if first.policy is not None:
        found["x-openstack-policy"] = sorted({one.policy for one in operations if one.policy is not None})
    if first.public:
        found["security"] = []
    body = _request(shapes, operations)
    if body is not None:
        found["requestBody"] = body
    return found


def operations(service: Service) -> Iterator[tuple[str, Operation]]:
    """The operations of a service as the code has them in order, each with its path below the service's mount."""
    for resource in service.outer:
        yield from ((operation.path or "/", operation) for operation in resource.operations)
    for resource in service.resources:
        yield from ((service.roots[0] + operation.path, operation) for operation in resource.operations)


def document(service: Service, version: Version | None = None) -> Schema:
    """The OpenAPI document of a service at a microversion, by default its newest."""
    if version is None and service.ledger is not None:
        version = service.ledger.maximum
    shapes = _Shapes(version)
    grouped: dict[str, dict[str, list[Operation]]] = {}
    for path, operation in operations(service):
        if operation.covers(version):
            grouped.setdefault(path, {}).setdefault(operation.method.lower(), []).append(operation)
    paths = {
        path: {method: _entry(shapes, service, found) for method, found in methods.items()}
        for path, methods in grouped.items()
    }
    components: Schema = {"securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"}}}
    if service.ledger is not None:
        value = {"type": "string", "const": f"{service.ledger.service} {version}"}
        header = {"name": "OpenStack-API-Version", "in": "header", "required": True, "schema": value}
        components["parameters"] = {"version": header}
    return {
        "openapi": "3.1.0",
        "info": {"title": f"{service.name.capitalize()} of Pileus", "version": str(version or "1")},
        "servers": [{"url": service.mounts[0]}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {**components, "schemas": shapes.components},
    }


def resource(service: Service) -> Resource:
    """A resource that answers `GET /openapi.json` with the service's document at the request's microversion."""
    found = Resource("openapi", "openapi")
    versions = Parameters("version")
    made = functools.cache(lambda version: msgspec.json.encode(document(service, version)))

    @found.get("/openapi.json", public=True, query=versions)
    def show(ctx: Context) -> Reply:
        """This service's operations as an OpenAPI document, at the newest microversion or at that of `?version=`."""
        return Reply(made(_wanted(ctx.query.get("version"), service.ledger)), {"content-type": "application/json"})

    return found


def _wanted(text: str | None, ledger: Ledger | None) -> Version | None:
    if ledger is None or text is None:
        return None
    return ledger.negotiate({b"openstack-api-version": f"{ledger.service} {text}".encode()})
