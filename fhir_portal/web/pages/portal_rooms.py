"""The portal's pages put together as routes: one room, and what stands in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter

from fhir_portal.accounts.sessions import Sessions
from fhir_portal.consent.record import RecordDirectory
from fhir_portal.notify.connection import OutboxConnectionNotices
from fhir_portal.portal import Portal
from fhir_portal.smart.connections import Connections
from fhir_portal.smart.portal_pages import PortalSessions
from fhir_portal.smart.server import AuthorizationServer
from fhir_portal.web.downloads import Downloads
from fhir_portal.web.pages.browser import Cookies
from fhir_portal.web.pages.portal import PatientRoom, portal_page_scope
from fhir_portal.web.pages.portal_activity import ActivityPages
from fhir_portal.web.pages.portal_appointments import AppointmentPages
from fhir_portal.web.pages.portal_bills import BillPages
from fhir_portal.web.pages.portal_details import DetailPages
from fhir_portal.web.pages.portal_documents import PortalDocumentPages
from fhir_portal.web.pages.portal_export import ExportPages
from fhir_portal.web.pages.portal_forms import PatientFormPages
from fhir_portal.web.pages.portal_health import HealthPages
from fhir_portal.web.pages.portal_health_card import HealthCardPages
from fhir_portal.web.pages.portal_home import StartPage
from fhir_portal.web.pages.portal_insurance import InsurancePages
from fhir_portal.web.pages.portal_messages import PortalMessagePages
from fhir_portal.web.pages.portal_not_taken import NotTakenPages
from fhir_portal.web.pages.portal_proposals import ProposalList
from fhir_portal.web.pages.portal_results import ResultPages
from fhir_portal.web.pages.portal_sending import SendingPages
from fhir_portal.web.pages.portal_sharing import SharingPages
from fhir_portal.web.pages.portal_timeline import TimelinePages
from fhir_portal.web.pages.portal_upload import PortalUploadPages
from fhir_portal.web.pages.portal_visits import VisitPages
from fhir_portal.web.pages.shown_once import ShownOnce


def portal_router(
    *,
    portal: Portal,
    server: AuthorizationServer,
    sessions: Sessions,
    directory: RecordDirectory,
    store: Any,
    clock: Callable[[], float],
    random: Callable[[int], bytes],
    downloads: Downloads | None = None,
) -> APIRouter:
    """The pages as routes for FastAPI. ``store`` keeps records and resources."""
    cookies = Cookies(server.issuer, server.keys, sessions)
    opened = PortalSessions(
        store,
        directory=directory,
        issuer=server.issuer,
        scope=portal_page_scope(),
        clock=clock,
        random=random,
    )
    room = PatientRoom(portal, cookies, opened, directory, store, clock, random, downloads)
    router = APIRouter(include_in_schema=False)
    once = ShownOnce(store, server.keys, clock=clock, random=random)
    proposals = ProposalList(room)
    connections = Connections(
        store,
        directory=directory,
        keys=server.keys,
        notices=OutboxConnectionNotices(),
        lifetimes=server.lifetimes,
        clock=clock,
        random=random,
    )
    rooms = (
        *(room, StartPage(room, connections)),
        *(AppointmentPages(room), PortalMessagePages(room), PatientFormPages(room)),
        *(ResultPages(room), HealthPages(room), BillPages(room), ExportPages(room)),
        *(PortalDocumentPages(room), PortalUploadPages(room), VisitPages(room)),
        *(proposals, DetailPages(room, proposals), InsurancePages(room, proposals)),
        *(NotTakenPages(room, proposals), ActivityPages(room), SharingPages(room, once)),
        *(SendingPages(room, once), TimelinePages(room), HealthCardPages(room)),
    )
    for routes in (one.routes() for one in rooms):
        for path, method, handler in routes:
            router.add_route(path, handler, methods=[method])
    return router
