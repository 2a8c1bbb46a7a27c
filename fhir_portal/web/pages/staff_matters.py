"""What staff have to see to: people who could not get in, and messages that did not arrive.

Each kind is for those whose level lets them do something about it: ``recover`` for accounts that
somebody could not get back into, ``invite`` for people without an account and for messages. What is
shown of a record is read as the member of staff who looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.access.relation import name_of
from fhir_portal.accounts.account import Account
from fhir_portal.accounts.activation import ActivationHelp
from fhir_portal.accounts.recovery import RecoveryHelp
from fhir_portal.fhir.errors import Forbidden, NotFound
from fhir_portal.notify.faults import open_faults, resolve_fault
from fhir_portal.records import RecordTransaction
from fhir_portal.web.pages.desk import FIND, MATTERS, AtDesk, Desk, desk_page
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import redirect

_MOST: Final = 100
_LONGEST: Final = 400
_LOCKED_OUT: Final[Mapping[str, str]] = {
    "locked": "they asked for help, or gave too many wrong codes",
    "unverified-contact": "no contact of the account was proved",
    "no-recovery-contact": "the account has no contact that can get a code",
    "no-account": "there is no account",
}
_NOT_IN: Final[Mapping[str, str]] = {
    "locked": "too many tries were wrong",
    "near-miss": "something differs from the record",
    "ambiguous": "more than one record may be meant",
    "not-found": "no record is like it",
    "minor": "a minor registered by themselves",
    "no-second-proof": "there is no second contact, and no code from the practice",
    "has-account": "there is an account already",
    "expired": "the invitation was over",
}
_FAULTS: Final[Mapping[str, str]] = {
    "bounced": "came back",
    "not-delivered": "could not be delivered",
}
_TYPED: Final[Mapping[str, str]] = {
    "first": "first name",
    "last": "last name",
    "birth_date": "birth date",
    "mail": "mail",
}


class MatterPages:
    """The list of what waits for somebody, and its buttons."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return (
            (MATTERS, "GET", desk_page(self.show)),
            (MATTERS, "POST", desk_page(self.settle, back=MATTERS)),
        )

    async def show(self, request: Request) -> Response:
        here = await self._desk.at(request)
        _require(here)
        return self._desk.page(
            here,
            "staff_matters.html",
            locked_out=await self._locked_out(here) if here.may("recover") else [],
            not_in=await self._not_in(here) if here.may("invite") else [],
            faults=await self._faults(here) if here.may("invite") else [],
            action=MATTERS,
            form_token=self._desk.form_token(here, MATTERS),
            done="Done." if "done" in request.query_params else "",
        )

    async def settle(self, request: Request) -> Response:
        """Take one off the list; of another practice there is none."""
        here, _, form = await self._desk.posted(request, MATTERS)
        _require(here)
        kind, key = form.get("kind", ""), form.get("matter", "")[:_LONGEST]
        practice, now = here.session.practice, self._desk.clock()
        if not here.may("recover" if kind == "recovery" else "invite"):
            raise Forbidden(f"the level '{here.staff.level}' does not let its holders do this")

        async def work(transaction: RecordTransaction) -> bool:
            if kind == "message":
                return await resolve_fault(
                    transaction, practice, key, now=now, by=here.staff.fhir_user
                )
            record: type[RecoveryHelp | ActivationHelp]
            record = RecoveryHelp if kind == "recovery" else ActivationHelp
            found = await transaction.get(record, key)
            if found is None or found.practice != practice:
                return False
            return await transaction.delete(record, key)

        if not await self._desk.change(here, work):
            raise NotFound
        await self._desk.note(here, "update", "staff-matters", kind)
        return redirect(f"{MATTERS}?done=1")

    # --- what is on it -------------------------------------------------------------------------

    async def _locked_out(self, here: AtDesk) -> list[dict[str, Any]]:
        store, practice = self._desk.store, here.session.practice
        found = await store.find(RecoveryHelp, "practice", practice, limit=_MOST)
        return [
            {
                "key": one.key,
                "when": here.moment_at(one.at),
                "why": _LOCKED_OUT[one.reason],
                "people": await self._people(here, one.account),
            }
            for one in sorted(found, key=lambda one: one.at, reverse=True)
        ]

    async def _not_in(self, here: AtDesk) -> list[dict[str, Any]]:
        store, practice = self._desk.store, here.session.practice
        found = await store.find(ActivationHelp, "practice", practice, limit=_MOST)
        return [
            {
                "key": one.key,
                "when": here.moment_at(one.at),
                "why": _NOT_IN[one.reason],
                "typed": [
                    (_TYPED[name], text) for name, text in one.typed.items() if name in _TYPED
                ],
                "candidates": [
                    (*await self._record(here, each.patient), each.score, ", ".join(each.reasons))
                    for each in one.candidates
                ],
            }
            for one in sorted(found, key=lambda one: one.at, reverse=True)
        ]

    async def _faults(self, here: AtDesk) -> list[dict[str, Any]]:
        return [
            {
                "key": one.key,
                "when": here.moment_at(one.latest),
                "what": f"{one.template} to {one.contact} {_FAULTS[one.what]}",
                "people": [
                    person
                    for account in one.accounts
                    for person in await self._people(here, account)
                ],
            }
            for one in await open_faults(self._desk.store, here.session.practice, limit=_MOST)
        ]

    async def _people(self, here: AtDesk, key: str) -> list[tuple[str, str]]:
        """Name and page of the practice's records that an account opens, the own one first."""
        account = await self._desk.store.get(Account, key)
        if account is None:
            return []
        records = await self._desk.directory.records_of(account)
        return [
            await self._record(here, one.patient)
            for one in sorted(records, key=lambda one: not one.is_own)
            if one.practice == here.session.practice
        ]

    async def _record(self, here: AtDesk, patient: str) -> tuple[str, str]:
        """Name and page of a record that somebody may have meant."""
        own_id = patient.rpartition("/")[2]
        try:
            tree = (await self._desk.ask(here, "read", "Patient", own_id)).tree
        except NotFound:
            return "a record that is gone", ""
        return name_of(tree), f"{FIND}/{own_id}"


def _require(here: AtDesk) -> None:
    if not (here.may("view") and (here.may("recover") or here.may("invite"))):
        raise Forbidden(f"the level '{here.staff.level}' does not let its holders see this")
