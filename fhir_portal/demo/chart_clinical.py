"""The clinical part of a chart."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fhir_portal.consent.labels import PORTAL_TAG, WITHHELD
from fhir_portal.demo import codes
from fhir_portal.demo.chart_sheet import Sheet, coded, reference, stray
from fhir_portal.demo.codes import Code, Json, Test, coding, concept

_INTERPRETATION: Final = f"{codes.TERMINOLOGY}/v3-ObservationInterpretation"
_CLINICAL: Final = f"{codes.TERMINOLOGY}/condition-clinical"
_VERIFIED: Final = f"{codes.TERMINOLOGY}/condition-ver-status"


@dataclass(slots=True)
class ClinicalSheet(Sheet):
    """What is found, measured, prescribed and written about patients."""

    def visit(
        self,
        own_id: str,
        patient: str,
        days: int,
        kind: Code,
        reason: Code,
        who: str,
        note: str,
        *,
        hour: int = 9,
        security: Sequence[Code] = (),
        appointment: str | None = None,
    ) -> str:
        """A visit with its note, and where the note came from; labels are the Encounter's alone."""
        encounter = self.add(
            "Encounter",
            own_id,
            meta=_labels(security),
            status="finished",
            class_=coding(codes.AMBULATORY),
            type=[concept(kind)],
            subject=reference(patient),
            participant=[{"individual": reference(who)}],
            period={"start": self.at(days, hour), "end": self.at(days, hour, 25)},
            reasonCode=[concept(reason)],
            location=[{"location": reference(f"Location/{self.practice}")}],
            serviceProvider=reference(f"Organization/{self.practice}", self.name),
            appointment=[reference(appointment)] if appointment else None,
        )
        self.document(
            f"{own_id}-note",
            patient,
            days,
            codes.PROGRESS_NOTE,
            f"Visit note: {reason.display}",
            note,
            who,
            encounter=encounter,
        )
        return encounter

    def document(
        self,
        own_id: str,
        patient: str,
        days: int,
        kind: Code,
        title: str,
        text: str,
        who: str,
        *,
        encounter: str | None = None,
    ) -> str:
        """A document, its content and its Provenance. Notes about a visit name the visit."""
        data = f"{title}\n{self.name}, {self.on(days)}\n\n{text}\n".encode()
        binary = self.add(
            "Binary",
            own_id,
            contentType="text/plain; charset=utf-8",
            data=base64.b64encode(data).decode(),
        )
        document = self.add(
            "DocumentReference",
            own_id,
            status="current",
            docStatus="final",
            type=concept(kind),
            category=[concept(codes.CLINICAL_NOTE)] if encounter else None,
            subject=reference(patient),
            date=self.at(days, 12),
            author=[reference(who)],
            custodian=reference(f"Organization/{self.practice}", self.name),
            description=title,
            content=[
                {
                    "attachment": {
                        "contentType": "text/plain; charset=utf-8",
                        "language": "en",
                        "url": binary,
                        "size": len(data),
                        "title": title,
                        "creation": self.at(days, 12),
                    }
                }
            ],
            context={"encounter": [reference(encounter)]} if encounter else None,
        )
        self.add(
            "Provenance",
            own_id,
            target=[reference(document)],
            recorded=self.at(days, 12, 1),
            activity=concept(Code(f"{codes.TERMINOLOGY}/v3-DataOperation", "CREATE", "create")),
            agent=[
                {
                    "type": concept(
                        Code(f"{codes.TERMINOLOGY}/provenance-participant-type", "author", "Author")
                    ),
                    "who": reference(who),
                    "onBehalfOf": reference(f"Organization/{self.practice}", self.name),
                }
            ],
        )
        return document

    def measured(
        self,
        own_id: str,
        patient: str,
        test: Test,
        days: int,
        category: Code,
        *,
        encounter: str | None = None,
        performer: str | None = None,
        value: float | None = None,
        withheld: bool = False,
    ) -> str:
        """One measured value; without ``value`` one near the usual."""
        number = test.usual + test.spread * stray(own_id) if value is None else value
        return self.add(
            "Observation",
            own_id,
            meta={"tag": [{"system": PORTAL_TAG, "code": WITHHELD}]} if withheld else None,
            status="final",
            category=[concept(category)],
            code=concept(Code(codes.LOINC, test.code, test.name)),
            subject=reference(patient),
            encounter=reference(encounter) if encounter else None,
            effectiveDateTime=self.at(days, 8 if category is codes.LABORATORY else 9, 10),
            issued=self.at(days, 16 if category is codes.LABORATORY else 9, 20),
            performer=[reference(performer)] if performer else None,
            **_value(test, number),
        )

    def vitals(
        self,
        own_id: str,
        patient: str,
        days: int,
        encounter: str,
        who: str,
        tests: Sequence[Test] = codes.VITALS,
        pressures: Sequence[Test] = codes.PRESSURES,
    ) -> list[str]:
        """What is measured at each visit: heart and breath, temperature, weight, blood pressure."""
        found = [
            self.measured(
                f"{own_id}-{test.code}",
                patient,
                test,
                days,
                codes.VITAL_SIGNS,
                encounter=encounter,
                performer=who,
            )
            for test in tests
        ]
        components = []
        for test in pressures:
            number = test.usual + test.spread * stray(f"{own_id}-{test.code}")
            component = _value(test, number)
            component.pop("referenceRange", None)
            components.append(
                {"code": concept(Code(codes.LOINC, test.code, test.name)), **component}
            )
        pressure = self.add(
            "Observation",
            f"{own_id}-85354-9",
            status="final",
            category=[concept(codes.VITAL_SIGNS)],
            code=concept(codes.BLOOD_PRESSURE, text="Blood pressure"),
            subject=reference(patient),
            encounter=reference(encounter),
            effectiveDateTime=self.at(days, 9, 10),
            issued=self.at(days, 9, 20),
            performer=[reference(who)],
            component=components,
        )
        return [*found, pressure]

    def report(
        self,
        own_id: str,
        patient: str,
        panel: Code,
        tests: Sequence[Test],
        days: int,
        laboratory: str,
    ) -> str:
        """A laboratory report and its results."""
        results = [
            self.measured(
                f"{own_id}-{test.code}",
                patient,
                test,
                days,
                codes.LABORATORY,
                performer=laboratory,
            )
            for test in tests
        ]
        return self.add(
            "DiagnosticReport",
            own_id,
            status="final",
            category=[concept(codes.LAB_REPORT)],
            code=concept(panel),
            subject=reference(patient),
            effectiveDateTime=self.at(days, 8, 10),
            issued=self.at(days, 16),
            performer=[reference(laboratory)],
            result=[reference(result) for result in results],
        )

    def answered(
        self, own_id: str, patient: str, question: Code, category: Code, days: int, answer: Json
    ) -> str:
        """An answer of the patient that is kept as an Observation."""
        return self.add(
            "Observation",
            own_id,
            status="final",
            category=[concept(category)],
            code=concept(question),
            subject=reference(patient),
            effectiveDateTime=self.at(days, 9, 5),
            performer=[reference(patient)],
            **answer,
        )

    def condition(
        self,
        own_id: str,
        patient: str,
        problem: Sequence[Code],
        since: int,
        *,
        ended: int | None = None,
        encounter: str | None = None,
    ) -> str:
        """A health problem, active or over."""
        state = "active" if ended is None else "resolved"
        return self.add(
            "Condition",
            own_id,
            clinicalStatus=coded(_CLINICAL, state),
            verificationStatus=coded(_VERIFIED, "confirmed"),
            category=[
                concept(
                    Code(
                        f"{codes.TERMINOLOGY}/condition-category",
                        "problem-list-item",
                        "Problem List Item",
                    )
                )
            ],
            code=concept(*problem),
            subject=reference(patient),
            encounter=reference(encounter) if encounter else None,
            onsetDateTime=self.on(since),
            abatementDateTime=self.on(ended) if ended is not None else None,
            recordedDate=self.on(since),
        )

    def allergy(self, own_id: str, patient: str, substance: Code, reaction: str, days: int) -> str:
        """An allergy."""
        system = f"{codes.TERMINOLOGY}/allergyintolerance"
        return self.add(
            "AllergyIntolerance",
            own_id,
            clinicalStatus=coded(f"{system}-clinical", "active"),
            verificationStatus=coded(f"{system}-verification", "confirmed"),
            type="allergy",
            code=concept(substance),
            patient=reference(patient),
            recordedDate=self.on(days),
            reaction=[{"manifestation": [{"text": reaction}], "severity": "moderate"}],
        )

    def prescription(
        self,
        own_id: str,
        patient: str,
        medicine: Code | str,
        dose: str,
        days: int,
        who: str,
        *,
        stopped: bool = False,
        encounter: str | None = None,
    ) -> str:
        """A prescription of a coded medicine, or of a Medication by reference."""
        coded = (
            {"medicationCodeableConcept": concept(medicine)} if isinstance(medicine, Code) else {}
        )
        return self.add(
            "MedicationRequest",
            own_id,
            status="stopped" if stopped else "active",
            intent="order",
            **(coded or {"medicationReference": reference(str(medicine))}),
            subject=reference(patient),
            encounter=reference(encounter) if encounter else None,
            authoredOn=self.at(days, 9, 20),
            requester=reference(who),
            dosageInstruction=[{"text": dose}],
        )

    def vaccine(self, own_id: str, patient: str, vaccine: Code, days: int, who: str) -> str:
        """A vaccine that was given."""
        return self.add(
            "Immunization",
            own_id,
            status="completed",
            vaccineCode=concept(vaccine),
            patient=reference(patient),
            occurrenceDateTime=self.on(days),
            primarySource=True,
            lotNumber=f"LOT{zlib.crc32(own_id.encode()) % 10**5:05}",
            performer=[{"actor": reference(who)}],
        )


def _value(test: Test, number: float) -> Json:
    """The value with its interpretation and reference range."""
    value = round(number, test.digits) if test.digits else round(number)
    unit = {"system": codes.UCUM, "code": test.unit}
    found: Json = {"valueQuantity": {"value": value, "unit": test.unit, **unit}}
    bounds = {
        side: {"value": bound, "unit": test.unit, **unit}
        for side, bound in (("low", test.low), ("high", test.high))
        if bound is not None
    }
    if not bounds:
        return found
    code, words = "N", "Normal"
    if test.low is not None and value < test.low:
        code, words = "L", "Low"
    if test.high is not None and value > test.high:
        code, words = "H", "High"
    return {
        **found,
        "interpretation": [concept(Code(_INTERPRETATION, code, words))],
        "referenceRange": [bounds],
    }


def _labels(security: Sequence[Code]) -> Json | None:
    return {"security": [coding(label) for label in security]} if security else None
