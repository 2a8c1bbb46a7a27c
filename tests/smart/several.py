"""A person with several records, and an app that is shown them in one consent."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import msgspec

from fhir_portal.consent.record import RecordAccess
from fhir_portal.smart.exchange import TOKEN_EXCHANGE
from fhir_portal.smart.grants.token_exchange import ACCESS_TOKEN
from tests.smart.world import BASE, App, World, childs_record, own_record, query_of

TYPE = f"{BASE}/oauth/authorization-details/smart-record"
DETAILS = json.dumps([{"type": TYPE}])
SCOPE = "launch/patient openid fhirUser offline_access patient/Patient.rs patient/Observation.rs"
OWN, PIP, KIT = "Patient/mara", "Patient/pip", "Patient/kit"


def kits_record(**changes: Any) -> RecordAccess:
    """The second child's, at the practice that knows Mara herself."""
    second = dataclasses.replace(
        childs_record(),
        patient=KIT,
        practice="skin",
        patient_name="Kit Quill",
        fhir_user="RelatedPerson/mara-for-kit",
        grant="Consent/kit-to-mara",
    )
    return dataclasses.replace(second, **changes)


async def a_family(world: World) -> None:
    """Mara's own record, and those of her two children."""
    await give(world, own_record(), childs_record(), kits_record())


async def give(world: World, *records: RecordAccess) -> None:
    world.directory.access[world.mara.key] = records


async def known_at(world: World, *persons: str) -> None:
    """Let practices know the account's owner as these."""
    world.mara = msgspec.structs.replace(world.mara, persons=persons)

    async def put(transaction: Any) -> None:
        await transaction.put(world.mara)

    await world.store.transact(put)


async def consent(
    app: App,
    values: Sequence[str] = (OWN, PIP, KIT),
    *,
    ticked: Sequence[str] | None = None,
    **changes: str | None,
) -> str:
    """Have Mara choose these records and allow everything, or what is ticked; the code."""
    world = app.world
    parameters = app.parameters(**{"scope": SCOPE, "authorization_details": DETAILS, **changes})
    handle = await world.server.begin(list(parameters.items()))
    opened = await world.sessions.open()
    opened = await world.sessions.sign_in(opened.visitor.session, world.mara)
    request = await world.server.resume(handle, opened.visitor.browser)
    await world.server.choose_records(request, opened.visitor, values)
    request = await world.server.resume(handle, opened.visitor.browser)
    step: Any = await world.server.step(request, opened.visitor)
    if ticked is None:
        ticked = [str(one.scope) for one in step.offer.scopes]
        ticked += ["offline_access"] if step.offer.offline else []
    location = await world.server.decide(
        request, opened.visitor, approve=True, about=step.about, ticked=ticked
    )
    return query_of(location)["code"]


async def listed(app: App, values: Sequence[str] = (OWN, PIP, KIT), **options: Any) -> Any:
    """The token response of a consent for several records."""
    headers = options.pop("headers", None)
    response = await app.exchange(await consent(app, values, **options), headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


async def swap(
    app: App,
    access_token: str,
    identifier: str = PIP,
    *,
    headers: Mapping[str, str] | None = None,
    **changes: str | None,
) -> httpx.Response:
    """Exchange the token that lists the records for the token of one."""
    form = {
        "grant_type": TOKEN_EXCHANGE,
        "subject_token": access_token,
        "subject_token_type": ACCESS_TOKEN,
        "authorization_details": json.dumps([{"type": TYPE, "identifier": identifier}]),
        **changes,
    }
    return await app.post("/oauth/token", form, headers=headers)


def of(body: Mapping[str, Any], identifier: str) -> dict[str, Any]:
    """What a response tells of one record."""
    (found,) = [one for one in body["authorization_details"] if one["identifier"] == identifier]
    return dict(found)
