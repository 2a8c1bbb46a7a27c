"""``/account/security/questions``: security questions, where a practice asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.front_door import FrontDoor
from fhir_portal.accounts.security_questions import (
    ASKED,
    BEGINNING,
    LONGEST,
    QUESTIONS,
    SecurityQuestions,
    UnacceptableAnswers,
    is_asked_by_practice,
)
from fhir_portal.accounts.sessions import SignedOutMeanwhile, still_signed_in
from fhir_portal.accounts.step_up import FRESH
from fhir_portal.accounts.throttle import TooManyAttempts
from fhir_portal.records import RecordTransaction
from fhir_portal.smart.errors import InvalidRequest, TooManyRequests
from fhir_portal.web.form import once_each
from fhir_portal.web.pages.browser import FORM_TOKEN, Browser, Cookies, posted
from fhir_portal.web.pages.refusals import refusing
from fhir_portal.web.pages.render import page
from fhir_portal.web.pages.signin import SIGN_IN, Route, wait_words
from fhir_portal.web.pages.step_up import SECURITY, StepUp
from fhir_portal.web.pages.words import moment

ANSWERS: Final = f"{SECURITY}/questions"
CHANGES: Final = "10 per hour"
"""How often one account may have answers hashed: each time costs three."""


class QuestionPages:
    """The page on which a person chooses security questions."""

    def __init__(
        self, questions: SecurityQuestions, door: FrontDoor, cookies: Cookies, step_up: StepUp
    ) -> None:
        self._questions = questions
        self._door = door
        self._cookies = cookies
        self._step_up = step_up

    def routes(self) -> Sequence[Route]:
        """Path, method and handler of each page."""
        return [
            (ANSWERS, method, refusing(one, back=SECURITY, signed_out=f"{SIGN_IN}?then={SECURITY}"))
            for method, one in (("GET", self.show), ("POST", self.change))
        ]

    async def show(self, request: Request) -> Response:
        browser = await self._cookies.browser(request)
        if sent := await self._step_up.to(browser, FRESH, then=ANSWERS):
            return sent
        await self._asked(browser)
        return await self._page(browser)

    async def change(self, request: Request) -> Response:
        form = once_each(await posted(request))
        browser = await self._cookies.browser(request)
        if browser.visitor.account is None:
            raise SignedOutMeanwhile
        self._cookies.check_form(request, browser, ANSWERS, "", form.get(FORM_TOKEN, ""))
        if sent := await self._step_up.to(browser, FRESH, then=ANSWERS):
            return sent
        account, now = await self._asked(browser), self._door.sessions.clock()
        given = [
            (form.get(f"question{number}", ""), form.get(f"answer{number}", ""))
            for number in range(1, ASKED + 1)
        ]
        try:
            await self._door.password.throttle.limit(CHANGES, f"security answers of {account.key}")
            keep = await self._questions.answered(
                account.key, given, now=now, is_first=now < account.created + BEGINNING
            )
        except UnacceptableAnswers as error:
            return await self._page(browser, status=400, problem=str(error), given=given)
        except TooManyAttempts as error:
            raise TooManyRequests(
                wait_words(error), headers={"Retry-After": str(error.retry_after)}
            ) from None
        tell = self._door.notices.about(account, "security-questions-changed", now=now)

        async def write(transaction: RecordTransaction) -> None:
            await still_signed_in(transaction, browser.visitor, now)
            await keep(transaction)
            await tell(transaction)

        await self._door.sessions.store.transact(write)
        return await self._page(browser, done=True)

    async def _asked(self, browser: Browser) -> Account:
        """Return whose questions these are. Raises `InvalidRequest` where nobody asks them."""
        account = browser.visitor.account
        if account is None:
            raise SignedOutMeanwhile
        if not await is_asked_by_practice(self._door.sessions.store, account):
            raise InvalidRequest("Your practice does not ask security questions.")
        return account

    async def _page(
        self,
        browser: Browser,
        *,
        status: int = 200,
        problem: str = "",
        given: Sequence[tuple[str, str]] = (),
        done: bool = False,
    ) -> Response:
        account, now = browser.visitor.account, self._door.sessions.clock()
        chosen = await self._questions.chosen(account.key) if account is not None else None
        before = [one.question for one in chosen.answers] if chosen is not None else []
        picked = [question for question, _ in given] or before or [""] * ASKED
        waits = chosen is not None and chosen.counts_from > now
        return page(
            "questions.html",
            status=status,
            problem=problem,
            done=done,
            counts_from=moment(chosen.counts_from) if chosen is not None and waits else "",
            picked=picked,
            questions=QUESTIONS,
            longest=LONGEST,
            form_token=self._cookies.form_token(browser, ANSWERS, ""),
        )
