"""What an action needs beyond being signed in: that the person proved who they are just now.

OWASP ASVS 5.0, 7.5.1 and 7.5.3. `lacking` is for whoever has the state at hand,
`fhir_portal.web.pages.step_up.StepUp.to` for a page: it sends the person to confirm and back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from fhir_portal.accounts.sessions import Session

FIVE_MINUTES: Final = 300.0

Lack = Literal["signed-in", "fresh", "second-factor"]


@dataclass(frozen=True, slots=True)
class Need:
    """What an action asks for.

    ``within`` is how many seconds ago the person may have proved who they are; ``second_factor``
    asks for as fresh a proof of that one, of accounts that have one. An action that asks for the
    password itself leaves the first to that: ``asks_password``.
    """

    within: float = FIVE_MINUTES
    second_factor: bool = True
    asks_password: bool = False


FRESH: Final = Need()
"""The need of an action on somebody's own credentials, or on who may see their record."""


def lacking(session: Session, need: Need, *, has_second_factor: bool, now: float) -> Lack | None:
    """Say what is missing for an action, ``None`` if it may be done.

    A remembered browser is no proof of a second factor.
    """
    if session.account is None:
        return "signed-in"
    if not need.asks_password and now - session.auth_time > need.within:
        return "fresh"
    asked = need.second_factor and has_second_factor
    if asked and now - session.second_factor_at > need.within:
        return "second-factor"
    return None
