"""The catalog: where the services are, for one user in one project.

(https://docs.openstack.org/api-ref/identity/v3/#get-service-catalog)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from pileus.core.store import Tx
from pileus.services.identity.resources import endpoint as endpoints
from pileus.services.identity.resources import service as services
from pileus.services.identity.resources.endpoint_filter import table as endpoint_filters
from pileus.services.identity.rules import template


class Entry(NamedTuple):
    """A service that is switched on, and its endpoints that are."""

    id: str
    type: str
    name: str
    endpoints: tuple[Mapping[str, Any], ...]


def read(tx: Tx) -> tuple[Entry, ...]:
    """What the catalog holds for everybody, in the order of types and interfaces."""
    service, endpoint = services.table, endpoints.table
    offered: dict[str, list[Mapping[str, Any]]] = {}
    for row in tx.all(sa.select(endpoint).where(endpoint.c.enabled).order_by(endpoint.c.interface, endpoint.c.id)):
        offered.setdefault(row.service_id, []).append(
            {
                "id": row.id,
                "interface": row.interface,
                "region_id": row.region_id,
                "region": row.region_id,
                "url": row.url,
            }
        )
    rows = tx.all(sa.select(service).where(service.c.enabled).order_by(service.c.type, service.c.id))
    return tuple(Entry(row.id, row.type, row.name or "", tuple(offered.get(row.id, ()))) for row in rows)


def render(tx: Tx, entries: tuple[Entry, ...], user_id: str, project_id: str | None) -> list[dict[str, Any]]:
    """The catalog as a user sees it; endpoints that need a project are left out where there is none.

    In a project that is associated with endpoints (OS-EP-FILTER), these alone are shown, and the services they belong
    to.
    """
    values = {"user_id": user_id, "project_id": project_id, "tenant_id": project_id}
    chosen = None if project_id is None else endpoint_filters.endpoints_of(tx, project_id)
    found = []
    for entry in entries:
        filled = [(one, template.fill(one["url"], values)) for one in entry.endpoints]
        shown = [{**one, "url": url} for one, url in filled if url is not None and (not chosen or one["id"] in chosen)]
        if shown or not chosen:
            found.append({"endpoints": shown, "id": entry.id, "type": entry.type, "name": entry.name})
    return found
