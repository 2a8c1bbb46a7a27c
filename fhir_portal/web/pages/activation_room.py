"""What all pages of activation share, and what any of their steps may come to."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.accounts.account import UnknownAccount
from fhir_portal.accounts.activation import Activation, ActivationOver
from fhir_portal.accounts.front_door import FrontDoor
from fhir_portal.accounts.invitation import NotUsable
from fhir_portal.accounts.throttle import TooManyAttempts
from fhir_portal.operations.activation.activations import Activations
from fhir_portal.operations.four_eyes import InvitedThemselves
from fhir_portal.operations.redeem import AlreadyTaken, ClosedHere
from fhir_portal.smart.errors import TooManyRequests
from fhir_portal.web.form import once_each
from fhir_portal.web.pages.browser import FORM_TOKEN, Browser, Cookies, posted
from fhir_portal.web.pages.refusals import Handler, refusing
from fhir_portal.web.pages.render import page, redirect
from fhir_portal.web.pages.signin import wait_words

ACTIVATE: Final = "/activate"
PROOF: Final = f"{ACTIVATE}/proof"
CONTACT: Final = f"{ACTIVATE}/contact"
ACCOUNT: Final = f"{ACTIVATE}/account"
STEPS: Final = {"code": PROOF, "proof": PROOF, "contact": CONTACT, "account": ACCOUNT}

NOT_MATCHED: Final = (
    "Something does not match, or can no longer be used. Look at each field once more. After five "
    "tries nothing helps but a new invitation: then ask your practice."
)
_OVER: Final = (
    "What you began here is over: thirty minutes went by, or it was used already. Begin again with "
    "your invitation. If you made an account, sign in with it."
)
_HAS_ACCOUNT: Final = (
    "Somebody has this access already. If it is you, sign in with that account. If not, ask your "
    "practice."
)
_CLOSED_HERE: Final = (
    "Another practice helped you back into this account, so this practice has to prove again who "
    "you are before it adds anything. Ask it for a new invitation to what you had before."
)
_OWN_INVITATION: Final = (
    "You work at this practice and made this invitation yourself, or you seem to be who made it. "
    "Somebody else on its staff has to invite you."
)
LONGEST_SHOWN: Final = 200


class ActivationRoom:
    """What all pages of activation do: what is under way, what is posted, how they go on."""

    def __init__(self, activations: Activations, door: FrontDoor, cookies: Cookies) -> None:
        self.activations = activations
        self.door = door
        self.cookies = cookies

    async def current(self, browser: Browser) -> Activation | None:
        """Return what is under way in a browser."""
        return await self.activations.current(browser.visitor.browser)

    async def under_way(self, request: Request) -> tuple[Browser, Activation]:
        """Return what is under way in this browser. Raises `ActivationOver` for nothing."""
        browser = await self.cookies.browser(request)
        activation = await self.current(browser)
        if activation is None:
            raise ActivationOver
        return browser, activation

    async def posted(
        self, request: Request, action: str
    ) -> tuple[Browser, Activation, dict[str, str]]:
        """Read a form of the activation that is under way. Raises `ActivationOver` for none."""
        form = once_each(await posted(request))
        browser, activation = await self.under_way(request)
        token = form.get(FORM_TOKEN, "")
        self.cookies.check_form(request, browser, action, activation.key, token)
        return browser, activation, form

    def fresh(self, browser: Browser) -> Browser:
        """Draft a session under a new cookie for what is about to be proved.

        The one before may have been planted by whoever waits for the proof (OWASP ASVS 5.0, 7.2.4).
        A session somebody is signed in to stays: it had a new cookie then.
        """
        if browser.visitor.account is not None:
            return browser
        drafted = self.door.sessions.drafted()
        return Browser(drafted.cookie, drafted.visitor, is_new=True, is_stored=False)

    async def on(self, browser: Browser) -> Response:
        """Go on to the next step, with a browser that began."""
        return self.cookies.keep(redirect(PROOF), await self.cookies.store(browser))


def activation_page(handler: Handler) -> Handler:
    """A page of activation, which answers by itself what any step may come to."""
    return refusing(_ending(handler), back=ACTIVATE, signed_out=ACCOUNT)


def _ending(handler: Handler) -> Handler:
    """Answer what any step may come to: it is over, somebody was faster, too many tries."""

    @functools.wraps(handler)
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except (ActivationOver, NotUsable, UnknownAccount):
            return page("activate_ended.html", status=403, message=_OVER)
        except AlreadyTaken:
            return page("activate_ended.html", status=403, message=_HAS_ACCOUNT)
        except ClosedHere:
            return page("activate_ended.html", status=403, message=_CLOSED_HERE)
        except InvitedThemselves:
            return page("activate_ended.html", status=403, message=_OWN_INVITATION)
        except TooManyAttempts as error:
            raise TooManyRequests(
                wait_words(error), headers={"Retry-After": str(error.retry_after)}
            ) from None

    return answer


class _Values(dict[str, str]):
    """What a form shows again; what was not typed is empty."""

    def __missing__(self, key: str) -> str:
        return ""


def shown_again(typed: Mapping[str, Any]) -> _Values:
    """What was typed, for a form that shows it again."""
    return _Values({name: str(text)[:LONGEST_SHOWN] for name, text in typed.items()})
