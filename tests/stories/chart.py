"""What a practice's EHR writes before the stories begin: its directory, its forms, its patients."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from fhir_portal.fhir.definitions import ig_resource
from tests import builders as b
from tests.builders import DIRECTORY, START, Json, concept, reference, resource
from tests.operations.booking import CHECK, SERVICES

DAY: Final = 86_400
HOUR: Final = 3600
IG: Final = "https://fhir-portal.example/ig"
FORMS: Final = ("insurance", "medical-history", "pre-registration")
DOCTOR, DOCTOR_NAME = "Practitioner/lark", "Dr. Lark"
RXNORM: Final = "http://www.nlm.nih.gov/research/umls/rxnorm"
LOINC: Final = "http://loinc.org"
USD: Final = "USD"


def at(seconds: float) -> str:
    """An instant, in seconds from the beginning of the stories."""
    return datetime.fromtimestamp(START + seconds, UTC).isoformat().replace("+00:00", "Z")


def day(days: int) -> str:
    return at(days * DAY)[:10]


def directory(*staff: str) -> list[Json]:
    """Doctor, place, calendar with free times, staff, and the forms that the guide ships."""
    lark = reference(DOCTOR) | {"display": DOCTOR_NAME}
    return [
        b.a_practitioner("lark", meta=DIRECTORY),
        *(b.a_practitioner(one, family=one.title(), meta=DIRECTORY) for one in staff),
        resource(
            "Location",
            "elm",
            name="Elm House",
            address={"line": ["1 Elm Street"], "city": "Marrow"},
            meta=DIRECTORY,
        ),
        resource(
            "Schedule",
            "lark",
            serviceType=[concept(SERVICES, CHECK)],
            actor=[lark, reference("Location/elm")],
        ),
        *(
            resource(
                "Slot",
                f"slot-{number}",
                schedule=reference("Schedule/lark"),
                status="free",
                start=at(3 * DAY + number * HOUR),
                end=at(3 * DAY + number * HOUR + 1200),
            )
            for number in range(6)
        ),
        *(ig_resource("Questionnaire", one) for one in FORMS),
    ]


def a_patient(own_id: str, given: str, family: str, born: str, mail: str, phone: str) -> Json:
    return b.a_patient(
        own_id,
        name=[{"use": "official", "family": family, "given": [given]}],
        birthDate=born,
        gender="female",
        address=[{"use": "home", "line": ["3 Oak Lane"], "city": "Marrow", "postalCode": "60614"}],
        telecom=[
            {"system": "email", "value": mail},
            {"system": "phone", "use": "mobile", "value": phone},
        ],
        identifier=[{"system": "https://hillside.example/mrn", "value": f"MRN-{own_id}"}],
    )


def chart_of(own_id: str) -> list[Json]:
    """A visit with what came of it: findings, medicines, a note, and a bill that is not paid."""
    who = reference(f"Patient/{own_id}")
    return [
        b.an_encounter(
            f"{own_id}-visit",
            of=own_id,
            status="finished",
            period={"start": at(-20 * DAY), "end": at(-20 * DAY + HOUR)},
            participant=[{"individual": reference(DOCTOR)}],
        ),
        b.a_condition(f"{own_id}-eczema", of=own_id) | {"code": {"text": "Eczema"}},
        b.an_observation(f"{own_id}-iron", of=own_id, category="laboratory", code="2498-4"),
        resource(
            "DiagnosticReport",
            f"{own_id}-report",
            status="final",
            subject=who,
            code=concept(LOINC, "58410-2"),
            category=[concept("http://terminology.hl7.org/CodeSystem/v2-0074", "LAB")],
            issued=at(-10 * DAY),
            result=[reference(f"Observation/{own_id}-iron")],
        ),
        resource(
            "Immunization",
            f"{own_id}-shot",
            status="completed",
            vaccineCode=concept("http://hl7.org/fhir/sid/cvx", "207"),
            patient=who,
            occurrenceDateTime=day(-200),
        ),
        resource(
            "MedicationRequest",
            f"{own_id}-ointment",
            status="active",
            intent="order",
            medicationCodeableConcept={"text": "Ointment"},
            subject=who,
            requester=reference(DOCTOR),
            authoredOn=day(-100),
            dispenseRequest={"numberOfRepeatsAllowed": 3},
        ),
        b.a_binary(f"{own_id}-letter"),
        b.a_document(f"{own_id}-note", of=own_id)
        | {
            "content": [
                {
                    "attachment": {
                        "contentType": "application/pdf",
                        "url": f"Binary/{own_id}-letter",
                        "title": "Letter",
                    }
                }
            ],
            "context": {"encounter": [reference(f"Encounter/{own_id}-visit")]},
        },
        resource(
            "Coverage",
            f"{own_id}-plan",
            status="active",
            beneficiary=who,
            payor=[{"display": "Tarn Health"}],
            subscriberId=f"T-{own_id}",
        ),
        resource("Account", f"{own_id}-account", status="active", subject=[who]),
        a_bill(own_id, 80),
    ]


def a_bill(own_id: str, amount: int, **more: Any) -> Json:
    return resource(
        "Invoice",
        f"{own_id}-bill",
        status="issued",
        subject=reference(f"Patient/{own_id}"),
        account=reference(f"Account/{own_id}-account"),
        date=day(-15),
        totalGross={"value": amount, "currency": USD},
        **more,
    )
