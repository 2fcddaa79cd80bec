"""Operations that upstream took out, and answers with 410 ever since.

https://docs.openstack.org/api-ref/compute/#obsolete-apis

Agents of guests, cells of the first kind, certificates, cloudpipe, consoles by number, and what only the networking
that was once part of Compute could do.  They take any body, ask no rule, and have no versions.
"""

from __future__ import annotations

from collections.abc import Callable

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.core.errors import Gone

resource = Resource("removed", "removed")

REMOVED = (
    *("GET /os-agents", "POST /os-agents", "PUT /os-agents/{}", "DELETE /os-agents/{}"),
    *("GET /os-cells", "POST /os-cells", "GET /os-cells/capacities", "GET /os-cells/detail", "GET /os-cells/info"),
    *("POST /os-cells/sync_instances", "GET /os-cells/{}", "PUT /os-cells/{}", "DELETE /os-cells/{}"),
    "GET /os-cells/{}/capacities",
    *("POST /os-certificates", "GET /os-certificates/root", "GET /os-certificates/{}"),
    *("GET /os-cloudpipe", "POST /os-cloudpipe", "PUT /os-cloudpipe/configure-project", "PUT /os-cloudpipe/{}"),
    *("GET /os-fixed-ips/{}", "POST /os-fixed-ips/{}/action"),
    *("GET /os-floating-ip-dns", "PUT /os-floating-ip-dns/{}", "DELETE /os-floating-ip-dns/{}"),
    *("GET /os-floating-ip-dns/{}/entries/{}", "PUT /os-floating-ip-dns/{}/entries/{}"),
    "DELETE /os-floating-ip-dns/{}/entries/{}",
    *("GET /os-floating-ips-bulk", "POST /os-floating-ips-bulk", "GET /os-floating-ips-bulk/{}"),
    *("PUT /os-floating-ips-bulk/delete", "PUT /os-floating-ips-bulk/{}"),
    *("GET /os-fping", "GET /os-fping/{}"),
    *("POST /os-networks", "POST /os-networks/add", "DELETE /os-networks/{}", "POST /os-networks/{}/action"),
    *("GET /os-security-group-default-rules", "POST /os-security-group-default-rules"),
    *("GET /os-security-group-default-rules/{}", "DELETE /os-security-group-default-rules/{}"),
    *("POST /os-tenant-networks", "DELETE /os-tenant-networks/{}"),
    *("GET /servers/{}/consoles", "POST /servers/{}/consoles"),
    *("GET /servers/{}/consoles/{}", "DELETE /servers/{}/consoles/{}"),
    "GET /servers/{}/os-virtual-interfaces",
)
"""Methods and paths."""


def _gone() -> None:
    raise Gone("This resource is no longer available. No forwarding address is given.")


def _zero() -> Callable[..., None]:
    def gone(ctx: Context) -> None:
        """Nothing any more."""
        _gone()

    return gone


def _one() -> Callable[..., None]:
    def gone(ctx: Context, key: str) -> None:
        """Nothing any more."""
        _gone()

    return gone


def _two() -> Callable[..., None]:
    def gone(ctx: Context, key: str, part: str) -> None:
        """Nothing any more."""
        _gone()

    return gone


def _declare(text: str) -> None:
    method, _, path = text.partition(" ")
    handler = (_zero, _one, _two)[path.count("{}")]()
    words = [word for word in path.replace("{}", "one").replace("-", "_").split("/") if word]
    handler.__name__ = handler.__qualname__ = f"{method.lower()}_{'_'.join(words)}"
    named = path.replace("{}", "{key}", 1).replace("{}", "{part}", 1)
    resource.operation(method, named, faults=(410,), writes=False)(handler)


for _text in REMOVED:
    _declare(_text)
