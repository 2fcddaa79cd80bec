"""Each service does what its OpenAPI document says, whatever it is sent: no fault of ours, no status undeclared.

To make a request up takes several times as long as to answer it: in a run for PostgreSQL each is sent to a cloud there
and to one on SQLite.
"""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core import NotSet
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.core.result import Ok
from schemathesis.core.transport import Response as Answer

from pileus.app import SERVICES
from tests.api.edge import Response
from tests.api.whole import Whole, whole_cloud
from tests.effort import SERVED, times

pytestmark = pytest.mark.fuzz

EXAMPLES = times(8, 200)
"""Requests for each operation, half of them well formed."""

KEPT = re.compile(
    r"/auth/tokens|/users/\{user_id\}(/password|/tokens)?$|/(domains|projects)/\{\w+_id\}(/cascade)?$"
    r"|/roles/\{role_id\}$"
)
"""Operations that would end the caller's own session are tried without the ids that exist."""

_ID = re.compile(rb'"(?:id|uuid)":\s*"([^"]{1,64})"')


@pytest.fixture(scope="module")
def clouds(databases: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Whole]]:
    """A cloud on SQLite, and one on PostgreSQL in a run for it."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(whole_cloud(tmp_path_factory.mktemp("embedded")))]
        if SERVED:
            place = tmp_path_factory.mktemp("served")
            url = databases.make(place, None)
            stack.callback(databases.drop, url)
            found.append(stack.enter_context(whole_cloud(place, url)))
        yield found


class Request(NamedTuple):
    """What was made up, but for the ids of what is there."""

    case: Any
    named: dict[str, float | None]
    """For each parameter of the path: which of the things that are there it names, from 0 to 1; None when none."""


class Exchange:
    """Sends what was made up to one cloud."""

    def __init__(self, whole: Whole, name: str) -> None:
        self.client = whole.admin
        self.store = whole.control.store.url.get_backend_name()
        service = whole.control.public[SERVICES.index(name)]
        self.mount = service.mounts[0]
        ledger = service.ledger
        self.headers = {"openstack-api-version": f"{ledger.service} {ledger.maximum}"} if ledger else {}
        self.document = self.client.request("GET", f"{self.mount}/openapi.json").json
        known: set[str] = set()
        for path, methods in self.document["paths"].items():
            if "get" in methods and "{" not in path:
                known.update(key.decode() for key in _ID.findall(self.client.request("GET", self.mount + path).body))
        self.known = sorted(known)[:200]

    def send(self, request: Request) -> Response:
        """One request."""
        case = request.case
        values = dict(case.path_parameters or {})
        values |= {
            name: self.known[int(place * len(self.known))]
            for name, place in request.named.items()
            if place is not None and self.known
        }
        path = re.sub(r"\{(\w+)\}", lambda match: str(values[match[1]]), case.operation.path)
        query = urlencode({name: str(value) for name, value in (case.query or {}).items()}, errors="replace")
        headers = {**self.headers, "content-type": case.media_type} if case.media_type else self.headers
        data = None
        if not isinstance(case.body, NotSet):
            data = case.body if isinstance(case.body, bytes) else _encode(case.body)
        target = self.mount + path + (f"?{query}" if query else "")
        return self.client.request(case.method.upper(), target, data=data, headers=headers)

    def lives(self) -> bool:
        """Whether the caller's session goes on."""
        return self.client.request("GET", "/identity/v3/auth/projects").status == 200


def _request(case: Any, choice: random.Random) -> Request:
    """What is sent; a parameter of the path is in half of the cases the id of something that is there."""
    names = [] if KEPT.search(case.operation.path) else sorted(case.path_parameters or {})
    return Request(case, {name: choice.random() if choice.random() < 0.5 else None for name in names})


def _encode(body: Any) -> bytes:
    try:
        return msgspec.json.encode(body)
    except (TypeError, UnicodeEncodeError, msgspec.MsgspecError):
        return repr(body).encode("utf-8", "replace")


def _judge(operation: Any, case: Any, response: Response) -> str:
    """What is wrong with an answer; empty when nothing is."""
    declared = operation.definition.raw["responses"]
    if response.status >= 500 and response.status != 503:
        return f"{response.status}"
    if str(response.status) not in declared:
        return f"{response.status} is not declared"
    media = response.headers.get("content-type", "")
    if response.status >= 400 and response.body and not media.startswith("application/json"):
        return f"{response.status} as {media}"
    plain = requests.Request(case.method, "http://testserver/").prepare()
    headers = {key: [value] for key, value in response.headers.items()}
    answer = Answer(response.status, headers, response.body, plain, 0.0, verify=False)
    try:
        operation.validate_response(answer, case=case)
    except (FailureGroup, Failure) as group:
        first = group.exceptions[0] if isinstance(group, FailureGroup) else group
        return f"{response.status}: {first!s:.200}"
    return ""


def _try(operation: Any, exchanges: Sequence[Exchange], problems: dict[str, str]) -> None:
    """Send requests to one operation, good and bad ones."""
    either = st.one_of(
        operation.as_strategy(generation_mode=GenerationMode.POSITIVE),
        operation.as_strategy(generation_mode=GenerationMode.NEGATIVE),
    )
    calm = settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )

    @calm
    @given(case=either, choice=st.randoms(use_true_random=False))
    def one(case: Any, choice: random.Random) -> None:
        request = _request(case, choice)
        for exchange in exchanges:
            if wrong := _judge(operation, case, exchange.send(request)):
                sent = f"{case.path_parameters} {case.query} {case.body!r:.300}"
                problems.setdefault(f"{operation.label}: {wrong} ({exchange.store})", sent)

    with contextlib.suppress(Unsatisfiable):
        one()


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_does_what_its_document_says(clouds: list[Whole], name: str) -> None:
    exchanges = [Exchange(whole, name) for whole in clouds]
    schema = schemathesis.openapi.from_dict(exchanges[0].document)
    problems: dict[str, str] = {}
    tried = 0
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        _try(operation, exchanges, problems)
        tried += 1
        for exchange in exchanges:
            assert exchange.lives(), f"{operation.label} ended the caller's session: add it to KEPT"
    assert tried > 0
    assert problems == {}
