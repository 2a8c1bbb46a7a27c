"""``/activate`` and ``/register``: how somebody who has no account here gets one, or adds a record.

Every way is a form, works without JavaScript, and refuses in the same words and with the same
status whatever was wrong. Opening a link changes nothing, however often a scanner does. What was
typed is kept on the server for thirty minutes, never a password, and the browser may be closed.
"""

from __future__ import annotations

from fastapi import APIRouter

from fhir_portal.accounts.credentials import SignIn
from fhir_portal.accounts.practice_list import PracticeList
from fhir_portal.accounts.sessions import Sessions
from fhir_portal.operations.activation.activations import Activations
from fhir_portal.portal import Portal
from fhir_portal.smart.server import AuthorizationServer
from fhir_portal.web.pages.activation_account import NewAccountPages
from fhir_portal.web.pages.activation_link import LinkPages
from fhir_portal.web.pages.activation_proof import ProofPages
from fhir_portal.web.pages.activation_room import ActivationRoom
from fhir_portal.web.pages.activation_ways import WayPages
from fhir_portal.web.pages.browser import Cookies
from fhir_portal.web.pages.signin import front_door
from fhir_portal.web.pages.step_up import StepUp


def activation_router(
    *,
    portal: Portal,
    server: AuthorizationServer,
    sessions: Sessions,
    sign_in: SignIn,
    home: str,
) -> APIRouter:
    """The pages as routes for FastAPI; ``home`` is where a new account begins."""
    cookies = Cookies(server.issuer, server.keys, sessions)
    door = front_door(server, sessions, sign_in)
    listing = PracticeList(portal.server.store)
    activations = Activations(portal.server, portal.collaborators, door, listing)
    router = APIRouter(include_in_schema=False)
    room = ActivationRoom(activations, door, cookies)
    rooms = (
        *(WayPages(room), ProofPages(room), NewAccountPages(room, StepUp(door, cookies), home)),
        LinkPages(room),  # any other word in that place is a link
    )
    for routes in (one.routes() for one in rooms):
        for path, method, handler in routes:
            router.add_route(path, handler, methods=[method])
    return router
