"""Certificates of tokens that were signed (https://docs.openstack.org/api-ref/identity/v3-ext/#os-simple-cert-api).

There are no such tokens any more; the paths answer as upstream's do: for ever gone.
"""

from __future__ import annotations

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.core.errors import Gone

_GONE = "This API is no longer available due to the removal of support for PKI tokens."

resource = Resource("certificate", "certificates")


@resource.get("/OS-SIMPLE-CERT/ca", public=True, faults=(410,))
def show_ca(ctx: Context) -> None:
    """The authority's certificate. Raises Gone."""
    raise Gone(_GONE)


@resource.get("/OS-SIMPLE-CERT/certificates", public=True, faults=(410,))
def show_signing(ctx: Context) -> None:
    """The signer's certificate. Raises Gone."""
    raise Gone(_GONE)
