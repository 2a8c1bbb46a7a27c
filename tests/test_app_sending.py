"""The application sends what `$transmit` asked for, and tells how it went."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from fhir_portal.accounts.matter import StaffMatter
from fhir_portal.app import Application
from fhir_portal.fhir.interaction import FhirRequest
from fhir_portal.notify.folder import messages_in
from fhir_portal.operations.transmit import WARNING_VERSION
from fhir_portal.settings import load
from fhir_portal.smart.portal_pages import CLIENT
from tests.builders import (
    DERM,
    Caller,
    a_document,
    a_patient,
    a_person,
    a_practice,
    an_account,
    an_ehr,
    keep,
    oneself,
)
from tests.notify.receiver import receiving
from tests.operations.sharing import parts, signed_in

pytestmark = pytest.mark.requirement("portal", "S0-44", "S0-45")

FAR: Any = {"expires": time.time() + 1e6}


async def ready(application: Application) -> Caller:
    """Ada, with a document, as on the portal's pages."""
    store, portal = application.store, application.portal
    await keep(store, a_practice(), an_account("ada", f"{DERM}/Person/ada"))
    ehr = Caller(portal, replace(an_ehr(), **FAR))
    await ehr.store(a_patient("ada"), a_person("ada", links=["Patient/ada"]), a_document("letter"))
    auth = replace(oneself(scope="patient/*.cruds"), account="ada", client=CLIENT, **FAR)
    return await signed_in(portal, auth, family="", **FAR)


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[tuple[Application, Path]]:
    application = Application(load(data=tmp_path / "portal.db"), background=False)
    await application.open()
    yield application, tmp_path / "outbox"
    await application.close()


async def send(caller: Caller, way: str, **more: str) -> Any:
    given = {"channel": ("valueCode", way), "to": ("valueString", "dr@clinic.example")}
    given |= {name: ("valueCode", value) for name, value in more.items()}
    listed = [{"name": name, kind: value} for name, (kind, value) in given.items()]
    body = json.dumps({"resourceType": "Parameters", "parameter": listed}).encode()
    answer = await caller.perform(
        FhirRequest("operation", "DocumentReference", "letter", operation="transmit", body=body)
    )
    assert answer.status == 200, answer.body
    return answer


async def statuses(caller: Caller) -> list[str]:
    answer = await caller.get("Patient/ada/$transmissions")
    return [one["status"] for one in parts(answer, "transmission")]


async def test_a_mailed_link_opens_with_the_passcode(folder: tuple[Application, Path]) -> None:
    application, outbox = folder
    ada = await ready(application)
    answer = await send(ada, "link")
    passcode = next(
        one["valueString"] for one in answer.json["parameter"] if one["name"] == "passcode"
    )
    assert await application.work_once() == 1
    (message,) = messages_in(outbox, limit=10)
    assert message["to"] == "mail:dr@clinic.example"
    assert passcode not in json.dumps(message)
    path = urlsplit(message["link"]).path
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(application), base_url="http://127.0.0.1:8000"
    ) as http:
        form = {"name": "Dr. Abel", "passcode": passcode}
        assert "/shared/files/" in (await http.post(path, data=form)).text
        body = {"recipient": "Dr. Abel", "passcode": passcode}
        found = await http.post(f"{path}/manifest", json=body)
        assert len(found.json()["files"]) == 1
    assert await statuses(ada) == ["completed"]


async def test_what_never_arrives_is_told_to_the_sender_and_no_matter_for_staff(
    tmp_path: Path,
) -> None:
    with receiving() as receiver:
        receiver.to_recipient = "550 5.1.1 nobody here"
        settings = load(
            data=tmp_path / "portal.db", smtp_host="127.0.0.1", smtp_port=receiver.port,
            smtp_tls="none", smtp_from="portal@hill.example",
        )  # fmt: skip
        application = Application(settings, background=False)
        await application.open()
        try:
            ada = await ready(application)
            await send(ada, "email", warning=WARNING_VERSION)
            assert await application.work_once() == 0
            assert await statuses(ada) == ["failed"]
            assert await application.store.every(StaffMatter) == []
        finally:
            await application.close()


async def test_direct_messages_go_through_their_own_relay(tmp_path: Path) -> None:
    with receiving() as receiver:
        settings = load(
            data=tmp_path / "portal.db", direct_host="127.0.0.1", direct_port=receiver.port,
            direct_tls="none", direct_from="portal@direct.hill.example",
        )  # fmt: skip
        application = Application(settings, background=False)
        await application.open()
        try:
            ada = await ready(application)
            await send(ada, "direct")
            assert await application.work_once() == 1
            (taken,) = receiver.taken
            assert taken.sender == "portal@direct.hill.example"
            (file,) = taken.mail.iter_attachments()
            assert file.get_payload(decode=True) == b"nothing"
            assert await statuses(ada) == ["completed"]
            assert messages_in(tmp_path / "outbox", limit=10) == []
        finally:
            await application.close()
