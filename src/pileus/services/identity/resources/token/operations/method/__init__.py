"""The methods of authentication, one file each.

The names are upstream's.  Those that are not here (federation, TOTP, …) are switched off, and asking for one answers as
upstream does where it is: 401.
"""

from __future__ import annotations

from collections.abc import Mapping

from pileus.services.identity.resources.token.operations.evidence import Method
from pileus.services.identity.resources.token.operations.method import application_credential, oauth1, password, token

METHODS: Mapping[str, Method] = {
    "password": password.prove,
    "token": token.prove,
    application_credential.NAME: application_credential.prove,
    oauth1.NAME: oauth1.prove,
}
"""Name to first step."""
