"""What an action needs, and what a session lacks for it."""

from __future__ import annotations

import pytest

from fhir_portal.accounts.sessions import Session
from fhir_portal.accounts.step_up import FRESH, Need, lacking

NOW = 10_000.0


def a_session(auth: float, second: float = 0.0, account: str | None = "mara") -> Session:
    return Session(
        key="k",
        expires=NOW + 600,
        browser="b",
        created=0.0,
        seen=NOW,
        account=account,
        auth_time=auth,
        second_factor_at=second,
    )


@pytest.mark.parametrize(
    ("session", "need", "has_second_factor", "lack"),
    [
        (a_session(NOW), FRESH, False, None),
        (a_session(NOW - 300), FRESH, False, None),
        (a_session(NOW - 301), FRESH, False, "fresh"),
        (a_session(NOW), FRESH, True, "second-factor"),
        (a_session(NOW, NOW - 300), FRESH, True, None),
        (a_session(NOW, NOW - 301), FRESH, True, "second-factor"),
        (a_session(NOW - 301, NOW), FRESH, True, "fresh"),
        (a_session(NOW), Need(second_factor=False), True, None),
        (a_session(0), Need(asks_password=True), False, None),
        (a_session(0), Need(asks_password=True), True, "second-factor"),
        (a_session(0, NOW), Need(asks_password=True), True, None),
        (a_session(NOW - 50), Need(within=49), False, "fresh"),
        (a_session(NOW, NOW, account=None), FRESH, False, "signed-in"),
        (a_session(NOW, NOW, account=None), Need(asks_password=True), False, "signed-in"),
    ],
    ids=range(14),
)
def test_what_is_missing_is_named(
    session: Session, need: Need, lack: str | None, *, has_second_factor: bool
) -> None:
    assert lacking(session, need, has_second_factor=has_second_factor, now=NOW) == lack
