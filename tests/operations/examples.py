"""Parameters with which each operation can be called; one that needs none is not here."""

from __future__ import annotations

from tests.builders import Json

A_TIME: Json = {
    "resourceType": "Appointment",
    "status": "proposed",
    "slot": [{"reference": "Slot/nine"}],
    "participant": [{"actor": {"reference": "Patient/ada"}, "status": "accepted"}],
}

_LABELLED: Json = {"name": "resource", "valueReference": {"reference": "Observation/one"}}
_BECAUSE: Json = {"name": "reason", "valueString": "to be talked about first"}

EXAMPLES: dict[str, list[Json]] = {
    "account-disable": [{"name": "reason", "valueCode": "owner-request"}],
    "account-enable": [{"name": "reason", "valueCode": "resolved"}],
    "require-credential-renewal": [{"name": "reason", "valueCode": "staff-request"}],
    "end-session": [{"name": "all", "valueBoolean": True}],
    "start-recovery": [{"name": "basis", "valueCode": "photo-id"}],
    "approve-recovery": [{"name": "recovery", "valueString": "recovery"}],
    "health-cards-issue": [{"name": "credentialType", "valueUri": "Immunization"}],
    "revoke-app": [{"name": "app", "valueString": "connection"}],
    "portal-invite": [{"name": "kind", "valueCode": "self"}],
    "cancel-recovery": [{"name": "recovery", "valueString": "recovery"}],
    "confirm-proxy": [{"name": "number", "valueString": "000 000"}],
    "invite-revoke": [{"name": "reason", "valueString": "the wrong person"}],
    "pay": [{"name": "idempotency-key", "valueString": "payment-1"}],
    "dispute": [{"name": "reason", "valueString": "I was not there on that day."}],
    "answer-dispute": [{"name": "status", "valueCode": "in-review"}],
    "payment-plan": [{"name": "parts", "valuePositiveInt": 3}],
    "docref": [{"name": "patient", "valueId": "ada"}],
    "send": [
        {"name": "patient", "valueReference": {"reference": "Patient/ada"}},
        {"name": "subject", "valueString": "A rash"},
        {"name": "identifier", "valueIdentifier": {"system": "urn:app", "value": "1"}},
        {"name": "text", "valueString": "It itches."},
    ],
    "reply": [
        {"name": "identifier", "valueIdentifier": {"system": "urn:app", "value": "2"}},
        {"name": "text", "valueString": "It still itches."},
    ],
    "discard-draft": [{"name": "draft", "valueId": "begun"}],
    "attachment": [{"name": "number", "valueInteger": 1}],
    "file-attachment": [{"name": "number", "valuePositiveInt": 1}],
    "answer-refill": [{"name": "status", "valueCode": "approved"}],
    "request-form": [{"name": "questionnaire", "valueCanonical": "https://forms.example/x"}],
    "cancel-form": [{"name": "reason", "valueString": "no longer needed"}],
    "populate": [{"name": "subject", "valueReference": {"reference": "Patient/ada"}}],
    "next-question": [
        {
            "name": "questionnaire-response",
            "resource": {
                "resourceType": "QuestionnaireResponse",
                "questionnaire": "https://forms.example/x",
                "status": "in-progress",
                "subject": {"reference": "Patient/ada"},
            },
        }
    ],
    "review-form": [{"name": "others", "valueCode": "refuse"}],
    "propose-update": [{"name": "clear", "valueCode": "telecom"}],
    "prove-contact": [{"name": "contact", "valueString": "ada@mail.example"}],
    "review-proposal": [{"name": "others", "valueCode": "refuse"}],
    "set-label-rules": [{"name": "change", "valueInteger": 0}],
    "labels": [_LABELLED],
    "label": [
        _LABELLED,
        _BECAUSE,
        {
            "name": "add",
            "valueCoding": {
                "system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality",
                "code": "R",
            },
        },
    ],
    "release": [_LABELLED, _BECAUSE],
    "hold-back": [_LABELLED, _BECAUSE, {"name": "exception", "valueCode": "preventing-harm"}],
    "match": [{"name": "resource", "resource": {"resourceType": "Patient", "gender": "male"}}],
    "hold": [{"name": "appointment-resource", "resource": A_TIME}],
    "book": [
        {"name": "appointment-reference", "valueReference": {"reference": "Appointment/held"}}
    ],
    "account-close": [{"name": "reason", "valueCode": "left-practice"}],
    "upload": [
        {"name": "identifier", "valueIdentifier": {"system": "urn:app", "value": "1"}},
        {
            "name": "attachment",
            "valueAttachment": {"contentType": "text/plain", "data": "bm90aGluZw=="},
        },
        {"name": "title", "valueString": "A letter"},
    ],
    "review-document": [{"name": "decision", "valueCode": "accept"}],
    "end-grant": [{"name": "reason", "valueString": "asked for by the patient"}],
    "transmit": [
        {"name": "channel", "valueCode": "link"},
        {"name": "to", "valueString": "dr@clinic.example"},
    ],
    "end-share": [{"name": "id", "valueString": "link"}],
}
