"""Inviting through the whole application: a booking, a job, two messages, and the Task that knows.

What is sent is what was promised: the link one way, the code another, and nothing else anywhere.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fhir_portal.accounts.invitation import LIFETIME, Invitation, InvitationSecrets
from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.app import Application
from fhir_portal.notify.folder import messages_in
from fhir_portal.settings import load
from tests.builders import (
    DERM,
    START,
    Caller,
    Clock,
    a_patient,
    a_practice,
    an_appointment,
    an_ehr,
    changed,
    keep,
)

TELECOM = [
    {"system": "email", "value": "bo@mail.example"},
    {"system": "phone", "use": "mobile", "value": "+13125550142"},
]


@pytest.mark.requirement("portal", "S0-07", "S0-11", "S0-19")
async def test_a_booking_ends_in_two_messages_and_a_task_that_says_sent(tmp_path: Path) -> None:
    clock = Clock()
    settings = load(data=tmp_path / "portal.db")
    application = Application(settings, clock=clock, background=False)
    await application.open()
    try:
        store = application.store
        zone = a_practice(zone="America/Chicago")
        await keep(store, changed(zone, name="Elm Street"))
        await keep(store, PracticePolicy(key=DERM, invite_on_booking=True))
        ehr = Caller(application.portal, replace(an_ehr(), expires=START + 1e8))
        await ehr.store(a_patient("bo", telecom=TELECOM), an_appointment("visit", of=["bo"]))
        assert await application.work_once() == 2
        assert await application.work_once() == 0
        (invitation,) = await store.every(Invitation)
        own = InvitationSecrets(application.keys.derive("invitations")).of(invitation)
        by_way = {one["channel"]: one for one in messages_in(settings.outbox_folder, limit=9)}
        mail, sms = by_way["mail"], by_way["sms"]
        assert (mail["to"], mail["link"]) == (
            "bo@mail.example",
            f"{settings.base_url}/activate/{own.link}",
        )
        assert (sms["to"], sms["code"]) == ("+13125550142", own.code)
        assert own.code not in mail["text"]
        assert own.link not in sms["text"]
        for one in (mail, sms):
            assert "good until Wednesday, March 20, 2030, 12:46 PM (CDT)." in one["text"]
            assert "Quill" not in one["text"]
            assert "Ada" not in one["text"]
        task = (await ehr.get(f"Task/{invitation.task}")).json
        assert task["businessStatus"]["coding"][0]["code"] == "sent"
        logged = (await ehr.get("Communication?")).entries
        assert [one["status"] for one in logged] == ["completed", "completed"]
        for one in logged:
            assert one["recipient"] == [{"reference": "Patient/bo"}]
        clock.advance(LIFETIME)
        await application.work_once()
        task = (await ehr.get(f"Task/{invitation.task}")).json
        assert task["businessStatus"]["coding"][0]["code"] == "expired"
    finally:
        await application.close()


async def test_what_was_revoked_before_its_turn_is_not_sent(tmp_path: Path) -> None:
    clock = Clock()
    settings = load(data=tmp_path / "portal.db")
    application = Application(settings, clock=clock, background=False)
    await application.open()
    try:
        await keep(application.store, a_practice())
        ehr = Caller(application.portal, replace(an_ehr(), expires=START + 1e8))
        await ehr.store(a_patient("bo", telecom=TELECOM))
        given = {"resourceType": "Parameters", "parameter": [{"name": "kind", "valueCode": "self"}]}
        assert (await ehr.ask("POST", "Patient/bo/$portal-invite", given)).status == 201
        (invitation,) = await application.store.every(Invitation)
        why = {
            "resourceType": "Parameters",
            "parameter": [{"name": "reason", "valueString": "the wrong person"}],
        }
        revoked = await ehr.ask("POST", f"Task/{invitation.task}/$invite-revoke", why)
        assert revoked.status == 200
        assert await application.work_once() == 0
        assert messages_in(settings.outbox_folder, limit=9) == []
        logged = (await ehr.get("Communication?")).entries
        assert [one["status"] for one in logged] == ["not-done", "not-done"]
    finally:
        await application.close()
