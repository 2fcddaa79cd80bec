"""The tree of faults, and how each service's envelope renders them.

::

    Fault (500)
    ├── BadRequest (400)          the request is wrong, and sending it again is useless
    │   ├── BadQuery              its query string is
    │   └── Malformed             its body has not the shape that it must have
    ├── Unauthorized (401)        nobody is asking: no token, or one that is not good
    ├── Forbidden (403)           somebody is asking who may not
    │   └── QuotaExceeded         (403 for Compute, 409 for Network, 413 for Image)
    ├── NotFound (404)            there is no such thing, or the caller must not learn that there is
    ├── MethodNotAllowed (405)
    ├── NotAcceptable (406)       a microversion outside the service's range
    ├── Conflict (409)            the thing is in a state that forbids this, or the name is taken
    │   └── Raced                 somebody was quicker; the edge runs the operation again
    ├── Gone (410)
    ├── PreconditionFailed (412)
    ├── TooLarge (413)
    ├── UnsupportedMediaType (415)
    ├── RangeNotSatisfiable (416)
    ├── TooManyRequests (429)
    ├── NotImplementedHere (501)  upstream has it, Pileus does not
    └── Unavailable (503)         an engine below does not answer; trying again helps

Services derive their own, and the class's name is the `type` of Network's envelope.  Messages are for the person who
sent the request: they hold no secret and nothing of another project.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, ClassVar

import msgspec

from pileus.core.flaw import explain


class Fault(Exception):
    """Something that the caller is told. `status` is the HTTP status, `code` a stable word for programs."""

    status: ClassVar[int] = 500
    code: str = "pileus.undefined_code"
    headers: Mapping[str, str] = {}
    version: tuple[int, int] | None = None
    """The microversion of the request, where the edge knows it: some envelopes differ by it."""

    def __init__(self, message: str = "", *, code: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        self.message = message or HTTPStatus(self.status).description or HTTPStatus(self.status).phrase
        super().__init__(self.message)
        if code is not None:
            self.code = code
        if headers is not None:
            self.headers = headers

    @property
    def type(self) -> str:
        """The name that Network's envelope gives as `type`."""
        return type(self).__name__


class BadRequest(Fault):
    """400: the request is wrong."""

    status = 400


class BadQuery(BadRequest):
    """400: the query string is wrong."""


class Malformed(BadRequest):
    """400: the body is not JSON (`flaw` is None), or has not the shape: `flaw` is what msgspec says of `given`."""

    def __init__(self, message: str, *, flaw: str | None = None, given: Any = None, **more: Any) -> None:
        super().__init__(message, **more)
        self.flaw, self.given = flaw, given

    @property
    def type(self) -> str:
        """What Network's clients know: which words explain a wrong body is no matter of theirs."""
        return BadRequest.__name__


class Unauthorized(Fault):
    """401: no token, or one that is not good."""

    status = 401

    def __init__(self, message: str = "The request you have made requires authentication.", **more: Any) -> None:
        super().__init__(message, **more)


class Forbidden(Fault):
    """403: the caller may not."""

    status = 403


class QuotaExceeded(Forbidden):
    """A limit would be passed: `resource`, the `limit`, what is `used` and what was `requested`."""

    def __init__(self, resource: str, *, limit: int, used: int, requested: int) -> None:
        super().__init__(
            f"Quota exceeded for {resource}: Requested {requested}, but already used {used} of {limit} {resource}"
        )
        self.resource, self.limit, self.used, self.requested = resource, limit, used, requested


class NotFound(Fault):
    """404: no such thing for this caller."""

    status = 404


class MethodNotAllowed(Fault):
    """405: the path exists, the method does not."""

    status = 405


class NotAcceptable(Fault):
    """406: no such microversion, or nothing the client accepts. `known` are the first and last microversion."""

    status = 406
    known: tuple[str, str] | None = None


class Conflict(Fault):
    """409: not in this state, or the name is taken."""

    status = 409


class Raced(Conflict):
    """A compare-and-set lost; the edge runs the operation again, and answers 409 after the third time."""


class Gone(Fault):
    """410: it was here."""

    status = 410


class PreconditionFailed(Fault):
    """412: a condition of the request does not hold."""

    status = 412


class TooLarge(Fault):
    """413: the body is larger than the service takes."""

    status = 413


class UnsupportedMediaType(Fault):
    """415: the body's type is not one the operation takes."""

    status = 415


class RangeNotSatisfiable(Fault):
    """416: the range lies outside the data."""

    status = 416


class TooManyRequests(Fault):
    """429: too many requests in a short time."""

    status = 429


class NotImplementedHere(Fault):
    """501: upstream has it, Pileus does not."""

    status = 501


class Unavailable(Fault):
    """503: an engine below does not answer."""

    status = 503


_COMPUTE_NAMES = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflictingRequest",
    413: "overLimit",
    415: "badMediaType",
    429: "overLimit",
    501: "notImplemented",
    503: "serviceUnavailable",
}

Envelope = Callable[[Fault, str], Any]
"""Makes the JSON body of a fault, given the request id."""


def compute_envelope(fault: Fault, request_id: str) -> Any:
    """Compute's and Block Storage's: one key that names the kind of fault."""
    return {_COMPUTE_NAMES.get(fault.status, "computeFault"): {"code": fault.status, "message": fault.message}}


def network_envelope(fault: Fault, request_id: str) -> Any:
    """Network's: `NeutronError` with the type's name."""
    return {"NeutronError": {"type": fault.type, "message": fault.message, "detail": ""}}


def identity_envelope(fault: Fault, request_id: str) -> Any:
    """Identity's, and ours where no service answers."""
    title = HTTPStatus(fault.status).phrase
    return {"error": {"code": fault.status, "message": fault.message, "title": title}}


def image_envelope(fault: Fault, request_id: str) -> Any:
    """Image's: a flat object."""
    title = HTTPStatus(fault.status).phrase
    return {"message": fault.message, "code": f"{fault.status} {title}", "title": title}


def placement_envelope(fault: Fault, request_id: str) -> Any:
    """Placement's: a list of errors after the API working group's guideline, from 1.23 on with a stable code."""
    title = HTTPStatus(fault.status).phrase
    detail = fault.message
    if isinstance(fault, BadQuery):
        detail = f"Invalid query string parameters: {detail}"
    elif isinstance(fault, Malformed):
        found = explain(fault.flaw, fault.given) if fault.flaw is not None else None
        detail = f"JSON does not validate: {found.text}" if found else f"Malformed JSON: {detail}"
        if found and found.keyword:
            steps = [f"['properties']['{step}']" for step in found.place.split(".")] if found.place else []
            detail += f"\n\nFailed validating '{found.keyword}' in schema{''.join(steps)}"
    entry: dict[str, Any] = {"status": fault.status, "title": title, "detail": detail, "request_id": request_id}
    if fault.version is not None and fault.version >= (1, 23):
        entry["code"] = fault.code.replace("pileus.", "placement.")
    if isinstance(fault, NotAcceptable) and fault.known is not None:
        entry["min_version"], entry["max_version"] = fault.known
    return {"errors": [entry]}


def render(fault: Fault, envelope: Envelope, request_id: str) -> bytes:
    """The body of a fault as JSON bytes."""
    return msgspec.json.encode(envelope(fault, request_id))
