"""Each service does what its OpenAPI document says, whatever it is sent: no fault of ours, no status undeclared."""

from __future__ import annotations

import contextlib
import os
import random
import re
from collections.abc import Iterator
from typing import Any
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
from tests.api.edge import Client, Response
from tests.api.whole import Whole, whole_cloud
from tests.effort import times

pytestmark = pytest.mark.fuzz

EXAMPLES = times(3, 50) if "PILEUS_TEST_DATABASE" in os.environ else times(8, 200)
"""Requests for each operation, half of them well formed; of PostgreSQL it is asked only what it may refuse to store."""

KEPT = re.compile(
    r"/auth/tokens|/users/\{user_id\}(/password|/tokens)?$|/(domains|projects)/\{\w+_id\}(/cascade)?$"
    r"|/roles/\{role_id\}$"
)
"""Operations that would end the caller's own session are tried without the ids that exist."""

_ID = re.compile(rb'"(?:id|uuid)":\s*"([^"]{1,64})"')


@pytest.fixture(scope="module")
def whole(databases: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    place = tmp_path_factory.mktemp("whole")
    url = databases.make(place, None)
    with whole_cloud(place, url) as whole:
        yield whole
    databases.drop(url)


class Exchange:
    """Sends what was generated and judges what came back."""

    def __init__(self, client: Client, mount: str, headers: dict[str, str], known: list[str]) -> None:
        self.client = client
        self.headers = headers
        self.mount = mount
        self.known = known

    def send(self, case: Any, choice: random.Random) -> Response:
        """One request; a parameter of the path is in half of the cases the id of something that is there."""
        values = dict(case.path_parameters or {})
        if self.known and not KEPT.search(case.operation.path):
            values = {name: choice.choice([value, choice.choice(self.known)]) for name, value in values.items()}
        path = re.sub(r"\{(\w+)\}", lambda match: str(values[match[1]]), case.operation.path)
        query = urlencode({name: str(value) for name, value in (case.query or {}).items()}, errors="replace")
        headers = {**self.headers, "content-type": case.media_type} if case.media_type else self.headers
        data = None
        if not isinstance(case.body, NotSet):
            data = case.body if isinstance(case.body, bytes) else _encode(case.body)
        target = self.mount + path + (f"?{query}" if query else "")
        return self.client.request(case.method.upper(), target, data=data, headers=headers)


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


def _try(operation: Any, exchange: Exchange, count: int, problems: dict[str, str]) -> None:
    """Send requests to one operation, good and bad ones."""
    either = st.one_of(
        operation.as_strategy(generation_mode=GenerationMode.POSITIVE),
        operation.as_strategy(generation_mode=GenerationMode.NEGATIVE),
    )
    calm = settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )

    @calm
    @given(case=either, choice=st.randoms(use_true_random=False))
    def one(case: Any, choice: random.Random) -> None:
        response = exchange.send(case, choice)
        if wrong := _judge(operation, case, response):
            sent = f"{case.path_parameters} {case.query} {case.body!r:.300}"
            problems.setdefault(f"{operation.label}: {wrong}", sent)

    with contextlib.suppress(Unsatisfiable):
        one()


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_does_what_its_document_says(whole: Whole, name: str) -> None:
    service = whole.control.public[SERVICES.index(name)]
    mount = service.mounts[0]
    found = whole.admin.request("GET", f"{mount}/openapi.json")
    schema = schemathesis.openapi.from_dict(found.json)
    known: list[str] = []
    for path, methods in found.json["paths"].items():
        if "get" in methods and "{" not in path:
            known += [key.decode() for key in _ID.findall(whole.admin.request("GET", mount + path).body)]
    ledger = service.ledger
    headers = {"openstack-api-version": f"{ledger.service} {ledger.maximum}"} if ledger else {}
    exchange = Exchange(whole.admin, mount, headers, sorted(set(known))[:200])
    problems: dict[str, str] = {}
    tried = 0
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        _try(operation, exchange, EXAMPLES, problems)
        tried += 1
        living = whole.admin.request("GET", "/identity/v3/auth/projects").status
        assert living == 200, f"{operation.label} ended the caller's session: add it to KEPT"
    assert tried > 0
    assert problems == {}
