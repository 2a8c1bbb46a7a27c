"""``/staff/settings``: what a practice decides about its portal, shown before it counts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.accounts.policy import (
    PracticePolicy,
    UnknownPolicy,
    changed,
    policy_of,
    shown,
)
from fhir_portal.accounts.portal_switch import concerned
from fhir_portal.records import RecordTransaction
from fhir_portal.web.form import Pairs
from fhir_portal.web.pages.desk import SETTINGS, AtDesk, Desk, desk_page
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import redirect
from fhir_portal.web.pages.staff_levels import require_administer

PREVIEW: Final = f"{SETTINGS}/preview"
SAVE: Final = f"{SETTINGS}/save"

SWITCHES: Final[Mapping[str, str]] = {
    "portal": "Patients and those who act for them use the portal",
    "invite-on-booking": "Invite when an appointment is booked for somebody without an account",
    "invite-on-mail-address": "Invite when a mail address is given for somebody without an account",
}
LISTS: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "invited-by": (
        "Who may begin an invitation",
        {"staff": "Staff", "ehr": "The EHR", "patient": "Patients, for those who act for them"},
    ),
    "invite-channels": (
        "How invitations may go out",
        {
            "mail": "Mail",
            "sms": "SMS",
            "letter": "Letter",
            "paper": "Printed sheet",
            "desk": "Handed over at the desk",
        },
    ),
    "self-registration": (
        "How somebody may begin an account without the link of an invitation",
        {
            "mail": "By the mail address on file",
            "username": "By a security code and the practice ID",
            "portal-id": "By a printed sheet",
        },
    ),
}
TOLD: Final[Mapping[str, str]] = {
    "assurance": "Least proof of identity that opens one's own record",
    "assurance-for-others": "Least proof of identity that opens another's record",
    "proxy-confirmation": "A second member of staff confirms who acts for a patient",
    "invitations-an-hour": "Invitations in an hour",
    "messages-a-minute": "Messages of invitations in a minute",
    "adult-age": "Age with which a parent's access ends",
    "country": "Country of telephone numbers without a code",
    "booking": "What patients may do about appointments",
    "booking-services": "Services for which that differs",
    "private-services": "Services whose purpose is not shown",
    "plan-months": "Parts in which a bill may be paid, one a month (0: none)",
    "plan-least": "What such a part comes to at least, in whole units of the currency",
    "hold-minutes": "Minutes for which a time is held",
    "offer-minutes": "Minutes for which a freed time is held for who waits",
    "notice-hours": "Hours before the start until which times can be booked",
    "ahead-days": "Days ahead for which times can be booked",
    "cancel-hours": "Hours before the start until which patients move or cancel",
    "booked-at-once": "Appointments to come that one patient may have booked",
    "check-in-before": "Minutes before the start from which patients may say that they are here",
    "check-in-after": "Minutes after the start until which they may",
    "reminder-hours": "Hours before the start at which patients are reminded",
    "reply-hours": "Hours in which the practice answers a request for an appointment",
    "direct-changes": "Details that patients change without your looking at it",
    "coverage-reminder-days": "Days before its end at which people are told that an insurance ends",
    "book-twice": "The EHR may book time that is taken",
    "sharing": "Patients share their record by a link",
    "share-days": "Days that such a link lasts at most",
    "plain-mail": "Patients have their record sent by mail that is not encrypted",
}
"""What an operator decides, and staff only read."""
_DONE: Final[Mapping[str, str]] = {"saved": "The settings were changed. They count from now on."}
_CHANGED: Final = "Somebody else has changed the settings meanwhile. Below is how they are now."
_NOTHING: Final = "That changes nothing."

_log = structlog.get_logger(__name__)


class SettingPages:
    """The settings of a practice, and the preview of a change."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return (
            (SETTINGS, "GET", desk_page(self.show)),
            (PREVIEW, "POST", desk_page(self.show_preview, back=SETTINGS)),
            (SAVE, "POST", desk_page(self.save, back=SETTINGS)),
        )

    async def show(self, request: Request) -> Response:
        here = await self._desk.at(request)
        require_administer(here)
        return await self._page(here, done=_DONE.get(request.query_params.get("done", ""), ""))

    async def show_preview(self, request: Request) -> Response:
        """Show what a form would change, and whom that concerns."""
        here, pairs, form = await self._desk.posted(request, PREVIEW)
        require_administer(here)
        before = await policy_of(self._desk.store, here.session.practice)
        if form.get("seen") != _version(before):
            return await self._page(here, problem=_CHANGED, status=412)
        wanted = _wanted(pairs, before)
        try:
            after = changed(before, wanted)
        except UnknownPolicy as error:
            return await self._page(here, problem=f"This cannot be: {error}.", status=400)
        differences = _differences(before, after)
        if not differences:
            return await self._page(here, problem=_NOTHING, status=400)
        return self._desk.page(
            here,
            "staff_settings_preview.html",
            differences=differences,
            switched=after.portal != before.portal,
            on=after.portal,
            concerned=await concerned(
                self._desk.store, here.session.practice, now=self._desk.clock()
            )
            if after.portal != before.portal
            else None,
            wanted=wanted,
            seen=_version(before),
            action=SAVE,
            form_token=self._desk.form_token(here, SAVE),
            back=SETTINGS,
        )

    async def save(self, request: Request) -> Response:
        """Store what was looked at, if nobody has changed the settings since."""
        here, _, form = await self._desk.posted(request, SAVE)
        require_administer(here)
        practice = here.session.practice

        async def store(transaction: RecordTransaction) -> tuple[PracticePolicy, PracticePolicy]:
            before = await policy_of(transaction, practice)
            if form.get("seen") != _version(before):
                raise _ChangedMeanwhile
            wanted = {name: form[name] for name in (*SWITCHES, *LISTS) if name in form}
            after = changed(before, wanted)
            await transaction.put(after)
            return before, after

        try:
            before, after = await self._desk.change(
                here,
                store,
                interaction="update",
                what="practice-policy",
                detail=lambda done: ",".join(_changed(*done)),
            )
        except _ChangedMeanwhile:
            return await self._page(here, problem=_CHANGED, status=412)
        except UnknownPolicy as error:
            return await self._page(here, problem=f"This cannot be: {error}.", status=400)
        _log.info("practice policy changed", practice=practice, settings=_changed(before, after))
        return redirect(f"{SETTINGS}?done=saved")

    async def _page(
        self, here: AtDesk, *, done: str = "", problem: str = "", status: int = 200
    ) -> Response:
        policy = await policy_of(self._desk.store, here.session.practice)
        now = shown(policy)
        return self._desk.page(
            here,
            "staff_settings.html",
            status=status,
            done=done,
            problem=problem,
            now=now,
            switches=SWITCHES,
            lists=LISTS,
            told=[(words, _read(now[name])) for name, words in TOLD.items()],
            seen=_version(policy),
            action=PREVIEW,
            form_token=self._desk.form_token(here, PREVIEW),
        )


