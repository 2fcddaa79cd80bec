"""Names that are the same to a person are the same: how names are compared.

Upstream leaves it to the collation of MySQL, which does not tell `Alice` from `alice`; the written form is kept.

Source: Keystone administration guide, "Case-Insensitivity in keystone".
"""

from __future__ import annotations

import unicodedata

KEY_LENGTH = 1024
"""Characters that suffice for the key of a name of 255 characters."""


def key(name: str) -> str:
    """What two names have in common when they are the same but for case, composition or spaces around them."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name.strip()).casefold())
