"""``/help``: how to reach each practice, and where people may set up an account by themselves.

Anybody may read it. It shows what a practice published (`fhir_portal.accounts.practice_contact`)
and what its policy says to everybody, never its resources.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, urlencode

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.accounts.policy import PracticePolicy, policy_of
from fhir_portal.accounts.practice import Practice
from fhir_portal.accounts.practice_contact import (
    ContactLine,
    OpenHours,
    PracticeContact,
    days_words,
)
from fhir_portal.accounts.practice_list import PracticeList
from fhir_portal.records import RecordReader
from fhir_portal.web.pages.errors import next_step
from fhir_portal.web.pages.refusals import Handler, refusing
from fhir_portal.web.pages.render import page

HELP: Final = "/help"
_UNKNOWN: Final = "There is no such practice here."
_ON_A_PAGE: Final = 50
_LONGEST_NAME: Final = 200
_LINE_WORDS: Final = {
    "phone": "Telephone",
    "tty": "Text telephone (TTY)",
    "sms": "Text message",
    "fax": "Fax",
    "mail": "Email",
    "web": "Website",
}


def help_at(practice: str) -> str:
    """The page of a practice, or that of all of them."""
    return f"{HELP}/{quote(practice, safe='')}" if practice else HELP


def help_router(reader: RecordReader) -> APIRouter:
    """The pages as routes for FastAPI."""
    pages = HelpPages(reader)
    router = APIRouter(include_in_schema=False)
    routes: tuple[tuple[str, Handler], ...] = (
        (HELP, pages.show),
        (f"{HELP}/{{practice}}", pages.show_practice),
    )
    for path, handler in routes:
        router.add_route(path, refusing(handler, back=HELP, signed_out=HELP), methods=["GET"])
    return router


class HelpPages:
    """The list of practices, and the page of each."""

    def __init__(self, reader: RecordReader) -> None:
        self._reader = reader
        self._practices = PracticeList(reader)

    async def show(self, request: Request) -> Response:
        known = (await self._practices.now()).practices
        name = request.query_params.get("name", "").strip()[:_LONGEST_NAME]
        wanted = name.casefold().split()
        found = [
            one for one in known if all(word in one[0].name.casefold() for word in wanted)
        ] if wanted else known  # fmt: skip
        pages = max(1, -(-len(found) // _ON_A_PAGE))
        number = _page_number(request.query_params.get("page", ""), pages)
        first = (number - 1) * _ON_A_PAGE
        return page(
            "help.html",
            practices=[
                (practice.name, help_at(practice.key), _begins(policy))
                for practice, policy in found[first : first + _ON_A_PAGE]
            ],
            is_long=len(known) > _ON_A_PAGE,
            name=name,
            number=number,
            pages=pages,
            before=_list_at(name, number - 1) if number > 1 else "",
            after=_list_at(name, number + 1) if number < pages else "",
        )

    async def show_practice(self, request: Request) -> Response:
        key = request.path_params["practice"]
        practice = await self._reader.get(Practice, key)
        if practice is None:
            return page(
                "problem.html", status=404, message=_UNKNOWN, error="unknown-practice", back=HELP
            )
        contact = await self._reader.get(PracticeContact, key) or PracticeContact(key=key)
        policy = await policy_of(self._reader, key)
        return page(
            "help_practice.html",
            practice=practice,
            contact=contact,
            cannot_sign_in=ContactLine("phone", practice.phone) if practice.phone else None,
            services=[(one, [_hours(hours) for hours in one.hours]) for one in contact.services],
            line_words=_LINE_WORDS,
            begins=_begins(policy),
            sign_in=f"/signin?practice={quote(key, safe='')}",
            forgotten=next_step("sign-in-refused"),
        )


def _page_number(text: str, pages: int) -> int:
    """Which page is meant: the first one, if the text is not the number of any."""
    is_number = text.isascii() and text.isdecimal() and len(text) < 10  # noqa: PLR2004
    return int(text) if is_number and 1 <= int(text) <= pages else 1


def _list_at(name: str, number: int) -> str:
    asked = {"name": name} if name else {}
    return f"{HELP}?{urlencode({**asked, 'page': number})}"


def _begins(policy: PracticePolicy) -> str:
    """How somebody comes to an account there: ``off``, ``self`` or ``invited``."""
    if not policy.portal:
        return "off"
    return "self" if "mail" in policy.self_registration else "invited"


def _hours(hours: OpenHours) -> tuple[str, str]:
    span = f"{hours.opens} to {hours.closes}" if hours.opens else "all day"
    return days_words(hours.days), span
