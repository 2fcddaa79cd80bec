"""Two control planes on one PostgreSQL are one cloud: what one says, the other knows at once.

"At once" is the next request: nothing here waits for the other process to hear of a change.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.race.pair import CLIENTS, Answer, Control, Pair, pair

ROUNDS = 25

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("PILEUS_TEST_DATABASE" not in os.environ, reason="two processes need PostgreSQL"),
]


@pytest.fixture(scope="module")
def both(databases: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with pair(databases, tmp_path_factory.mktemp("two")) as found:
        yield found


class Session:
    """A user's session: a token, shown to whichever control plane."""

    def __init__(self, control: Control, auth: dict[str, Any]) -> None:
        status, headers, found = ask(control, "POST", "/identity/v3/auth/tokens", {"auth": auth})
        assert status == 201, found
        self.token = headers["X-Subject-Token"]

    def good(self, control: Control) -> bool:
        """Whether a control plane takes the token."""
        status, _, _ = ask(control, "GET", "/identity/v3/auth/projects", token=self.token)
        assert status in (200, 401)
        return status == 200


def ask(
    control: Control, method: str, path: str, body: Any = None, token: str = "", **headers: str
) -> tuple[int, Any, Any]:
    """One request on a connection of its own: status, headers, decoded body."""
    connection = http.client.HTTPConnection("127.0.0.1", control.port, timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = {"content-type": "application/json", **({"x-auth-token": token} if token else {}), **named}
    connection.request(method, path, None if body is None else json.dumps(body), sent)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers, json.loads(content) if content else None


class Person:
    """A user with a role in a project of its own."""

    def __init__(self, both: Pair) -> None:
        name = uuid.uuid4().hex
        one = both.one
        self.both = both
        self.project = one("POST", "/identity/v3/projects", {"project": {"name": name}})["project"]["id"]
        wanted = {"user": {"name": name, "password": "a secret", "domain_id": "default"}}
        self.id = one("POST", "/identity/v3/users", wanted)["user"]["id"]
        role = one("GET", "/identity/v3/roles?name=member")["roles"][0]["id"]
        self.grant = f"/identity/v3/projects/{self.project}/users/{self.id}/roles/{role}"
        one("PUT", self.grant)

    def log_in(self, control: Control) -> Session:
        """A token in the project."""
        user = {"id": self.id, "password": "a secret"}
        identity = {"methods": ["password"], "password": {"user": user}}
        return Session(control, {"identity": identity, "scope": {"project": {"id": self.project}}})


@pytest.fixture(scope="module")
def person(both: Pair) -> Person:
    return Person(both)


def test_a_token_of_one_is_good_at_the_other_until_it_is_revoked(both: Pair, person: Person) -> None:
    for number in range(ROUNDS):
        here, there = both.controls[number % 2], both.controls[1 - number % 2]
        session = person.log_in(here)
        assert session.good(there)
        assert session.good(here)
        revoked = ask(here, "DELETE", "/identity/v3/auth/tokens", token=here.token, x_subject_token=session.token)
        assert revoked[0] == 204, revoked
        assert not session.good(there), "the other control plane takes a revoked token"
        assert not session.good(here)


@pytest.mark.parametrize("end", ["disabled", "password", "role", "project"])
def test_what_ends_a_session_at_one_ends_it_at_the_other(both: Pair, end: str) -> None:
    for number in range(3):
        person = Person(both)
        here, there = both.controls[number % 2], both.controls[1 - number % 2]
        session = person.log_in(there)
        assert session.good(here)
        assert session.good(there)
        calls = {
            "disabled": ("PATCH", f"/identity/v3/users/{person.id}", {"user": {"enabled": False}}),
            "password": ("PATCH", f"/identity/v3/users/{person.id}", {"user": {"password": "another"}}),
            "role": ("DELETE", person.grant, None),
            "project": ("PATCH", f"/identity/v3/projects/{person.project}", {"project": {"enabled": False}}),
        }
        status, answer = here.call(*calls[end])
        assert status < 300, answer
        assert not session.good(there)
        assert not session.good(here)


def test_a_rotation_of_keys_voids_nothing_and_is_known_to_both(both: Pair) -> None:
    person = Person(both)
    first, second = both.controls
    before = person.log_in(first)
    for control in (first, second, first):
        argv = [sys.executable, "-m", "pileus", "identity", "--state", str(control.state), "rotate-keys"]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        fresh = person.log_in(control)
        for one in both.controls:
            assert fresh.good(one)
            assert before.good(one)


def test_a_generation_is_won_by_one_of_all(both: Pair) -> None:
    provider = str(uuid.uuid4())
    both.one("POST", "/placement/resource_providers", {"name": provider, "uuid": provider})
    for generation in range(ROUNDS):

        def claim(control: Control, number: int, generation: int = generation) -> Answer:
            body = {
                "resource_provider_generation": generation,
                "inventories": {"VCPU": {"total": generation * 100 + number + 1}},
            }
            return control.call("PUT", f"/placement/resource_providers/{provider}/inventories", body)

        answers = both.all(claim)
        won = [number for number, (status, _) in enumerate(answers) if status == 200]
        assert len(won) == 1, answers
        assert {status for status, _ in answers} == {200, 409}
        for control in both.controls:
            status, found = control.call("GET", f"/placement/resource_providers/{provider}/inventories")
            assert status == 200
            assert found["resource_provider_generation"] == generation + 1
            assert found["inventories"]["VCPU"]["total"] == generation * 100 + won[0] + 1


def test_killing_one_loses_nothing_that_it_accepted(both: Pair) -> None:
    """The last test: it leaves one control plane."""
    second, first = both.controls[1], both.controls[0]
    accepted: list[str] = []
    enough = threading.Event()

    def load(number: int) -> None:
        """Make groups at both in turn until the second one is gone; keep the ids of those that were promised."""
        for count in range(400):
            body = {"project": {"name": f"kept-{number}-{count}"}}
            try:
                status, found = both.controls[count % 2].call("POST", "/identity/v3/projects", body)
            except (OSError, http.client.HTTPException):
                return
            assert status == 201, found
            accepted.append(found["project"]["id"])
            if len(accepted) > 4 * CLIENTS:
                enough.set()

    clients = [threading.Thread(target=load, args=(number,)) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    assert enough.wait(60)
    second.processes[0].send_signal(signal.SIGKILL)
    for client in clients:
        client.join(60)
        assert not client.is_alive()
    status, found = first.call("GET", "/identity/v3/projects")
    assert status == 200
    there = {project["id"] for project in found["projects"]}
    lost = [key for key in accepted if key not in there]
    assert lost == []
    assert len(accepted) > 4 * CLIENTS
    assert first.call("POST", "/identity/v3/projects", {"project": {"name": "after"}})[0] == 201
