"""Names that are the same to a person are the same: how names are compared.

Upstream leaves it to the collation of MySQL, which does not tell `Alice` from `alice` or a letter from its full-width
form, and passes over what cannot be seen.  Here names are compared by Unicode's NFKC_Casefold, whatever the engine:
composition, width and case do not matter, and what is invisible is left out.  The written form is kept.  Letters of
different scripts that look alike (a Latin and a Cyrillic a) differ, as they do there.

Source: Keystone administration guide, "Case-Insensitivity in keystone"; Unicode Standard, section 3.13.5.
"""

from __future__ import annotations

import hashlib
import unicodedata

KEY_LENGTH = 1024
"""Characters that suffice for the key of a name: one whose key would be longer has a hash as its key."""

LONGEST = 255
"""Characters of the longest name that anything may have."""

_FILLERS = dict.fromkeys([0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0, *range(0xFE00, 0xFE10)])


def key(name: str) -> str:
    """What two names have in common when they are the same but for case, composition, width or what is not seen.

    Text that is too long for a name is like itself alone, and not folded: that takes time that grows with its square.
    """
    if len(name) > LONGEST:
        return hashlib.sha256(name.encode()).hexdigest()
    found = name.lower().strip() if name.isascii() else _fold(name)
    return found if len(found) <= KEY_LENGTH else hashlib.sha256(found.encode()).hexdigest()


def _fold(name: str) -> str:
    before, found = "", name
    while found != before:  # what is left out may bring letters together that compose
        before = found
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", found).casefold()).casefold()
        seen = "".join(char for char in folded.translate(_FILLERS) if unicodedata.category(char) != "Cf")
        found = unicodedata.normalize("NFKC", seen).strip()
    return found
