"""A small cloud for tests: Identity behind the real edge, bootstrapped, with tokens for anybody at no cost."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pileus.core.seams import ManualClock, Seams
from pileus.services.identity.interface import (
    Compliance,
    Keys,
    Offer,
    Secrets,
    Started,
    Throttle,
    Tokens,
    bootstrap,
    hash_password,
)
from pileus.services.identity.resources import user as users
from pileus.services.identity.rules.token import Kind
from pileus.services.identity.service import service
from tests.api.edge import Client, Response, Served, make_edge

PASSWORD = "a secret of admin's"

OFFERS = (
    Offer("keystone", "identity", "http://cloud/identity"),
    Offer("nova", "compute", "http://cloud/compute/v2.1"),
    Offer("swift", "object-store", "http://cloud/object-store/AUTH_$(project_id)s"),
)

hashed = functools.cache(hash_password)


def ok(response: Response, status: int = 200) -> Any:
    """The body of an answer that must have this status."""
    assert response.status == status, response
    return response.json


@dataclass
class Cloud:
    """The edge and what was made at its start."""

    served: Served
    tokens: Tokens
    clock: ManualClock
    started: Started

    @property
    def admin(self) -> Client:
        """The administrator, in the project `admin`."""
        return self.client(self.started.admin_id, "project", self.started.admin_project_id)

    def token(self, user_id: str, kind: Kind = "unscoped", scope_id: str | None = None) -> str:
        """A token as if the user had logged in."""

        def issue(tx: Any) -> str:
            row = users.get(tx, user_id)
            return self.tokens.issue(tx, user_id, ("password",), kind, scope_id, generation=row.generation)

        return self.served.store.read_here(issue)

    def client(self, user_id: str, kind: Kind = "unscoped", scope_id: str | None = None) -> Client:
        """A client with a token of a user."""
        return self.served.client(self.token(user_id, kind, scope_id))

    def acting(self, response: Response) -> Client:
        """A client with the token that a login gave."""
        ok(response, 201)
        return self.served.client(response.headers["x-subject-token"])

    def alive(self, client: Client) -> bool:
        """Whether a client's token is good."""
        status = client.request("GET", "/v3/auth/catalog").status
        assert status in (200, 401)
        return status == 200

    def role(self, name: str) -> str:
        """The id of a global role."""
        found = ok(self.admin.request("GET", f"/v3/roles?name={name}"))["roles"]
        return str(found[0]["id"])

    def user(self, name: str, domain_id: str = "default", password: str | None = None) -> str:
        """A new user; its id."""
        wanted = {"name": name, "domain_id": domain_id, "password": password}
        return str(ok(self.admin.request("POST", "/v3/users", {"user": wanted}), 201)["user"]["id"])

    def project(self, name: str, **more: Any) -> str:
        """A new project; its id."""
        return str(
            ok(self.admin.request("POST", "/v3/projects", {"project": {"name": name, **more}}), 201)["project"]["id"]
        )

    def domain(self, name: str) -> str:
        """A new domain; its id."""
        return str(ok(self.admin.request("POST", "/v3/domains", {"domain": {"name": name}}), 201)["domain"]["id"])

    def grant(self, user_id: str, role: str, place: str) -> None:
        """Give a user a role at a place: `projects/ID`, `domains/ID` or `system`."""
        ok(self.admin.request("PUT", f"/v3/{place}/users/{user_id}/roles/{self.role(role)}"), 204)

    def persona(self, role: str, kind: Kind, scope_id: str | None = None) -> Client:
        """A new user of the domain Default who holds a role in a scope, with a token for it."""
        user_id = self.user(f"{role} on {kind} {scope_id}")
        self.grant(user_id, role, "system" if kind == "system" else f"{kind}s/{scope_id}")
        return self.client(user_id, kind, scope_id)

    def login(self, body: dict[str, Any], token: str | None = None) -> Response:
        """Ask for a token."""
        return self.served.client(token).request("POST", "/v3/auth/tokens", {"auth": body})


@contextmanager
def make_cloud(url: str, directory: Path, provided: Mapping[type[Any], Any] | None = None) -> Iterator[Cloud]:
    """A cloud on a database, with its keys in a directory; `provided` is what its operations may ask for besides."""
    keys = Keys(directory / "keys")
    tokens = Tokens(keys)
    clock = ManualClock()
    secrets = Secrets(directory / "keys")
    given: dict[type[Any], Any] = {
        Tokens: tokens,
        Secrets: secrets,
        Compliance: Compliance(),
        Throttle: Throttle(5),
        **(provided or {}),
    }
    served = make_edge(url, service(), provided=given, authenticate=tokens.authenticate, seams=Seams(clock))
    with served:
        keys.prepare(served.store)
        secrets.prepare(served.store)
        started = served.store.write_here(
            lambda tx: bootstrap(tx, admin_password_hash=hashed(PASSWORD), region="RegionOne", offers=OFFERS)
        )
        yield Cloud(served, tokens, clock, started)
