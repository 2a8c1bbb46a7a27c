"""User names that people choose: none that looks like another one, none that is somebody's mail.

`fhir_portal.accounts.account.folded` makes case and width no difference; here it is seen to that
letters of other scripts are not taken for Latin ones (Unicode UTS #39, mixed-script and
whole-script confusables).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Final

from fhir_portal.accounts.account import InvalidUsername, folded

SHORTEST: Final = 3
LONGEST: Final = 80
_LOOKS_LATIN: Final = frozenset("аеорсхуіјѕһԁԛԝкмтвнгпьεοαινρτυκχϲјѐёіїүөӏ")
"""Small letters of the Cyrillic and Greek scripts that are read as Latin ones."""


def chosen_name(typed: str, *, proved: Iterable[str] = ()) -> str:
    """Return a user name that somebody may take. Raises `InvalidUsername`, with words for them.

    ``proved`` are the mail addresses that they proved: only such a one can be a user name.
    """
    name = folded(typed)
    if not SHORTEST <= len(name) <= LONGEST or not name.isprintable() or " " in name:
        raise InvalidUsername(
            f"A user name has {SHORTEST} to {LONGEST} letters, digits and signs, without spaces."
        )
    if "@" in name and name not in {folded(one) for one in proved}:
        raise InvalidUsername(
            "A mail address can be a user name only when it was proved here. Choose another name."
        )
    scripts = {_script(sign) for sign in name if sign.isalpha()}
    letters = {sign for sign in name if sign.isalpha()}
    if len(scripts) > 1 or (scripts - {"LATIN"} and letters <= _LOOKS_LATIN):
        raise InvalidUsername("This name is easily taken for another one. Use one alphabet.")
    return name


def _script(letter: str) -> str:
    """The script of a letter, by the first word of its name."""
    return unicodedata.name(letter, "UNKNOWN").partition(" ")[0]
