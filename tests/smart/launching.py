"""A practice's staff and its EHR, which opens apps on the records of its patients."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx

from fhir_portal.access.context import GRANT_WRITING, LABEL, AuthContext
from fhir_portal.accounts.account import Account
from fhir_portal.consent.record import StaffAccess
from fhir_portal.fhir.interaction import FhirRequest
from fhir_portal.smart.scope import ScopeSet
from tests.smart.world import App, Browser, World, query_of

USER_SCOPE = (
    "launch openid fhirUser offline_access user/Patient.rs user/Observation.rs user/Encounter.rs"
)
PATIENT_SCOPE = "launch openid fhirUser offline_access patient/Patient.rs"
ROWAN = "rowan@example.org"
MARA, KIT = "Patient/mara", "Patient/kit"
AT_SKIN = StaffAccess("skin", "Hillside Dermatology", "Practitioner/rowan", "Rowan Vale")
AT_FAMILY = StaffAccess("family", "Brook Family Medicine", "Practitioner/rv", "Rowan Vale")
STYLE = "https://ehr.example/style.json"
NOT_KNOWN = "is not known here"


@dataclass
class Practice:
    """Two practices with patients and EHRs, one member of staff, one app for staff."""

    world: World
    rowan: Account
    ehr: App
    app: App

    @property
    def posts(self) -> dict[str, tuple[StaffAccess, ...]]:
        """On whose staff an account is; tests change it."""
        return self.world.directory.staff

    @classmethod
    async def begin(cls) -> Practice:
        world = await World.begin()
        world.directory.patients[f"skin/{KIT}"] = "Kit Quill"
        await put(
            world,
            "skin",
            {"resourceType": "Patient", "id": "mara", "name": [{"text": "Mara Quill"}]},
            {"resourceType": "Patient", "id": "kit", "name": [{"text": "Kit Quill"}]},
            {"resourceType": "Practitioner", "id": "rowan", "name": [{"text": "Rowan Vale"}]},
            visit("visit-1", "2030-03-01", "Skin check"),
            visit("kits-visit", "2030-03-02", "First visit", patient=KIT),
            an_order("order-1"),
            an_order("kits-order", patient=KIT),
        )
        await put(
            world,
            "family",
            {"resourceType": "Patient", "id": "elsewhere", "name": [{"text": "Iris Fell"}]},
            visit("elsewhere-visit", "2030-03-03", "Check", patient="Patient/elsewhere"),
        )
        rowan = await world.account(ROWAN)
        world.directory.staff[rowan.key] = (AT_SKIN,)
        ehr = await world.backend("ehr", scope="system/*.cruds", permissions=["launch"])
        app = await staff_app(world)
        return cls(world, rowan, ehr, app)

    async def post(
        self, body: Any = None, *, ehr: App | None = None, token: str | None = None, **changes: Any
    ) -> httpx.Response:
        """Have an EHR make a launch; a change to ``None`` leaves a member out."""
        if token is None:
            answered = (await (ehr or self.ehr).backend_token()).json()
            token = answered["access_token"]
        if body is None:
            full = {"patient": MARA, "encounter": "Encounter/visit-1", **changes}
            body = {name: value for name, value in full.items() if value is not None}
        async with self.world.http() as http:
            return await http.post(
                "/oauth/launch",
                content=body if isinstance(body, str) else json.dumps(body),
                headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            )

    async def launch(self, **changes: Any) -> str:
        response = await self.post(**changes)
        assert response.status_code == 201, response.text
        return str(response.json()["launch"])

    async def opened(
        self, launch: str | None, *, app: App | None = None, **changes: str | None
    ) -> Browser:
        """Open the app in Rowan's browser and sign in; the browser is on the page after that."""
        browser = self.world.browser()
        app = app or self.app
        await browser.authorize(app, **{"launch": launch, "scope": USER_SCOPE, **changes})
        if not browser.page.is_redirect:
            await browser.sign_in(ROWAN)
        return browser

    async def code(self, launch: str | None, **changes: Any) -> str:
        browser = await self.opened(launch, **changes)
        if browser.page.is_redirect:  # it was allowed before
            return query_of(browser.page.headers["location"])["code"]
        return await approved(browser)

    async def tokens(self, launch: str | None, **changes: Any) -> dict[str, Any]:
        app = changes.get("app") or self.app
        response = await app.exchange(await self.code(launch, **changes))
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found


async def approved(browser: Browser, *, drop: tuple[str, ...] = (), **fields: Any) -> str:
    """Approve everything on the consent page but what is dropped; the code."""
    assert browser.heading.startswith("Allow"), browser.text
    ticked = [box for box in browser.boxes() if "?" not in box and box not in drop]
    response = await browser.submit({"decision": "approve", "scope": ticked, **fields})
    return query_of(response.headers["location"])["code"]


async def staff_app(world: World, client_id: str = "chart", **changes: Any) -> App:
    return await world.confidential_app(
        client_id,
        **{
            "scope": "launch launch/patient launch/encounter openid fhirUser offline_access "
            "user/*.cruds",
            "approved_at": ["skin", "family"],
            **changes,
        },
    )


async def patient_app(world: World, client_id: str = "diary", **changes: Any) -> App:
    return await world.confidential_app(
        client_id,
        **{
            "scope": "launch launch/patient launch/encounter openid fhirUser offline_access "
            "patient/*.cruds",
            "approved_at": ["skin"],
            **changes,
        },
    )


def visit(own_id: str, day: str, what: str, *, patient: str = MARA) -> dict[str, Any]:
    return {
        "resourceType": "Encounter",
        "id": own_id,
        "status": "finished",
        "class": {"code": "AMB"},
        "type": [{"text": what}],
        "subject": {"reference": patient},
        "period": {"start": f"{day}T09:00:00Z", "end": f"{day}T09:30:00Z"},
    }


def an_order(own_id: str, *, patient: str = MARA) -> dict[str, Any]:
    return {
        "resourceType": "ServiceRequest",
        "id": own_id,
        "status": "active",
        "intent": "order",
        "subject": {"reference": patient},
    }


async def put(world: World, practice: str, *resources: dict[str, Any]) -> None:
    """Store resources as the practice's own."""
    auth = AuthContext(
        client="import",
        context="system",
        scopes=ScopeSet.parse("system/*.cruds"),
        practice=practice,
        expires=float("inf"),
        token="",
        permissions=frozenset({LABEL, GRANT_WRITING}),
    )
    for one in resources:
        request = FhirRequest(
            "update", one["resourceType"], one["id"], body=json.dumps(one).encode()
        )
        await world.portal.perform(request, auth)


def authorize_url(app: App, **changes: str | None) -> str:
    return "/oauth/authorize?" + urlencode(app.parameters(**changes))
