"""``/activate/proof`` and ``/activate/contact``: what is still to be proved, and a contact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.accounts.activation import Activation
from fhir_portal.accounts.contacts import InvalidContact, masked_value
from fhir_portal.accounts.one_time_code import SentTooOften
from fhir_portal.operations.activation.activations import NotMatched
from fhir_portal.operations.activation.proofs import (
    ask_staff,
    choose_contact,
    give_code,
    give_security_code,
    open_contacts,
    other_proof,
    send_again,
    send_code,
)
from fhir_portal.web.pages.activation_room import (
    ACCOUNT,
    CONTACT,
    NOT_MATCHED,
    PROOF,
    STEPS,
    ActivationRoom,
    activation_page,
)
from fhir_portal.web.pages.browser import Browser
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import page, redirect

PROOF_SEND: Final = f"{PROOF}/send"
PROOF_AGAIN: Final = f"{PROOF}/again"
PROOF_CODE: Final = f"{PROOF}/security-code"
PROOF_HELP: Final = f"{PROOF}/help"
PROOF_OTHER: Final = f"{PROOF}/other"
WRONG_CODE: Final = (
    "That code does not match, or can no longer be used. Look at it once more, or have a new one "
    "sent. After five tries ask your practice."
)
_SENT_OFTEN: Final = "No more codes are sent for now. Choose another way, or ask your practice."

_log = structlog.get_logger(__name__)


class ProofPages:
    """Further proofs, and a contact."""

    def __init__(self, room: ActivationRoom) -> None:
        self._room = room

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return (
            (PROOF, "GET", activation_page(self.show_proof)),
            (PROOF, "POST", activation_page(self.give_code)),
            (PROOF_SEND, "POST", activation_page(self.send_code)),
            (PROOF_AGAIN, "POST", activation_page(self.send_again)),
            (PROOF_CODE, "POST", activation_page(self.give_security_code)),
            (PROOF_HELP, "POST", activation_page(self.ask_staff)),
            (PROOF_OTHER, "POST", activation_page(self.other_proof)),
            (CONTACT, "GET", activation_page(self.show_contact)),
            (CONTACT, "POST", activation_page(self.choose_contact)),
        )

    async def show_proof(self, request: Request) -> Response:
        browser, activation = await self._room.under_way(request)
        step = await self._room.activations.due(activation)
        if step not in {"code", "proof"}:
            return redirect(STEPS[step])
        return await self._proof_page(browser, activation)

    async def give_code(self, request: Request) -> Response:
        browser, activation, form = await self._room.posted(request, PROOF)
        try:
            activation = await give_code(self._room.activations, activation, form.get("code", ""))
        except NotMatched:
            _log.info("one-time code refused")
            return await self._proof_page(browser, activation, problem=WRONG_CODE)
        return redirect(STEPS[await self._room.activations.due(activation)])

    async def send_code(self, request: Request) -> Response:
        browser, activation, form = await self._room.posted(request, PROOF_SEND)
        try:
            await send_code(self._room.activations, activation, form.get("contact", ""))
        except NotMatched:
            problem = "Choose where the code is to go."
            return await self._proof_page(browser, activation, problem=problem)
        return redirect(PROOF)

    async def send_again(self, request: Request) -> Response:
        browser, activation, _ = await self._room.posted(request, PROOF_AGAIN)
        try:
            await send_again(self._room.activations, activation)
        except SentTooOften:
            return await self._proof_page(browser, activation, problem=_SENT_OFTEN)
        return await self._proof_page(browser, activation, done="A new code is on its way.")

    async def give_security_code(self, request: Request) -> Response:
        browser, activation, form = await self._room.posted(request, PROOF_CODE)
        try:
            activation = await give_security_code(
                self._room.activations, activation, form.get("security_code", "")
            )
        except NotMatched:
            _log.info("security code refused")
            return await self._proof_page(browser, activation, problem=NOT_MATCHED)
        return redirect(STEPS[await self._room.activations.due(activation)])

    async def ask_staff(self, request: Request) -> Response:
        browser, activation, _ = await self._room.posted(request, PROOF_HELP)
        await ask_staff(self._room.activations, activation)
        done = "Your practice is told. Call it, or go there: it can give you a security code."
        return await self._proof_page(browser, activation, done=done)

    async def other_proof(self, request: Request) -> Response:
        _, activation, _ = await self._room.posted(request, PROOF_OTHER)
        await other_proof(self._room.activations, activation)
        return redirect(PROOF)

    async def _proof_page(
        self, browser: Browser, activation: Activation, *, problem: str = "", done: str = ""
    ) -> Response:
        found = await self._room.activations.current(browser.visitor.browser)
        activation = found or activation
        to = activation.challenge_to
        tokens = {
            action: self._room.cookies.form_token(browser, action, activation.key)
            for action in (PROOF, PROOF_SEND, PROOF_AGAIN, PROOF_CODE, PROOF_HELP, PROOF_OTHER)
        }
        return page(
            "activate_proof.html",
            status=403 if problem else 200,
            problem=problem,
            done=done,
            awaited=masked_value(to.medium, to.value) if to and activation.challenge else None,
            medium=to.medium if to else "",
            is_first=activation.way == "mail"
            and not any(one.what == "one-time-code" for one in activation.evidence),
            contacts=[
                (number, one.medium, masked_value(one.medium, one.value))
                for number, one in enumerate(open_contacts(activation))
            ],
            takes_code=activation.way == "mail",
            form_tokens=tokens,
        )

    async def show_contact(self, request: Request) -> Response:
        browser, activation = await self._room.under_way(request)
        step = await self._room.activations.due(activation)
        if step not in {"contact", "account"} or activation.proved_contacts:
            return redirect(STEPS[step])
        return self._contact_page(browser, activation)

    async def choose_contact(self, request: Request) -> Response:
        browser, activation, form = await self._room.posted(request, CONTACT)
        if await self._room.activations.due(activation) not in {"contact", "account"}:
            return redirect(PROOF)
        mail, how = form.get("mail", "").strip(), form.get("how", "")
        if how == "back":
            return redirect(CONTACT)
        if not mail and how != "without":
            return self._contact_page(browser, activation, asks=True)
        try:
            await choose_contact(
                self._room.activations, activation, None if how == "without" else mail
            )
        except InvalidContact as error:
            return self._contact_page(browser, activation, mail=mail, problem=str(error))
        return redirect(ACCOUNT)

    def _contact_page(
        self,
        browser: Browser,
        activation: Activation,
        *,
        mail: str | None = None,
        problem: str = "",
        asks: bool = False,
    ) -> Response:
        return page(
            "activate_contact.html",
            status=403 if problem else 200,
            problem=problem,
            asks=asks,
            mail=activation.contact if mail is None else mail,
            form_token=self._room.cookies.form_token(browser, CONTACT, activation.key),
        )
