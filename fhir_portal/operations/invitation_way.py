"""How an invitation goes out, and how long it is good for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fhir_portal.accounts.contacts import InvalidContact, Medium, mail_address, telephone_number
from fhir_portal.accounts.invitation import HOUR, LONGEST, SHORTEST, Channel, CodeBy
from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.fhir.errors import Unprocessable
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.on_file import OnFile

SENT_BY_US: Final[Mapping[Channel, Medium]] = {"mail": "mail", "sms": "sms"}
HANDED_OVER: Final[frozenset[Channel]] = frozenset({"letter", "paper", "desk"})


@dataclass(frozen=True, slots=True)
class Way:
    """How an invitation goes out: where the link goes, and where the security code."""

    channel: Channel
    to: str
    code: OnFile | None
    is_named: bool = False

    @property
    def code_by(self) -> CodeBy:
        """How the security code goes."""
        return self.code.medium if self.code is not None else "hand"


def way_of(
    policy: PracticePolicy,
    *,
    channel: Channel | None,
    contact: str | None,
    on_file: Sequence[OnFile],
) -> Way:
    """Return how an invitation goes out.

    The code goes to the first contact on file of another medium, where the practice writes by that;
    where there is none it is handed over. Raises `Unprocessable`.
    """
    if channel is None:
        channel = _first_channel(policy, contact, on_file)
    if channel not in policy.invite_channels:
        message = f"this practice does not invite by {channel}"
        raise Unprocessable(message, expression=parameter("channel"))
    medium = SENT_BY_US.get(channel)
    if medium is None:
        if contact is not None:
            message = f"an invitation by {channel} goes to no address"
            raise Unprocessable(message, expression=parameter("contact"))
        return Way(channel, "", None)
    to = _address(medium, contact, policy) if contact is not None else None
    if to is None:
        to = next((one.value for one in on_file if one.medium == medium), None)
    if to is None:
        message = f"there is no contact on file for {channel}: give one, or another channel"
        raise Unprocessable(message, expression=parameter("contact"))
    others = (
        one for one in on_file if one.medium != medium and one.medium in policy.invite_channels
    )
    return Way(channel, to, next(others, None), is_named=contact is not None)


def _first_channel(
    policy: PracticePolicy, contact: str | None, on_file: Sequence[OnFile]
) -> Channel:
    media = {one.medium for one in on_file}
    if contact is not None:
        media = {"mail" if "@" in contact else "sms"}
    for channel in policy.invite_channels:
        if SENT_BY_US.get(channel) in media:
            return channel
    message = "there is no contact on file by which this practice invites: give a channel"
    raise Unprocessable(message, expression=parameter("channel"))


def _address(medium: Medium, text: str, policy: PracticePolicy) -> str:
    try:
        if medium == "mail":
            return mail_address(text)
        return telephone_number(text, region=policy.country or None)
    except InvalidContact:
        message = "this is not a mail address" if medium == "mail" else "this is not a number"
        raise Unprocessable(message, expression=parameter("contact")) from None


def lifetime_of(policy: PracticePolicy, channel: Channel, asked: float | None) -> float:
    """Return how long an invitation lasts, in seconds. Raises `Unprocessable`."""
    if asked is None:
        return policy.lifetime(channel)
    if not SHORTEST <= asked <= LONGEST:
        message = f"an invitation lasts {SHORTEST / HOUR:.0f} to {LONGEST / HOUR:.0f} hours"
        raise Unprocessable(message, expression=parameter("lifetime-hours"))
    return asked