class _ChangedMeanwhile(Exception):
    """The settings are not those that were looked at."""


def _version(policy: PracticePolicy) -> str:
    """What stands for a policy as somebody saw it."""
    return hashlib.sha256(msgspec.json.encode(policy)).hexdigest()[:32]


def _wanted(pairs: Pairs, before: PracticePolicy) -> dict[str, str]:
    """Return what a form says, as texts of settings.

    The order that a list had stays, and so does what the form does not ask: a link always works.
    """
    wanted = {name: "on" if (name, "on") in pairs else "off" for name in SWITCHES}
    now = shown(before)
    for name, (_, known) in LISTS.items():
        ticked = [value for given, value in pairs if given == name]
        kept = [one for one in now[name] if one in ticked or one not in known]
        wanted[name] = ",".join(
            [*kept, *(one for one in known if one in ticked and one not in kept)]
        )
    return wanted


def _differences(before: PracticePolicy, after: PracticePolicy) -> list[tuple[str, str, str, str]]:
    """Return what differs: the setting, its words, and how it is and would be."""
    old, new = shown(before), shown(after)
    words = dict(SWITCHES) | {name: title for name, (title, _) in LISTS.items()}
    return [
        (name, title, _said(name, old[name]), _said(name, new[name]))
        for name, title in words.items()
        if old[name] != new[name]
    ]


def _read(value: Any) -> str:
    """Return a setting that staff only read, in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        value = [f"{one}: {two}" for one, two in value.items()]
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    return str(value) or "none"


def _changed(before: PracticePolicy, after: PracticePolicy) -> list[str]:
    """Return the names of the settings that differ."""
    return [name for name, *_ in _differences(before, after)]


def _said(name: str, value: Any) -> str:
    if name in SWITCHES:
        return "yes" if value else "no"
    known = LISTS[name][1]
    return ", ".join(known[one] for one in value if one in known) or "none of these"
