"""What a token may stand on besides its user, and whether it still holds: the seam to trusts and their like.

Each kind has one function that looks a delegation up as it is now.  It is asked when a token is issued, and again for
each token whose meaning is not known at the current revision: whatever changes a delegation lets the revision grow.

Source: "Trusts", "Application Credentials" and "OAuth 1.0a" of https://docs.openstack.org/api-ref/identity/v3/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pileus.core.errors import Unauthorized
from pileus.core.store import Tx
from pileus.services.identity.resources.application_credential.operations import leave as application_credential
from pileus.services.identity.resources.oauth1.operations import leave as access_token
from pileus.services.identity.resources.token.fields import Delegation
from pileus.services.identity.resources.trust.operations import leave as trust
from pileus.services.identity.rules.token import DelegationKind

FINDERS: Mapping[DelegationKind, Callable[[Tx, str], Delegation | None]] = {
    "trust": trust.find,
    "application_credential": application_credential.find,
    "access_token": access_token.find,
}
"""Kind to what finds a delegation by id; None for one that is not there, or not good any longer."""


def find(tx: Tx, kind: DelegationKind, key: str) -> Delegation:
    """A delegation that is good at this moment. Raises Unauthorized."""
    finder = FINDERS.get(kind)
    found = None if finder is None else finder(tx, key)
    if found is None or (found.expires_at is not None and found.expires_at <= tx.now):
        raise Unauthorized
    return found
