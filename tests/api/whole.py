"""All services of a cloud behind one edge, in one process, as `app` puts them together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import schemathesis

from pileus.app import Control, declare_tables
from pileus.core.config import Config
from pileus.core.store import Store
from pileus.services.image.rules.patch import MEDIA_DRAFT_4, MEDIA_DRAFT_10
from tests.api.edge import Client, Served, serve

PASSWORD = "a secret of admin's"

schemathesis.serializer.alias([MEDIA_DRAFT_4, MEDIA_DRAFT_10], "application/json")


@dataclass
class Whole:
    """A cloud and its administrator."""

    control: Control
    served: Served
    admin: Client


@contextmanager
def whole_cloud(place: Path, url: str | None = None, **settings: Any) -> Iterator[Whole]:
    """A cloud whose state lies in `place`, on the store at `url` (None: SQLite below `place`)."""
    config = Config(state=place, database=url, **settings)
    config.control.mkdir(mode=0o700)
    (config.control / "bootstrap-password").write_text(PASSWORD)
    store = Store(config.database_url)
    declare_tables()
    store.create()
    control = Control(config, store)
    control.bootstrap()
    with serve(control.edge()) as served:
        yield Whole(control, served, served.client(login(served.client())))


def login(client: Client, project: str = "admin") -> str:
    """A token of the administrator in a project."""
    user = {"name": "admin", "domain": {"id": "default"}, "password": PASSWORD}
    scope = {"project": {"name": project, "domain": {"id": "default"}}}
    wanted = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
    found = client.request("POST", "/identity/v3/auth/tokens", wanted)
    assert found.status == 201, found
    return found.headers["x-subject-token"]
